//! Mappings that user space has not told of yet: a program that has just begun is known by the files that it has mapped, where
//! others have them as well.
//!
//! They are searched in the tree in which the kernel keeps a process's mappings (`mm_struct.mm_mt`, since Linux 6.1; the nodes:
//! include/linux/maple_tree.h), without its lock: who is sampled may hold it, as in every `mmap` of the dynamic linker, and
//! `bpf_find_vma` finds one mapping in an interrupt at most. What changes meanwhile leads to something else or nowhere; what is
//! found has to be a mapping of this memory around the address.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, task_struct};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use probe_ebpf::abi::{FileKey, FileTable, MAX_FILES, Offsets};

use crate::caller::{Lookup, Place};
use crate::forget::forget;
use crate::maps::setting;
use crate::task::{Struct, field};

/// Executable pieces of files, by which they are unwound.
#[map]
static FILES: HashMap<FileKey, FileTable> = HashMap::with_max_entries(MAX_FILES, BPF_F_NO_PREALLOC);

/// `PAGE_SHIFT` on x86-64.
const PAGE_SHIFT: u32 = 12;
const SECOND_NS: u64 = 1_000_000_000;
/// The bits of the nanoseconds; newer kernels have a mark above them (`I_CTIME_QUERIED`, include/linux/fs.h).
const NANOSECONDS: u32 = i32::MAX as u32;

/// Words of a node; nodes are aligned to as many bytes, and the bits below are flags.
const NODE_WORDS: usize = 32;
const NODE_BYTES: u64 = NODE_WORDS as u64 * 8;
/// More levels than a million mappings need: nodes have at least five entries.
const LEVELS: u32 = 10;
/// The kinds of nodes (`enum maple_type`), in four bits of a pointer to one.
const KIND_SHIFT: u32 = 3;
const KIND_MASK: u64 = 15;
const LEAF: u64 = 1;
const RANGES: u64 = 2;
const RANGES_AND_GAPS: u64 = 3;
/// The last addresses of all entries but the last come behind the parent, the entries behind them.
const FIRST_PIVOT: usize = 1;
const PIVOTS: usize = 15;
const FIRST_SLOT: usize = 16;
/// With gaps there are fewer.
const FIRST_SLOT_WITH_GAPS: usize = 10;

/// A search in the tree.
#[repr(C)]
pub struct Search {
    /// A node, with its kind; at the end the mapping.
    entry: u64,
    is_found: u64,
    /// How many entries end below the address, as far as is known, and the sign of the last comparison.
    at: u64,
    below: u64,
    /// The mapping.
    start: u64,
    end: u64,
    node: [u64; NODE_WORDS],
}

/// What `bpf_loop` hands to its callback: it has to be on the stack.
#[repr(C)]
struct Context {
    lookup: *mut Lookup,
}

/// Looks for what a task has mapped at the address of a lookup.
#[inline(never)]
pub fn find(lookup: &mut Lookup, task: *mut task_struct) -> u64 {
    if setting!(offsets.memory_root) == Offsets::MISSING {
        return 0;
    }
    let Some(memory) = field::<Struct>(task.cast(), setting!(offsets.task_memory)) else { return 0 };
    // The root of a tree with a single entry is no node; a program has more.
    const IS_NODE: u64 = 2;
    match field::<u64>(memory, setting!(offsets.memory_root)) {
        Some(root) if root & 3 == IS_NODE => lookup.search.entry = root,
        _ => return 0,
    }
    lookup.search.is_found = 0;
    let mut context = Context { lookup };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_loop(LEVELS, descend as *mut c_void, (&raw mut context).cast(), 0) };
    if lookup.search.is_found != 0 {
        place(lookup.search.entry as Struct, memory, lookup);
    }
    lookup.search.is_found
}

/// `bpf_loop`'s callback: from a node to the one below, or to the mapping. Returns 1 to stop.
#[inline(never)]
extern "C" fn descend(_level: u32, context: *mut Context) -> i64 {
    // SAFETY: the lookup of `find`, which waits for the loop.
    let Lookup { search, pc, .. } = unsafe { &mut *(*context).lookup };
    let kind = search.entry >> KIND_SHIFT & KIND_MASK;
    let first_slot = match kind {
        LEAF | RANGES => FIRST_SLOT,
        RANGES_AND_GAPS => FIRST_SLOT_WITH_GAPS,
        _ => return 1,
    };
    let node = (search.entry & !(NODE_BYTES - 1)) as *const c_void;
    // SAFETY: the helper checks the address; the buffer is that long.
    if unsafe { bpf_probe_read_kernel((&raw mut search.node).cast(), NODE_BYTES as u32, node) } != 0 {
        return 1;
    }
    // How many entries end below the address, by signs of differences as in `table::search_block`. Last addresses are odd; zero, in
    // place of one, stands for the end of the node, and the entries behind those of a node with gaps are addresses of the
    // kernel or zero as well: both are above all that programs map.
    let wanted = *pc >> 1;
    search.at = 0;
    let mut half = PIVOTS.div_ceil(2);
    while half > 0 {
        // Read back each time, and bounded: of sums that become unions of bits the verifier of Linux 6.1 knows nothing.
        let at = forget(&search.at) as usize & PIVOTS;
        let last = search.node[(FIRST_PIVOT + at + half - 1) & (NODE_WORDS - 1)].wrapping_sub(1) >> 1;
        search.below = last.wrapping_sub(wanted);
        search.at += half as u64 * (forget(&search.below) >> 63);
        half /= 2;
    }
    let at = forget(&search.at) as usize & PIVOTS;
    search.entry = search.node[(first_slot + at) & (NODE_WORDS - 1)];
    search.is_found = u64::from(kind == LEAF);
    search.is_found as i64
}

#[inline(always)]
fn place(area: Struct, memory: Struct, lookup: &mut Lookup) -> Option<()> {
    // Kept in the lookup, not on the stack, which has little room: it is nowhere until all is known.
    lookup.search.start = field(area, setting!(offsets.vma_start))?;
    lookup.search.end = field(area, setting!(offsets.vma_end))?;
    if lookup.pc.wrapping_sub(lookup.search.start) >= lookup.search.end.wrapping_sub(lookup.search.start)
        || field::<Struct>(area, setting!(offsets.vma_memory))? != memory
    {
        return None;
    }
    let page: u64 = field(area, setting!(offsets.vma_page))?;
    let file: Struct = field(area, setting!(offsets.vma_file))?;
    let inode: Struct = field(file, setting!(offsets.file_inode))?;
    let changed_s: u64 = field(inode, setting!(offsets.inode_changed))?;
    let changed_ns: u32 = field(inode, setting!(offsets.inode_changed_ns))?;
    lookup.file.inode = field(inode, setting!(offsets.inode_number))?;
    lookup.file.changed_ns = changed_s.wrapping_mul(SECOND_NS).wrapping_add(u64::from(changed_ns & NANOSECONDS));
    lookup.file.file_offset = page << PAGE_SHIFT;
    lookup.file.device = field(field::<Struct>(inode, setting!(offsets.inode_super))?, setting!(offsets.super_device))?;
    // SAFETY: copied at once; an entry that is updated meanwhile gives a wrong frame at worst, never a bad access.
    let FileTable { start: of_table, table, pages } = *unsafe { FILES.get(lookup.file) }?;
    let Search { start, end, .. } = lookup.search;
    lookup.place = Place { start, end, bias: start.wrapping_sub(of_table), table, pages };
    Some(())
}
