//! Goroutines: which one a thread runs. Go keeps it in a word of the thread's own memory, whose place depends on what else is
//! linked into the program; it is found where the goroutine is known, at the entry of a timed function.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, task_struct};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use probe_ebpf::abi::{MAX_GO_PROCESSES, Offsets};

use crate::call::read_user;
use crate::maps::setting;
use crate::task::current_task;

/// By process: how far below the end of its threads' own memory that word is; 0 if it was not found.
#[map]
static WORDS: HashMap<u32, u64> = HashMap::with_max_entries(MAX_GO_PROCESSES, BPF_F_NO_PREALLOC);

/// The word is at most so many below: that of a program without C is the first, and C libraries have some of their own.
const MAX_WORDS: u64 = 64;

/// `g.m`, the thread that runs a goroutine (runtime/runtime2.go).
const G_M: u64 = 48;
/// `m.curg`, the goroutine that a thread runs also while it is on its scheduler's stack: since Go 1.25, and before.
const M_CURG: [u64; 2] = [184, 192];

/// The end of the current thread's own memory, where the first segment register points to.
#[inline(always)]
fn thread_memory() -> Option<u64> {
    let offset = setting!(offsets.task_thread_memory);
    if offset == Offsets::MISSING {
        return None;
    }
    let task: *const task_struct = current_task();
    // SAFETY: the verifier knows that it is a task, and what is at this offset.
    Some(unsafe { core::ptr::read_volatile(task.cast::<u8>().wrapping_add(offset as usize).cast()) })
}

/// The current thread runs this goroutine, on the goroutine's own stack.
#[inline(always)]
pub fn learn(tgid: u32, goroutine: u64) {
    if WORDS.get_ptr(tgid).is_some() {
        return;
    }
    let Some(end) = thread_memory() else { return };
    let mut found = 0;
    for word in 1..=MAX_WORDS {
        if read_user::<u64>(end.wrapping_sub(word * 8)) == Some(goroutine) {
            found = word * 8;
            break;
        }
    }
    let _ = WORDS.insert(tgid, found, BPF_NOEXIST.into());
}

/// The goroutine that the current thread runs; 0 if it runs none, or that is not known.
#[inline(always)]
pub fn current(tgid: u32) -> u64 {
    // SAFETY: one number, copied at once.
    let Some(below) = unsafe { WORDS.get(tgid) }.copied().filter(|below| *below != 0) else { return 0 };
    find(below).unwrap_or(0)
}

#[inline(always)]
fn find(below: u64) -> Option<u64> {
    let own: u64 = read_user(thread_memory()?.wrapping_sub(below))?;
    let thread: u64 = read_user(own.wrapping_add(G_M))?;
    for offset in M_CURG {
        let goroutine: u64 = read_user(thread.wrapping_add(offset))?;
        // Only what is a goroutine of this thread tells of it.
        if goroutine != 0 && read_user(goroutine.wrapping_add(G_M)) == Some(thread) {
            return Some(goroutine);
        }
    }
    None
}

/// A process exits.
#[inline(always)]
pub fn forget(tgid: u32) {
    let _ = WORDS.remove(tgid);
}
