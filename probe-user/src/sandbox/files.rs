//! The files that a process sees, by landlock where the kernel has it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};

/// What every program with a network reads: names of hosts, certificates, the C library's parts.
const SYSTEM: &[&str] =
    &["/etc", "/usr", "/lib", "/lib64", "/run/systemd/resolve", "/run/nscd", "/proc", "/sys", "/dev"];

/// What a process may read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Folders of which all may be read.
    pub read: Vec<PathBuf>,
    /// Folders in which anything may be written.
    pub write: Vec<PathBuf>,
    /// The port that it listens at; `None` for any.
    pub listen: Option<u16>,
}

impl Files {
    /// Whether a file is among what may be read.
    pub fn can_read(&self, file: &Path) -> bool {
        self.read.iter().chain(&self.write).any(|folder| file.starts_with(folder))
            || SYSTEM.iter().any(|folder| file.starts_with(folder))
    }

    /// Holds for this thread and all that it starts. What is not there cannot be named, and is not seen later either.
    pub(super) fn confine(&self) -> Result<()> {
        // Older kernels hold what they know of this.
        let abi = ABI::V6;
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        let mut rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?;
        if self.listen.is_some() {
            rules = rules.handle_access(AccessNet::BindTcp)?;
        }
        let mut rules = rules.create()?;
        if let Some(port) = self.listen {
            rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
        }
        let system = SYSTEM.iter().map(PathBuf::from);
        let folders = self.read.iter().cloned().chain(system).map(|folder| (folder, reading));
        let writing = AccessFs::from_all(abi) & !AccessFs::Execute;
        let folders = folders.chain(self.write.iter().cloned().map(|folder| (folder, writing)));
        for (folder, access) in folders {
            match PathFd::new(&folder) {
                Ok(open) => rules = rules.add_rule(PathBeneath::new(open, access))?,
                Err(error) => tracing::debug!("{} will not be seen: {error}", folder.display()),
            }
        }
        match rules.restrict_self()?.ruleset {
            RulesetStatus::NotEnforced => bail!("this kernel has none, or it is switched off"),
            RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn only_what_is_named_is_seen() {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("made")).collect();
        let paths: Vec<PathBuf> = folders.iter().map(|folder| folder.path().to_owned()).collect();
        for path in &paths {
            fs::write(path.join("file"), "text").expect("written");
        }
        let files = Files { read: vec![paths[0].clone()], write: vec![paths[1].clone()], listen: None };
        assert!(files.can_read(&paths[0].join("file")) && !files.can_read(&paths[2].join("file")));
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).expect("set");
            if files.confine().is_err() {
                eprintln!("skipped: no landlock here");
                return;
            }
            let kind = |result: std::io::Result<()>| result.map_err(|error| error.kind());
            let refused = Err(ErrorKind::PermissionDenied);
            let read = |path: &Path| kind(fs::read(path.join("file")).map(drop));
            let write = |path: &Path| kind(fs::write(path.join("new"), "text"));
            assert_eq!([read(&paths[0]), read(&paths[1]), read(&paths[2])], [Ok(()), Ok(()), refused]);
            assert_eq!([write(&paths[0]), write(&paths[1]), write(&paths[2])], [refused, Ok(()), refused]);
        })
        .join()
        .expect("no panic");
    }
}
