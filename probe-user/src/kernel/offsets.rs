//! The kernel fields that the programs read, looked up once at start.

use anyhow::{Result, ensure};
use probe_ebpf::abi::{COMM_LEN, Offsets};

use super::btf::Btf;

/// Looks all of them up, with the bytes that are read of each; fails on a kernel that lacks one which nothing goes without.
pub fn look_up(btf: &Btf) -> Result<Offsets> {
    let mut offsets = Offsets {
        task_flags: btf.offset("task_struct", "flags", 4)?,
        task_pid: btf.offset("task_struct", "pid", 4)?,
        task_tgid: btf.offset("task_struct", "tgid", 4)?,
        task_signal: btf.offset("task_struct", "signal", 8)?,
        task_state: btf.offset("task_struct", "__state", 4)?,
        task_exit_state: btf.offset("task_struct", "exit_state", 4)?,
        // Only kernels for a single CPU lack it: there, whoever reads is the one who runs.
        task_on_cpu: btf.offset("task_struct", "on_cpu", 1)?,
        task_comm: btf.offset("task_struct", "comm", COMM_LEN as u32)?,
        task_runtime: btf.offset("task_struct", "se.sum_exec_runtime", 8)?,
        task_runtime_at_arrival: btf.offset("task_struct", "se.prev_sum_exec_runtime", 8)?,
        // Kernels without CONFIG_SCHED_INFO do not know since when threads wait.
        task_arrival: btf.offset("task_struct", "sched_info.last_arrival", 8).unwrap_or(Offsets::MISSING),
        task_queued: btf.offset("task_struct", "sched_info.last_queued", 8).unwrap_or(Offsets::MISSING),
        task_parent: btf.offset("task_struct", "real_parent", 8)?,
        signal_live: btf.offset("signal_struct", "live", 4)?,
        binprm_filename: btf.offset("linux_binprm", "filename", 8)?,
        task_thread_memory: btf.offset("task_struct", "thread.fsbase", 8).unwrap_or(Offsets::MISSING),
        ..Offsets::default()
    };
    if let Err(error) = of_mappings(btf, &mut offsets) {
        tracing::debug!("new programs are unwound when user space knows what they map: {error:#}");
        offsets.memory_root = Offsets::MISSING;
    }
    Ok(offsets)
}

/// What leads from a process to the files that it has mapped.
fn of_mappings(btf: &Btf, offsets: &mut Offsets) -> Result<()> {
    offsets.task_memory = btf.offset("task_struct", "mm", 8)?;
    offsets.memory_root = memory_root(btf)?;
    offsets.vma_memory = btf.offset("vm_area_struct", "vm_mm", 8)?;
    offsets.vma_start = btf.offset("vm_area_struct", "vm_start", 8)?;
    offsets.vma_end = btf.offset("vm_area_struct", "vm_end", 8)?;
    offsets.vma_page = btf.offset("vm_area_struct", "vm_pgoff", 8)?;
    offsets.vma_file = btf.offset("vm_area_struct", "vm_file", 8)?;
    offsets.file_inode = btf.offset("file", "f_inode", 8)?;
    offsets.inode_number = btf.offset("inode", "i_ino", 8)?;
    offsets.inode_super = btf.offset("inode", "i_sb", 8)?;
    // The name up to Linux 6.5, up to 6.10, and since.
    offsets.inode_changed = btf
        .offset("inode", "i_ctime.tv_sec", 8)
        .or_else(|_| btf.offset("inode", "__i_ctime.tv_sec", 8))
        .or_else(|_| btf.offset("inode", "i_ctime_sec", 8))?;
    offsets.inode_changed_ns = btf
        .offset("inode", "i_ctime.tv_nsec", 4)
        .or_else(|_| btf.offset("inode", "__i_ctime.tv_nsec", 4))
        .or_else(|_| btf.offset("inode", "i_ctime_nsec", 4))?;
    offsets.super_device = btf.offset("super_block", "s_dev", 4)?;
    Ok(())
}

/// Where the tree of a process's mappings begins, if its nodes are as the programs know them (`probe-ebpf/src/file.rs`). On other
/// kernels, of which none is known, processes are unwound when they have been told of.
fn memory_root(btf: &Btf) -> Result<u32> {
    let nodes = [
        ("maple_range_64", "pivot", 15 * 8, 8),
        ("maple_range_64", "slot", 16 * 8, 128),
        ("maple_arange_64", "pivot", 9 * 8, 8),
        ("maple_arange_64", "slot", 10 * 8, 80),
    ];
    let are_known = nodes
        .iter()
        .all(|&(node, member, bytes, at)| btf.offset(node, member, bytes).is_ok_and(|offset: u32| offset == at));
    ensure!(are_known, "the kernel's trees of mappings are not known");
    btf.offset("mm_struct", "mm_mt.ma_root", 8)
}
