//! Starts a command that waits between fork and exec, until something is done about the process that it is.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use anyhow::{Context, Result};

/// Starts the command; `prepare` is called with the process id before it runs.
pub fn spawn(mut command: Command, prepare: impl FnOnce(u32) + Send) -> Result<Child> {
    // Both are closed on exec.
    let (mut told, tell) = io::pipe().context("cannot create a pipe")?;
    let (wait, mut open) = io::pipe().context("cannot create a pipe")?;
    hold_back(&mut command, tell, wait);
    std::thread::scope(|scope| {
        // The start returns only when the command runs.
        scope.spawn(move || {
            let mut pid = [0; 4];
            if told.read_exact(&mut pid).is_ok() {
                prepare(u32::from_ne_bytes(pid));
            }
            // Whatever came of it, the command goes on; it may be gone.
            let _ = open.write_all(&[0]);
        });
        let child = command.spawn();
        // With it goes the last end by which the thread could be told of a process, should there be none.
        drop(command);
        Ok(child?)
    })
}

#[expect(unsafe_code, reason = "the only way to do something in a child before its program runs")]
fn hold_back(command: &mut Command, mut tell: PipeWriter, mut wait: PipeReader) {
    let hold_back = move || {
        tell.write_all(&std::process::id().to_ne_bytes())?;
        wait.read_exact(&mut [0])
    };
    // SAFETY: between fork and exec only getpid, write and read are called, which allocate nothing and take no lock.
    unsafe { command.pre_exec(hold_back) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::exists;

    #[test]
    fn a_command_is_prepared_before_it_runs() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ran");
        let mut command = Command::new("touch");
        command.arg(&file);
        let mut prepared = 0;
        let mut child = spawn(command, |pid| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(exists(pid) && !file.exists(), "it does not run yet");
            prepared = pid;
        })
        .expect("it starts");
        assert_eq!(prepared, child.id());
        assert!(child.wait().expect("it ends").success() && file.exists());
        assert!(spawn(Command::new("/nowhere/program"), |_| {}).is_err());
    }
}
