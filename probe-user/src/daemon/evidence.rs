//! From a breach and the profiles of its two windows to the snapshot that is stored. Pure but for the encoding.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::blame::memory_culprits;
use super::causes::{Cause, Scenes, explain};
use super::compared::{self, CallTime};
use super::holdings::{self, Explained, Holdings};
use super::keeper::Job;
use super::narrow::{busiest, bytes_by_thread, samples_by_thread, time_by_thread};
use super::timeline::Reading;
use crate::export;
use crate::monitor::Breach;
use crate::record::{InUse, Made};
use crate::snapshot::{Figure, Live, OtherThreads, Profiles, Sidecar, Thread, Timestamp, VERSION};
use crate::symbolize::{Profile, Sample, narrow};
use crate::target::ThreadState;
use anyhow::Result;

/// The windows of a breach, of the whole process.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// Until the value went above the threshold.
    pub(super) before: Profile,
    /// From then on, to the end.
    pub(super) during: Profile,
    /// When all was well, and since when that was.
    pub(super) baseline: Option<(u64, Profile)>,
    /// Both in one, where the growth of memory is to be explained.
    pub(super) whole: Profile,
    /// Every thread in the moment of the breach.
    pub(super) dump: Option<Profile>,
    /// What was allocated since it has been followed, with what of it is in use.
    pub(super) live: Option<(Profile, InUse)>,
    /// What the process held, and what of it was seen to be made, with who made it.
    pub(super) holdings: Option<Holdings>,
    pub(super) makings: Option<(Vec<Made>, Profile)>,
    /// How long calls of the function that was measured took.
    pub(super) call_time: CallTime,
    /// What was measured meanwhile.
    pub(super) figures: Vec<(Reading, Option<f64>)>,
    /// Windows that could not be read: reason → 1.
    pub(super) failures: BTreeMap<String, u64>,
}

/// The times of a breach, in nanoseconds of the monotonic clock, and how far the wall clock is ahead of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) from_ns: u64,
    pub(super) end_ns: u64,
    pub(super) wall_ahead_ns: u64,
}

/// What is known of a breach before its evidence is there.
pub(super) fn headline(job: &Job, now_ns: u64) -> Result<Sidecar> {
    let Breach { exceeded_since_ns, breached_at_ns, .. } = job.breach;
    let times = Times { from_ns: exceeded_since_ns, end_ns: breached_at_ns, wall_ahead_ns: wall_ahead_ns(now_ns) };
    Ok(assemble(job, times, &Windows::default())?.0)
}

