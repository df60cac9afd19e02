//! The debug information of one file: functions, what is inlined into them, and lines; with what it leaves to other files
//! (`.dwo`, `.dwp`, what `dwz` has moved to a file of its own). Files are read, not mapped: a mapped one that is truncated
//! meanwhile would kill the process.

#![expect(clippy::arc_with_non_send_sync, reason = "addr2line asks for an Arc, whatever is in it")]

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use addr2line::{Context, LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{DwarfPackage, EndianRcSlice, LittleEndian, Reader as _, SectionId};

use super::profile::Line;
use crate::functions::{Image, demangle};
use crate::target::{Module, open_regular};
use crate::text::sanitize;

type Reader = EndianRcSlice<LittleEndian>;
type Sections = gimli::Dwarf<Reader>;

/// More functions inlined into each other than this at one address are an attack.
const MAX_INLINED: usize = 256;

/// Debug information that was found.
pub struct Dwarf {
    context: Context<Reader>,
    /// Path of the file that is named, as its process sees it: `.dwo` and `.dwp` files may be beside it.
    path: PathBuf,
    package: OnceCell<Option<Option<DwarfPackage<Reader>>>>,
    /// What is missing of it.
    problem: Cell<Option<&'static str>>,
}

/// What debug information says of an address.
pub struct Told {
    /// Innermost first; the last one's function is empty where only lines are known.
    pub lines: Vec<Line>,
    /// What was missing.
    pub problem: Option<&'static str>,
}

impl Dwarf {
    /// Reads the sections of a file; `None` if it has no debug information.
    pub fn open(file: &File, module: &Module) -> Option<Result<Self, &'static str>> {
        let image = Image::open(file).ok()?;
        image.section(".debug_info")?;
        Some(Self::read(&image, module))
    }

    fn read(image: &Image<'_>, module: &Module) -> Result<Self, &'static str> {
        const DAMAGED: &str = "the debug information is damaged";
        let mut sections = Sections::load(|id| section(image, id.name(), id))?;
        let mut problem = None;
        if image.section(".gnu_debugaltlink").is_some() {
            match supplement(image, Path::new(&module.path)) {
                Some(file) => {
                    let supplement = Image::open(&file).map_err(|_| DAMAGED)?;
                    sections.load_sup(|id| section(&supplement, id.name(), id))?;
                }
                None => problem = Some("the shared debug information (dwz) is not installed"),
            }
        }
        sections.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        if problem.is_none() && !is_sound(&sections) {
            problem = Some(DAMAGED);
        }
        let context = Context::from_dwarf(sections).map_err(|_| problem.unwrap_or(DAMAGED))?;
        let path = PathBuf::from(&module.path);
        Ok(Self { context, path, package: OnceCell::new(), problem: Cell::new(problem) })
    }

    /// What is missing of it, as far as is known.
    pub fn problem(&self) -> Option<&'static str> {
        self.problem.get()
    }

    /// What it says of an address, if it knows it.
    pub fn find(&self, address: u64) -> Result<Option<Told>, &'static str> {
        let missing = Cell::new(None);
        let mut result = self.context.find_frames(address);
        let frames = loop {
            match result {
                LookupResult::Output(frames) => break frames,
                LookupResult::Load { load, continuation } => {
                    result = continuation.resume(self.split(&load, &missing));
                }
            }
        };
        if let Some(problem) = missing.get() {
            self.problem.set(Some(problem));
        }
        let damaged = || self.problem.get().unwrap_or("the debug information is damaged");
        let mut frames = frames.map_err(|_| damaged())?;
        let mut lines = Vec::new();
        while let Some(frame) = frames.next().map_err(|_| damaged())? {
            let function = match &frame.function {
                Some(name) => {
                    let name = name.raw_name().map_err(|_| damaged())?;
                    if name.is_empty() {
                        return Err(damaged()); // its strings are not there
                    }
                    readable(&name)
                }
                None => String::new(),
            };
            let (file, line) = match frame.location {
                Some(place) => (place.file.map_or_else(String::new, sanitize), place.line.unwrap_or(0)),
                None => (String::new(), 0),
            };
            lines.push(Line { function, file, line });
            if lines.len() > MAX_INLINED {
                return Err(damaged());
            }
        }
        Ok((!lines.is_empty()).then(|| Told { lines, problem: self.problem.get() }))
    }

    /// The part of a unit that is in a `.dwo` file, or together with others in a `.dwp` file.
    fn split(&self, load: &SplitDwarfLoad<Reader>, missing: &Cell<Option<&'static str>>) -> Option<Arc<Sections>> {
        if let Some(package) = self.package.get_or_init(|| self.package()) {
            match package.as_ref().map(|package| package.find_cu(load.dwo_id, &load.parent)) {
                Some(Ok(Some(found))) => return Some(Arc::new(found)),
                Some(Ok(None)) => {}
                Some(Err(_)) | None => missing.set(Some("the .dwp file is damaged")),
            }
        }
        let name = load.path.as_ref()?.to_string_lossy().ok()?.into_owned();
        let folder = load.comp_dir.as_ref().and_then(|folder| Some(folder.to_string_lossy().ok()?.into_owned()));
        let beside = Path::new(&self.path).parent()?.join(Path::new(&name).file_name()?);
        for path in [Path::new(&folder.unwrap_or_default()).join(&name), beside] {
            if !path.is_absolute() {
                continue;
            }
            let Ok(file) = open_regular(&path) else { continue };
            match read_split(&file, load) {
                Ok(Some(sections)) => {
                    missing.set(None);
                    return Some(Arc::new(sections));
                }
                Ok(None) => missing.set(Some("a .dwo file is of another build")),
                Err(problem) => missing.set(Some(problem)),
            }
        }
        if missing.get().is_none() {
            missing.set(Some("a .dwo file is missing"));
        }
        None
    }

    /// The `.dwp` file beside it, if there is one; `Some(None)` where it is damaged.
    fn package(&self) -> Option<Option<DwarfPackage<Reader>>> {
        let mut path = self.path.clone().into_os_string();
        path.push(".dwp");
        let file = open_regular(Path::new(&path)).ok()?;
        let read = || {
            let image = Image::open(&file).ok().filter(|image| !image.is_damaged)?;
            let load = |id: SectionId| id.dwo_name().map_or_else(|| Ok(empty()), |name| section(&image, name, id));
            DwarfPackage::load(|id| load(id).map_err(|_| gimli::Error::Io), empty()).ok()
        };
        Some(read())
    }
}

