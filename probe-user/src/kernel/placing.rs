//! Setting probes with care: only where a process runs what its file has, and so that it runs into them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::text::{Refused, Text};
use super::uprobes::{Probes, Wanted};
use crate::target::files_in_layers;

/// Files that were found elsewhere are remembered, so many at most.
const MAX_KNOWN: usize = 1024;
/// So many are tried: each takes the kernel 100 ms if it is the wrong one.
const MAX_TRIED: usize = 8;

/// Files that a process has mapped under a name which leads to another file by now: by process and name.
#[derive(Default)]
pub(super) struct Elsewhere(Mutex<HashMap<(u32, PathBuf), PathBuf>>);

/// What came of it.
enum Placed {
    Set(Vec<Probes>),
    /// There is no trap in memory, at one of those that were wanted.
    Missed {
        at: usize,
        text: Text,
    },
}

impl Elsewhere {
    /// Sets probes, by a function that does nothing else. Fails with [`Refused`] where none may be set, or where they would see
    /// nothing; then there is none.
    pub fn set(
        &self,
        pid: u32,
        wanted: &[Wanted],
        mut set: impl FnMut(&[Wanted]) -> Result<Vec<Probes>>,
    ) -> Result<Vec<Probes>> {
        if let Some(real) = self.known(pid, wanted)
            && let Ok(Placed::Set(probes)) = place(pid, wanted, &real, &mut set)
        {
            return Ok(probes);
        }
        let (at, text) = match place(pid, wanted, wanted, &mut set)? {
            Placed::Set(probes) => return Ok(probes),
            Placed::Missed { at, text } => (at, text),
        };
        let (name, file) = (text.name(at), &wanted[at].file);
        for layer in files_in_layers(pid, text.path(at)).into_iter().take(MAX_TRIED) {
            tracing::debug!(pid, %name, layer = %layer.display(), "no trap in memory: trying another layer");
            let real = replaced(wanted, |known| (known == file).then_some(&layer));
            if let Ok(Placed::Set(probes)) = place(pid, wanted, &real, &mut set) {
                self.remember(pid, file.clone(), layer);
                return Ok(probes);
            }
        }
        Err(Refused::patched(format!(
            "no probe at {name} is seen in the memory of pid {pid}: its name leads to another file than the one that is mapped, or \
             the code is mapped writable or shared"
        ))
        .into())
    }

    fn known(&self, pid: u32, wanted: &[Wanted]) -> Option<Vec<Wanted>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |wanted: &Wanted| known.contains_key(&(pid, wanted.file.clone()));
        let elsewhere = |file: &Path| known.get(&(pid, file.to_owned()));
        wanted.iter().any(is_known).then(|| replaced(wanted, elsewhere))
    }

    fn remember(&self, pid: u32, file: PathBuf, real: PathBuf) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert((pid, file), real);
    }
}

fn replaced<'a>(wanted: &[Wanted], file: impl Fn(&Path) -> Option<&'a PathBuf>) -> Vec<Wanted> {
    let replaced = |wanted: &Wanted| {
        let file = file(&wanted.file).cloned().unwrap_or_else(|| wanted.file.clone());
        Wanted { file, ..wanted.clone() }
    };
    wanted.iter().map(replaced).collect()
}

/// Sets probes into files that may be others than those that were named.
fn place(
    pid: u32,
    wanted: &[Wanted],
    real: &[Wanted],
    set: &mut impl FnMut(&[Wanted]) -> Result<Vec<Probes>>,
) -> Result<Placed> {
    let text = Text::of(pid, wanted, real)?;
    text.is_as_in_file()?;
    let probes = set(real)?;
    // Somebody may have patched it since: the less time probes are there, the better.
    Ok(match text.without_trap()? {
        None => Placed::Set(probes),
        Some(at) => Placed::Missed { at, text },
    })
}