/// Makes the snapshot: the whole process for the culprits, the busiest threads for the profiles.
pub(super) fn assemble(job: &Job, times: Times, windows: &Windows) -> Result<(Sidecar, Profiles)> {
    let Job { breach, evidence, host, process, function, .. } = job;
    let Windows { before, during, baseline, whole, dump, live, figures, failures, .. } = windows;
    let after_ns = times.end_ns.saturating_sub(breach.breached_at_ns);
    // Counted from the end: it may begin later than was asked for.
    let (until_broken, after) = during.split(during.header.duration_ns.saturating_sub(after_ns));
    let cause = Cause::of(breach.metric);
    let wall = |monotonic: u64| Timestamp(monotonic.saturating_add(times.wall_ahead_ns));
    let early = calm(before);
    let kept = baseline.as_ref().map(|(_, calm)| calm).filter(|calm| !calm.samples.is_empty()).unwrap_or(&early);
    let (calm, calm_call_ns) = match cause {
        Cause::Calls => compared::of_calls(windows, kept, &early),
        Cause::Cpu => (compared::nearer(during, kept, &early), None),
        _ => (kept, None),
    };
    let held = windows.holdings.as_ref().or(job.holdings.as_ref()).filter(|_| cause.is_of_holdings());
    let explained = held.map(|held| holdings::explain(cause, held, windows.makings.as_ref(), dump.as_ref()));
    let Explained { gains, culprits: makers, threads: of_gains } = explained.unwrap_or_default();
    let mut culprits = match cause {
        Cause::Memory => memory_culprits(job, times, windows),
        _ if !makers.is_empty() => makers,
        cause => {
            let call_ns = windows.call_time.now_ns;
            let scenes = Scenes { during, calm, dump: dump.as_ref(), call_ns, calm_call_ns };
            explain(cause, breach.metric, function.as_ref(), &scenes)
        }
    };
    for culprit in &mut culprits {
        culprit.sentence = culprit.sentence();
    }
    let mut counts = samples_by_thread(during);
    let before_counts = samples_by_thread(before);
    // A process that died at once may have samples from before only.
    let ranked = if counts.is_empty() { &before_counts } else { &counts };
    let growth = if cause == Cause::Memory { bytes_by_thread(whole) } else { BTreeMap::new() };
    // Who waits is not busy: it is those who wait where the time goes.
    let blamed = culprits.first().filter(|_| cause.needs_waits());
    let blamed = blamed.map(|culprit| time_by_thread(during, &culprit.function)).unwrap_or_default();
    // Of threads of the kind that grew the busiest come first.
    let of_gains = of_gains.into_iter().map(|(tid, part)| (tid, part + ranked.get(&tid).unwrap_or(&0))).collect();
    let ranked = [&growth, &blamed, &of_gains].into_iter().find(|counts| !counts.is_empty()).unwrap_or(ranked);
    let chosen = busiest(ranked, evidence.threads);
    let kept: BTreeSet<u32> = chosen.iter().copied().collect();
    let left_out =
        |counts: &BTreeMap<u32, u64>| counts.iter().filter(|(tid, _)| !kept.contains(tid)).map(|(_, n)| n).sum();
    let other_threads = OtherThreads {
        threads: counts
            .keys()
            .chain(before_counts.keys())
            .filter(|tid| !kept.contains(tid))
            .collect::<BTreeSet<_>>()
            .len() as u64,
        before_samples: left_out(&before_counts),
        breach_samples: left_out(&counts),
    };
    let window_ns = times.end_ns.saturating_sub(breach.exceeded_since_ns);
    // A thread that was sampled as soon as it began has got its name since.
    let fresh = dump.as_ref().filter(|_| cause.is_of_holdings());
    let named = [fresh, Some(during), Some(before), dump.as_ref()];
    let threads = chosen
        .iter()
        .map(|&tid| Thread {
            tid,
            name: named.iter().flatten().find_map(|profile| thread_name(profile, tid)).unwrap_or_default(),
            samples: counts.remove(&tid).unwrap_or(0),
            cpu_percent: tenth(cpu_percent(during, tid, window_ns)),
            state: dump.as_ref().and_then(|dump| state(dump, tid)),
        })
        .collect();
    let mut losses = failures.clone();
    for (reason, count) in before.losses.iter().chain(&during.losses) {
        *losses.entry(reason.clone()).or_default() += count;
    }
    for (reason, count) in live.iter().flat_map(|(profile, _)| &profile.losses) {
        losses.insert(format!("live: {reason}"), *count);
    }
    let sidecar = Sidecar {
        id: job.id,
        version: VERSION,
        target: breach.target.clone(),
        rule: breach.rule.clone(),
        metric: breach.metric,
        function: function.clone(),
        value: tenth(breach.value),
        threshold: breach.threshold,
        side: breach.side,
        unit: breach.metric.unit().to_owned(),
        started_at: wall(times.from_ns),
        exceeded_at: wall(breach.exceeded_since_ns),
        breached_at: wall(breach.breached_at_ns),
        ended_at: wall(times.end_ns),
        baseline_at: baseline.as_ref().map(|(since_ns, _)| wall(*since_ns)),
        host: host.clone(),
        process: process.clone(),
        figures: figures.iter().map(|(reading, value)| figure(reading, *value, wall(reading.at_ns))).collect(),
        threads,
        other_threads,
        gains,
        culprits,
        live: live.as_ref().map(|(profile, in_use)| Live {
            since: wall(in_use.since_ns),
            attached_share: (in_use.attached_share * 1e4).round() / 1e4,
            sample_bytes: in_use.sample_bytes,
            in_use_bytes: profile.samples.iter().map(|sample| sample.value).sum(),
            in_use_interval: profile.header.in_use.map(|in_use| [in_use.low_bytes, in_use.high_bytes]),
        }),
        losses,
        profiles: Vec::new(),
    };
    // Waits are there for other rules, if this one is not about them.
    let shown = |profile: Profile| if cause.needs_waits() { profile } else { profile.without_waits() };
    let profiles = Profiles {
        before: encode(&shown(narrow(before, &kept)))?,
        breach: encode(&shown(narrow(&until_broken, &kept)))?,
        after: encode(&shown(narrow(&after, &kept)))?,
        // Whole: its threads may have been others.
        baseline: baseline.clone().map(|(_, calm)| encode(&shown(calm))).transpose()?.unwrap_or_default(),
        // Whole: who waits for a busy thread is as telling as the thread.
        dump: dump.as_ref().map(encode).transpose()?.unwrap_or_default(),
        live: live.as_ref().map(|(profile, _)| encode_sums(profile)).transpose()?.unwrap_or_default(),
    };
    Ok((sidecar, profiles))
}

