//! `Timer`: times functions by kernel programs of its own.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, eventfd};

use super::function::Function;
use super::timing::{Reading, Slot, Timing};
use crate::kernel::{self, Event, Judgement, Sampler, WaitFilter};

/// One set of programs for functions of any number of processes.
pub struct Timer {
    // Dropped first: what the programs see is nobody's then.
    timing: Timing,
    sampler: Sampler,
    /// For [`Sampler::read`], which nobody interrupts here.
    alarm: OwnedFd,
}

impl Timer {
    /// Loads the programs, with room for so many functions of processes, and measures what a hit costs.
    pub fn load(slots: u32) -> Result<Self> {
        let mut sampler = Sampler::load(&kernel::Options {
            frequency: 1,
            fast_frequency: 0,
            all: false,
            newcomers: false,
            origins: false,
            user_stacks: false,
            kernel_stacks: false,
            waits: WaitFilter::default(),
            faults: 0,
            heap: kernel::HeapOptions::default(),
            // One more, to measure with.
            functions: slots + 1,
        })?;
        let timing = Timing::new(&mut sampler, slots)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot create an eventfd")?;
        Ok(Self { timing, sampler, alarm })
    }

    /// Asks what is timed, with the programs at hand.
    pub fn ask<T>(&mut self, ask: impl FnOnce(&mut Timing, &mut Sampler) -> T) -> T {
        ask(&mut self.timing, &mut self.sampler)
    }

    /// See [`Timing::add`].
    pub fn add(&mut self, pid: u32, function: Function, budget: f64) -> Result<Option<Slot>> {
        self.timing.add(&mut self.sampler, pid, function, budget)
    }

    /// See [`Timing::judge`].
    pub fn judge(&mut self, slot: Slot, judgement: Judgement, has_threshold: bool) -> Result<()> {
        self.timing.judge(&mut self.sampler, slot, judgement, has_threshold)
    }

    /// See [`Timing::remove`].
    pub fn remove(&mut self, slot: Slot) {
        self.timing.remove(slot);
    }

    /// See [`Timing::forget`].
    pub fn forget(&mut self, pid: u32) {
        self.timing.forget(pid);
    }

    /// See [`Timing::set_budget`].
    pub fn set_budget(&mut self, pid: u32, budget: f64) {
        self.timing.set_budget(pid, budget);
    }

    /// What has happened to the processes of the host since the last call.
    pub fn events(&mut self, handle: impl FnMut(Event)) -> Result<()> {
        self.sampler.read(Duration::ZERO, self.alarm.as_fd(), handle)
    }

    /// See [`Timing::pause`].
    pub fn pause(&self) -> Duration {
        self.timing.pause()
    }

    /// Keeps the budgets: to be called after every [`Self::pause`].
    pub fn look(&mut self) -> Result<()> {
        self.timing.look(&mut self.sampler)
    }

    /// See [`Timing::take_failed`].
    pub fn take_failed(&mut self) -> Vec<(u32, anyhow::Error)> {
        self.timing.take_failed()
    }

    /// See [`Timing::readings`].
    pub fn readings(&mut self, is_wanted: impl Fn(Slot) -> bool) -> Result<Vec<(Slot, Reading)>> {
        self.timing.readings(&mut self.sampler, is_wanted)
    }
}
