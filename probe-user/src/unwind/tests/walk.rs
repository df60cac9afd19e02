//! Walks up the stack of this very thread, by tables of what this process has mapped.

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;

use probe_ebpf::table::apply;
use probe_ebpf::unwind::{End, Memory, Registers};

use crate::target::{Mapping, Modules, parse_maps};
use crate::unwind::Table;

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
struct Space(Vec<(Mapping, u64, Table)>);

impl Space {
    fn own() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut modules = Modules::default();
        let table = |mapping: Mapping| {
            let module = modules.of(std::process::id(), &mapping);
            let table = Table::of_file(module.file()?).ok()?;
            let address = module.virtual_address(mapping.file_offset)?;
            Some((mapping, address, table))
        };
        Self(parse_maps(&maps).filter_map(table).collect())
    }

    /// The pcs from these registers on.
    fn walk(&self, mut registers: Registers) -> (Vec<u64>, End) {
        let (mut pcs, mut memory, mut exact) = (vec![registers.pc], Own::open(), true);
        while pcs.len() < 1000 {
            let place = if exact { registers.pc } else { registers.pc - 1 };
            let module = self.0.iter().find(|(mapping, ..)| (mapping.start..mapping.end).contains(&place));
            let row = module.and_then(|(mapping, address, table)| table.lookup(place - mapping.start + address));
            let Some(row) = row else { return (pcs, End::NoUnwindInfo) };
            if let Err(end) = apply(row, &mut registers, &mut memory) {
                return (pcs, end);
            }
            exact = row.caller_was_interrupted();
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

/// The pcs behind the function where both were taken: in it, they differ.
fn assert_same_callers(space: &Space, taken: Registers, wanted: &[u64]) {
    let (pcs, end) = space.walk(taken);
    // The reference may end with a frame of its own making, at zero.
    let wanted: Vec<_> = wanted.iter().copied().filter(|&pc| pc != 0).collect();
    assert_eq!(end, End::Root, "{pcs:x?} {wanted:x?}");
    assert!(wanted.len() > 5, "{wanted:x?}");
    assert_eq!(pcs[1..], wanted[1..], "{pcs:x?}\n{wanted:x?}");
}

#[test]
fn our_own_stack_is_walked_to_its_first_frame() {
    let space = Space::own();
    let (taken, wanted) = (registers(), reference::backtrace());
    assert_same_callers(&space, taken, &wanted);
}

#[inline(never)]
fn dive(depth: usize, space: &Space) -> usize {
    if depth == 0 {
        let (taken, wanted) = (registers(), reference::backtrace());
        assert_same_callers(space, taken, &wanted);
        assert!(wanted.len() > 300);
        return 0;
    }
    std::hint::black_box(dive(depth - 1, space)) + 1
}

#[test]
fn a_deep_recursion_is_walked() {
    assert_eq!(dive(300, &Space::own()), 300);
}

#[test]
fn callbacks_of_the_c_library_are_walked() {
    static TAKEN: std::sync::Mutex<Option<(Registers, Vec<u64>)>> = std::sync::Mutex::new(None);
    extern "C" fn compare(_: *const c_void, _: *const c_void) -> c_int {
        *TAKEN.lock().unwrap() = Some((registers(), reference::backtrace()));
        0
    }
    // The walk must come while the frames are there, so it is made inside as well.
    extern "C" fn walk(a: *const c_void, b: *const c_void) -> c_int {
        let (taken, wanted) = (registers(), reference::backtrace());
        assert_same_callers(&Space::own(), taken, &wanted);
        compare(a, b)
    }
    let mut numbers = [2u64, 1];
    #[expect(unsafe_code, reason = "a callback from C")]
    // SAFETY: two elements of eight bytes; the callback reads neither.
    unsafe {
        libc::qsort(numbers.as_mut_ptr().cast(), 2, 8, Some(walk));
    }
    assert!(TAKEN.lock().unwrap().is_some());
}

static SEEN: std::sync::Mutex<Option<(usize, End)>> = std::sync::Mutex::new(None);

extern "C" fn handler(_: c_int) {
    let (taken, wanted) = (registers(), reference::backtrace());
    let space = Space::own();
    assert_same_callers(&space, taken, &wanted);
    *SEEN.lock().unwrap() = Some((wanted.len(), space.walk(taken).1));
}

#[test]
fn a_signal_handler_is_walked_to_the_code_it_interrupted() {
    #[expect(unsafe_code, reason = "installs a signal handler and runs it at once, on this thread")]
    // SAFETY: the signal is raised here only, where no lock is held that the handler takes.
    unsafe {
        libc::signal(libc::SIGUSR2, handler as *const () as libc::sighandler_t);
        libc::raise(libc::SIGUSR2);
    }
    assert!(matches!(*SEEN.lock().unwrap(), Some((8.., End::Root))), "{:?}", SEEN.lock().unwrap());
}
