//! Kernels on which a program that reads a process's memory from an interrupt may lock up the whole host: from 5.19 on
//! `copy_from_user_nofault` checked its arguments under a lock that the interrupted code may hold (Debian bug 1033398). Mended
//! by "mm: Fix copy_from_user_nofault()" (d319f344561d): in 6.4, and in the stable releases 6.1.36 and 6.3.10.

use std::env;

use anyhow::{Result, bail};

use crate::problem::{Exit, Problem};

/// Set to anything, it says that this kernel may be used all the same.
const OVERRIDE: &str = "PROBE_ALLOW_UNSAFE_KERNEL";

/// What to do about such a kernel.
pub const HINT: &str = "update the kernel: 6.1.36, 6.3.10, 6.4 and later are fixed; if yours has the change under another \
                        version, set PROBE_ALLOW_UNSAFE_KERNEL=1 in the environment";

/// The release that a kernel is made from, such as (6, 1, 90).
pub type Version = (u32, u32, u32);

/// Fails on such a kernel, unless it is allowed.
pub fn refuse() -> Result<()> {
    let Some(version) = of_this_kernel() else { return Ok(()) };
    let what = describe(version);
    if is_allowed() {
        tracing::warn!("{what}; it is used because {OVERRIDE} is set");
        return Ok(());
    }
    bail!(Problem::new(Exit::NotPermitted, what, HINT));
}

/// The version of this kernel, if that may happen on it.
pub fn of_this_kernel() -> Option<Version> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    unmended(&release, &read("/proc/sys/kernel/version"), &read("/proc/version_signature"))
}

/// Whether such a kernel is to be used all the same.
pub fn is_allowed() -> bool {
    env::var_os(OVERRIDE).is_some_and(|value| !value.is_empty())
}

/// What may happen there.
pub fn describe((major, minor, patch): Version) -> String {
    format!("Linux {major}.{minor}.{patch} may lock up when stacks are sampled (a deadlock in copy_from_user_nofault)")
}

/// The version of a kernel on which that may happen, by the files in `/proc`: the release, the build, and Ubuntu's signature.
fn unmended(release: &str, build: &str, signature: &str) -> Option<Version> {
    let version = version_of(release, build, signature)?;
    let is_mended = match version {
        (6, 1, patch) => patch >= 36,
        (6, 3, patch) => patch >= 10,
        version => !((5, 19, 0)..(6, 4, 0)).contains(&version),
    };
    (!is_mended).then_some(version)
}

/// Debian's releases are named for what all of them have in common, as Ubuntu's are: the version is told elsewhere.
fn version_of(release: &str, build: &str, signature: &str) -> Option<Version> {
    let debian = build.split_once("Debian ").map(|(_, version)| version);
    let ubuntu = signature.split_whitespace().nth(2);
    debian.and_then(parse).or_else(|| ubuntu.and_then(parse)).or_else(|| parse(release))
}

fn parse(text: &str) -> Option<Version> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some((major, minor, numbers.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_without_the_change_are_refused() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)";
        let ubuntu = "Ubuntu 6.2.0-39.40~22.04.1-generic 6.2.16";
        for (release, build, signature, version) in [
            ("6.1.25-37.47.amzn2023.x86_64", "", "", Some((6, 1, 25))),
            ("6.1.0-9-amd64", debian, "", Some((6, 1, 27))),
            ("6.2.0-39-generic", "#40~22.04.1-Ubuntu SMP", ubuntu, Some((6, 2, 16))),
            ("5.19.0", "", "", Some((5, 19, 0))),
            ("6.3.9", "", "", Some((6, 3, 9))),
            ("6.1", "", "", Some((6, 1, 0))),
            ("6.1.0-48-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-3 (2026-10-01)", "", None),
            ("6.1.36", "", "", None),
            ("6.3.10", "", "", None),
            ("6.4.0-150600.23", "", "", None),
            ("5.15.0-91-generic", "", "", None),
            ("7.3.4+deb13-amd64", "", "", None),
            ("unknown", "", "", None),
        ] {
            assert_eq!(unmended(release, build, signature), version, "{release} {build} {signature}");
        }
    }
}
