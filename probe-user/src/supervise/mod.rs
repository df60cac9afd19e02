//! The supervisor of the daemon: it starts the collector and the server, starts again whichever ends, hands signals on, and
//! tells the service manager how they are. It does nothing else, so that there is nothing in it that could fail: no
//! sockets, no threads, no state but its processes.

mod heart;
mod manager;
mod pulse;
mod reload;
mod signals;
mod ward;

use std::ffi::OsString;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

pub use heart::{Beat, Heart};
use manager::Manager;
pub use pulse::{Pulse, Stuck, stuck};
use reload::{Outcome, Reload};
use signals::Signals;
use ward::{Ward, manner};

/// How long processes may take to end, once they are told to, before they are killed. With what killing takes it is under
/// five seconds.
const PATIENCE: Duration = Duration::from_millis(4500);

/// How often it is looked after things that nobody tells of.
const LOOK: Duration = Duration::from_secs(1);

/// And while the configuration is being changed.
const SOON: Duration = Duration::from_millis(100);

/// A process to be kept alive: its name, and the arguments by which this program becomes it.
pub type Job = (&'static str, Vec<OsString>);

/// Runs them until SIGTERM or SIGINT comes. A process that fails before it ever was ready ends it all, with its exit code:
/// whoever starts a daemon that cannot work is to know. By the arguments `check` this program says whether a configuration is
/// right.
pub fn run(jobs: Vec<Job>, check: Vec<OsString>) -> Result<ExitCode> {
    let signals = Signals::listen()?;
    let mut supervisor = Supervisor {
        wards: jobs.into_iter().map(|(name, arguments)| Ward::new(name, arguments)).collect(),
        manager: Manager::new(),
        reload: Reload::new(check),
        stop: None,
        stopped: None,
        exit: ExitCode::SUCCESS,
    };
    loop {
        supervisor.look();
        if supervisor.is_done() {
            return Ok(supervisor.exit);
        }
        supervisor.wait(&signals);
        while let Some(signal) = signals.next() {
            supervisor.hear(signal);
        }
    }
}

struct Supervisor {
    wards: Vec<Ward>,
    manager: Manager,
    reload: Reload,
    /// By when all have to have ended.
    stop: Option<Instant>,
    /// When they were told to.
    stopped: Option<Instant>,
    exit: ExitCode,
}

impl Supervisor {
    fn is_done(&self) -> bool {
        self.stop.is_some() && !self.wards.iter().any(Ward::is_running)
    }

    fn look(&mut self) {
        let now = Instant::now();
        let mut is_refused = false;
        for index in 0..self.wards.len() {
            let ward = &mut self.wards[index];
            let name = ward.name;
            for beat in ward.heard(now) {
                match beat {
                    Beat::Ready => tracing::debug!("the {name} is ready"),
                    Beat::Refused => is_refused = true,
                    Beat::Alive | Beat::Prepared(_) | Beat::Reloaded => {}
                }
            }
            if let Some(status) = self.wards[index].ended(now) {
                self.ended(index, status, now);
            }
            if self.stop.is_none() {
                self.wards[index].start_if_due(now);
                self.wards[index].end_if_hanging(now);
            }
        }
        if self.stop.is_some_and(|stop| stop <= now) {
            tracing::error!("not all processes ended in time: they are killed");
            self.signal_all(Signal::KILL);
            self.stop = Some(now + LOOK);
        }
        if self.stop.is_none() {
            let refused = if is_refused { self.reload.refused(&mut self.wards) } else { None };
            let outcome = refused.or_else(|| self.reload.look(&mut self.wards, now));
            if outcome == Some(Outcome::Refused) {
                self.manager.say("a wrong configuration was refused; see the log");
            }
            if outcome.is_some() {
                self.manager.reloaded();
            }
            self.manager.tell(&self.wards, now);
        }
    }

    fn ended(&mut self, index: usize, status: ExitStatus, now: Instant) {
        let ward = &self.wards[index];
        let (name, manner) = (ward.name, manner(status));
        if self.stop.is_some() {
            tracing::debug!("the {name} ended {manner}");
            return;
        }
        match status.code() {
            Some(0) => tracing::info!("the {name} is restarted"),
            Some(code) if !ward.was_ready => {
                tracing::debug!("the {name} ended {manner} before it was ready");
                self.exit = ExitCode::from(u8::try_from(code).unwrap_or(1));
                self.stop();
            }
            _ => {
                let pause = ward.due().map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
                tracing::error!("the {name} ended {manner}; it is started again in {} ms", pause.as_millis());
            }
        }
    }

    fn hear(&mut self, signal: Signal) {
        match signal {
            Signal::HUP => {
                self.manager.reloading();
                self.reload.begin();
            }
            Signal::TERM | Signal::INT if self.stop.is_none() => {
                tracing::info!("stopping");
                self.stop();
            }
            // To the process and to its group: the same wish.
            Signal::TERM | Signal::INT if self.stopped.is_some_and(|at| at.elapsed() < LOOK) => {}
            Signal::TERM | Signal::INT => {
                self.exit = ExitCode::from(130);
                self.signal_all(Signal::KILL);
            }
            _ => {}
        }
    }

    fn stop(&mut self) {
        self.manager.stopping();
        self.signal_all(Signal::TERM);
        self.stopped = Some(Instant::now());
        self.stop = Some(Instant::now() + PATIENCE);
    }

    fn signal_all(&self, signal: Signal) {
        for ward in &self.wards {
            ward.signal(signal);
        }
    }

    /// Until there is something to do, or a second.
    fn wait(&self, signals: &Signals) {
        let now = Instant::now();
        let due = self.wards.iter().filter_map(Ward::due).filter(|_| self.stop.is_none()).chain(self.stop);
        let look = if self.reload.is_under_way() { SOON } else { LOOK };
        let wait = due.map(|due| due.saturating_duration_since(now)).chain([look]).min().unwrap_or(look);
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        let mut descriptors: Vec<PollFd<'_>> = vec![PollFd::new(signals, PollFlags::IN)];
        descriptors
            .extend(self.wards.iter().filter_map(Ward::pipe).map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
        // A failure is an interruption: whatever it was is looked for.
        let polled = poll(&mut descriptors, Some(&wait));
        let is_hung_up = |descriptor: &PollFd<'_>| descriptor.revents().contains(PollFlags::HUP);
        if polled.is_err() || descriptors.iter().any(is_hung_up) {
            // Its process is about to end: it need not be asked a thousand times.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
