//! `Finder`: looks for what a `Spec` means in the files of a process, or in files by themselves.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::build::Builder;
use super::demangle::{demangle, without_version};
use super::file::{Loaded, Searched};
use super::image::Image;
use super::inlined;
use super::missing::{Missing, Why};
use super::names::Query;
use super::nearest::{self, Nearest};
use super::pattern::Pattern;
use super::place::{Place, Refusal};
use super::spec::{Spec, Wanted};
use super::symbols::{Sort, Symbol};
use super::usdt;
use crate::target::Module;
use crate::text::sanitize;

/// A pattern that means more than this is a mistake; what is left out is counted.
const MAX_FOUND: usize = 10_000;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Where probes can be attached: at least one, no two at the same offset of a file but for static tracepoints.
    pub places: Vec<Place>,
    /// What is meant as well, but cannot be probed.
    pub refused: Vec<Refusal>,
    /// How many more were left out.
    pub omitted: usize,
}

/// The files in which functions are looked for. What was read of them is remembered as long as it lives. They are read by
/// this process: those of targets belong into a reader.
pub struct Finder {
    files: Vec<Searched>,
}

impl Finder {
    /// These files, whether anybody has mapped them or not.
    pub fn of_files(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let open = |path: &Path| Module::open(path).with_context(|| format!("cannot read {}", path.display()));
        let modules: Result<Vec<_>> = paths.iter().map(|path| Ok(Arc::new(open(path.as_ref())?))).collect();
        Ok(Self::of_modules(modules?, [PathBuf::from("/")]))
    }

    /// These modules, with debug files below any of the roots.
    pub fn of_modules(modules: impl IntoIterator<Item = Arc<Module>>, roots: impl Into<Vec<PathBuf>>) -> Self {
        let roots: Arc<[PathBuf]> = roots.into().into();
        Self { files: modules.into_iter().map(|module| Searched::new(module, roots.clone())).collect() }
    }

    /// What is known of one of the files.
    pub(super) fn file(&self, module: &Arc<Module>) -> Result<&Searched> {
        let file = self.files.iter().find(|file| Arc::ptr_eq(&file.module, module));
        file.context("it is not one of the files in which functions are looked for")
    }

    /// The places that are meant: at least one.
    pub fn find(&self, spec: &Spec) -> Result<Found, Box<Missing>> {
        let mut search = Search::new(spec);
        let is_meant =
            |file: &Searched| spec.library.as_ref().is_none_or(|library| library.matches(&file.module, file.soname()));
        let (selected, others): (Vec<_>, Vec<_>) = self.files.iter().partition(|file| is_meant(file));
        let why = if selected.is_empty() {
            let library = spec.library.as_ref().map(ToString::to_string).unwrap_or_default();
            let paths = self.files.iter().map(|file| file.module.path.as_str());
            Why::NoSuchLibrary { nearest: nearest::files(&library, paths) }
        } else {
            match search.run(&selected, &others) {
                None => return Ok(search.found),
                Some(why) => match spec.operators().and_then(|spec| again(&spec, &selected)) {
                    Some(found) => return Ok(found),
                    None => why,
                },
            }
        };
        Err(Box::new(Missing { wanted: spec.text.clone(), why, unreadable: search.unreadable }))
    }

    /// The functions whose symbols are wanted, in all files: symbols as the files have them, without version. A file that
    /// cannot be read has none.
    pub fn symbols(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        for file in &self.files {
            let (Ok(image), Ok(loaded)) = (file.image(), file.loaded()) else { continue };
            let mut by_address: BTreeMap<u64, Vec<(&Symbol, &str)>> = BTreeMap::new();
            for (symbol, text) in loaded.symbols.iter() {
                if matches!(symbol.sort, Sort::Function) && is_wanted(without_version(text)) {
                    by_address.entry(symbol.address).or_default().push((symbol, text));
                }
            }
            let builder = Builder::new(file, &image, loaded);
            places.extend(by_address.values().filter_map(|matched| builder.function(matched, 0)?.ok()));
        }
        places
    }
}

