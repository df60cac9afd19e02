//! Where the profile goes: a file that appears whole or not at all, stdout, or something like /dev/null or a pipe.

use std::fs::{File, Metadata, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::signals::Signals;
use crate::cli::foreign;
use crate::problem::{Exit, Problem};

/// Symbolic links that are followed, as many as the kernel does.
const MAX_LINKS: usize = 40;

/// An output that can be written.
pub struct Output {
    name: String,
    to: To,
}

enum To {
    Stdout,
    /// To be written beside its final name, then renamed.
    File(PathBuf),
    /// A device or a pipe.
    Other(File),
}

/// True for the names of our own stdout.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdout")
}

impl Output {
    /// Proves that `path` can be written, without touching what may be there and without leaving anything.
    pub fn open(path: &Path) -> Result<Self> {
        let to = open(path).map_err(|error| {
            let hint = "name a file in a folder that exists and can be written with -o, or `-` for stdout; a named pipe needs \
                        its reader first";
            Problem::new(Exit::Failure, format!("cannot write {}: {}", path.display(), plain(&error)), hint)
        })?;
        let name = if is_stdout(path) { "stdout".into() } else { path.display().to_string() };
        Ok(Self { name, to })
    }

    /// Writes it, and says where to. If it cannot be written after all (a full disk), the profile is saved in the folder
    /// for temporary files rather than lost.
    pub fn write(self, signals: &Signals, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<String> {
        let Self { name, to } = self;
        let written = match &to {
            To::Stdout => buffered(std::io::stdout().lock(), &write),
            To::Other(file) => buffered(file, &write),
            To::File(path) => replace(path, signals, &write),
        };
        match written {
            // Whoever reads may have enough: `probe record -o - | head`
            Err(error) if is_broken_pipe(&error) && !matches!(to, To::File(_)) => Ok(name),
            Err(error) => {
                let message = format!("cannot write {name}: {error:#}");
                let file = if let To::File(path) = &to { path.file_name() } else { None };
                let file = file.map_or("profile".into(), |file| file.to_string_lossy());
                let saved = rescue(&file, &write).with_context(|| message.clone())?;
                let hint = format!("the profile was saved as {} instead", saved.display());
                Err(Problem::new(Exit::Failure, message, hint).into())
            }
            Ok(()) => Ok(name),
        }
    }
}

fn open(path: &Path) -> std::io::Result<To> {
    if is_stdout(path) {
        return Ok(To::Stdout);
    }
    foreign::refuse(path)?;
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(std::io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if !metadata.is_file() => special(path).map(To::Other),
        // Also a link that the kernel does not follow, because somebody else has put it into a folder for everybody.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => {
            let path = behind_links(path)?;
            // It has no name, or has it no longer when this returns.
            tempfile::tempfile_in(folder(&path))?;
            Ok(To::File(path))
        }
    }
}

/// Opens a device or a named pipe; one that nobody reads is refused, because to open it would wait for that.
fn special(path: &Path) -> std::io::Result<File> {
    let file = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENXIO) => std::io::Error::other("it is a pipe or a socket that nobody reads"),
            _ => error,
        }
    })?;
    // Who reads slowly is waited for.
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags.difference(rustix::fs::OFlags::NONBLOCK))?;
    Ok(file)
}

/// What a path stands for if it is a symbolic link, also one to a file that is not there yet.
fn behind_links(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&path) else { return Ok(path) };
        path = folder(&path).join(target);
        foreign::refuse(&path)?;
    }
    Err(rustix::io::Errno::LOOP.into())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The operating system's words alone: `tempfile` adds a path that nobody has asked for.
fn plain(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.source()?.downcast_ref::<std::io::Error>());
    inner.unwrap_or(error).to_string()
}

fn buffered(to: impl Write, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::new(to);
    let written = write(&mut out).and_then(|()| Ok(out.flush()?));
    // Not tried again when it is dropped.
    drop(out.into_parts());
    written
}

