//! Walks up the stack of this very thread, by tables of what this process has mapped.

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use probe_ebpf::kept::Kept;
use probe_ebpf::table::{By, Rule, step};
use probe_ebpf::unwind::{End, Memory, Registers};

use crate::target::{Mapping, Module, Modules, parse_maps};
use crate::unwind::{Effort, Table};

/// Our own memory.
struct Own(File);

impl Own {
    fn open() -> Self {
        Self(File::open("/proc/self/mem").unwrap())
    }
}

impl Memory for Own {
    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        Some([self.read_word(address)?, self.read_word(address + 8)?])
    }

    fn read_word(&mut self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.0.read_exact_at(&mut word, address).ok()?;
        Some(u64::from_le_bytes(word))
    }
}

/// Tables of all that this process has mapped.
struct Space(Vec<(Mapping, Arc<Module>, Table)>);

impl Space {
    fn own() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut modules = Modules::default();
        let table = |mapping: Mapping| {
            let module = modules.of(std::process::id(), &mapping);
            let table = Table::of_file(module.file()?, Effort::Full).ok()?;
            Some((mapping, module, table))
        };
        Self(parse_maps(&maps).filter_map(table).collect())
    }

    fn rule(&self, place: u64) -> Option<Rule> {
        let (mapping, module, table) = self.0.iter().find(|(m, ..)| (m.start..m.end).contains(&place))?;
        table.rule(module.virtual_address(place - mapping.start + mapping.file_offset)?)
    }

    /// The pcs from these registers on.
    fn walk(&self, mut registers: Registers) -> (Vec<u64>, End) {
        let (mut pcs, mut kept, mut memory, mut exact) = (vec![registers.pc], Kept::FIRST, Own::open(), true);
        while pcs.len() < 1000 {
            let place = if exact { registers.pc } else { registers.pc - 1 };
            let Some(rule) = self.rule(place) else { return (pcs, End::NoUnwindInfo) };
            match step(rule, &mut registers, &mut kept, &mut memory) {
                Ok(By::FramePointer) => return (pcs, End::NoUnwindInfo),
                Ok(by) => exact = by == By::Signal,
                Err(end) => return (pcs, end),
            }
            pcs.push(registers.pc);
        }
        (pcs, End::TooDeep)
    }
}

#[inline(always)]
fn registers() -> Registers {
    let (pc, sp, fp): (u64, u64, u64);
    #[expect(unsafe_code, reason = "reads three registers")]
    // SAFETY: nothing is written but the outputs.
    unsafe {
        asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) pc, out(reg) sp, out(reg) fp);
    }
    Registers { pc, sp, fp }
}

#[expect(unsafe_code, reason = "the C runtime's unwinder is the reference")]
mod reference {
    use super::{c_int, c_void};

    unsafe extern "C" {
        fn _Unwind_Backtrace(trace: extern "C" fn(*mut c_void, *mut c_void) -> c_int, argument: *mut c_void) -> c_int;
        fn _Unwind_GetIP(context: *mut c_void) -> usize;
    }

    extern "C" fn collect(context: *mut c_void, pcs: *mut c_void) -> c_int {
        // SAFETY: the context is the unwinder's, the argument is the vector below.
        unsafe { (*pcs.cast::<Vec<u64>>()).push(_Unwind_GetIP(context) as u64) };
        0
    }

    /// The pcs of the callers, from the function that calls this one.
    #[inline(always)]
    pub fn backtrace() -> Vec<u64> {
        let mut pcs = Vec::<u64>::new();
        // SAFETY: the callback gets the vector, which outlives the call.
        unsafe { _Unwind_Backtrace(collect, (&raw mut pcs).cast()) };
        pcs
    }
}

/// A stack as the tables and as the C runtime see it. Made while its frames are there, judged later: no test may panic
/// through frames of C.
struct Pair {
    walked: Vec<u64>,
    end: End,
    wanted: Vec<u64>,
}

impl Pair {
    /// Of the function that calls this; in it, the pcs differ.
    #[inline(always)]
    fn take(space: &Space) -> Self {
        let (registers, wanted) = (registers(), reference::backtrace());
        let (walked, end) = space.walk(registers);
        Self { walked, end, wanted }
    }

    fn judge(mut self, at_least: usize) {
        // The reference may end with a frame of its own making, at zero.
        self.wanted.retain(|&pc| pc != 0);
        assert_eq!(self.end, End::Root, "{:x?}\n{:x?}", self.walked, self.wanted);
        assert_eq!(self.walked[1..], self.wanted[1..], "{:x?}\n{:x?}", self.walked, self.wanted);
        assert!(self.wanted.len() >= at_least, "{:x?}", self.wanted);
    }
}

#[test]
fn our_own_stack_is_walked_to_its_first_frame() {
    Pair::take(&Space::own()).judge(6);
}

#[inline(never)]
fn dive(depth: usize, space: &Space) -> Pair {
    let pair = if depth == 0 { Pair::take(space) } else { dive(depth - 1, space) };
    std::hint::black_box(pair)
}

#[test]
fn a_deep_recursion_is_walked() {
    dive(300, &Space::own()).judge(306);
}

#[test]
fn a_callback_of_the_c_library_is_walked() {
    static TAKEN: Mutex<Option<Pair>> = Mutex::new(None);
    extern "C" fn compare(_: *const c_void, _: *const c_void) -> c_int {
        *TAKEN.lock().unwrap() = Some(Pair::take(&Space::own()));
        0
    }
    let mut numbers = [2u64, 1];
    #[expect(unsafe_code, reason = "a callback from C")]
    // SAFETY: two elements of eight bytes; the callback reads neither.
    unsafe {
        libc::qsort(numbers.as_mut_ptr().cast(), 2, 8, Some(compare));
    }
    TAKEN.lock().unwrap().take().unwrap().judge(9);
}

#[test]
fn a_signal_handler_is_walked_to_the_code_it_interrupted() {
    static TAKEN: Mutex<Option<Pair>> = Mutex::new(None);
    extern "C" fn handler(_: c_int) {
        *TAKEN.lock().unwrap() = Some(Pair::take(&Space::own()));
    }
    #[expect(unsafe_code, reason = "installs a signal handler and runs it at once, on this thread")]
    // SAFETY: the signal is raised here only, where no lock is held that the handler takes.
    unsafe {
        libc::signal(libc::SIGUSR2, handler as *const () as libc::sighandler_t);
        libc::raise(libc::SIGUSR2);
    }
    TAKEN.lock().unwrap().take().unwrap().judge(9);
}

#[test]
fn the_vdso_has_a_table() {
    let space = Space::own();
    let (mapping, _, table) = space.0.iter().find(|(mapping, ..)| mapping.path == "[vdso]").unwrap();
    assert!(table.rows.len() > 10 && table.bytes() < 10_000, "{mapping:?} {}", table.bytes());
}
