//! `Function`: a function of a process, with the places where its probes are set.

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::kernel::{Judgement, Role};
use crate::probes::Wanted;
use crate::target::Module;

/// A function to be timed.
#[derive(Clone, Debug)]
pub struct Function {
    /// What it is called in the results.
    pub name: String,
    /// Where probes are set.
    pub spots: Vec<Spot>,
    /// How its calls are judged.
    pub judgement: Judgement,
    /// Whether there is a threshold.
    pub has_threshold: bool,
}

/// A place of a probe.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The file, which stays open as long as probes may be set in it.
    pub module: Arc<Module>,
    /// Where in the file.
    pub offset: u64,
    /// What the probe is for.
    pub role: Role,
}

impl Spot {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.module, &other.module) && (self.offset, self.role) == (other.offset, other.role)
    }
}

impl Function {
    /// True for another name of the same function.
    pub fn same_place(&self, other: &Self) -> bool {
        self.spots.len() == other.spots.len()
            && self.spots.iter().all(|spot| other.spots.iter().any(|other| spot.is_same(other)))
    }

    /// Times another one together with this one; a place that both have is taken once.
    pub fn join(&mut self, other: Self) {
        for spot in other.spots {
            if !self.spots.iter().any(|known| known.is_same(&spot)) {
                self.spots.push(spot);
            }
        }
    }

    /// Its probes. Returns first: a call whose beginning is seen has its end seen.
    pub(super) fn wanted(&self, number: u32) -> Vec<Wanted> {
        let (enters, leaves): (Vec<&Spot>, Vec<&Spot>) = self.spots.iter().partition(|spot| spot.role == Role::Enter);
        let wanted = |spot: &Spot| {
            // The file that was searched, whatever stands under its path by now.
            let file = PathBuf::from(format!("/proc/self/fd/{}", spot.module.file()?.as_raw_fd()));
            Some(Wanted { file, offset: spot.offset, role: spot.role, number })
        };
        leaves.into_iter().chain(enters).filter_map(wanted).collect()
    }
}
