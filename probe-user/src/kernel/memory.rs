//! Memory: the programs that tell where it becomes resident, and where it is mapped and unmapped.

use anyhow::Result;
use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData};

use super::attach;
use crate::target;

/// The heaps' ends, which `brk` moves.
pub(super) struct Memory {
    breaks: HashMap<MapData, u32, u64>,
    has_mappings: bool,
}

/// Programs at the ends of the system calls that map and unmap: other calls are as fast as ever.
const MAPPINGS: [(&str, &str); 8] = [
    ("on_mmap", "__x64_sys_mmap"),
    ("on_munmap", "__x64_sys_munmap"),
    ("on_brk", "__x64_sys_brk"),
    ("on_mremap", "__x64_sys_mremap"),
    ("on_madvise", "__x64_sys_madvise"),
    ("on_mlock", "__x64_sys_mlock"),
    ("on_mlock2", "__x64_sys_mlock2"),
    ("on_mlockall", "__x64_sys_mlockall"),
];

/// Fails if the entry is there.
const BPF_NOEXIST: u64 = 1;

impl Memory {
    pub(super) fn new(breaks: Map) -> Result<Self> {
        Ok(Self { breaks: HashMap::try_from(breaks)?, has_mappings: false })
    }

    /// Looks at page faults from now on, and if `mappings` at the system calls that map and unmap, too. Kernels that let no
    /// functions be traced have nothing but the end of all system calls for that, which slows down those of every process.
    pub(super) fn start(&mut self, ebpf: &mut Ebpf, mappings: bool) -> Result<()> {
        let types = attach::types()?;
        // What ends a choice comes before what makes it.
        attach::tracepoint(ebpf, &types, "on_page", "mm_page_alloc")?;
        attach::tracepoint(ebpf, &types, "on_fault", "page_fault_user")?;
        attach::tracepoint(ebpf, &types, "on_kernel_fault", "page_fault_kernel")?;
        if mappings && let Err(error) = attach::functions(ebpf, &types, &MAPPINGS) {
            tracing::debug!("mappings are seen at the end of all system calls: {error:#}");
            attach::tracepoint(ebpf, &types, "on_syscall", "sys_exit")?;
        }
        self.has_mappings = mappings;
        Ok(())
    }

    /// Tells of the heap that a process has already.
    pub(super) fn watch(&mut self, pid: u32) {
        if self.has_mappings
            && let Some(end) = target::heap_end(pid)
        {
            // There is one if it has grown meanwhile.
            let _ = self.breaks.insert(pid, end, BPF_NOEXIST);
        }
    }
}
