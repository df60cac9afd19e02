//! `Names`: from addresses to names, with a memory of the files that were read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use super::profile::Line;
use super::sources::Sources;
use crate::target::Module;

/// Files whose sources are remembered: what is above is read again.
const MAX_REMEMBERED: usize = 256;

/// What is known of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Functions, innermost first; empty if it has no name.
    pub lines: Vec<Line>,
    /// Where it has no name: the address (of the kind that was asked for) at which its function begins, if that is known.
    pub start: Option<u64>,
    /// Why it has no name; or, of a name, what is wrong with the sources that would have told more.
    pub problem: Option<&'static str>,
}

impl Named {
    /// No name, and why.
    pub fn unknown(reason: &'static str) -> Self {
        Self { problem: Some(reason), ..Self::default() }
    }
}

/// Names addresses. It is not `Send`, and its memory grows with the files that it sees.
pub struct Names {
    pub(super) kernel: blazesym::symbolize::Symbolizer,
    files: RefCell<HashMap<Identity, Rc<Sources>>>,
}

/// Device, inode, length and time of change of a file, and the path at which its process sees it.
type Identity = (u64, u64, u64, (i64, i64), String);

impl Names {
    /// One that has read nothing yet.
    pub fn new() -> Self {
        let kernel = blazesym::symbolize::Symbolizer::builder().enable_demangling(false).build();
        Self { kernel, files: RefCell::default() }
    }

    /// The sources of a module's names.
    pub(super) fn sources(&self, module: &Module) -> Rc<Sources> {
        let identity = module.file().and_then(|file| file.metadata().ok()).map(|file| {
            let changed = (file.ctime(), file.ctime_nsec());
            (file.dev(), file.ino(), file.len(), changed, module.path.clone())
        });
        let Some(identity) = identity else { return Rc::new(Sources::of(module)) };
        if let Some(known) = self.files.borrow().get(&identity) {
            return known.clone();
        }
        let sources = Rc::new(Sources::of(module));
        let mut files = self.files.borrow_mut();
        if files.len() >= MAX_REMEMBERED {
            files.clear();
        }
        files.insert(identity, sources.clone());
        sources
    }
}
