//! Can what the flags name be looked at?

use anyhow::{Result, bail};

use crate::problem::{Exit, PRIVILEGES, Problem};
use crate::target;

/// Fails unless this process sees the host's process ids, and each of `pids` is a process that runs and may be looked into.
pub fn check(pids: &[u32]) -> Result<()> {
    if !target::own_pid_namespace_is_initial()? {
        bail!(Problem::new(
            Exit::NotPermitted,
            "this is a pid namespace of its own: process ids here are not the kernel's",
            "run on the host, or share its pid namespace (hostPID: true, --pid=host)"
        ));
    }
    for &pid in pids {
        match target::process_of_thread(pid) {
            Some(process) if process == pid && target::is_running(pid) => {
                if let Err(error) = target::check_access(pid) {
                    let message = format!("not allowed to inspect process {pid}: {error}");
                    bail!(Problem::new(Exit::NotPermitted, message, PRIVILEGES));
                }
            }
            Some(process) if process == pid => bail!(Problem::new(
                Exit::NoTarget,
                format!("process {pid} has ended: it is a zombie that its parent has not reaped"),
                "`pgrep -a NAME` finds processes by name"
            )),
            Some(process) => bail!(Problem::new(
                Exit::Usage,
                format!("{pid} is a thread of process {process}"),
                format!("record the process with -p {process} -t, which tells its threads apart")
            )),
            None => bail!(Problem::new(
                Exit::NoTarget,
                format!("there is no process with pid {pid}"),
                "`pgrep -a NAME` finds processes by name"
            )),
        }
    }
    Ok(())
}

/// Fails if one of the processes is the kernel's own: it has no program whose functions or memory could be looked at.
pub fn check_programs(pids: &[u32]) -> Result<()> {
    if let Some(pid) = pids.iter().find(|&&pid| target::is_kernel_thread(pid)) {
        bail!(Problem::new(
            Exit::Usage,
            format!("process {pid} is a thread of the kernel: it runs no program, and has no memory of its own"),
            format!("`probe record -p {pid}` and `probe dump -p {pid}` show what it does in the kernel")
        ));
    }
    Ok(())
}
