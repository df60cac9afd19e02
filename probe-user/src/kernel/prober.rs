//! `Prober`: sets probes on a thread of its own, so that nobody waits who reads events.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use super::heap::{Layout, Layouts};
use super::multi::Multi;
use super::placing::Elsewhere;
use super::text::Refused;
use super::uprobes::{Probes, Wanted, set_alike};

/// See the head of this file.
#[derive(Clone)]
pub struct Prober {
    pub(super) multi: Option<Arc<Mutex<Multi>>>,
    pub(super) elsewhere: Arc<Elsewhere>,
    pub(super) layouts: Arc<Mutex<Layouts>>,
}

impl Prober {
    /// Sets probes in their order into a process. `None` where only the thread that reads events can do so, because the
    /// kernel knows no links for many probes, or where it does not work: how that is, the other way will say. Fails with
    /// [`Refused`] where the process runs something else than its file has.
    pub fn set(&self, pid: u32, wanted: &[Wanted]) -> Result<Option<Vec<Probes>>> {
        let Some(multi) = &self.multi else { return Ok(None) };
        let mut multi = multi.lock().unwrap_or_else(PoisonError::into_inner);
        // Where that fails, setting them says how.
        let _ = multi.load(wanted.iter().map(|wanted| wanted.role.program()));
        let set = self.elsewhere.set(pid, wanted, |wanted| {
            let links = wanted.chunk_by(Wanted::is_alike).map(|alike| set_alike(&mut multi, pid, alike));
            links.collect::<Option<_>>().context("the kernel has no links for many probes")
        });
        match set {
            Ok(probes) => Ok(Some(probes)),
            Err(error) if error.is::<Refused>() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The number of a way in which the arguments of published samples lie: the low bits of the numbers of such probes.
    pub fn layout(&self, layout: &Layout) -> Result<u32> {
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner).number(layout)
    }
}
