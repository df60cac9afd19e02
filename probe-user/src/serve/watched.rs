//! Files that are read again when they have changed, while the server runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often files are looked at, at most.
const EVERY: Duration = Duration::from_secs(1);

/// What stands in some files. A change that cannot be read changes nothing, and is logged.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
}

/// What tells two versions of a file apart: device, inode, size, seconds and nanoseconds of the last change.
type Stamp = (u64, u64, u64, i64, i64);

impl<T> Watched<T> {
    /// Reads for the first time; an error is the caller's.
    pub fn new(paths: Vec<PathBuf>, read: impl Fn() -> Result<T> + Send + Sync + 'static) -> Result<Self> {
        // Before they are read: a change in between is seen later.
        let stamps = stamps(&paths);
        let state = State { value: Arc::new(read()?), stamps, looked_at: Instant::now() };
        Ok(Self { paths, read: Box::new(read), state: Mutex::new(state) })
    }

    /// What stands there now.
    pub fn get(&self) -> Arc<T> {
        self.look(EVERY)
    }

    fn look(&self, every: Duration) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= every {
            state.looked_at = Instant::now();
            let stamps = stamps(&self.paths);
            if stamps != state.stamps {
                state.stamps = stamps;
                match (self.read)() {
                    Ok(value) => {
                        state.value = Arc::new(value);
                        tracing::info!("{} was read again", self.paths[0].display());
                    }
                    Err(error) => tracing::error!("what is in force stays: {error:#}"),
                }
            }
        }
        Arc::clone(&state.value)
    }
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let data = fs::metadata(path).ok()?;
        Some((data.dev(), data.ino(), data.size(), data.ctime(), data.ctime_nsec()))
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn changes_are_read_and_mistakes_leave_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let read = {
            let path = path.clone();
            move || fs::read_to_string(&path)?.trim().parse::<u32>().context("no number")
        };
        assert!(Watched::new(vec![path.clone()], read.clone()).is_err());
        fs::write(&path, "1").unwrap();
        let watched = Watched::new(vec![path.clone()], read).unwrap();
        assert_eq!(*watched.look(Duration::ZERO), 1);
        fs::write(&path, "22").unwrap();
        assert_eq!(*watched.look(Duration::ZERO), 22);
        fs::write(&path, "no number").unwrap();
        assert_eq!(*watched.look(Duration::ZERO), 22);
        fs::remove_file(&path).unwrap();
        assert_eq!(*watched.look(Duration::ZERO), 22);
        fs::write(&path, "4").unwrap();
        assert_eq!(*watched.get(), 22, "not before a second has passed");
        assert_eq!(*watched.look(Duration::ZERO), 4);
    }
}
