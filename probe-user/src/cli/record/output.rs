//! Where the profile goes: a file that appears whole or not at all, stdout, or something like /dev/null or a pipe.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::problem::{Exit, Problem};

/// An output that can be written.
pub struct Output {
    path: PathBuf,
    to: To,
}

enum To {
    Stdout,
    /// Written beside its final name, then renamed.
    File(NamedTempFile),
    /// A device or a pipe.
    Other(File),
}

impl Output {
    /// Proves that `path` can be written, without touching what may be there.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> std::io::Result<To> {
            if path.as_os_str() == "-" {
                return Ok(To::Stdout);
            }
            match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => Err(std::io::ErrorKind::IsADirectory.into()),
                Ok(metadata) if !metadata.is_file() => File::options().write(true).open(path).map(To::Other),
                _ => {
                    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                    let folder = folder.unwrap_or(Path::new("."));
                    tempfile::Builder::new().prefix(".probe-").tempfile_in(folder).map(To::File)
                }
            }
        };
        let to = open().map_err(|error| {
            let hint = "name a file in a folder that exists and can be written with -o, or `-` for stdout";
            Problem::new(Exit::Failure, format!("cannot write {}: {error}", path.display()), hint)
        })?;
        Ok(Self { path: path.to_owned(), to })
    }

    /// Writes it, and says where to. If the file cannot be written after all (a full disk), the profile is saved in the
    /// folder for temporary files rather than lost.
    pub fn write(self, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<String> {
        let name = self.path.display().to_string();
        match self.to {
            To::Stdout => {
                let mut out = BufWriter::new(std::io::stdout().lock());
                match write(&mut out).and_then(|()| Ok(out.flush()?)) {
                    // Whoever reads may have enough: `probe record -o - | head`
                    Err(error) if is_broken_pipe(&error) => {}
                    done => done.context("cannot write to stdout")?,
                }
                Ok("stdout".into())
            }
            To::Other(file) => {
                buffered(&file, &write).with_context(|| format!("cannot write {name}"))?;
                Ok(name)
            }
            To::File(file) => match finish(file, &self.path, &write) {
                Ok(()) => Ok(name),
                Err(error) => {
                    let message = format!("cannot write {name}: {error:#}");
                    let saved = rescue(&self.path, &write).with_context(|| message.clone())?;
                    let hint = format!("the profile was saved as {} instead", saved.display());
                    Err(Problem::new(Exit::Failure, message, hint).into())
                }
            },
        }
    }
}

fn buffered(file: &File, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    Ok(out.flush()?)
}

fn finish(file: NamedTempFile, path: &Path, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    buffered(file.as_file(), write)?;
    // Temporary files are private; the result has the permissions of any new file.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::umask(mask);
    let mode = 0o666 & !mask.as_raw_mode();
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn rescue(path: &Path, write: impl Fn(&mut dyn Write) -> Result<()>) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
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

    #[test]
    fn a_file_appears_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "before").unwrap();
        let output = Output::open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before", "opening changes nothing");
        output.write(|out| Ok(out.write_all(b"after")?)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_device_is_written_directly() {
        assert_eq!(
            Output::open(Path::new("/dev/null")).unwrap().write(|out| Ok(out.write_all(b"x")?)).unwrap(),
            "/dev/null"
        );
    }

    #[test]
    fn what_cannot_be_written_is_known_at_once() {
        for path in ["/nowhere/out.svg", "/proc/out.svg", "/"] {
            let error = Output::open(Path::new(path)).err().unwrap();
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn a_full_disk_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::open(&folder.path().join("out.folded")).unwrap();
        let attempts = std::cell::Cell::new(0);
        let error = output
            .write(|out| {
                attempts.set(attempts.get() + 1);
                anyhow::ensure!(attempts.get() > 1, "no space left on device");
                Ok(out.write_all(b"saved")?)
            })
            .unwrap_err();
        let hint = &error.downcast_ref::<Problem>().unwrap().hint;
        let saved = hint.split(' ').find(|word| word.starts_with('/')).unwrap();
        assert_eq!(std::fs::read_to_string(saved).unwrap(), "saved");
        std::fs::remove_file(saved).unwrap();
    }
}
