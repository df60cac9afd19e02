//! What user space tells the programs: settings, offsets in the kernel's structs, generations.

use super::assert_packed;

/// Numbers that go up when something that was looked up may have changed: index into the generations.
pub mod generation {
    /// Stacks that were taken may mean something else, or have been forgotten by user space.
    pub const STACKS: u32 = 0;
    /// A process may have become a target, or none, by user space.
    pub const TARGETS: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// What a sample stands for, in nanoseconds, where its own period is not a time; 0 where it is one. Index into the periods.
pub mod period {
    /// Of the usual sampler.
    pub const USUAL: u32 = 0;
    /// Of that for targets that are [`super::super::target_flags::FAST`].
    pub const FAST: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// Settings of the programs, fixed when they are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// 1: every process is a target.
    pub all: u32,
    /// 1: processes that may become targets are kept as newcomers until user space looks at them.
    pub newcomers: u32,
    /// 1: user stacks are taken.
    pub user_stacks: u32,
    /// 1: kernel stacks are taken.
    pub kernel_stacks: u32,
    /// Waits below this are left out, in nanoseconds.
    pub min_wait_ns: u64,
    /// Waits above this are left out, in nanoseconds.
    pub max_wait_ns: u64,
    /// 1: each wait is handed over by itself.
    pub each_wait: u64,
    /// Time between two page faults that are looked at on a CPU, on average and at least, in nanoseconds; 0: memory is not followed.
    pub fault_gap_ns: u64,
    /// 1: sampled allocations are followed until they are freed.
    pub follow_live: u32,
    /// Hits are counted by CPU and function: so many functions for each CPU, those that there are and what fills a line of
    /// the processor's cache.
    pub hits_per_cpu: u32,
    /// Offsets of the kernel's fields.
    pub offsets: Offsets,
}

/// Byte offsets of the fields that the programs read, looked up in the running kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Offsets {
    /// `task_struct.flags`
    pub task_flags: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `task_struct.__state`
    pub task_state: u32,
    /// `task_struct.exit_state`
    pub task_exit_state: u32,
    /// `task_struct.on_cpu`
    pub task_on_cpu: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.se.sum_exec_runtime`
    pub task_runtime: u32,
    /// `task_struct.se.prev_sum_exec_runtime`
    pub task_runtime_at_arrival: u32,
    /// `task_struct.sched_info.last_arrival`; [`Offsets::MISSING`] in kernels without
    pub task_arrival: u32,
    /// `task_struct.sched_info.last_queued`; [`Offsets::MISSING`] in kernels without
    pub task_queued: u32,
    /// `task_struct.real_parent`
    pub task_parent: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `linux_binprm.filename`
    pub binprm_filename: u32,
    /// `task_struct.thread.fsbase`; [`Offsets::MISSING`] where a thread's own memory is found in another way
    pub task_thread_memory: u32,
    /// `task_struct.mm`
    pub task_memory: u32,
    /// `mm_struct.mm_mt.ma_root`, the root of the tree of mappings; [`Offsets::MISSING`] where its nodes are not as in Linux 6.1
    pub memory_root: u32,
    /// `vm_area_struct.vm_mm`
    pub vma_memory: u32,
    /// `vm_area_struct.vm_start`
    pub vma_start: u32,
    /// `vm_area_struct.vm_end`
    pub vma_end: u32,
    /// `vm_area_struct.vm_pgoff`
    pub vma_page: u32,
    /// `vm_area_struct.vm_file`
    pub vma_file: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_sb`
    pub inode_super: u32,
    /// Seconds of the time of change of an inode, whose name differs between kernels.
    pub inode_changed: u32,
    /// The nanoseconds.
    pub inode_changed_ns: u32,
    /// `super_block.s_dev`
    pub super_device: u32,
    /// Always zero.
    pub zero: u32,
}

impl Offsets {
    /// In place of the offset of a field that this kernel lacks.
    pub const MISSING: u32 = u32::MAX;
}

assert_packed! {
    Settings {
        all, newcomers, user_stacks, kernel_stacks, min_wait_ns, max_wait_ns, each_wait, fault_gap_ns,
        follow_live, hits_per_cpu,
        offsets,
    }
    Offsets {
        task_flags, task_pid, task_tgid, task_signal, task_state, task_exit_state, task_on_cpu, task_comm, task_runtime,
        task_runtime_at_arrival, task_arrival, task_queued, task_parent, signal_live, binprm_filename,
        task_thread_memory, task_memory, memory_root, vma_memory,
        vma_start, vma_end, vma_page, vma_file, file_inode, inode_number, inode_super, inode_changed, inode_changed_ns,
        super_device, zero,
    }
}
