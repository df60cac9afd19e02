//! Names looked for in files that the machine's compilers make; where a tool is missing, a test says so and passes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

mod c;
mod cxx;
mod damage;
mod debug;
mod go;
mod hidden;
mod process;
mod tracepoints;

/// A folder in which a test makes files.
struct Workshop(tempfile::TempDir);

impl Workshop {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Runs a tool in the folder; `None` if it is missing or fails.
    fn run(&self, tool: &str, arguments: &[&str]) -> Option<()> {
        let output = Command::new(tool).args(arguments).current_dir(&self.0).output();
        let done = output.as_ref().is_ok_and(|output| output.status.success());
        if !done {
            let why = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
            println!("skipped: {tool} {}: {why:?}", arguments.join(" "));
        }
        done.then_some(())
    }

    /// Compiles a program or library `made` from a text.
    fn compile(&self, tool: &str, text: &str, made: &str, options: &[&str]) -> Option<PathBuf> {
        let source = format!("{made}.{}", if tool == "c++" { "cpp" } else { "c" });
        self.write(&source, text);
        self.run(tool, &[&["-o", made, source.as_str()], options].concat())?;
        Some(self.path(made))
    }
}

fn find(file: &Path, spec: &str) -> Result<Found, Box<Missing>> {
    Finder::of_files(&[file]).unwrap().find(&spec.parse().unwrap())
}

/// The only place that is meant.
fn one(file: &Path, spec: &str) -> Place {
    let mut found = find(file, spec).unwrap_or_else(|missing| panic!("{missing} {}", missing.hint()));
    assert_eq!(found.places.len(), 1, "{spec}: {:?}", names(&found));
    found.places.remove(0)
}

/// Where a function of the file is left.
fn returns(file: &Path, place: &Place) -> Returns {
    let finder = Finder::of_files(&[file]).unwrap();
    let found = finder.find(&place.symbol.parse().unwrap()).unwrap();
    finder.returns(&found.places[0]).unwrap()
}

/// The names for people of all places.
fn names(found: &Found) -> Vec<&str> {
    found.places.iter().map(|place| place.name.as_str()).collect()
}

/// Bytes of the file at a place.
fn bytes_at(place: &Place, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    File::open(&place.module.path).unwrap().read_exact_at(&mut bytes, place.file_offset).unwrap();
    bytes
}
