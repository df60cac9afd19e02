//! What the formats without tables of their own share: which frames stand above a stack, how each of them is called,
//! what a sample weighs, and one line on what was measured.

use std::borrow::Cow;

use super::Options;
use crate::symbolize::{DERIVED_STACKS, Frame, Header, Kind, ProcessInfo, Profile, Sample, ThreadInfo};

/// The names of a sample's stack, root first: process, thread and state if `options` ask for them, the reason if the
/// stack was cut, frames.
pub fn names(profile: &Profile, sample: &Sample, options: &Options) -> Vec<String> {
    let (info, stack) = (&profile.threads[sample.thread as usize], sample.stack);
    let mut names = vec![process_name(&profile.processes[info.process as usize])];
    if options.threads {
        names.push(thread_name(info));
    }
    if options.states {
        names.push(format!("[{}]", sample.state.name()));
    }
    names.extend(profile.stacks[stack as usize].truncated.as_deref().map(truncated));
    names.extend(profile.frames(stack).iter().map(|frame| frame_name(frame).into_owned()));
    names
}

/// The name of a process's frame.
pub fn process_name(process: &ProcessInfo) -> String {
    match process.name.trim() {
        "" => format!("[process {}]", process.pid),
        name => name.to_owned(),
    }
}

/// The name of a thread's frame: `name-tid`.
pub fn thread_name(thread: &ThreadInfo) -> String {
    format!("{}-{}", thread.name, thread.tid)
}

/// The name of the frame that stands where a stack was cut.
pub fn truncated(reason: &str) -> String {
    format!("{TRUNCATED}{reason}]")
}

/// How the name of a [`truncated`] frame begins.
pub const TRUNCATED: &str = "[truncated: ";

/// How the name of a kernel frame ends.
pub const KERNEL: &str = "_[k]";

/// The name of a frame; kernel frames end in [`KERNEL`].
pub fn frame_name<'a>(frame: &'a Frame<'_>) -> Cow<'a, str> {
    let name = if frame.function.is_empty() { "[unnamed]" } else { &*frame.function };
    match frame.kind {
        Kind::User => name.into(),
        Kind::Kernel => format!("{name}{KERNEL}").into(),
    }
}

/// What samples are weighed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Their number.
    Samples,
    /// Their value, given in nanoseconds, in microseconds.
    Microseconds,
    /// Their value, in bytes.
    Bytes,
}

impl Weight {
    /// What fits the event: samples for CPU time, microseconds for other times, bytes for memory.
    pub fn of(header: &Header) -> Self {
        match (header.event.as_str(), header.unit.as_str()) {
            (_, "bytes") => Self::Bytes,
            ("off-cpu" | "cpu,off-cpu", "nanoseconds") => Self::Microseconds,
            _ => Self::Samples,
        }
    }

    /// The unit's name, as shown next to numbers.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Microseconds => "microseconds",
            Self::Bytes => "bytes",
        }
    }

    /// The weight of a sample.
    pub fn get(self, sample: &Sample) -> u64 {
        match self {
            Self::Samples => sample.count,
            Self::Microseconds => sample.value / 1000,
            Self::Bytes => sample.value,
        }
    }
}

/// The title of the profile: the one asked for, else event, processes and host.
pub fn title(profile: &Profile, options: &Options) -> String {
    if let Some(title) = &options.title {
        return crate::text::sanitize(title);
    }
    let processes = match profile.processes.as_slice() {
        [] => String::new(),
        [one] => format!(" of {} (pid {})", process_name(one), one.pid),
        [first, rest @ ..] => format!(" of {} and {} more", process_name(first), rest.len()),
    };
    let host = if profile.header.host.is_empty() { String::new() } else { format!(" on {}", profile.header.host) };
    let event = if profile.header.event.is_empty() { "samples" } else { &profile.header.event };
    format!("{event}{processes}{host}")
}

/// One line on how the profile came to be and what it lacks: time, length, sampler, samples, losses.
pub fn summary(profile: &Profile) -> String {
    summary_with(profile, &format!("lost: {}", losses(profile)))
}

/// The same in few words, for pictures: how many losses there were, without their reasons.
pub fn short_summary(profile: &Profile) -> String {
    let all: u64 = lost(profile).map(|(_, count)| count).sum();
    summary_with(profile, &format!("lost, cut or guessed: {all}"))
}

fn summary_with(profile: &Profile, losses: &str) -> String {
    let header = &profile.header;
    let mut parts = Vec::new();
    if header.started_at_ns > 0 {
        let start = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(header.started_at_ns);
        parts.push(humantime::format_rfc3339_seconds(start).to_string());
    }
    if header.duration_ns > 0 {
        parts.push(format!("{:.1} s", header.duration_ns as f64 / 1e9));
    }
    match (header.sampler.as_str(), header.frequency) {
        ("", 0) => {}
        (sampler, 0) => parts.push(sampler.to_owned()),
        (sampler, frequency) => parts.push(format!("{sampler} at {frequency} Hz").trim().to_owned()),
    }
    let samples: u64 = profile.samples.iter().map(|sample| sample.count).sum();
    parts.push(crate::text::count(samples, "samples"));
    if lost(profile).next().is_some() {
        parts.push(losses.to_owned());
    }
    if let Some(derived) = profile.losses.get(DERIVED_STACKS) {
        parts.push(format!("derived: {derived}"));
    }
    parts.join(" · ")
}

/// The losses with their reasons: `reason 3, other 5`.
pub fn losses(profile: &Profile) -> String {
    let losses: Vec<_> = lost(profile).map(|(reason, count)| format!("{reason} {count}")).collect();
    losses.join(", ")
}

/// What is missing; what is derived is not.
fn lost(profile: &Profile) -> impl Iterator<Item = (&str, u64)> {
    let losses = profile.losses.iter().map(|(reason, &count)| (reason.as_str(), count));
    losses.filter(|&(reason, _)| reason != DERIVED_STACKS)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn the_weight_follows_the_event() {
        let of = |event: &str, unit: &str| {
            Weight::of(&Header { event: event.into(), unit: unit.into(), ..Header::default() })
        };
        let sample = Sample { count: 2, value: 5_000_999, ..Sample::default() };
        assert_eq!(of("cpu", "nanoseconds").get(&sample), 2);
        assert_eq!(of("off-cpu", "nanoseconds").get(&sample), 5_000);
        assert_eq!(of("malloc", "bytes").get(&sample), 5_000_999);
    }

    #[test]
    fn the_summary_says_what_was_measured_and_what_is_missing() {
        let profile = fixture::profile();
        assert_eq!(title(&profile, &Options::default()), "cpu of checkout and 2 more on node-7");
        let expected = "2026-02-03T04:05:06Z · 2.0 s · cpu-clock at 99 Hz · 23 samples · \
                        lost: ring buffer full 3, stack not readable 2";
        assert_eq!(summary(&profile), expected);
    }
}
