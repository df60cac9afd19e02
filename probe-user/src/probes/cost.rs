//! What a hit of a probe costs on this host: measured once, on a function of our own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::kernel::{Role, Sampler};
use crate::target::{Modules, Process};

/// Calls that are timed: some 10 ms.
const CALLS: u32 = 1000;

/// Does nothing, in a way that the compiler cannot leave out.
#[inline(never)]
extern "C" fn measured(number: u32) -> u32 {
    std::hint::black_box(number).wrapping_add(1)
}

/// The cost of one hit: half of what a call costs whose entry and return are probed. `function` is a number that is used
/// for nothing else meanwhile.
pub fn measure(sampler: &mut Sampler, function: u32) -> Result<Duration> {
    let ourselves = std::process::id();
    let process = Process::read(ourselves, &mut Modules::default());
    let address = measured as extern "C" fn(u32) -> u32 as usize as u64;
    let (_, offset) = process.locate(address).context("our own code is in no file")?;
    let file = Path::new("/proc/self/exe");
    let probes = [Role::Enter, Role::Returned].map(|role| sampler.probe(ourselves, file, offset, function, role));
    let before = time();
    for probe in &probes {
        if let Err(error) = probe {
            anyhow::bail!("cannot measure what a probe costs: {error:#}");
        }
    }
    drop(std::thread::spawn(move || drop(probes)));
    Ok(before / CALLS / 2)
}

fn time() -> Duration {
    // The first calls find cold caches.
    let call = |number| _ = std::hint::black_box(measured(number));
    (0..CALLS / 10).for_each(call);
    let begin = Instant::now();
    (0..CALLS).for_each(call);
    begin.elapsed()
}
