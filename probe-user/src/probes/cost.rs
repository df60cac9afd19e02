//! What a hit of a probe costs on this host: measured once, on a function of our own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::kernel::{Role, Sampler, Wanted};
use crate::target::{Modules, Process};

/// Calls that are timed: some 5 ms.
const CALLS: u32 = 1000;
/// Calls before that: the first find cold caches.
const FIRST_CALLS: u32 = 100;

/// Does nothing, in a way that the compiler cannot leave out.
#[inline(never)]
extern "C" fn measured(number: u32) -> u32 {
    std::hint::black_box(number).wrapping_add(1)
}

/// The cost of one hit: by how much a call takes longer whose entry is probed. `number` is used for nothing else meanwhile.
///
/// The calls are made by another thread than the first: kernels before 6.10 set many probes at once for one thread only, and
/// then they are set one by one from here on.
pub fn measure(sampler: &mut Sampler, number: u32) -> Result<Duration> {
    let ourselves = std::process::id();
    let process = Process::read(ourselves, &mut Modules::default());
    let address = measured as extern "C" fn(u32) -> u32 as usize as u64;
    let (_, offset) = process.locate(address).context("our own code is in no file")?;
    let file = PathBuf::from("/proc/self/exe");
    let wanted = [Wanted { file, offset, role: Role::Enter, number, semaphore: None }];
    loop {
        let hits = |sampler: &mut Sampler| Ok::<u64, anyhow::Error>(sampler.hits()?[number as usize]);
        let before = hits(sampler)?;
        let probes = sampler.probe(ourselves, &wanted).context("cannot measure what a probe costs")?;
        let took = std::thread::spawn(time).join().ok().context("a thread that measures has panicked")?;
        let new = hits(sampler)? - before;
        drop(std::thread::spawn(move || drop(probes)));
        let expected = u64::from(CALLS + FIRST_CALLS);
        if new == expected {
            return Ok(took / CALLS);
        }
        tracing::debug!(new, expected, "hits of our own function were not seen");
        ensure!(sampler.probe_one_by_one(), "{new} of {expected} hits of our own function were seen");
    }
}

fn time() -> Duration {
    let call = |number| _ = std::hint::black_box(measured(number));
    (0..FIRST_CALLS).for_each(call);
    let begin = Instant::now();
    (0..CALLS).for_each(call);
    begin.elapsed()
}
