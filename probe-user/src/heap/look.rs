//! What an allocator's functions are in one file: looked for by a reader, because the file may be hostile.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{self, GO};
use super::published::{self, Published};
use crate::functions::{Finder, Place};
use crate::kernel::{Role, takes};
use crate::reader::{self, Access, Done, Job};
use crate::target::{Module, Told};

/// A function with more return instructions than this has its return address replaced instead.
const MAX_ENDS: usize = 64;
/// The dynamic linker has an allocator of its own, for the time before the C library is there.
const LINKER: &str = "ld-linux";

/// What there is in a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Contents {
    pub(super) functions: Vec<Function>,
    pub(super) published: Vec<Published>,
}

/// A function by which a process gets memory or gives it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Function {
    /// File offset.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Value of [`takes`].
    pub takes: u32,
    /// Where it is seen what it returns: at return instructions, also those of functions to which it jumps. Where its code
    /// does not tell of all of them, because it jumps to another file, its return address is replaced; an operator of C++
    /// may throw, which does not bear that: `None`.
    pub ends: Option<Vec<(u64, Role)>>,
}

/// Looks for all that may be an allocator's in a file, with debug files below any of the roots.
pub(super) fn look(module: &Arc<Module>, roots: Vec<PathBuf>) -> Contents {
    let (told, Some(file)) = module.tell() else { return Contents::default() };
    match reader::ask(Look { module: told, roots }, &[file], Look::TIME) {
        Ok(Done { answer, .. }) => answer,
        Err(failure) => {
            tracing::warn!(path = module.path, "allocators are not looked for in a file: {failure}");
            Contents::default()
        }
    }
}

/// The job.
#[derive(Debug, Serialize, Deserialize)]
pub struct Look {
    module: Told,
    roots: Vec<PathBuf>,
}

impl Job for Look {
    const NAME: &'static str = "allocators";
    const ACCESS: Access = Access::Read;
    const TIME: Duration = Duration::from_secs(20);
    const MEMORY: u64 = 1 << 30;
    type Answer = Contents;

    fn run(self, files: Vec<OwnedFd>) -> Done<Self::Answer> {
        let Some(handle) = files.into_iter().next() else { return Done::answer(Contents::default()) };
        let module = Arc::new(Module::of_told(self.module, handle));
        let is_linker = module.path.rsplit('/').next().is_some_and(|file| file.starts_with(LINKER));
        let finder = Finder::of_modules([module], self.roots);
        let functions = if is_linker { Vec::new() } else { functions(&finder) };
        Done::answer(Contents { functions, published: published::find(&finder) })
    }
}

fn functions(finder: &Finder) -> Vec<Function> {
    let takes = |place: &Place| {
        let name = place.symbol.split('@').next().unwrap_or_default();
        if place.is_go && name == GO { Some(takes::GO_SIZE) } else { names::takes(name) }
    };
    let places = finder.symbols(|symbol| symbol == GO || names::takes(symbol).is_some());
    let mut places: Vec<(Place, u32)> = places
        .into_iter()
        .filter_map(|place| Some((takes(&place)?, place)))
        .map(|(takes, place)| (place, takes))
        .collect();
    // C++'s operators end at malloc, unless an allocator brings its own.
    let is_own = places.iter().any(|(place, takes)| !names::is_operator(&place.symbol) && *takes != takes::OLD);
    let starts: BTreeSet<u64> = places.iter().map(|(place, _)| place.file_offset).collect();
    let ends_at_another = |place: &Place| place.callees().iter().any(|offset| starts.contains(offset));
    places.retain(|(place, _)| !names::is_operator(&place.symbol) || is_own && !ends_at_another(place));
    let starts = places.iter().map(|(place, _)| place.file_offset).collect();
    let function = |(place, takes): &(Place, u32)| {
        let ends = if *takes == takes::OLD { Some(Vec::new()) } else { ends(place, &starts) };
        Function { offset: place.file_offset, size: place.size, takes: *takes, ends }
    };
    places.iter().map(function).collect()
}

/// See [`Function::ends`].
fn ends(place: &Place, others: &BTreeSet<u64>) -> Option<Vec<(u64, Role)>> {
    match place.ends(others) {
        Ok(ends) if ends.len() <= MAX_ENDS => Some(ends.into_iter().map(|end| (end, Role::AllocateLeave)).collect()),
        _ if !place.is_go && !names::is_operator(&place.symbol) => {
            Some(vec![(place.file_offset, Role::AllocateReturned)])
        }
        Ok(_) | Err(_) => None,
    }
}
