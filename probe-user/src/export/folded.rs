//! Folded stacks: one line per distinct stack, frames joined by `;`, root first, then a space and the weight. What
//! flamegraph tools have in common, and the only format people read with `grep`.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context, Result, bail};

use super::Options;
use super::flat::{self, Weight};
use super::intake;
use crate::symbolize::{Header, Kind, Line, Location, Module, ProcessInfo, Profile, Sample, Stack, ThreadInfo};
use crate::text::sanitize;

/// Writes the folded stacks of `profile`, equal ones added up, sorted.
pub(super) fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> Result<()> {
    for (stack, weight) in lines(profile, options) {
        writeln!(out, "{stack} {weight}")?;
    }
    Ok(())
}

/// The distinct folded stacks with their weights, sorted by stack.
pub(super) fn lines(profile: &Profile, options: &Options) -> Vec<(String, u64)> {
    let weight = Weight::of(&profile.header);
    let mut sums: HashMap<String, u64> = HashMap::new();
    for total in profile.totals() {
        let names = flat::names(profile, &total, options);
        let stack = names.iter().map(|name| harmless(name)).collect::<Vec<_>>().join(";");
        *sums.entry(stack).or_default() += weight.get(&total);
    }
    let mut lines: Vec<_> = sums.into_iter().filter(|(_, weight)| *weight > 0).collect();
    lines.sort();
    lines
}

/// A name without what the format gives a meaning to: `;` joins frames, a line is a stack, readers skip lines that
/// begin with `#`, and take a number at the end for a weight.
fn harmless(name: &str) -> String {
    let mut clean = sanitize(name.trim()).replace(';', ":");
    if let Some((head, tail)) = clean.rsplit_once(' ')
        && tail.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        clean = format!("{head}\u{a0}{tail}");
    }
    if let Some(rest) = clean.strip_prefix('#') {
        clean = format!("\u{ff03}{rest}");
    }
    if clean.is_empty() { "[unnamed]".into() } else { clean }
}

/// True for text whose first line is a folded stack.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let first = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !is_skipped(line));
    first.is_some_and(|line| std::str::from_utf8(line).is_ok_and(|line| split(line).is_some()))
}

fn is_skipped(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b"#")
}

/// The frames of a line and its weight; a fraction is cut off.
fn split(line: &str) -> Option<(&str, u64)> {
    if line.bytes().any(|byte| byte < b' ' && byte != b'\t') {
        return None;
    }
    let (stack, weight) = line.rsplit_once(' ')?;
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if stack.trim().is_empty() || !digits(fraction) || !digits(whole) {
        return None;
    }
    Some((stack.trim(), whole.parse().ok()?))
}

/// Reads folded stacks, by probe or by others: the first frame is the process. The second is the thread where it reads
/// `name-tid` in every line. Weights are taken for numbers of samples. Fails on the first line that is no folded stack.
pub fn read(bytes: &[u8]) -> Result<Profile> {
    let text = std::str::from_utf8(bytes).context("it is not UTF-8 text")?;
    let lines = || text.lines().map(str::trim).enumerate().filter(|(_, line)| !is_skipped(line.as_bytes()));
    let mut threads = true;
    for (at, line) in lines() {
        let Some((stack, _)) = split(line) else { bail!("line {} is not a folded stack", at + 1) };
        threads &= stack.split(';').nth(1).is_some_and(|name| thread(name).is_some());
    }
    let mut reader = Reader::default();
    for (stack, weight) in lines().filter_map(|(_, line)| split(line)) {
        reader.add(&stack.split(';').collect::<Vec<_>>(), threads, weight);
    }
    intake::check(&reader.profile)?;
    reader.profile.header = Header { event: "samples".into(), unit: "count".into(), ..Header::default() };
    Ok(reader.profile)
}

/// Takes `name-tid` apart.
fn thread(name: &str) -> Option<(&str, u32)> {
    let (name, tid) = name.rsplit_once('-')?;
    Some((name, tid.parse().ok()?))
}

#[derive(Default)]
struct Reader<'a> {
    profile: Profile,
    processes: HashMap<&'a str, u32>,
    threads: HashMap<(u32, Option<&'a str>), u32>,
    modules: HashMap<String, u32>,
    locations: HashMap<&'a str, u32>,
}

