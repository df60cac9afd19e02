//! `Sites`: the places that functions return to, where probes are set as they turn up. That is how the end of a call is
//! seen of a function that jumps to another one, whose return instructions are not known, or that has too many of them.

use super::function::Spot;
use crate::kernel::{Role, Site};
use crate::target::{Modules, Process};

/// Places of one function at most: what is called from more is seen in part.
const MAX_SITES: usize = 256;

/// The places of a process.
#[derive(Debug, Default)]
pub struct Sites {
    process: Option<Process>,
    modules: Modules,
    known: Vec<Site>,
}

impl Sites {
    /// Where the probe for a place is to be set; `None` if none can be.
    pub fn spot(&mut self, site: Site) -> Option<Spot> {
        let of_function = self.known.iter().filter(|known| known.function == site.function).count();
        if of_function >= MAX_SITES || self.known.contains(&site) {
            return None;
        }
        self.known.push(site);
        self.locate(site).or_else(|| {
            // It may have mapped more since it was last looked at.
            self.process = None;
            self.locate(site)
        })
    }

    fn locate(&mut self, site: Site) -> Option<Spot> {
        let modules = &mut self.modules;
        let process = self.process.get_or_insert_with(|| Process::read(site.tgid, modules));
        let (module, offset) = process.locate(site.address)?;
        Some(Spot { module: module.clone(), offset, role: Role::Returned, semaphore: None })
    }

    /// A function is timed no more.
    pub fn forget(&mut self, function: u32) {
        self.known.retain(|site| site.function != function);
    }
}
