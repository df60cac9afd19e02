//! `Allocators`: the functions of a process by which it gets and gives back memory, as probes.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::names::{self, GO};
use super::published::{self, Publication};
use super::tier::Tier;
use crate::functions::{Finder, Place};
use crate::kernel::{Layout, Role, Wanted, takes};
use crate::problem::{Exit, Problem};
use crate::target::Module;

/// A function with more return instructions than this has its return address replaced instead.
const MAX_ENDS: usize = 64;
/// The dynamic linker has an allocator of its own, for the time before the C library is there.
const LINKER: &str = "ld-linux";

/// The functions of a process's allocators, or the tracepoints by which they publish samples of their own.
#[derive(Clone, Debug, Default)]
pub struct Allocators {
    functions: Vec<Function>,
    published: Vec<Publication>,
}

/// What there is in some files, of which a process may have some.
#[derive(Clone, Debug, Default)]
pub struct Found {
    places: Vec<Place>,
    published: Vec<Publication>,
}

#[derive(Clone, Debug)]
struct Function {
    place: Place,
    takes: u32,
}

impl Found {
    /// Looks for all that may be an allocator's.
    pub fn look(finder: &Finder) -> Self {
        let places = finder.symbols(|symbol| symbol == GO || names::takes(symbol).is_some());
        Self { places, published: Publication::find(finder) }
    }

    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.published.is_empty()
    }
}

impl Allocators {
    /// Those of a process, seen by their functions. Fails where there are none, or none whose memory can be followed until
    /// it is freed if that is asked for.
    pub fn find(pid: u32, finder: &Finder, live: bool) -> Result<Self> {
        Self::of([&Found::look(finder)], pid, live)
    }

    /// The same in the cheapest way that the process has, by what was found in each of its files.
    pub fn cheapest<'a>(found: impl IntoIterator<Item = &'a Found> + Clone, pid: u32, live: bool) -> Result<Self> {
        let published = found.clone().into_iter().flat_map(|found| found.published.iter().cloned());
        let published = published::usable(published.collect(), live);
        if published.is_empty() { Self::of(found, pid, live) } else { Ok(Self { functions: Vec::new(), published }) }
    }

    /// As [`Self::find`], by what was found in each of its files.
    pub fn of<'a>(found: impl IntoIterator<Item = &'a Found>, pid: u32, live: bool) -> Result<Self> {
        let places = found.into_iter().flat_map(|found| found.places.iter().cloned());
        let mut functions: Vec<Function> = places.filter_map(Function::new).collect();
        let is_allocating = |function: &Function| function.takes != takes::OLD;
        if let Some(go) = functions.iter().find(|function| function.takes == takes::GO_SIZE)
            && live
        {
            let what =
                format!("cannot follow the memory of pid {pid} until it is freed: {} is Go", go.place.module.path);
            bail!(Problem::new(Exit::Failure, what, "Go frees by garbage collection: leave --live away"));
        }
        // C++'s operators end at malloc, unless an allocator brings its own.
        let own: Vec<Arc<Module>> = functions
            .iter()
            .filter(|function| !names::is_operator(&function.place.symbol) && is_allocating(function))
            .map(|function| function.place.module.clone())
            .collect();
        let starts: BTreeSet<(usize, u64)> = functions.iter().map(|function| key(&function.place)).collect();
        functions.retain(|Function { place, .. }| {
            let is_own = own.iter().any(|module| Arc::ptr_eq(module, &place.module));
            let ends_at_another = || place.callees().iter().any(|&offset| starts.contains(&(key(place).0, offset)));
            !names::is_operator(&place.symbol) || is_own && !ends_at_another()
        });
        if !functions.iter().any(is_allocating) {
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
        let is_new =
            |function: &&Function| self.functions.iter().all(|known| key(&known.place) != key(&function.place));
        let functions: Vec<Function> = before.functions.iter().filter(is_new).cloned().collect();
        let is_new = |one: &&Publication| self.published.iter().all(|known| key(&known.place) != key(&one.place));
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
        let followed = self.functions.iter().filter(|function| live || function.takes != takes::OLD);
        for Function { place, takes } in followed {
            let Some(file) = place.module.open_path() else { continue };
            let mut number = heap << takes::BITS | takes;
            // Returns first: a call whose beginning is seen has its end seen.
            if live && *takes != takes::OLD {
                let of_this = self.ends(place);
                if of_this.is_none() {
                    number |= takes::UNSEEN;
                }
                let new = of_this.into_iter().flatten().filter(|(end, _)| ends.insert((key(place).0, *end)));
                wanted.extend(new.map(|(offset, role)| Wanted {
                    file: file.clone(),
                    offset,
                    role,
                    number,
                    semaphore: None,
                }));
            }
            wanted.push(Wanted { file, offset: place.file_offset, role: Role::Allocate, number, semaphore: None });
        }
        // What has the same role in the same file is set at once.
        wanted.sort_by_key(|probe| (probe.role == Role::Allocate, probe.file.clone(), probe.role as u32));
        wanted
    }

    /// Where it is seen what a function returns: at return instructions, also those of functions to which it jumps. Where
    /// its code does not tell of all of them, because it jumps to another file, its return address is replaced; an operator
    /// may throw, which does not bear that: `None`.
    fn ends(&self, place: &Place) -> Option<Vec<(u64, Role)>> {
        let module = key(place).0;
        let others = self.functions.iter().filter(|function| key(&function.place).0 == module);
        let others = others.map(|function| function.place.file_offset).collect();
        match place.ends(&others) {
            Ok(ends) if ends.len() <= MAX_ENDS => {
                Some(ends.into_iter().map(|end| (end, Role::AllocateLeave)).collect())
            }
            _ if !place.is_go && !names::is_operator(&place.symbol) => {
                Some(vec![(place.file_offset, Role::AllocateReturned)])
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "what it returns is not followed");
                None
            }
        }
    }

    /// The files they are in, by their names without folder.
    pub fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        let functions = self.functions.iter().filter(|function| function.takes != takes::OLD);
        let places = functions.map(|function| &function.place).chain(self.published.iter().map(|one| &one.place));
        for place in places {
            let name = place.module.path.rsplit('/').next().unwrap_or_default().to_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// True for code of one of them.
    pub fn contains(&self, module: &Arc<Module>, offset: u64) -> bool {
        self.functions.iter().any(|Function { place, .. }| {
            let inside = offset.checked_sub(place.file_offset);
            Arc::ptr_eq(module, &place.module) && inside.is_some_and(|inside| inside < place.size)
        })
    }
}

impl Function {
    fn new(place: Place) -> Option<Self> {
        if place.module.path.rsplit('/').next().is_some_and(|file| file.starts_with(LINKER)) {
            return None;
        }
        let name = place.symbol.split('@').next().unwrap_or_default();
        let takes = if place.is_go && name == GO { takes::GO_SIZE } else { names::takes(name)? };
        Some(Self { place, takes })
    }
}

fn key(place: &Place) -> (usize, u64) {
    (Arc::as_ptr(&place.module) as usize, place.file_offset)
}
