//! Newcomers: processes that may become targets. User space is told of them at once, within an allowance for each process that
//! makes them. The others are kept here, so that one which ends soon costs next to nothing; user space looks at those that stay.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap};
use probe_ebpf::abi::{Counter, MAX_NEWCOMERS, Newcomer, NewcomerEvent, kind};
use probe_ebpf::allowance::{Allowance, Limit};

use crate::maps::{EVENTS, count, setting};
use crate::process::urgent;
use crate::task::{Struct, field, now};

#[map]
static NEWCOMERS: HashMap<u32, Newcomer> = HashMap::with_max_entries(MAX_NEWCOMERS, 0);

/// By the process that makes newcomers, of those that did so last; and of all together, under 0, which is no process.
#[map]
static MAKERS: LruHashMap<u32, Allowance> = LruHashMap::with_max_entries(1024, 0);

/// By target, of those that replaced their program last.
#[map]
static EXECS: LruHashMap<u32, Allowance> = LruHashMap::with_max_entries(1024, 0);

/// To look at a newcomer takes user space some 50 microseconds; to watch one and to let it go, some 500.
const EACH_MAKER: Limit = Limit { at_once: 20, every_ns: 100_000_000 };
const ALL_MAKERS: Limit = Limit { at_once: 100, every_ns: 20_000_000 };
/// A script may run through a row of wrappers.
const EACH_TARGET: Limit = Limit { at_once: 16, every_ns: 1_000_000_000 };

/// A target has made a process that is none.
#[inline(always)]
pub fn is_made(tgid: u32, parent: u32) {
    if setting!(newcomers) != 0 {
        comes(tgid, parent);
    }
}

/// A process that is no target has replaced its program.
#[inline(always)]
pub fn executes(tgid: u32, task: Struct) {
    if setting!(newcomers) == 0 {
        return;
    }
    let parent = parent_of(task);
    // SAFETY: nothing of it is read.
    if unsafe { NEWCOMERS.get(tgid) }.is_some() {
        // It was counted, and is another one now.
        keep(tgid, parent);
    } else {
        comes(tgid, parent);
    }
}

/// A process that is no target has ended.
#[inline(always)]
pub fn leaves(tgid: u32) {
    let _ = NEWCOMERS.remove(tgid);
}

/// A target is none any more, and may become one again if it stays as it is for some time.
#[inline(always)]
pub fn is_set_aside(tgid: u32, task: Struct) {
    keep(tgid, parent_of(task));
}

/// Whether a target that replaces its program may stay one.
#[inline(always)]
pub fn may_execute(tgid: u32) -> bool {
    if setting!(newcomers) == 0 {
        return true;
    }
    let (mut allowance, now_ns) = (known(&EXECS, tgid), now());
    let has_left = allowance.has_left(EACH_TARGET, now_ns);
    if has_left {
        allowance.take(EACH_TARGET, now_ns);
        let _ = EXECS.insert(tgid, allowance, BPF_ANY.into());
    }
    has_left
}

#[inline(always)]
fn comes(tgid: u32, parent: u32) {
    let (mut maker, mut all, now_ns) = (known(&MAKERS, parent), known(&MAKERS, 0), now());
    if !maker.has_left(EACH_MAKER, now_ns) || !all.has_left(ALL_MAKERS, now_ns) {
        maker.refuse();
        let _ = MAKERS.insert(parent, maker, BPF_ANY.into());
        keep(tgid, parent);
        return;
    }
    let passed_over = maker.take(EACH_MAKER, now_ns) as u32;
    all.take(ALL_MAKERS, now_ns);
    let _ = MAKERS.insert(parent, maker, BPF_ANY.into());
    let _ = MAKERS.insert(0, all, BPF_ANY.into());
    let Some(mut entry) = EVENTS.reserve::<NewcomerEvent>(0) else {
        count(Counter::ProcessEventsLost);
        return;
    };
    entry.write(NewcomerEvent { kind: kind::NEWCOMER, tgid, parent, passed_over, time_ns: now_ns });
    entry.submit(urgent());
}

#[inline(always)]
fn keep(tgid: u32, parent: u32) {
    let _ = NEWCOMERS.insert(tgid, Newcomer { parent, padding: 0, time_ns: now() }, BPF_ANY.into());
}

#[inline(always)]
fn known(map: &LruHashMap<u32, Allowance>, key: u32) -> Allowance {
    // SAFETY: copied at once; where another CPU changes it meanwhile, one more or one less is taken.
    unsafe { map.get(key) }.copied().unwrap_or_default()
}

#[inline(always)]
fn parent_of(task: Struct) -> u32 {
    let parent = field::<Struct>(task, setting!(offsets.task_parent));
    parent.and_then(|parent| field::<u32>(parent, setting!(offsets.task_tgid))).unwrap_or(0)
}
