//! What `probe record` tells people, on stderr.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::plan::{Plan, Target};
use crate::cli::tell;
use crate::heap::{Allocators, Tier};
use crate::kernel::Clock;
use crate::record::{Events, Stats};
use crate::symbolize::{InUse, LIVE_EVENT, Measure, Profile, Sample};
use crate::target::ThreadState;
use crate::text::count;

/// How memory is followed.
const TIER: &str = "page faults and mappings (tier 1)";

/// Whose allocations are sampled, and how, as far as the allocators are known.
pub fn started_heaps(plan: &Plan, allocators: &[Arc<Allocators>]) {
    let (whom, until) = (whom(plan), until(plan));
    let what = if plan.heap.live { "allocations until they are freed" } else { "allocations" };
    let tiers = Tier::files(allocators.iter().map(|allocators| &**allocators));
    let mut by: Vec<String> = tiers.iter().map(|(tier, files)| tier.within(files)).collect();
    if by.is_empty() {
        by.push("what its allocator will be".into());
    }
    let (by, percent) = (by.join(" and "), 100.0 * plan.budget);
    tell(&format!("sampling {what} of {whom} {until} by {by}, for at most {percent} % of one core"));
}

pub fn started(plan: &Plan, clock: Option<Clock>) {
    let (whom, until) = (whom(plan), until(plan));
    let mut parts = Vec::new();
    if let Some(clock) = clock {
        parts.push(format!("sampling {whom} {until} at {} Hz by {}", plan.frequency, clock.name()));
    }
    match (plan.events.off_cpu, parts.is_empty()) {
        (true, true) => parts.push(format!("following where {whom} waits {until}")),
        (true, false) => parts.push("following its waits".into()),
        _ => {}
    }
    match (plan.events.page_fault, parts.is_empty()) {
        (true, true) => parts.push(format!("following the memory of {whom} {until} by {TIER}")),
        (true, false) => parts.push(format!("following its memory by {TIER}")),
        _ => {}
    }
    tell(&parts.join(", and "));
}

fn whom(plan: &Plan) -> String {
    match &plan.target {
        Target::All => "every process".into(),
        Target::Pids(pids) => format!("pid {}", pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
        Target::Command(command) => command[0].to_string_lossy().into_owned(),
    }
}

fn until(plan: &Plan) -> String {
    match (plan.duration, &plan.target) {
        (Some(duration), _) => format!("for {}", humantime::format_duration(duration)),
        (None, Target::Command(_)) => "until it ends".into(),
        (None, _) => "until Ctrl-C".into(),
    }
}

pub fn progress(elapsed: Duration, total: Option<Duration>, events: Events, stats: &Stats) {
    let elapsed_s = elapsed.as_secs_f64();
    let bar = total.map_or_else(String::new, |total| {
        let filled = (20.0 * elapsed_s / total.as_secs_f64()).min(20.0) as usize;
        format!("[{}{}] ", "#".repeat(filled), "-".repeat(20 - filled))
    });
    let Stats { samples, waits, memory_changes, allocations, .. } = stats;
    let kinds = [
        (events.cpu, samples, "samples"),
        (events.off_cpu, waits, "waits"),
        (events.page_fault, memory_changes, "changes of memory"),
        (events.malloc, allocations, "sampled allocations"),
    ];
    let counts = kinds.iter().filter(|(is_recorded, ..)| *is_recorded);
    let counts: Vec<String> = counts.map(|(_, count, what)| format!("{count} {what}")).collect();
    show(&format!("\r\x1b[K{bar}{elapsed_s:.1} s, {}", counts.join(", ")));
}

pub fn clear_progress() {
    show("\r\x1b[K");
}

/// A terminal that is gone must not cost the recording.
fn show(text: &str) {
    let _ = write!(std::io::stderr(), "{text}");
}

pub fn finished(profile: &Profile, written: &str) {
    if matches!(profile.header.event.as_str(), "malloc" | LIVE_EVENT) {
        return finished_heaps(profile, written);
    }
    let what = counted(profile);
    let seconds = profile.header.duration_ns as f64 / 1e9;
    let (threads, processes) = (profile.threads.len(), profile.processes.len());
    tell(&format!(
        "{what} in {seconds:.1} s from {} of {}; wrote {written}",
        count(threads as u64, "threads"),
        count(processes as u64, "processes"),
    ));
    losses(profile);
}

/// What there is of each kind.
fn counted(profile: &Profile) -> String {
    let (mut samples, mut waits, mut resident, mut mapped) = (0, 0, 0, 0);
    for sample in &profile.samples {
        match sample.measure {
            Measure::Time if sample.state == ThreadState::Running => samples += sample.count,
            Measure::Time => waits += sample.count,
            Measure::Resident => resident += sample.value,
            Measure::Mapped => mapped += sample.value,
        }
    }
    let mut kinds = Vec::new();
    if samples > 0 || profile.samples.is_empty() {
        kinds.push(count(samples, "samples"));
    }
    if waits > 0 {
        kinds.push(count(waits, "waits"));
    }
    if profile.has_memory() {
        let [resident, mapped] = [resident, mapped].map(crate::text::mebibytes);
        kinds.push(format!("{resident} more resident, {mapped} more mapped"));
    }
    kinds.join(" and ")
}

fn finished_heaps(profile: &Profile, written: &str) {
    let sum = |get: fn(&Sample) -> u64| profile.samples.iter().map(get).sum::<u64>();
    let is_live = profile.header.event == LIVE_EVENT;
    let (objects, bytes) = (sum(|sample| sample.count), sum(|sample| sample.value) as f64 / f64::from(1 << 20));
    let what = if is_live { "in use of what was allocated" } else { "allocated" };
    let seconds = profile.header.duration_ns as f64 / 1e9;
    // The interval has a line of its own.
    let sampler = profile.header.sampler.split("; in use are").next().unwrap_or_default();
    let samples = profile.samples.len();
    tell(&format!("{bytes:.1} MiB in {} {what} in {seconds:.1} s; wrote {written}", count(objects, "objects")));
    tell(&format!("  {sampler}; {}", count(samples as u64, "samples")));
    if sampler.contains("attached") {
        tell(
            "  what was seen is scaled up to all of the time; a program that is slowed while probes are set allocates more",
        );
    }
    if let Some(InUse { low_bytes, high_bytes, .. }) = profile.header.in_use {
        let [low, high] = [low_bytes, high_bytes].map(|bytes| bytes as f64 / f64::from(1 << 20));
        tell(&format!("  in use is an estimate, from {low:.1} to {high:.1} MiB in 19 cases of 20"));
    }
    losses(profile);
}

pub fn losses(profile: &Profile) {
    for (reason, &lost) in &profile.losses {
        tell(&format!("  {}", count(lost, reason)));
    }
}