impl Finder {
    /// The static tracepoints of a provider, in all files. Most files have none, and of these no symbols are read.
    pub fn tracepoints(&self, provider: &str) -> Vec<Place> {
        let mut places = Vec::new();
        for file in &self.files {
            let Ok(image) = file.image() else { continue };
            let mut probes = usdt::probes(&image);
            probes.retain(|probe| probe.provider == provider);
            if let Some(loaded) = (!probes.is_empty()).then(|| file.loaded().ok()).flatten() {
                let builder = Builder::new(file, &image, loaded);
                places.extend(probes.into_iter().filter_map(|probe| builder.usdt(probe).ok()));
            }
        }
        places
    }
}

/// What another spec finds in the first file that has any of it: the program's own before those of its libraries.
fn again(spec: &Spec, selected: &[&Searched]) -> Option<Found> {
    selected.iter().find_map(|file| {
        let mut search = Search::new(spec);
        search.run(&[*file], &[]).is_none().then_some(search.found)
    })
}

struct Search<'spec> {
    spec: &'spec Spec,
    found: Found,
    unreadable: Vec<(String, String)>,
}

impl<'spec> Search<'spec> {
    fn new(spec: &'spec Spec) -> Self {
        Self { spec, found: Found::default(), unreadable: Vec::new() }
    }

    /// Looks in the files that are meant. `None` if something was found, else why not.
    fn run(&mut self, selected: &[&Searched], others: &[&Searched]) -> Option<Why> {
        for file in selected {
            self.look(file, |search, builder, image, loaded| match &search.spec.wanted {
                Wanted::Function { name, offset } => {
                    search.functions(loaded, builder, &Query::new(name), name, *offset)
                }
                Wanted::Address(address) => search.add(builder.address(*address)),
                Wanted::FileOffset(offset) => {
                    // An offset outside of code is as bad as an address outside of it.
                    let address = image.address_of(*offset).unwrap_or(u64::MAX);
                    search.add(builder.address(address));
                }
                Wanted::Usdt { provider, name } => {
                    for probe in usdt::probes(image) {
                        if provider.matches(&probe.provider) && name.matches(&probe.name) {
                            search.add(builder.usdt(probe));
                        }
                    }
                }
            });
        }
        if self.is_empty() {
            let why = match &self.spec.wanted {
                Wanted::Function { name, offset } => self.elsewhere(name, *offset, selected, others)?,
                Wanted::Usdt { provider, name } => tracepoints_like(provider, name, selected),
                _ => Why::Unknown { files: selected.len(), stripped: Vec::new(), nearest: Vec::new() },
            };
            return Some(why);
        }
        self.found.places.is_empty().then(|| Why::Refused(std::mem::take(&mut self.found.refused)))
    }

    /// Reads a file, or notes that it cannot be read.
    fn look(&mut self, file: &Searched, look: impl FnOnce(&mut Self, &Builder<'_>, &Image<'_>, &Loaded)) {
        let image = match file.image() {
            Ok(image) => image,
            Err(error) => return self.note(file, &format!("{error:#}")),
        };
        match file.loaded() {
            Ok(loaded) => {
                if !loaded.is_go_known {
                    self.note(file, "its table of Go functions has an unknown layout");
                }
                look(self, &Builder::new(file, &image, loaded), &image, loaded);
            }
            Err(error) => self.note(file, error),
        }
    }

    fn note(&mut self, file: &Searched, reason: &str) {
        self.unreadable.push((sanitize(&file.module.path), sanitize(reason)));
    }

    fn functions(&mut self, loaded: &Loaded, builder: &Builder<'_>, query: &Query<'_>, name: &Pattern, offset: u64) {
        let mut by_address: BTreeMap<u64, Vec<(&Symbol, &str)>> = BTreeMap::new();
        for (symbol, text) in loaded.symbols.iter() {
            // Data is only worth a word if it is what was named.
            let is_candidate = match symbol.sort {
                Sort::Function | Sort::Indirect => true,
                Sort::Untyped | Sort::Data => name.exact().is_some(),
            };
            if is_candidate && query.matches(text) {
                by_address.entry(symbol.address).or_default().push((symbol, text));
            }
        }
        for matched in by_address.values() {
            builder.function(matched, offset).into_iter().for_each(|built| self.add(built));
        }
    }

