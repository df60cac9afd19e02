//! What a hit of a probe costs on this host: measured once, on a function of our own.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::leaving;
use crate::functions::first_return;
use crate::kernel::{Role, Sampler, Wanted, loading_time};
use crate::target::{Modules, Process};

/// The function is called so often at a time: a millisecond or less, so that few interrupts are measured.
const CALLS: u32 = 100;
/// So many times, of which the median counts.
const ROUNDS: usize = 11;
/// Where the function surely ends.
const MAX_CODE: usize = 256;

/// Does nothing, in a way that the compiler cannot leave out.
#[inline(never)]
extern "C" fn measured(number: u32) -> u32 {
    std::hint::black_box(number).wrapping_add(1)
}

/// The cost of one hit, of CPU time: half of that of a call which is probed where it begins and where it returns. Return
/// instructions cost more, since the kernel cannot play them. `number` is used for nothing else meanwhile.
///
/// The calls are made by another thread than the first: kernels before 6.10 set many probes at once for one thread only, and
/// then they are set one by one from here on.
pub fn measure(sampler: &mut Sampler, number: u32) -> Result<Duration> {
    let ourselves = std::process::id();
    let process = Process::read(ourselves, &mut Modules::default());
    let address = measured as extern "C" fn(u32) -> u32 as usize as u64;
    let (_, offset) = process.locate(address).context("our own code is in no file")?;
    let file = PathBuf::from("/proc/self/exe");
    let mut code = [0; MAX_CODE];
    File::open(&file).and_then(|file| file.read_exact_at(&mut code, offset)).context("cannot read our own code")?;
    let mut wanted = vec![Wanted { file: file.clone(), offset, role: Role::Enter, number, semaphore: None }];
    if let Some(length) = first_return(&code) {
        wanted.insert(0, Wanted { file, offset: offset + length, role: Role::Leave, number, semaphore: None });
    }
    let hits_of_call = wanted.len() as u32;
    loop {
        let hits = |sampler: &Sampler| sampler.hits()[number as usize];
        let before = hits(sampler);
        let probes = sampler.probe(ourselves, &wanted).context("cannot measure what a probe costs")?;
        let took = std::thread::spawn(time).join().ok().context("a thread that measures has panicked")?;
        let new = hits(sampler) - before;
        leaving::elsewhere(move || drop(probes));
        let expected = u64::from(hits_of_call * CALLS) * ROUNDS as u64;
        if new == expected {
            return Ok(took / hits_of_call);
        }
        tracing::debug!(new, expected, "hits of our own function were not seen");
        ensure!(sampler.probe_one_by_one(), "{new} of {expected} hits of our own function were seen");
    }
}

/// What a call takes, of CPU time.
fn time() -> Duration {
    let mut rounds = [(); ROUNDS].map(|()| {
        let begin = cpu_time();
        (0..CALLS).for_each(|number| _ = std::hint::black_box(measured(number)));
        (cpu_time() - begin) / CALLS
    });
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

/// The processor time of this thread without what it took to load programs: that is done once, and no cost of setting probes again.
pub(super) fn setting_time() -> Duration {
    cpu_time().saturating_sub(loading_time())
}

/// Of this thread, since it began.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
