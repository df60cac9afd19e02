//! Memory: the programs that tell where it becomes resident, and where it is mapped and unmapped.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData};
use aya::programs::{BtfTracePoint, FExit};

use super::sampler::permission;
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
        let btf = aya::Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        // What ends a choice comes before what makes it.
        attach(ebpf, &btf, "on_page", "mm_page_alloc")?;
        attach(ebpf, &btf, "on_fault", "page_fault_user")?;
        attach(ebpf, &btf, "on_kernel_fault", "page_fault_kernel")?;
        if mappings && let Err(error) = trace(ebpf, &btf) {
            tracing::debug!("mappings are seen at the end of all system calls: {error:#}");
            attach(ebpf, &btf, "on_syscall", "sys_exit")?;
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

fn attach(ebpf: &mut Ebpf, btf: &aya::Btf, name: &str, tracepoint: &str) -> Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(tracepoint, btf).map_err(|error| permission(&format!("load the program for {tracepoint}"), error))?;
    program.attach().map_err(|error| permission(&format!("attach to {tracepoint}"), error))?;
    Ok(())
}

/// All of [`MAPPINGS`], or none of them: each change is told once.
fn trace(ebpf: &mut Ebpf, btf: &aya::Btf) -> Result<()> {
    for (name, function) in MAPPINGS {
        let program = fexit(ebpf, name)?;
        program.load(function, btf).with_context(|| format!("cannot load the program for {function}"))?;
    }
    let mut attached = Vec::with_capacity(MAPPINGS.len());
    for (name, function) in MAPPINGS {
        match fexit(ebpf, name)?.attach() {
            Ok(link) => attached.push((name, link)),
            Err(error) => {
                for (name, link) in attached {
                    fexit(ebpf, name)?.detach(link)?;
                }
                return Err(error).with_context(|| format!("cannot attach to {function}"));
            }
        }
    }
    Ok(())
}

fn fexit<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut FExit> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}
