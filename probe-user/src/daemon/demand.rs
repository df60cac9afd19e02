//! Recordings on demand: with kernel programs of their own, so that they have their own rate and events and the flight
//! recorder goes on undisturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::collector::{NAMING, UNWIND_MEMORY};
use crate::control::{IsWanted, RecordRequest, Refusal};
use crate::kernel::{self, WaitFilter};
use crate::record::{Collector, Events, Options, Recording, Retention};
use crate::symbolize::{Profile, Symbolizer};
use crate::target;

/// Longest recording.
const MAX_DURATION: Duration = Duration::from_secs(300);
/// Highest rate: what is asked for over a network must not be able to slow the host down.
const MAX_FREQUENCY: u32 = 999;
/// Recordings at a time.
const MAX_RECORDINGS: usize = 2;
/// Memory for what a recording holds, in bytes.
const MEMORY: usize = 64 << 20;
/// Page faults a second and processor that are looked at.
const FAULTS: u64 = 200;
/// How long it waits for the unwind tables of its processes.
const TABLES: Duration = Duration::from_secs(2);
/// How often it is looked whether the daemon stops or the processes are gone.
const LOOK: Duration = Duration::from_millis(100);

/// Dumps at a time: each holds the stacks of all threads, and the symbols of all their files.
const MAX_DUMPS: usize = 2;

/// Recordings and dumps on demand, so many at a time.
#[derive(Debug, Default)]
pub(super) struct Demand {
    running: Arc<AtomicUsize>,
    dumping: Arc<AtomicUsize>,
}

/// Counts until it is dropped.
pub(super) struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        give_back();
    }
}

impl Demand {
    /// Records these processes as it is asked for, under the name of their service, until the time is over, they all are
    /// gone, or it is to stop; what nobody wants any more is a refusal.
    pub(super) fn record(
        &self,
        pids: &[u32],
        name: &str,
        request: &RecordRequest,
        usual_frequency: u32,
        is_over: impl Fn() -> bool,
        is_wanted: IsWanted<'_>,
    ) -> Result<Profile, Refusal> {
        let events = check(request)?;
        let frequency = request.frequency.unwrap_or(usual_frequency);
        let _running = self.begin()?;
        let recorded = record(pids, name, events, frequency, request.duration.0, || is_over() || !is_wanted());
        let recorded = recorded.and_then(|recording| {
            ensure!(is_wanted(), "nobody waits for the answer any more");
            Ok(Symbolizer::within(NAMING).symbolize(&recording))
        });
        recorded.map_err(|error| Refusal::Failed { reason: format!("{error:#}") })
    }

    fn begin(&self) -> Result<Running, Refusal> {
        begin(&self.running, MAX_RECORDINGS, "recordings", 10)
    }

    /// A dump, until what is returned is dropped.
    pub(super) fn begin_dump(&self) -> Result<Running, Refusal> {
        begin(&self.dumping, MAX_DUMPS, "dumps", 1)
    }
}

fn begin(running: &Arc<AtomicUsize>, most: usize, what: &str, retry_after_s: u64) -> Result<Running, Refusal> {
    if running.fetch_add(1, Ordering::AcqRel) >= most {
        running.fetch_sub(1, Ordering::AcqRel);
        return Err(Refusal::Busy { reason: format!("{most} {what} are under way"), retry_after_s });
    }
    Ok(Running(Arc::clone(running)))
}

