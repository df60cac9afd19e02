//! `Allocators`: the functions of a process by which it gets and gives back memory, as probes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::look::{self, Function};
use super::published::{self, Publication};
use super::tier::Tier;
use crate::kernel::{Layout, Role, Wanted, takes};
use crate::problem::{Exit, Problem};
use crate::target::Module;

/// The functions of a process's allocators, or the tracepoints by which they publish samples of their own.
#[derive(Clone, Debug, Default)]
pub struct Allocators {
    functions: Vec<(Arc<Module>, Function)>,
    published: Vec<Publication>,
}

/// What there is in a file.
#[derive(Clone, Debug, Default)]
pub struct Found {
    functions: Vec<(Arc<Module>, Function)>,
    published: Vec<Publication>,
}

impl Found {
    /// Has a reader look for all that may be an allocator's in a file, with debug files below any of the roots.
    pub fn look(module: &Arc<Module>, roots: impl Into<Vec<PathBuf>>) -> Self {
        let contents = look::look(module, roots.into());
        let published = contents.published.into_iter().map(|one| Publication::new(module.clone(), one)).collect();
        Self { functions: contents.functions.into_iter().map(|one| (module.clone(), one)).collect(), published }
    }

    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.published.is_empty()
    }
}

impl Allocators {
    /// Those of a process in the cheapest way that it has, by what was found in each of its files.
    pub fn cheapest<'a>(found: impl IntoIterator<Item = &'a Found> + Clone, pid: u32, live: bool) -> Result<Self> {
        let published = found.clone().into_iter().flat_map(|found| found.published.iter().cloned());
        let published = published::usable(published.collect(), live);
        if published.is_empty() { Self::of(found, pid, live) } else { Ok(Self { functions: Vec::new(), published }) }
    }

    /// Those of a process, seen by their functions. Fails where there are none, or none whose memory can be followed until
    /// it is freed if that is asked for.
    pub fn of<'a>(found: impl IntoIterator<Item = &'a Found>, pid: u32, live: bool) -> Result<Self> {
        let functions: Vec<_> = found.into_iter().flat_map(|found| found.functions.iter().cloned()).collect();
        if let Some((go, _)) = functions.iter().find(|(_, function)| function.takes == takes::GO_SIZE)
            && live
        {
            let what = format!("cannot follow the memory of pid {pid} until it is freed: {} is Go", go.path);
            bail!(Problem::new(Exit::Failure, what, "Go frees by garbage collection: leave out --live"));
        }
        if functions.iter().all(|(_, function)| function.takes == takes::OLD) {
            bail!(Problem::new(
                Exit::Failure,
                format!("pid {pid} has no allocator that is known: no malloc among the symbols of its files"),
                "a stripped program with an allocator of its own cannot be followed; -e page-fault shows where its memory \
                 is first touched"
            ));
        }
        Ok(Self { functions, published: Vec::new() })
    }

    /// By which way they are seen.
    pub fn tier(&self) -> Tier {
        if self.published.is_empty() { Tier::Functions } else { Tier::Published }
    }

    /// These and those that were known before, which a process may have had in another program.
    pub fn join(mut self, before: &Self) -> Self {
        let is_new = |(module, function): &&(Arc<Module>, Function)| {
            let known = |(other, known): &(Arc<Module>, Function)| {
                module.is_same_file(other) && known.offset == function.offset
            };
            !self.functions.iter().any(known)
        };
        let functions: Vec<_> = before.functions.iter().filter(is_new).cloned().collect();
        let is_new = |one: &&Publication| !self.published.iter().any(|known| known.is_same_place(one));
        let published: Vec<Publication> = before.published.iter().filter(is_new).cloned().collect();
        self.functions.extend(functions);
        self.published.extend(published);
        self
    }

    /// The probes at the tracepoints by which they publish samples, for heap number `heap`. `number` knows the ways in which
    /// arguments lie; one that it does not is left out.
    pub fn published(&self, heap: u32, mut number: impl FnMut(&Layout) -> Option<u32>) -> Vec<Wanted> {
        let heap = heap << takes::BITS;
        let mut wanted: Vec<Wanted> =
            self.published.iter().filter_map(|one| one.probe(heap, |layout| number(layout))).collect();
        wanted.sort_by_key(|probe| (probe.role == Role::AllocatePublished, probe.file.clone()));
        wanted
    }

    /// Their probes, those of heap number `heap`. Without `live` nobody asks where memory is and when it is freed.
    pub fn probes(&self, heap: u32, live: bool) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        // Functions may share their ends.
        let mut ends = BTreeSet::new();
        let followed = self.functions.iter().filter(|(_, function)| live || function.takes != takes::OLD);
        for (module, function) in followed {
            let Some(file) = module.handle_path() else { continue };
            let mut number = heap << takes::BITS | function.takes;
            // Returns first: a call whose beginning is seen has its end seen.
            if live && function.takes != takes::OLD {
                if function.ends.is_none() {
                    number |= takes::UNSEEN;
                }
                let of_this = function.ends.iter().flatten();
                let new = of_this.filter(|(end, _)| ends.insert((Arc::as_ptr(module).addr(), *end)));
                wanted.extend(new.map(|&(offset, role)| Wanted {
                    file: file.clone(),
                    offset,
                    role,
                    number,
                    semaphore: None,
                }));
            }
            wanted.push(Wanted { file, offset: function.offset, role: Role::Allocate, number, semaphore: None });
        }
        // What has the same role in the same file is set at once.
        wanted.sort_by_key(|probe| (probe.role == Role::Allocate, probe.file.clone(), probe.role as u32));
        wanted
    }

    /// The files they are in, by their names without folder.
    pub fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        let functions = self.functions.iter().filter(|(_, function)| function.takes != takes::OLD);
        for module in functions.map(|(module, _)| module).chain(self.published.iter().map(|one| &one.module)) {
            let name = module.path.rsplit('/').next().unwrap_or_default().to_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// True for code of one of them.
    pub fn contains(&self, module: &Arc<Module>, offset: u64) -> bool {
        self.functions.iter().any(|(of, function)| {
            let inside = offset.checked_sub(function.offset);
            module.is_same_file(of) && inside.is_some_and(|inside| inside < function.size)
        })
    }
}
