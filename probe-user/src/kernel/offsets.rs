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
        signal_live: btf.offset("signal_struct", "live")?,
        binprm_filename: btf.offset("linux_binprm", "filename")?,
        vma_start: btf.offset("vm_area_struct", "vm_start")?,
        vma_end: btf.offset("vm_area_struct", "vm_end")?,
        vma_pgoff: btf.offset("vm_area_struct", "vm_pgoff")?,
        vma_flags: btf.offset("vm_area_struct", "vm_flags")?,
        vma_file: btf.offset("vm_area_struct", "vm_file")?,
        file_inode: btf.offset("file", "f_inode")?,
        file_dentry: btf.offset("file", "f_path.dentry")?,
        dentry_name: btf.offset("dentry", "d_name.name")?,
        inode_number: btf.offset("inode", "i_ino")?,
        inode_superblock: btf.offset("inode", "i_sb")?,
        superblock_device: btf.offset("super_block", "s_dev")?,
        padding: 0,
    })
}