    fn add(&mut self, built: Result<Place, Refusal>) {
        if self.found.places.len() + self.found.refused.len() >= MAX_FOUND {
            self.found.omitted += 1;
            return;
        }
        match built {
            Ok(place) => self.found.places.push(place),
            Err(refusal) => self.found.refused.push(refusal),
        }
    }

    fn is_empty(&self) -> bool {
        self.found.places.is_empty() && self.found.refused.is_empty()
    }

    /// A function that none of the files defines: another file may, or it may be inlined. `None` if it was found.
    fn elsewhere(&mut self, name: &Pattern, offset: u64, selected: &[&Searched], others: &[&Searched]) -> Option<Why> {
        let query = Query::new(name);
        let mut importers = Vec::new();
        for file in selected {
            let Ok(loaded) = file.loaded() else { continue };
            let wanted: Vec<&str> = loaded.symbols.imports().filter(|import| query.matches(import)).collect();
            if wanted.is_empty() {
                continue;
            }
            let before = self.found.places.len();
            importers.push(sanitize(&file.module.path));
            for other in others {
                self.look(other, |search, builder, _, loaded| {
                    search.functions(loaded, builder, &query, name, offset);
                });
            }
            for place in &mut self.found.places[before..] {
                place.imported_by = importers.last().cloned();
            }
            if !self.is_empty() {
                return self.found.places.is_empty().then(|| Why::Refused(std::mem::take(&mut self.found.refused)));
            }
        }
        if !importers.is_empty() {
            return Some(Why::OnlyImported { by: importers });
        }
        let budget = Cell::new(inlined::MAX_ENTRIES);
        for file in selected {
            if let Some(inlined) = file.with_debug_information(|image| inlined::find(image, &query, &budget)) {
                return Some(Why::OnlyInlined { file: sanitize(&file.module.path), inlined });
            }
        }
        Some(functions_like(name, selected))
    }
}

fn functions_like(name: &Pattern, files: &[&Searched]) -> Why {
    let mut nearest = Nearest::to(&literal(name));
    let mut stripped = Vec::new();
    for file in files {
        let Ok(loaded) = file.loaded() else { continue };
        if loaded.is_stripped {
            stripped.push(sanitize(&file.module.path));
        }
        let functions = loaded.symbols.iter().filter(|(symbol, _)| symbol.sort != Sort::Data);
        functions.for_each(|(_, name)| nearest.consider(name));
    }
    let show = |name: &str| sanitize(&demangle(name).unwrap_or_else(|| without_version(name).to_owned()));
    Why::Unknown { files: files.len(), stripped, nearest: nearest.names(show) }
}

fn tracepoints_like(provider: &Pattern, name: &Pattern, files: &[&Searched]) -> Why {
    let probes = files.iter().filter_map(|file| Some(usdt::probes(&file.image().ok()?))).flatten();
    let mut nearest = Nearest::to(&literal(name));
    let mut of_provider = Nearest::to(&literal(provider));
    for probe in probes {
        nearest.consider(&format!("usdt:{}:{}", probe.provider, probe.name));
        of_provider.consider(&probe.provider);
    }
    let mut names = nearest.names(sanitize);
    if names.is_empty() {
        names = of_provider.names(|provider| format!("usdt:{}:*", sanitize(provider)));
    }
    Why::Unknown { files: files.len(), stripped: Vec::new(), nearest: names }
}

/// A pattern without what makes it one.
fn literal(pattern: &Pattern) -> String {
    let text = pattern.to_string();
    if pattern.exact().is_some() { text } else { text.replace(['*', '?', '^', '$', '/', '\\', '[', ']'], "") }
}
