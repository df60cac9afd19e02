//! The places where a thread waits: a few are kept with the thread, more of them in sets that are made when they are needed,
//! so that most threads are small and those that wait everywhere are not unwound each time.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use probe_ebpf::abi::{
    Memo, PLACES_PER_SET, PLACES_PER_THREAD, Place, PlaceSet, SETS_PER_THREAD, SetKey, WaitingThread,
};

use crate::maps::PLACES;
use crate::memo::Here;
use crate::sums;
use crate::task::now;

/// A set without places: too large for the stack of a program.
#[map]
static NO_PLACES: Array<PlaceSet> = Array::with_max_entries(1, 0);

/// The number of a place in a set.
#[inline(always)]
fn number(set: u32, way: usize) -> u32 {
    PLACES_PER_THREAD as u32 + set * PLACES_PER_SET as u32 + way as u32
}

/// The place where a thread waits.
#[inline(always)]
pub fn get(thread: &mut WaitingThread, tid: u32) -> Option<&'static mut Place> {
    let at = thread.place as usize;
    if at < PLACES_PER_THREAD {
        // SAFETY: entries are in maps, which outlive the programs; nobody else uses this one.
        return Some(unsafe { &mut *(&raw mut thread.places[at & (PLACES_PER_THREAD - 1)]) });
    }
    let at = at - PLACES_PER_THREAD;
    let set = set(tid, (at / PLACES_PER_SET) as u32)?;
    Some(&mut set.places[at & (PLACES_PER_SET - 1)])
}

#[inline(always)]
fn set(tid: u32, set: u32) -> Option<&'static mut PlaceSet> {
    // SAFETY: only the thread's programs use it, one at a time.
    PLACES.get_ptr_mut(SetKey { tid, set }).map(|set| unsafe { &mut *set })
}

/// The number of the place where the current thread is, if it was there before.
#[inline(always)]
pub fn find(thread: &WaitingThread, tid: u32, here: &Here) -> Option<u32> {
    let ([first, second], of_set) = here.candidates();
    if here.is(&thread.places[first]) {
        return Some(first as u32);
    }
    if here.is(&thread.places[second]) {
        return Some(second as u32);
    }
    if thread.sets & 1 << of_set == 0 {
        return None;
    }
    let set = set(tid, of_set)?;
    let way = set.places.iter().position(|place| here.is(place))?;
    Some(number(of_set, way))
}

/// Keeps the place on the desk, where the current thread is; returns its number. What was waited at a place that has to go
/// is handed over.
#[inline(always)]
pub fn keep(thread: &mut WaitingThread, tid: u32, here: &Here) -> u32 {
    // SAFETY: this CPU's desk.
    let new = unsafe { &(*here.desk).place };
    let (own, of_set) = here.candidates();
    for at in own {
        let place = &mut thread.places[at];
        if is_same(place, new) {
            copy(&mut place.memo, &new.memo, size_of::<Memo>());
            return at as u32;
        }
        if here.is_free(place) {
            copy(place, new, size_of::<Place>());
            return at as u32;
        }
    }
    // By chance, so that two that are used by turns have soon one each.
    let chance = (now() >> 3) as usize;
    if thread.sets & 1 << of_set == 0
        && let Some(none) = NO_PLACES.get(0)
        && PLACES.insert(SetKey { tid, set: of_set }, none, BPF_NOEXIST.into()).is_ok()
    {
        thread.sets |= 1 << of_set;
    }
    if let Some(set) = set(tid, of_set) {
        let mut way = chance;
        for (at, place) in set.places.iter().enumerate() {
            if here.is_free(place) {
                way = at;
            }
        }
        for (at, place) in set.places.iter().enumerate() {
            if is_same(place, new) {
                way = at;
            }
        }
        let way = core::hint::black_box(way) & (PLACES_PER_SET - 1);
        replace(thread, tid, &mut set.places[way], new);
        return number(of_set, way);
    }
    let [first, second] = own;
    // The compiler makes an exclusive or of this, of which the verifier of Linux 6.1 does not know the bounds.
    let at = core::hint::black_box(if chance & 1 == 0 { first } else { second }) & (PLACES_PER_THREAD - 1);
    let place = &raw mut thread.places[at];
    // SAFETY: a part of the thread, whose other parts are only read meanwhile.
    replace(thread, tid, unsafe { &mut *place }, new);
    at as u32
}

#[inline(always)]
fn replace(thread: &WaitingThread, tid: u32, place: &mut Place, new: &Place) {
    if is_same(place, new) {
        return copy(&mut place.memo, &new.memo, size_of::<Memo>());
    }
    if place.sum.count != 0 {
        sums::hand_over_place(tid, thread, place);
    }
    copy(place, new, size_of::<Place>());
}

#[inline(always)]
fn is_same(place: &Place, new: &Place) -> bool {
    place.user_stack == new.user_stack && place.kernel_stack == new.kernel_stack && place.sum.state == new.sum.state
}

/// Copies by a helper: the compiler's way is a loop over bytes.
#[inline(always)]
fn copy<T>(to: &mut T, from: &T, bytes: usize) {
    // SAFETY: both are that long.
    unsafe { bpf_probe_read_kernel((&raw mut *to).cast(), bytes as u32, (&raw const *from).cast()) };
}

/// What `bpf_loop` hands to its callback: it has to be on the stack.
#[repr(C)]
struct Context {
    tid: u32,
    sets: u32,
}

/// Removes the sets of a thread.
#[inline(always)]
pub fn forget(thread: &WaitingThread, tid: u32) {
    if thread.sets == 0 {
        return;
    }
    let mut context = Context { tid, sets: thread.sets };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_loop(SETS_PER_THREAD as u32, forget_set as *mut c_void, (&raw mut context).cast(), 0) };
}

/// `bpf_loop`'s callback for one set.
#[inline(never)]
extern "C" fn forget_set(index: u32, context: *mut Context) -> i64 {
    // SAFETY: the context of `forget`, which waits for the loop.
    let Context { tid, sets } = unsafe { &*context };
    if sets >> index & 1 != 0 {
        let _ = PLACES.remove(SetKey { tid: *tid, set: index });
    }
    0
}
