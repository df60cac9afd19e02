//! What every profile passes before it is written and after it was read: bounded size, indexes in range, harmless text.

use std::borrow::Cow;
use std::io::Read;

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;

use crate::symbolize::{Profile, Sample};
use crate::text::{is_harmless, sanitize};

/// Largest profile that is read, in bytes after decompression. What a minute of a large host takes, with room to spare.
pub const MAX_BYTES: u64 = 128 << 20;

/// Deepest stack that is read or written, in locations: far above what is recorded, far below what a hostile file may say.
const MAX_DEPTH: usize = 16_384;

/// The content of a file, decompressed if it is gzip. Fails when it is larger than [`MAX_BYTES`].
pub fn inflate(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    inflate_within(bytes, MAX_BYTES)
}

fn inflate_within(bytes: &[u8], limit: u64) -> Result<Cow<'_, [u8]>> {
    let too_large = || format!("it is larger than {} MiB", limit >> 20);
    ensure!(bytes.len() as u64 <= limit, too_large());
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.into());
    }
    let mut raw = Vec::new();
    MultiGzDecoder::new(bytes).take(limit + 1).read_to_end(&mut raw).context("its gzip data is damaged")?;
    ensure!(raw.len() as u64 <= limit, "decompressed, {}", too_large());
    Ok(raw.into())
}

/// Fails when a table refers to an entry that does not exist, when samples add up to more than a number can hold, or a
/// stack is deeper than any real one. What passes can be written in every format.
pub fn check(profile: &Profile) -> Result<()> {
    let within = |index: u32, len: usize| (index as usize) < len;
    for (at, thread) in profile.threads.iter().enumerate() {
        ensure!(within(thread.process, profile.processes.len()), "thread {at} refers to a process that is not there");
    }
    for (at, location) in profile.locations.iter().enumerate() {
        let known = location.module.is_none_or(|module| within(module, profile.modules.len()));
        ensure!(known, "location {at} refers to a module that is not there");
    }
    for (at, stack) in profile.stacks.iter().enumerate() {
        ensure!(stack.locations.len() <= MAX_DEPTH, "stack {at} is deeper than {MAX_DEPTH} frames");
        let known = stack.locations.iter().all(|&location| within(location, profile.locations.len()));
        ensure!(known, "stack {at} refers to a location that is not there");
    }
    for (at, sample) in profile.samples.iter().enumerate() {
        ensure!(within(sample.thread, profile.threads.len()), "sample {at} refers to a thread that is not there");
        ensure!(within(sample.stack, profile.stacks.len()), "sample {at} refers to a stack that is not there");
    }
    let sum =
        |get: fn(&Sample) -> u64| profile.samples.iter().try_fold(0u64, |sum, sample| sum.checked_add(get(sample)));
    let sums = sum(|sample| sample.count).and(sum(|sample| sample.value));
    let sums = sums.and(sum(|sample| sample.allocated.count)).and(sum(|sample| sample.allocated.bytes));
    ensure!(sums.is_some(), "its samples add up to more than a number can hold");
    Ok(())
}

/// The profile with every text sanitized; itself where that changes nothing.
pub fn scrubbed(profile: &Profile) -> Cow<'_, Profile> {
    if texts(profile).all(is_harmless) {
        return Cow::Borrowed(profile);
    }
    let mut clean = profile.clone();
    scrub(&mut clean);
    Cow::Owned(clean)
}

/// Every text in the profile.
fn texts(profile: &Profile) -> impl Iterator<Item = &str> {
    let Profile { header, processes, threads, modules, locations, stacks, samples: _, losses } = profile;
    let header = [&header.event, &header.unit, &header.sampler, &header.host, &header.kernel];
    let processes = processes.iter().flat_map(|process| [&process.name, &process.exe, &process.cmdline]);
    let threads = threads.iter().map(|thread| &thread.name);
    let modules = modules.iter().flat_map(|module| [&module.path, &module.build_id]);
    let lines = locations.iter().flat_map(|location| &location.lines);
    let lines = lines.flat_map(|line| [&line.function, &line.file]);
    let cuts = stacks.iter().filter_map(|stack| stack.truncated.as_ref());
    let texts = header.into_iter().chain(processes).chain(threads).chain(modules).chain(lines).chain(cuts);
    texts.chain(losses.keys()).map(String::as_str)
}

