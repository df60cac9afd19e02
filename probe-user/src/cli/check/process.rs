//! What may be known of a process: whether it may be looked into, and which of its files have no names or cannot be unwound.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::functions::Finder;
use crate::kernel::host::verdict::{Line, Status};
use crate::problem::PRIVILEGES;
use crate::target::{Module, ModuleKind, Modules, Process, check_access, is_running, living_thread};
use crate::unwind::{Effort, Packed, Reason};

/// Of so many symbols of a file one is looked for that is a function.
const EARLY: u32 = 256;
/// From this part of its code on, in percent, it is said that a file has derived rows: linkage tables are less.
const WORTH_SAYING: f64 = 5.0;
/// Most files that are named in a line.
const NAMED: usize = 5;

/// A process as it was found.
#[derive(Serialize)]
pub struct Checked {
    /// Its id.
    pub pid: u32,
    /// Its name; empty if it is gone.
    pub name: String,
    /// What was looked at.
    pub checks: Vec<Line>,
}

impl Checked {
    /// Looks at a process.
    pub fn of(pid: u32, modules: &mut Modules) -> Self {
        let process = Process::read(pid, modules);
        let mut checks = vec![access(pid)];
        if checks[0].status == Status::Ok {
            checks.push(main_thread(pid));
            let mut files: BTreeMap<*const Module, Arc<Module>> = BTreeMap::new();
            for (_, _, _, module) in process.mappings.iter().filter(|(_, _, _, module)| module.kind == ModuleKind::File)
            {
                files.insert(Arc::as_ptr(module), Arc::clone(module));
            }
            let files: Vec<Arc<Module>> = files.into_values().collect();
            checks.extend([readable(&files), symbols(&files), unwinding(&files)]);
        }
        Self { pid, name: process.comm, checks }
    }
}

fn access(pid: u32) -> Line {
    let (status, detail, hint) = match check_access(pid) {
        Ok(()) if is_running(pid) => (Status::Ok, "its memory map can be read".to_owned(), ""),
        Ok(()) => (Status::Fail, "no such process runs".to_owned(), "`pgrep -a NAME` finds processes by name"),
        Err(error) => (Status::Fail, format!("it may not be looked into: {error}"), PRIVILEGES),
    };
    Line { name: "access", status, detail, hint }
}

fn main_thread(pid: u32) -> Line {
    let detail = match living_thread(pid) {
        thread if thread == pid => "runs".to_owned(),
        thread => format!("has ended, others go on: thread {thread} tells of the process"),
    };
    Line { name: "main thread", status: Status::Ok, detail, hint: "" }
}

fn readable(files: &[Arc<Module>]) -> Line {
    let closed = files.iter().filter(|module| !module.wait().is_file());
    let hint = "what was deleted or is in another mount namespace can be read with CAP_CHECKPOINT_RESTORE";
    line("files", files.len(), "can be read", closed.map(|module| name(module)).collect(), "cannot be read", hint)
}

fn symbols(files: &[Arc<Module>]) -> Line {
    let has_symbols = |module: &Arc<Module>| {
        // One is enough; the first of them may be no functions.
        let asked = Cell::new(0);
        let is_early = |_: &str| asked.replace(asked.get() + 1) < EARLY;
        !Finder::of_modules([Arc::clone(module)], Vec::new()).symbols(is_early).is_empty()
    };
    let open = || files.iter().filter(|module| module.wait().is_file());
    let nameless = open().filter(|module| !has_symbols(module)).map(|module| name(module));
    let hint = "install the debug symbols of the package, or build without stripping";
    line("symbols", open().count(), "name their functions", nameless.collect(), "have no names", hint)
}

/// How stacks go on through each file: by its tables, by rows that are derived from its code, or by frame pointers.
fn unwinding(files: &[Arc<Module>]) -> Line {
    let (mut count, mut derived, mut without) = (0, Vec::new(), Vec::new());
    for module in files.iter().filter(|module| module.wait().is_file()) {
        count += 1;
        match Packed::of_module(module, Effort::Full) {
            Ok(table) => {
                let (by_table, by_code) = table.covered();
                let percent = 100.0 * by_code as f64 / (by_table + by_code).max(1) as f64;
                if percent >= WORTH_SAYING {
                    let path = name(module);
                    derived.push(format!("{} {percent:.0} %", path.rsplit('/').next().unwrap_or_default()));
                }
            }
            Err(reason) if reason.to_string() == Reason::NoCode.to_string() => {}
            Err(reason) => without.push(format!("{} ({reason})", name(module))),
        }
    }
    let hint =
        "stacks through them follow frame pointers: build with -fasynchronous-unwind-tables or -fno-omit-frame-pointer";
    let mut line = line("unwinding", count, "can be unwound", without, "cannot be unwound", hint);
    if !derived.is_empty() {
        line.detail += &format!("; of their code by rows that are derived from it: {}", some(&derived));
    }
    line
}

/// Whether all of so many files are as they should be, and which are not.
fn line(what: &'static str, count: usize, good: &str, bad: Vec<String>, not_good: &str, hint: &'static str) -> Line {
    if bad.is_empty() {
        return Line { name: what, status: Status::Ok, detail: format!("all {count} files {good}"), hint: "" };
    }
    Line { name: what, status: Status::Warn, detail: format!("of {count} files, {} {not_good}", some(&bad)), hint }
}

/// The first of a list, and how many more there are.
fn some(list: &[String]) -> String {
    let more = if list.len() > NAMED { format!(" and {} more", list.len() - NAMED) } else { String::new() };
    format!("{}{more}", list[..list.len().min(NAMED)].join(", "))
}

fn name(module: &Module) -> String {
    crate::text::sanitize(&module.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_looked_into() {
        let checked = Checked::of(std::process::id(), &mut Modules::default());
        assert_eq!(
            checked.checks.iter().map(|line| line.name).collect::<Vec<_>>(),
            ["access", "main thread", "files", "symbols", "unwinding"]
        );
        assert!(checked.checks.iter().all(|line| line.status != Status::Fail), "{:?}", checked.checks);
        let gone = Checked::of(u32::MAX, &mut Modules::default());
        assert_eq!((gone.checks.len(), gone.checks[0].status), (1, Status::Fail));
    }

    #[test]
    fn files_that_lack_something_are_named() {
        let bad: Vec<String> = (0..7).map(|number| format!("/lib/{number}.so")).collect();
        let line = line("symbols", 9, "name", bad, "have no names", "do");
        assert!(
            line.detail.starts_with("of 9 files, /lib/0.so, ") && line.detail.ends_with(" and 2 more have no names")
        );
        assert_eq!((line.status, line.hint), (Status::Warn, "do"));
    }
}
