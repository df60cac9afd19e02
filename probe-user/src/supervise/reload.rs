//! Going on by another configuration: one change of both processes, or none. First a process of its own checks the file as
//! the server's user, because neither of the others could: one has no network to check for, the other no privileges to
//! become somebody. Then each process checks the file with all that it holds; and when both could go on by the same
//! configuration, both are told to.

use std::ffi::OsString;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::ward::{Ward, own_program};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has a process check its configuration; [`SWITCH`] has it go on by that, [`FORGET`] as before.
const CHECK: Signal = Signal::HUP;
const SWITCH: Signal = Signal::USR1;
const FORGET: Signal = Signal::USR2;

/// How often both are asked again because they have read different files: somebody was writing.
const MOST_TRIES: u32 = 3;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Reload {
    /// The arguments by which this program checks the configuration.
    check: Vec<OsString>,
    step: Option<Step>,
    since: Instant,
    tries: u32,
    /// It was asked for again meanwhile.
    is_due: bool,
}

#[derive(Debug)]
enum Step {
    Check(Child),
    /// Until both are ready to be asked.
    Wait,
    Prepare,
    Switch,
}

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Reloaded,
    Refused,
}

impl Reload {
    pub(super) fn new(check: Vec<OsString>) -> Self {
        Self { check, step: None, since: Instant::now(), tries: 0, is_due: false }
    }

    /// Whether there is something to look after soon.
    pub(super) fn is_under_way(&self) -> bool {
        self.step.is_some()
    }

    /// It is asked for.
    pub(super) fn begin(&mut self) {
        self.is_due = true;
    }

    /// A process said that it will not go on by the other configuration.
    pub(super) fn refused(&mut self, wards: &mut [Ward]) -> Option<Outcome> {
        self.step.as_ref()?;
        Some(self.end(wards, Outcome::Refused))
    }

    /// Does what is next.
    pub(super) fn look(&mut self, wards: &mut [Ward], now: Instant) -> Option<Outcome> {
        if self.step.is_none() {
            if !std::mem::take(&mut self.is_due) {
                return None;
            }
            (self.since, self.tries) = (now, 0);
            match self.start() {
                Ok(child) => self.step = Some(Step::Check(child)),
                Err(error) => {
                    tracing::error!("the configuration stays as it was: {error:#}");
                    return Some(Outcome::Refused);
                }
            }
        }
        if now.saturating_duration_since(self.since) >= PATIENCE {
            tracing::error!("the configuration stays as it was: a process did not answer in time");
            return Some(self.end(wards, Outcome::Refused));
        }
        match self.step.as_mut()? {
            Step::Check(child) => match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) if status.success() => self.step = Some(Step::Wait),
                // It has said why.
                _ => return Some(self.end(wards, Outcome::Refused)),
            },
            Step::Wait => {
                if wards.iter().all(|ward| ward.is_ready) {
                    wards.iter_mut().for_each(|ward| ward.ask(CHECK));
                    self.step = Some(Step::Prepare);
                }
            }
            Step::Prepare => {
                let prepared: Vec<Option<u64>> = wards.iter().map(|ward| ward.prepared).collect();
                if wards.iter().any(|ward| !ward.is_ready) {
                    // One has ended meanwhile: it has read whatever there is, and the other is to have the same.
                    self.forget(wards);
                    self.step = Some(Step::Wait);
                } else if wards.iter().all(|ward| !ward.is_asked) {
                    let is_same =
                        prepared.windows(2).all(|two| two[0] == two[1]) && prepared.iter().all(Option::is_some);
                    self.tries += 1;
                    if is_same {
                        wards.iter_mut().for_each(|ward| ward.ask(SWITCH));
                        self.step = Some(Step::Switch);
                    } else if self.tries >= MOST_TRIES {
                        tracing::error!("the configuration stays as it was: it was changed while it was read");
                        return Some(self.end(wards, Outcome::Refused));
                    } else {
                        self.forget(wards);
                        self.step = Some(Step::Wait);
                    }
                }
            }
            Step::Switch => {
                if wards.iter().all(|ward| !ward.is_asked) {
                    return Some(self.end(wards, Outcome::Reloaded));
                }
            }
        }
        None
    }

    fn start(&self) -> Result<Child> {
        own_program().args(&self.check).stdout(Stdio::null()).spawn().context("cannot run this program again")
    }

    fn forget(&self, wards: &mut [Ward]) {
        for ward in wards.iter_mut().filter(|ward| ward.prepared.is_some()) {
            ward.signal(FORGET);
            ward.prepared = None;
        }
    }

    fn end(&mut self, wards: &mut [Ward], outcome: Outcome) -> Outcome {
        if let Some(Step::Check(mut child)) = self.step.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if outcome == Outcome::Refused {
            self.forget(wards);
        }
        wards.iter_mut().for_each(|ward| ward.is_asked = false);
        outcome
    }
}
