//! When a timer samples: at which period, and for how long at that one.
//!
//! A period that divides a second samples a program that works at exact multiples of a second at the same places of its
//! work each time: always, or never. So the rates at which a CPU is sampled are a golden section of a hertz beside the one
//! that was asked for. From second to second the samples then fall on places that lie as far from all places before as
//! they can (D. E. Knuth, The Art of Computer Programming, volume 3, section 6.4, theorem S), and so they do for programs
//! with a period that is a fraction or a multiple of a second. This is several times more exact than places by chance. A
//! program whose period fits one of these rates nevertheless has it for a minute or two only: each CPU has its rates by
//! chance, each for a while, and their mean is what was asked for.

use std::ops::Range;

use fastrand::Rng;

/// The two golden sections of one hertz.
const BESIDE: [f64; 2] = [0.381_966_011_250_105, 0.618_033_988_749_895];
/// How long a rate stays, in nanoseconds: long enough for the places of some ten seconds to be spread evenly.
const STRETCH_NS: Range<u64> = 60_000_000_000..180_000_000_000;

/// A period in nanoseconds for a rate in samples per second; those of many draws have that rate on average.
pub(super) fn period_ns(frequency: u64, random: &mut Rng) -> u64 {
    let beside = BESIDE[random.usize(..BESIDE.len())];
    let rate = if random.bool() { frequency as f64 + beside } else { frequency as f64 - beside };
    (1e9 / rate) as u64
}

/// How long the next period stays, in nanoseconds; the first one of a CPU began at some time before.
pub(super) fn stretch_ns(is_first: bool, random: &mut Rng) -> u64 {
    let whole = random.u64(STRETCH_NS);
    if is_first { random.u64(..whole) } else { whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program is said to have worked, beside what it has, when it works for `work_ns` at each multiple of `every_ns`,
    /// `phase_ns` later.
    fn seen(frequency: u64, work_ns: u64, every_ns: u64, phase_ns: u64, for_ns: u64, random: &mut Rng) -> f64 {
        let mut period = period_ns(frequency, random);
        let (mut now, mut until) = (random.u64(..period), stretch_ns(true, random));
        let mut seen_ns = 0;
        while now < for_ns {
            if (now + every_ns - phase_ns) % every_ns < work_ns {
                seen_ns += period;
            }
            now += period;
            if now > until {
                now -= random.u64(..period);
                period = period_ns(frequency, random);
                (now, until) = (now + period, until + stretch_ns(false, random));
            }
        }
        seen_ns as f64 / (work_ns * for_ns / every_ns) as f64
    }

    #[test]
    fn a_program_in_step_with_the_clock_is_seen_at_every_phase() {
        const MS: u64 = 1_000_000;
        let mut random = Rng::with_seed(19);
        for (frequency, work_ms, every_ms) in [(19, 16, 1000), (19, 16, 500), (19, 20, 100), (99, 5, 1000), (99, 2, 10)]
        {
            for phase in 0..20 {
                let (work_ns, every_ns) = (work_ms * MS, every_ms * MS);
                let seen = seen(frequency, work_ns, every_ns, phase * every_ns / 20, 60_000 * MS, &mut random);
                assert!(
                    (0.85..1.15).contains(&seen),
                    "{frequency} Hz, {work_ms} of {every_ms} ms, {phase}/20: {seen:.3}"
                );
            }
        }
    }

    #[test]
    fn the_rate_is_right_on_average() {
        let mut random = Rng::with_seed(1);
        for frequency in [1, 5, 19, 99, 999] {
            let rates = (0..10_000).map(|_| 1e9 / period_ns(frequency, &mut random) as f64);
            let mean = rates.sum::<f64>() / 10_000.0;
            assert!((mean - frequency as f64).abs() < 0.03, "{frequency}: {mean}");
        }
    }
}