/// True if its units can be read: addr2line passes over those that cannot.
fn is_sound(sections: &Sections) -> bool {
    /// Of a file with more units the others are believed.
    const MAX_CHECKED: usize = 4096;
    let mut units = sections.units();
    for _ in 0..MAX_CHECKED {
        match units.next() {
            Ok(Some(header)) => {
                if sections.unit(header).is_err() {
                    return false;
                }
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// A name as people read it.
pub fn readable(name: &str) -> String {
    sanitize(demangle(name).as_deref().unwrap_or(name))
}

fn empty() -> Reader {
    Reader::new(Rc::from(Vec::new()), LittleEndian)
}

/// A section's bytes; nothing where the file has none, and of sections that naming does not need.
fn section(image: &Image<'_>, name: &str, id: SectionId) -> Result<Reader, &'static str> {
    use SectionId::{DebugLoc, DebugLocLists, DebugMacinfo, DebugMacro, DebugNames, EhFrame, EhFrameHdr};
    let is_needed =
        !matches!(id, DebugLoc | DebugLocLists | DebugMacinfo | DebugMacro | DebugNames | EhFrame | EhFrameHdr);
    let Some(section) = image.section(name).filter(|_| is_needed) else { return Ok(empty()) };
    let bytes = image.data(section).ok_or("the debug information is damaged or too large")?;
    if is_unfinished(id, &bytes) {
        return Err("the debug information is damaged");
    }
    Ok(Reader::new(Rc::from(bytes), LittleEndian))
}

/// True if a section's end was never written, as of a file whose copy was broken off: none of these ends with so many zeros.
fn is_unfinished(id: SectionId, bytes: &[u8]) -> bool {
    const ZEROS: [u8; 64] = [0; 64];
    use SectionId::{DebugAbbrev, DebugInfo, DebugLine, DebugRngLists, DebugStr};
    matches!(id, DebugAbbrev | DebugInfo | DebugLine | DebugRngLists | DebugStr) && bytes.ends_with(&ZEROS)
}

/// The unit of a `.dwo` file, if it is the one that is asked for.
fn read_split(file: &File, load: &SplitDwarfLoad<Reader>) -> Result<Option<Sections>, &'static str> {
    const DAMAGED: &str = "a .dwo file is damaged";
    let image = Image::open(file).map_err(|_| DAMAGED)?;
    let mut sections =
        Sections::load(|id| id.dwo_name().map_or_else(|| Ok(empty()), |name| section(&image, name, id)))?;
    sections.make_dwo(&load.parent);
    let header = sections.units().next().ok().flatten().ok_or(DAMAGED)?;
    let unit = sections.unit(header).map_err(|_| DAMAGED)?;
    Ok((unit.dwo_id == Some(load.dwo_id)).then_some(sections))
}

/// The file to which `dwz` has moved what several files share (`.gnu_debugaltlink`: a path and a build id).
fn supplement(image: &Image<'_>, of: &Path) -> Option<File> {
    let link = image.data(image.section(".gnu_debugaltlink")?)?;
    let at = link.iter().position(|&byte| byte == 0)?;
    let path = Path::new(std::str::from_utf8(&link[..at]).ok()?);
    let id: String = link[at + 1..].iter().map(|byte| format!("{byte:02x}")).collect();
    let (folder, file) = id.split_at_checked(2).filter(|(_, file)| !file.is_empty())?;
    let debug = Path::new("/usr/lib/debug");
    let name = path.file_name()?;
    let places = [
        of.parent()?.join(path),
        debug.join(of.parent()?.strip_prefix("/").ok()?).join(path),
        debug.join(".dwz").join(name),
        debug.join(".dwz/x86_64-linux-gnu").join(name),
        debug.join(format!(".build-id/{folder}/{file}.debug")),
    ];
    places.iter().find_map(|path| {
        let found = Module::open(path).ok()?;
        if found.build_id() == id { found.file()?.try_clone().ok() } else { None }
    })
}
