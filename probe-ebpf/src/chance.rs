//! Of many events some are chosen by chance: about as many as are wanted in a time, whatever their rate. A chosen one stands for
//! all since the one before. One that is not costs a few instructions.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::helpers::generated::bpf_jiffies64;

use crate::task::now;

/// What is known of the events of a kind on a CPU. Zeroed at first.
#[repr(C)]
pub struct Chance {
    /// Events since the last one that was chosen, and after how many the next one is.
    pub since: u32,
    until: u32,
    /// How many there are between two that are chosen, on average.
    mean: u32,
    /// Events, and those chosen, in the present stretch of time.
    events: u32,
    chosen: u32,
    /// Beginning of the stretch of time, in the kernel's ticks and in nanoseconds.
    begin_ticks: u64,
    begin_ns: u64,
}

/// Length of a stretch of time, in ticks: 16 to 160 ms, depending on how the kernel was built.
const STRETCH: u64 = 16;
/// Events that are chosen at the beginning of a stretch before fewer are, and after each of which fewer still.
const BURST: u32 = 16;
const MORE: u32 = 8;
/// Never fewer than one in this many.
const MAX_MEAN: u32 = 1 << 14;

impl Chance {
    /// An event: how many it stands for, 0 if it is not chosen. Chosen is about one in each `gap_ns`.
    #[inline(always)]
    pub fn weigh(&mut self, gap_ns: u64) -> u32 {
        self.events += 1;
        self.since += 1;
        // SAFETY: a helper without arguments.
        let ticks = unsafe { bpf_jiffies64() };
        if ticks.wrapping_sub(self.begin_ticks) >= STRETCH {
            self.next_stretch(ticks, gap_ns);
        }
        if self.since >= self.until { self.choose() } else { 0 }
    }

    /// Adapts to the rate of the stretch that ends, however long it was.
    #[inline(always)]
    fn next_stretch(&mut self, ticks: u64, gap_ns: u64) {
        let time_ns = now();
        let wanted = time_ns.wrapping_sub(self.begin_ns) / gap_ns.max(1);
        let mean = u64::from(self.events) / wanted.max(1);
        self.mean = (mean as u32).clamp(1, MAX_MEAN);
        self.begin_ticks = ticks;
        self.begin_ns = time_ns;
        self.events = 0;
        self.chosen = 0;
        // Not after as many as were meant when there were more of them. The present event is the first of these.
        self.until = self.since - 1 + interval(self.mean);
    }

    #[inline(always)]
    fn choose(&mut self) -> u32 {
        let weight = self.since;
        self.since = 0;
        self.chosen += 1;
        if self.chosen >= BURST && self.chosen & (MORE - 1) == 0 && self.mean < MAX_MEAN {
            self.mean = (self.mean * 2).max(2);
        }
        self.until = interval(self.mean);
        weight
    }
}

/// By chance, `mean` on average, so that no pattern of a program's events is in step with it.
#[inline(always)]
fn interval(mean: u32) -> u32 {
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    (((u64::from(2 * mean - 1) * u64::from(random)) >> 32) as u32) + 1
}