/// Writes beside the final name, then renames.
fn replace(path: &Path, signals: &Signals, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<()> {
    let temporary = {
        let mut leftovers = signals.leftovers();
        let temporary = tempfile::Builder::new().prefix(".probe-").tempfile_in(folder(path));
        let temporary = temporary.map_err(|error| anyhow::anyhow!(plain(&error)))?;
        leftovers.file = Some(temporary.path().to_owned());
        temporary
    };
    let written = finish(temporary, path, write);
    signals.leftovers().file = None;
    written
}

fn finish(file: NamedTempFile, path: &Path, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<()> {
    buffered(file.as_file(), write)?;
    // Temporary files are private; the result is like what it replaces, or like any new file.
    let mode = match std::fs::metadata(path) {
        Ok(before) => {
            keep_owner(file.as_file(), &before);
            before.mode() & 0o777
        }
        Err(_) => 0o666 & !foreign::umask(),
    };
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Only root may give files away; for everybody else the new file is their own.
fn keep_owner(file: &File, before: &Metadata) {
    if let Err(error) = std::os::unix::fs::fchown(file, Some(before.uid()), Some(before.gid())) {
        tracing::debug!(%error, "the profile does not keep the owner of the file that it replaces");
    }
}

fn rescue(name: &str, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<PathBuf> {
    let file = tempfile::Builder::new().prefix("probe-").suffix(&format!("-{name}")).tempfile()?;
    buffered(file.as_file(), write)?;
    Ok(file.keep()?.1)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    kinds.map(std::io::Error::kind).any(|kind| kind == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) -> Result<String> {
        Output::open(path)?.write(&Signals::default(), |out| Ok(out.write_all(text.as_bytes())?))
    }

    fn entries(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    /// Where the hint says that the profile was saved; its text.
    fn saved(error: &anyhow::Error) -> String {
        let hint = &error.downcast_ref::<Problem>().unwrap().hint;
        let saved = hint.split(' ').find(|word| word.starts_with('/')).unwrap();
        let text = std::fs::read_to_string(saved).unwrap();
        std::fs::remove_file(saved).unwrap();
        text
    }

    #[test]
    fn a_pipe_without_a_reader_is_refused() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let error = Output::open(&path).map(drop).unwrap_err();
        assert!(error.to_string().contains("nobody reads"), "{error}");
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        write(&path, "through").unwrap();
        assert_eq!(std::io::read_to_string(reader).unwrap(), "through");
    }

    #[test]
    fn a_file_appears_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before").unwrap();
        let output = Output::open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before", "opening changes nothing");
        assert_eq!(entries(folder.path()), 1, "opening leaves nothing");
        output.write(&Signals::default(), |out| Ok(out.write_all(b"after")?)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(entries(folder.path()), 1, "no temporary file is left");
    }

    #[test]
    fn whoever_quits_meanwhile_knows_what_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let signals = Signals::default();
        let output = Output::open(&folder.path().join("out")).unwrap();
        let write = |_: &mut dyn Write| {
            let unfinished = signals.leftovers().file.clone().unwrap();
            assert!(unfinished.exists());
            Ok(())
        };
        output.write(&signals, write).unwrap();
        assert_eq!(signals.leftovers().file, None);
    }

    #[test]
    fn links_are_followed_and_what_is_replaced_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("deep")).unwrap();
        std::fs::write(at("deep/real"), "before").unwrap();
        std::fs::set_permissions(at("deep/real"), Permissions::from_mode(0o640)).unwrap();
        for (link, target) in [("deep/one", "real"), ("two", "deep/one"), ("new", "deep/made"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        write(&at("two"), "after").unwrap();
        assert_eq!(std::fs::read_to_string(at("deep/real")).unwrap(), "after");
        assert_eq!(std::fs::metadata(at("deep/real")).unwrap().mode() & 0o7777, 0o640);
        write(&at("new"), "new").unwrap();
        assert_eq!(std::fs::read_to_string(at("deep/made")).unwrap(), "new");
        for link in ["two", "deep/one", "new"] {
            assert!(std::fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
        }
        assert!(write(&at("loop"), "x").is_err());
    }

    #[test]
    fn a_device_is_written_directly() {
        assert_eq!(write(Path::new("/dev/null"), "x").unwrap(), "/dev/null");
    }

    #[test]
    fn what_cannot_be_written_is_known_at_once() {
        for path in ["/nowhere/out.svg", "/proc/out.svg", "/"] {
            let error = Output::open(Path::new(path)).err().unwrap().to_string();
            assert!(error.contains(path) && !error.contains(".probe") && !error.contains(".tmp"), "{error}");
        }
    }

    #[test]
    fn a_full_disk_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::open(&folder.path().join("out.folded")).unwrap();
        let attempts = std::cell::Cell::new(0);
        let error = output
            .write(&Signals::default(), |out| {
                attempts.set(attempts.get() + 1);
                anyhow::ensure!(attempts.get() > 1, "no space left on device");
                Ok(out.write_all(b"saved")?)
            })
            .unwrap_err();
        assert_eq!(saved(&error), "saved");
        assert_eq!(saved(&write(Path::new("/dev/full"), "saved").unwrap_err()), "saved");
    }
}
