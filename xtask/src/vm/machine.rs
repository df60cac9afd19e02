//! The virtual machine: an emulated PC with two serial ports. The kernel writes to the first, which is kept in a file; the
//! checks write to the second, which is read here line by line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;

/// The program that emulates.
pub const EMULATOR: &str = "qemu-system-x86_64";

/// Boots a kernel from its file and hands over what the second port says, until the machine is switched off. Too long a run is
/// an error.
pub fn run(
    kernel: &Kernel,
    file: &Path,
    image: &Path,
    console: &Path,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<()> {
    let mut command = Command::new(EMULATOR);
    // By software, so that it runs on any machine, in virtual ones and containers too.
    command.arg("-accel").arg(format!("tcg,thread={}", kernel.thread));
    command.args(["-cpu", "max", "-smp", "2", "-m", "1024", "-no-reboot"]);
    // Level 5 shows warnings, which is how the kernel complains of itself.
    command.args(["-nodefaults", "-display", "none"]);
    command.arg("-append").arg(format!("console=ttyS0 panic=-1 loglevel=5 {}", kernel.arguments));
    command.arg("-kernel").arg(file).arg("-initrd").arg(image);
    command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut machine = Machine(child.with_context(|| format!("cannot run {EMULATOR}"))?);
    let port = machine.0.stdout.take().context("the output is piped")?;

    let deadline = Instant::now() + limit;
    // The machine waits while nobody takes what it says.
    let (send, lines) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        for bytes in BufReader::new(port).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned();
            if send.send(text).is_err() {
                break; // nobody waits for the answer any more
            }
        }
    });
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("the virtual machine still runs after {} s", limit.as_secs()),
        }
    }
    let status = machine.0.wait()?;
    if !status.success() {
        bail!("{EMULATOR} failed: {status}");
    }
    Ok(())
}

/// Ended when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
