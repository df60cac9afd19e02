//! Mappings that user space has not told of yet: a program that has just begun is known by the files that it has mapped, where
//! others have them as well.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, task_struct};
use aya_ebpf::helpers::generated::bpf_find_vma;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use probe_ebpf::abi::{FileKey, FileTable, MAX_FILES};

use crate::caller::{Lookup, Place};
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

/// What `bpf_find_vma` hands to its callback: it has to be on the stack.
#[repr(C)]
struct Context {
    lookup: *mut Lookup,
}

/// Looks for what a task has mapped at the address of a lookup. Where its memory is being changed nothing is found.
#[inline(always)]
pub fn find(lookup: &mut Lookup, task: *mut task_struct) {
    let pc = lookup.pc;
    let mut context = Context { lookup };
    // SAFETY: the callback's signature is the helper's; the context outlives the call.
    unsafe { bpf_find_vma(task, pc, is_mapped as *mut c_void, (&raw mut context).cast(), 0) };
}

/// `bpf_find_vma`'s callback.
#[inline(never)]
extern "C" fn is_mapped(_task: *mut task_struct, area: Struct, context: *mut Context) -> i64 {
    // SAFETY: the lookup of `find`, which waits for the call.
    place(area, unsafe { &mut *(*context).lookup });
    0
}

#[inline(always)]
fn place(area: Struct, lookup: &mut Lookup) -> Option<()> {
    let start: u64 = field(area, setting!(offsets.vma_start))?;
    let end: u64 = field(area, setting!(offsets.vma_end))?;
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
    lookup.place = Place { start, end, bias: start.wrapping_sub(of_table), table, pages };
    Some(())
}