/// What was read of symbols was large, and is free again; the C library keeps it unless it is told not to.
#[expect(unsafe_code, reason = "nothing wraps it")]
fn give_back() {
    // SAFETY: it only returns free memory of this process to the kernel, from whatever thread it is called.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What is to be sampled, if all is as it may be.
fn check(request: &RecordRequest) -> Result<Events, Refusal> {
    let invalid = |field: &str, reason: String, hint: &str| {
        Err(Refusal::Invalid { field: Some(field.into()), reason, hint: hint.into() })
    };
    let RecordRequest { event, duration, frequency, pid: _ } = request;
    let longest = humantime::format_duration(MAX_DURATION);
    if duration.0 < LOOK || duration.0 > MAX_DURATION {
        return invalid("duration", format!("it is between 100ms and {longest}"), "record several times");
    }
    if frequency.is_some_and(|frequency| frequency == 0 || frequency > MAX_FREQUENCY) {
        return invalid("frequency", format!("it is between 1 and {MAX_FREQUENCY}"), "");
    }
    match event.as_str() {
        "cpu" => Ok(Events { cpu: true, ..Events::default() }),
        "off-cpu" => Ok(Events { off_cpu: true, ..Events::default() }),
        "page-fault" => Ok(Events { page_fault: true, ..Events::default() }),
        other => invalid("event", format!("`{other}` cannot be recorded on demand"), "cpu, off-cpu or page-fault"),
    }
}

fn record(
    pids: &[u32],
    name: &str,
    events: Events,
    frequency: u32,
    duration: Duration,
    is_over: impl Fn() -> bool,
) -> Result<Recording> {
    let collector = Collector::start(&Options {
        kernel: kernel::Options {
            frequency: frequency.into(),
            all: false,
            newcomers: false,
            origins: false,
            user_stacks: true,
            kernel_stacks: true,
            waits: WaitFilter::default(),
            faults: if events.page_fault { FAULTS } else { 0 },
            fast_frequency: 0,
            functions: 0,
            heap: kernel::HeapOptions::default(),
        },
        events,
        mappings: events.page_fault,
        retention: Retention { window_ns: u64::MAX, memory: MEMORY },
        unwind_memory: UNWIND_MEMORY,
    })?;
    for &pid in pids {
        // That one of many is gone meanwhile is no failure of the others.
        if let Err(error) = collector.watch(pid, Some(name.to_owned()), 0) {
            tracing::debug!("pid {pid} is not recorded: {error:#}");
        }
    }
    collector.wait_for_tables(TABLES)?;
    let from_ns = if events.off_cpu { collector.start_waits(false)? } else { target::monotonic_ns() };
    let end = Instant::now() + duration;
    while !is_over() && pids.iter().any(|&pid| target::is_running(pid)) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(LOOK));
    }
    let to_ns = if events.off_cpu { collector.stop_waits()? } else { target::monotonic_ns() };
    collector.extract(&[], from_ns, to_ns).context("cannot read what was recorded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Seconds;

    #[test]
    fn what_cannot_be_recorded_is_refused_with_the_field() {
        let right = RecordRequest::default();
        assert!(check(&right).expect("right").cpu);
        for (field, request) in [
            ("event", RecordRequest { event: "malloc".into(), ..right.clone() }),
            ("duration", RecordRequest { duration: Seconds(Duration::from_secs(301)), ..right.clone() }),
            ("duration", RecordRequest { duration: Seconds(Duration::ZERO), ..right.clone() }),
            ("frequency", RecordRequest { frequency: Some(0), ..right.clone() }),
            ("frequency", RecordRequest { frequency: Some(1000), ..right }),
        ] {
            let refusal = check(&request).expect_err(field);
            assert!(matches!(&refusal, Refusal::Invalid { field: Some(found), .. } if found == field), "{refusal:?}");
        }
    }

    #[test]
    fn two_at_a_time() {
        let demand = Demand::default();
        let (first, _second) = (demand.begin().expect("one"), demand.begin().expect("two"));
        assert!(matches!(demand.begin(), Err(Refusal::Busy { .. })));
        drop(first);
        demand.begin().expect("one is over");
        let (first, _second) = (demand.begin_dump().expect("one"), demand.begin_dump().expect("two"));
        assert!(matches!(demand.begin_dump(), Err(Refusal::Busy { .. })));
        drop(first);
        demand.begin_dump().expect("one is over");
    }
}
