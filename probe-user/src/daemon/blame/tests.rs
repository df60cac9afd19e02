//! Who comes first, with what is kept and what has grown made up.

use std::time::Duration;

use super::*;
use crate::config::Evidence;
use crate::daemon::tests::profile;
use crate::monitor::{Breach, Side};
use crate::record::{InUse, Recording};
use crate::snapshot::{Host, Process};
use crate::symbolize::Sample;

const SECOND: u64 = 1_000_000_000;
const TIMES: Times = Times { from_ns: 100 * SECOND, end_ns: 120 * SECOND, wall_ahead_ns: 0 };

fn job(metric: Metric, rss_bytes: u64) -> Job {
    let breach = Breach {
        rule: "leak".into(),
        target: "app".into(),
        pid: 7,
        metric,
        function: None,
        value: 2.0,
        threshold: 1.0,
        side: Side::Above,
        exceeded_since_ns: 110 * SECOND,
        breached_at_ns: 115 * SECOND,
    };
    let evidence = Evidence { threads: 2, before: Duration::from_secs(10), after: Duration::from_secs(5) };
    let process = Process { rss_bytes, ..Process::default() };
    let (host, notify) = (Host::default(), Vec::new());
    Job {
        id: ulid::Ulid::nil(),
        breach,
        evidence,
        notify,
        host,
        process,
        function: None,
        dump: None,
        heap: None,
        holdings: None,
        makings: crate::record::Makings::default(),
        gone_at_ns: None,
    }
}

/// So many bytes a second, in each of so many seconds, of (function, bytes) each.
fn every_second(seconds: u64, measure: Measure, rates: &[(&str, u64)]) -> Profile {
    let named: Vec<_> = rates.iter().map(|&(function, _)| ("main", function, 1)).collect();
    let mut profile = profile(7, seconds, &named);
    let first = std::mem::take(&mut profile.samples);
    for (sample, &(_, bytes)) in first.iter().zip(rates) {
        let at = |second| Sample { time_ns: second * SECOND, value: bytes, count: 1, measure, ..*sample };
        profile.samples.extend((0..seconds).map(at));
    }
    profile
}

/// A service whose churn takes the fresh pages, in 20 s, followed since `since_s`.
fn windows(since_s: u64, kept: &[(&str, u64)]) -> Windows {
    let whole = every_second(20, Measure::Resident, &[("churns", 1 << 20), ("leaks", 1 << 18)]);
    let recording = Recording::default();
    let in_use = InUse { recording, since_ns: since_s * SECOND, attached_share: 1.0, sample_bytes: 1 << 15 };
    let live = every_second(120 - since_s, Measure::Time, kept);
    Windows { whole, live: Some((live, in_use)), ..Windows::default() }
}

fn first(job: &Job, windows: &Windows) -> (String, Option<u64>) {
    let culprits = memory_culprits(job, TIMES, windows);
    let names: Vec<&str> = culprits.iter().map(|culprit| culprit.function.as_str()).collect();
    let is_twice = names.iter().any(|name| names.iter().filter(|other| *other == name).count() > 1);
    assert!(!is_twice, "{names:?}");
    culprits.first().map(|culprit| (culprit.function.clone(), culprit.kept_for_ns)).unwrap_or_default()
}

#[test]
fn who_keeps_what_it_allocates_comes_before_who_touches_it_first() {
    let growth = job(Metric::MemoryGrowth, 1 << 30);
    // Followed for longer than the evidence: what was kept before does not count.
    let windows = windows(60, &[("leaks", 1 << 20)]);
    assert_eq!(first(&growth, &windows), ("churns".into(), None), "ten samples of the first half are too few");
    let twice = windows_with_twice_as_many(&windows);
    assert_eq!(first(&growth, &twice), ("leaks".into(), Some(10 * SECOND)));
}

fn windows_with_twice_as_many(windows: &Windows) -> Windows {
    let Windows { whole, live, .. } = windows;
    let live = live.as_ref().map(|(profile, in_use)| {
        let mut profile = profile.clone();
        profile.samples.extend(profile.samples.clone());
        let recording = Recording::default();
        (profile, InUse { recording, ..*in_use })
    });
    Windows { whole: whole.clone(), live, ..Windows::default() }
}

#[test]
fn what_is_mapped_without_an_allocator_is_not_explained_by_one() {
    let growth = job(Metric::MemoryGrowth, 1 << 30);
    let windows = windows_with_twice_as_many(&windows(100, &[("caches", 1 << 10)]));
    let culprits = memory_culprits(&growth, TIMES, &windows);
    let names: Vec<&str> = culprits.iter().map(|culprit| culprit.function.as_str()).collect();
    assert_eq!(names, ["churns", "leaks", "caches"]);
}

#[test]
fn the_size_of_a_process_is_of_all_that_it_keeps() {
    // 100 s of 1 KiB, while something else grows: little of 1 GiB, all of 100 KiB.
    let windows = windows_with_twice_as_many(&windows(20, &[("caches", 1 << 10)]));
    assert_eq!(first(&job(Metric::MemoryRss, 1 << 30), &windows).0, "churns");
    assert_eq!(first(&job(Metric::MemoryRss, 100 << 10), &windows), ("caches".into(), Some(30 * SECOND)));
    assert_eq!(first(&job(Metric::MemoryGrowth, 100 << 10), &windows).0, "churns");
}

#[test]
fn what_was_hardly_seen_to_grow_is_nobodys() {
    let growth = job(Metric::MemoryGrowth, 1 << 30);
    let mut windows = windows_with_twice_as_many(&windows(100, &[("caches", 1 << 10)]));
    let reading = |second: u64, rss_bytes| (Reading { at_ns: second * SECOND, rss_bytes, ..Reading::default() }, None);
    windows.figures = vec![reading(100, 1 << 20), reading(119, 51 << 20)];
    let culprits = memory_culprits(&growth, TIMES, &windows);
    assert_eq!(
        culprits[0].sentence(),
        "churns (app.c:41) took 20.0 MiB, 40 % of the 50.0 MiB that the process grew by, in thread main"
    );
    windows.figures[1].0.rss_bytes = 1 << 30;
    assert_eq!(memory_culprits(&growth, TIMES, &windows), [], "of pages of files in the cache, as it may be");
}