/// Sanitizes every text in the profile.
pub fn scrub(profile: &mut Profile) {
    let wipe = |text: &mut String| *text = sanitize(text);
    let header = &mut profile.header;
    for text in [&mut header.event, &mut header.unit, &mut header.sampler, &mut header.host, &mut header.kernel] {
        wipe(text);
    }
    for process in &mut profile.processes {
        [&mut process.name, &mut process.exe, &mut process.cmdline].into_iter().for_each(wipe);
    }
    profile.threads.iter_mut().for_each(|thread| wipe(&mut thread.name));
    for module in &mut profile.modules {
        [&mut module.path, &mut module.build_id].into_iter().for_each(wipe);
    }
    for line in profile.locations.iter_mut().flat_map(|location| &mut location.lines) {
        [&mut line.function, &mut line.file].into_iter().for_each(wipe);
    }
    profile.stacks.iter_mut().filter_map(|stack| stack.truncated.as_mut()).for_each(wipe);
    for (reason, count) in std::mem::take(&mut profile.losses) {
        let total = profile.losses.entry(sanitize(&reason)).or_default();
        *total = total.saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn a_decompression_bomb_is_refused() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&vec![0; 3 << 20]).unwrap();
        let bomb = gzip.finish().unwrap();
        let error = inflate_within(&bomb, 2 << 20).unwrap_err();
        assert!(format!("{error:#}").contains("larger than 2 MiB"), "{error:#}");
        assert_eq!(inflate_within(&bomb, 3 << 20).unwrap().len(), 3 << 20);
    }

    #[test]
    fn sums_that_overflow_and_endless_stacks_are_refused() {
        let mut profile = crate::export::fixture::profile();
        check(&profile).unwrap();
        profile.samples[0].value = u64::MAX;
        assert!(check(&profile).unwrap_err().to_string().contains("add up"));
        profile.samples[0].value = 0;
        profile.stacks[0].locations = vec![0; MAX_DEPTH + 1];
        assert!(check(&profile).unwrap_err().to_string().contains("deeper"));
    }

    #[test]
    fn damaged_gzip_is_an_error() {
        assert!(inflate(b"\x1f\x8b\x08\0garbage").is_err());
    }

    #[test]
    fn a_hostile_text_is_found_wherever_it_stands() {
        let profile = crate::export::fixture::clean();
        assert!(matches!(scrubbed(&profile), Cow::Borrowed(_)));
        let whole = serde_json::to_value(&profile).unwrap();
        let mut found = 0;
        for at in 0..places(&mut whole.clone()).len() {
            let mut planted = whole.clone();
            *places(&mut planted)[at] = "a\u{1b}".into();
            // Some texts are names of states and the like, which have to be known.
            let Ok(hostile) = serde_json::from_value::<Profile>(planted) else { continue };
            let text = serde_json::to_string(&*scrubbed(&hostile)).unwrap();
            assert!(!text.contains("\\u001b") && text.contains("a\u{fffd}"), "{at}: {text}");
            found += 1;
        }
        let mut lost = profile;
        lost.losses.insert("a\u{1b}".into(), 1);
        assert!(scrubbed(&lost).losses.contains_key("a\u{fffd}"));
        assert!(found > 50, "{found}");
    }

    /// Every text in a JSON value.
    fn places(value: &mut serde_json::Value) -> Vec<&mut serde_json::Value> {
        match value {
            serde_json::Value::String(_) => vec![value],
            serde_json::Value::Array(list) => list.iter_mut().flat_map(places).collect(),
            serde_json::Value::Object(fields) => fields.values_mut().flat_map(places).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn losses_whose_reasons_become_the_same_are_added_up() {
        let losses = [("a\n".to_owned(), 1), ("a\u{1b}".to_owned(), 2)].into();
        let mut profile = Profile { losses, ..Profile::default() };
        scrub(&mut profile);
        assert_eq!(profile.losses, [("a\u{fffd}".to_owned(), 3)].into());
    }
}