impl<'a> Reader<'a> {
    fn add(&mut self, names: &[&'a str], threads: bool, weight: u64) {
        let process = *self.processes.entry(names[0]).or_insert_with(|| {
            self.profile.processes.push(ProcessInfo { name: sanitize(names[0]), ..ProcessInfo::default() });
            (self.profile.processes.len() - 1) as u32
        });
        let name = threads.then(|| names[1]);
        let mut rest = &names[1 + usize::from(threads)..];
        let thread = *self.threads.entry((process, name)).or_insert_with(|| {
            let (name, tid) = name.and_then(thread).unwrap_or_default();
            self.profile.threads.push(ThreadInfo { process, tid, name: sanitize(name) });
            (self.profile.threads.len() - 1) as u32
        });
        let cut = rest.first().and_then(|name| name.strip_prefix(flat::TRUNCATED)?.strip_suffix(']'));
        if cut.is_some() {
            rest = &rest[1..];
        }
        let locations = rest.iter().rev().map(|name| self.location(name)).collect();
        let stack = self.profile.stacks.len() as u32;
        self.profile.stacks.push(Stack { locations, truncated: cut.map(sanitize) });
        self.profile.samples.push(Sample {
            thread,
            stack,
            time_ns: 0,
            count: weight,
            value: weight,
            ..Sample::default()
        });
    }

    fn location(&mut self, name: &'a str) -> u32 {
        if let Some(&index) = self.locations.get(name) {
            return index;
        }
        let (function, kind) = name.strip_suffix(flat::KERNEL).map_or((name, Kind::User), |name| (name, Kind::Kernel));
        let mut location = Location { kind, ..Location::default() };
        match unnamed(function) {
            Some((module, address)) => {
                location.address = address;
                location.module = (module != "unknown").then(|| self.module(module));
            }
            None => location.lines.push(Line { function: sanitize(function), ..Line::default() }),
        }
        self.profile.locations.push(location);
        let index = (self.profile.locations.len() - 1) as u32;
        self.locations.insert(name, index);
        index
    }

    fn module(&mut self, path: &str) -> u32 {
        let path = if path == "kernel" { "[kernel]".to_owned() } else { sanitize(path) };
        *self.modules.entry(path).or_insert_with_key(|path| {
            self.profile.modules.push(Module { path: path.clone(), ..Module::default() });
            (self.profile.modules.len() - 1) as u32
        })
    }
}

/// Takes `[module+0xoffset]` apart.
fn unnamed(name: &str) -> Option<(&str, u64)> {
    let (module, offset) = name.strip_prefix('[')?.strip_suffix(']')?.rsplit_once("+0x")?;
    Some((module, u64::from_str_radix(offset, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::{Format, fixture, golden, write as export};
    use super::*;

    #[test]
    fn merged_threads() {
        golden::check(&fixture::profile(), Format::Folded, &Options::default(), "merged.folded");
    }

    #[test]
    fn a_frame_per_thread() {
        let options = Options { threads: true, ..Options::default() };
        golden::check(&fixture::profile(), Format::Folded, &options, "threads.folded");
    }

    #[test]
    fn what_was_written_reads_back_as_the_same_lines() {
        for threads in [false, true] {
            let options = Options { threads, ..Options::default() };
            let (mut first, mut second) = (Vec::new(), Vec::new());
            export(&fixture::profile(), Format::Folded, &options, &mut first).unwrap();
            let back = read(&first).unwrap();
            export(&back, Format::Folded, &options, &mut second).unwrap();
            assert_eq!(String::from_utf8(first).unwrap(), String::from_utf8(second).unwrap());
            assert!(back.stacks.iter().any(|stack| stack.truncated.is_some()));
            assert!(back.locations.iter().any(|location| location.kind == Kind::Kernel));
            assert!(back.locations.iter().any(|location| location.lines.is_empty() && location.module.is_some()));
        }
    }

    #[test]
    fn names_cannot_forge_frames_lines_or_weights() {
        assert_eq!(harmless("a;b\nc 7"), "a:b\u{fffd}c\u{a0}7");
        assert_eq!(harmless("# note"), "\u{ff03} note");
        assert_eq!(harmless("  "), "[unnamed]");
    }

    #[test]
    fn folded_stacks_of_others_are_read() {
        let profile = read(b"# captured\n\njava;main;[u8: 8] 3\njava;main 2.75\n").unwrap();
        assert_eq!(profile.processes[0].name, "java");
        assert_eq!(profile.samples.iter().map(|sample| sample.count).collect::<Vec<_>>(), [3, 2]);
        let error = read(b"a;b 1\nnonsense\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2 is not a folded stack");
    }
}
