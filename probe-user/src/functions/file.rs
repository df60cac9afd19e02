//! A file that is searched: read when it is first asked, and then remembered.

use std::cell::OnceCell;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use object::elf::{DT_SONAME, DT_STRTAB};

use super::debugfiles;
use super::image::{Image, string_at};
use super::symbols::Symbols;
use crate::gopclntab;
use crate::target::Module;

/// A file, and what was read of it.
pub(super) struct Searched {
    pub module: Arc<Module>,
    /// Folders that are `/` to somebody, in which debug files may be.
    roots: Arc<[PathBuf]>,
    soname: OnceCell<Option<String>>,
    loaded: OnceCell<Result<Loaded, String>>,
}

/// What was read of a file.
pub(super) struct Loaded {
    pub symbols: Symbols,
    /// It was made by Go.
    pub is_go: bool,
    /// Go's own table of functions could be read, if it was made by Go.
    pub is_go_known: bool,
    /// It has no symbols but those that it imports and exports.
    pub is_stripped: bool,
    debug: Option<File>,
}

impl Searched {
    pub fn new(module: Arc<Module>, roots: Arc<[PathBuf]>) -> Self {
        Self { module, roots, soname: OnceCell::new(), loaded: OnceCell::new() }
    }

    /// Its headers.
    pub fn image(&self) -> Result<Image<'_>> {
        let file = self.module.file().with_context(|| self.module.problem().to_owned())?;
        Image::open(file)
    }

    /// The name that a library has for the linker.
    pub fn soname(&self) -> Option<&str> {
        self.soname.get_or_init(|| soname(&self.image().ok()?)).as_deref()
    }

    /// Its symbols, or why they cannot be read.
    pub fn loaded(&self) -> Result<&Loaded, &str> {
        self.loaded.get_or_init(|| self.load().map_err(|error| format!("{error:#}"))).as_ref().map_err(String::as_str)
    }

    fn load(&self) -> Result<Loaded> {
        let image = self.image()?;
        let mut symbols = Symbols::default();
        symbols.add(&image);
        let is_go = is_go(&image);
        let is_go_known = !is_go || symbols.add_go(&image) != Err(gopclntab::Missing::Layout);
        let mut debug = None;
        let mut has_mini = false;
        if !symbols.is_complete {
            if let Some(mini) = debugfiles::mini(&image).flatten() {
                symbols.add(&mini);
                has_mini = true;
            }
            // MiniDebugInfo names functions that are not exported; only the debug file has all.
            symbols.is_complete = false;
            debug = debugfiles::separate(&self.module, &image, &self.roots).files.into_iter().next();
            if let Some(image) = debug.as_ref().and_then(|file| Image::open(file).ok()) {
                symbols.add(&image);
            }
        }
        symbols.finish();
        if symbols.omitted > 0 {
            tracing::debug!(path = self.module.path, omitted = symbols.omitted, "a file has too many symbols");
        }
        let is_stripped = !symbols.is_complete && !is_go && !has_mini;
        Ok(Loaded { symbols, is_go, is_go_known, is_stripped, debug })
    }

    /// Looks at the debug information, which is in the file or in one of its own.
    pub fn with_debug_information<T>(&self, look: impl Fn(&Image<'_>) -> Option<T>) -> Option<T> {
        let own = self.image().ok()?;
        look(&own).or_else(|| {
            let loaded = self.loaded().ok()?;
            let separate = match &loaded.debug {
                Some(file) => file.try_clone().ok()?,
                None if own.section(".debug_info").is_none() => {
                    debugfiles::separate(&self.module, &own, &self.roots).files.into_iter().next()?
                }
                None => return None,
            };
            look(&Image::open(&separate).ok()?)
        })
    }
}

fn soname(image: &Image<'_>) -> Option<String> {
    let value = |tag: i64| image.dynamic.iter().find(|(found, _)| *found == tag).map(|(_, value)| *value);
    let at = value(DT_STRTAB)?.checked_add(value(DT_SONAME)?)?;
    let (offset, available) = image.offset_of(at, false)?;
    let bytes = image.bytes(offset, available.min(1024))?;
    string_at(&bytes, 0).map(str::to_owned)
}

/// What `go build` leaves in every program: its build information or its table of functions.
fn is_go(image: &Image<'_>) -> bool {
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    let sections = [".go.buildinfo", ".gopclntab", ".data.rel.ro.gopclntab"];
    if !image.sections.is_empty() {
        return image.sections.iter().any(|section| sections.contains(&section.name.as_str()));
    }
    // Without section headers it is at the beginning of the data.
    let data = image.segments.iter().filter(|segment| !segment.executable);
    let starts = data.filter_map(|segment| image.bytes(segment.offset, segment.size.min(1 << 16)));
    starts.into_iter().any(|bytes| bytes.windows(MAGIC.len()).any(|window| window == MAGIC))
}
