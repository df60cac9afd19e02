//! `Sites`: the places that functions return to, where probes are set as they turn up. That is how the end of a call is
//! seen of a function that jumps to another one, whose return instructions are not known, or that has too many of them.

use std::sync::Arc;

use crate::kernel::{Role, Site, Wanted};
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
    /// The probe for a place; `None` if none can be set there.
    pub fn wanted(&mut self, site: Site) -> Option<Wanted> {
        let of_function = self.known.iter().filter(|known| known.function == site.function).count();
        if of_function >= MAX_SITES || self.known.contains(&site) {
            return None;
        }
        self.known.push(site);
        let (file, offset) = self.locate(site).or_else(|| {
            // It may have mapped more since it was last looked at.
            self.process = None;
            self.locate(site)
        })?;
        Some(Wanted { file, offset, role: Role::Returned, number: site.function, semaphore: None })
    }

    fn locate(&mut self, site: Site) -> Option<(std::path::PathBuf, u64)> {
        let modules = &mut self.modules;
        let process = self.process.get_or_insert_with(|| Process::read(site.tgid, modules));
        let (module, offset): (&Arc<_>, u64) = process.locate(site.address)?;
        Some((module.open_path()?, offset))
    }
}