/// The part of `before` that is surely calm. The value is measured once a second, so the second before the one that broke
/// the threshold may have begun to be hot: too little to break it, enough to make what is new look familiar.
fn calm(before: &Profile) -> Profile {
    const LAST_NS: u64 = 1_000_000_000;
    let end_ns = before.header.duration_ns.saturating_sub(LAST_NS);
    let mut calm = before.clone();
    if end_ns > 2 * LAST_NS {
        calm.header.duration_ns = end_ns;
        calm.samples.retain(|sample| sample.time_ns < end_ns);
    }
    calm
}

/// The format that snapshots hold: gzip pprof, with the time of each sample.
fn encode(profile: &Profile) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    export::write(profile, export::Format::Pprof, &export::Options::default(), &mut bytes)?;
    Ok(bytes)
}

/// The same with what each stack of a thread has allocated as one, whenever that was: there may be as many allocations in use
/// as the table has places.
fn encode_sums(profile: &Profile) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let options = export::Options { aggregate: true, ..export::Options::default() };
    export::write(profile, export::Format::Pprof, &options, &mut bytes)?;
    Ok(bytes)
}

fn figure(reading: &Reading, value: Option<f64>, at: Timestamp) -> Figure {
    let Reading { cpu_percent, rss_bytes, threads, host_cpu_percent, .. } = *reading;
    let (cpu_percent, host_cpu_percent) = (tenth(cpu_percent), tenth(host_cpu_percent));
    Figure { at, value: value.map(tenth), cpu_percent, rss_bytes, threads, host_cpu_percent }
}

/// How far the wall clock is ahead of the monotonic one, in nanoseconds.
pub(super) fn wall_ahead_ns(monotonic_now_ns: u64) -> u64 {
    Timestamp::from(SystemTime::now()).0.saturating_sub(monotonic_now_ns)
}

/// What a thread did when the dump was taken.
fn state(dump: &Profile, tid: u32) -> Option<ThreadState> {
    let of_thread = |sample: &&Sample| dump.threads[sample.thread as usize].tid == tid;
    dump.samples.iter().find(of_thread).map(|sample| sample.state)
}

fn thread_name(profile: &Profile, tid: u32) -> Option<String> {
    profile.threads.iter().find(|thread| thread.tid == tid).map(|thread| thread.name.clone())
}

/// CPU use of a thread in percent of one core, from the value of its samples; 0 when they do not count time.
fn cpu_percent(profile: &Profile, tid: u32, window_ns: u64) -> f64 {
    if profile.header.unit != "nanoseconds" || window_ns == 0 {
        return 0.0;
    }
    let is_of_thread = |sample: &&Sample| profile.threads[sample.thread as usize].tid == tid;
    let of_thread = profile.samples.iter().filter(is_of_thread).filter(|sample| sample.is_on_cpu());
    100.0 * of_thread.map(|sample| sample.value).sum::<u64>() as f64 / window_ns as f64
}

/// Rounds to a tenth, as far as the figures deserve.
pub(super) fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
