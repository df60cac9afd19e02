//! Lenders: a new process has what its parent has mapped, until user space has told what is its own. So its stacks are walked by
//! its parent's mappings from its first instruction on; in `vfork`, where both share their memory, there are no others.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use probe_ebpf::abi::{MAX_TARGETS, MappingKey};

use crate::maps::{MAPPINGS, target};

/// A process whose mappings hold, as long as it runs the same program.
#[repr(C)]
#[derive(Clone, Copy)]
struct Lender {
    tgid: u32,
    epoch: u32,
}

/// By borrower.
#[map]
static LENDERS: LruHashMap<u32, Lender> = LruHashMap::with_max_entries(MAX_TARGETS, 0);

/// A process has a child.
#[inline(always)]
pub fn lends(parent: u32, epoch: u32, child: u32) {
    // SAFETY: only its presence matters.
    let is_known = unsafe { MAPPINGS.get(MappingKey { tgid: parent, block: 0 }) }.is_some();
    let lender = if is_known {
        Lender { tgid: parent, epoch }
    } else {
        // SAFETY: copied at once.
        match unsafe { LENDERS.get(parent) } {
            Some(lender) => *lender,
            None => return,
        }
    };
    let _ = LENDERS.insert(child, lender, BPF_ANY.into());
}

/// A process has another program, or ends.
#[inline(always)]
pub fn forget(tgid: u32) {
    let _ = LENDERS.remove(tgid);
}

/// Whose mappings hold for a process of which none are known.
#[inline(always)]
pub fn of(tgid: u32) -> Option<u32> {
    // SAFETY: copied at once.
    let Lender { tgid: lender, epoch } = unsafe { LENDERS.get(tgid) }.copied()?;
    target(lender).filter(|target| target.epoch == epoch).map(|_| lender)
}
