//! The kernel fields that the programs read, looked up once at start.

use anyhow::Result;
use probe_ebpf::abi::Offsets;

use super::btf::Btf;

/// Looks all of them up; fails on a kernel that lacks one.
pub fn look_up(btf: &Btf) -> Result<Offsets> {
    Ok(Offsets {
        task_flags: btf.offset("task_struct", "flags")?,
        task_pid: btf.offset("task_struct", "pid")?,
        task_tgid: btf.offset("task_struct", "tgid")?,
        task_signal: btf.offset("task_struct", "signal")?,
        task_state: btf.offset("task_struct", "__state")?,
        task_exit_state: btf.offset("task_struct", "exit_state")?,
        // Only kernels for a single CPU lack it: there, whoever reads is the one who runs.
        task_on_cpu: btf.offset("task_struct", "on_cpu")?,
        task_comm: btf.offset("task_struct", "comm")?,
        task_runtime: btf.offset("task_struct", "se.sum_exec_runtime")?,
        task_runtime_at_arrival: btf.offset("task_struct", "se.prev_sum_exec_runtime")?,
        // Kernels without CONFIG_SCHED_INFO do not know since when threads wait.
        task_arrival: btf.offset("task_struct", "sched_info.last_arrival").unwrap_or(Offsets::MISSING),
        task_queued: btf.offset("task_struct", "sched_info.last_queued").unwrap_or(Offsets::MISSING),
        task_parent: btf.offset("task_struct", "real_parent")?,
        signal_live: btf.offset("signal_struct", "live")?,
        binprm_filename: btf.offset("linux_binprm", "filename")?,
        task_thread_memory: btf.offset("task_struct", "thread.fsbase").unwrap_or(Offsets::MISSING),
        vma_start: btf.offset("vm_area_struct", "vm_start")?,
        vma_end: btf.offset("vm_area_struct", "vm_end")?,
        vma_page: btf.offset("vm_area_struct", "vm_pgoff")?,
        vma_file: btf.offset("vm_area_struct", "vm_file")?,
        file_inode: btf.offset("file", "f_inode")?,
        inode_number: btf.offset("inode", "i_ino")?,
        inode_super: btf.offset("inode", "i_sb")?,
        // The name up to Linux 6.5, up to 6.10, and since.
        inode_changed: btf
            .offset("inode", "i_ctime.tv_sec")
            .or_else(|_| btf.offset("inode", "__i_ctime.tv_sec"))
            .or_else(|_| btf.offset("inode", "i_ctime_sec"))?,
        inode_changed_ns: btf
            .offset("inode", "i_ctime.tv_nsec")
            .or_else(|_| btf.offset("inode", "__i_ctime.tv_nsec"))
            .or_else(|_| btf.offset("inode", "i_ctime_nsec"))?,
        super_device: btf.offset("super_block", "s_dev")?,
    })
}
