//! `Files`: where functions of a process are looked for.

use std::path::PathBuf;
use std::sync::Arc;

use crate::target::{Module, ModuleKind, Process, folder};

/// Files, and where their debug files may be.
#[derive(Clone, Debug)]
pub struct Files {
    /// The files.
    pub modules: Vec<Arc<Module>>,
    /// Folders that are `/` to somebody.
    pub roots: Vec<PathBuf>,
}

impl Files {
    /// Those that a process has mapped as code.
    pub fn of_process(process: &Process) -> Self {
        let mut modules: Vec<Arc<Module>> = Vec::new();
        for (_, _, _, module) in process.mappings.iter() {
            if module.kind == ModuleKind::File && !modules.iter().any(|known| Arc::ptr_eq(known, module)) {
                modules.push(module.clone());
            }
        }
        // Debug files are installed beside the program, which may be in a container, or on the host.
        let roots = vec![folder(process.pid).join("root"), PathBuf::from("/")];
        Self { modules, roots }
    }
}
