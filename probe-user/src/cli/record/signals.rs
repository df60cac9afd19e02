//! Ctrl-C and its kin: the first ends the recording, the second quits and leaves nothing behind.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::tell;

/// Exit code after the second signal.
pub const QUIT: u8 = 130;

/// The signals that came, and what must be cleared away when the next one quits.
#[derive(Debug, Default)]
pub struct Signals {
    count: AtomicU32,
    leftovers: Mutex<Leftovers>,
}

/// What would outlive a process that quits.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// A file that is not written to its end.
    pub file: Option<PathBuf>,
    /// A command that we have started and not waited for yet.
    pub command: Option<Pid>,
}

impl Signals {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on.
    pub fn listen() -> Result<Arc<Self>> {
        let signals = Arc::new(Self::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Listened for from here on, not only when the thread has begun.
        let (mut interrupt, mut terminate, mut hang_up) = {
            let _inside = runtime.enter();
            // Under nohup the end of the terminal is nothing to us.
            let hang_up = if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, hang_up)
        };
        let counted = Arc::clone(&signals);
        let listen = async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = async { hang_up.as_mut().expect("guarded").recv().await }, if hang_up.is_some() => {}
                }
                if counted.count.fetch_add(1, Ordering::Relaxed) > 0 {
                    counted.quit();
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(listen))?;
        Ok(signals)
    }

    /// True when the recording shall end.
    pub fn came(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// What must be cleared away. Nothing quits while this is held.
    pub fn leftovers(&self) -> MutexGuard<'_, Leftovers> {
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quit(&self) -> ! {
        // Held to the end, so that nothing is added any more.
        let mut leftovers = self.leftovers();
        if let Some(file) = leftovers.file.take() {
            let _ = std::fs::remove_file(file);
        }
        if let Some(command) = leftovers.command.take() {
            let _ = kill_process(command, Signal::TERM);
        }
        tell("stopped; nothing was written");
        std::process::exit(i32::from(QUIT));
    }
}

fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
