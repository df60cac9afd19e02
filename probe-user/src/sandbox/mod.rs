//! What the daemon's processes may do: each gives away, before it has a second thread, what it does not need. The collector
//! keeps the capabilities by which it sees other processes, and has no network; the server keeps the network, and is nobody.
//! Where the kernel lacks a means the others hold, and the log says which do.

mod capabilities;
mod files;
mod filter;
mod user;

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Gid;
use rustix::thread::CapabilitySet;

pub use files::Files;
pub use user::User;

/// What the collector is run with: the least by which kernel programs are loaded and attached, foreign memory, maps and
/// files are read, and the kernel's symbols are seen.
pub const COLLECTOR: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHECKPOINT_RESTORE)
    .union(CapabilitySet::SYSLOG)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::IPC_LOCK);

/// Confines this process to what the collector does. `group` may read what it makes: it becomes a member, so that it can
/// give files to that group when it may no longer give them to anybody else.
pub fn collector(group: Option<u32>) -> Result<()> {
    expect_single_thread()?;
    if let Some(group) = group
        && let Err(error) = join(group)
    {
        tracing::debug!("group {group}: {error:#}");
    }
    let mut held = vec![];
    note(&mut held, "capabilities", capabilities::keep(COLLECTOR))?;
    note(&mut held, "no_new_privs", rustix::thread::set_no_new_privs(true))?;
    note(&mut held, "seccomp", filter::collector())?;
    // Not believed but tried.
    match std::net::UdpSocket::bind("127.0.0.1:0") {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            tracing::info!("sockets of the network are refused");
        }
        _ => tracing::error!("this process could open a socket of the network: the kernel has no seccomp"),
    }
    let kept = rustix::thread::capabilities(None).map_or(String::new(), |sets| capabilities::names(sets.effective));
    tracing::info!("confined by {}; capabilities: {kept}", held.join(", "));
    Ok(())
}

/// Confines this process to what the server does: it becomes `user`, without any capability, sees only `files`.
pub fn server(user: &User, files: &Files) -> Result<()> {
    expect_single_thread()?;
    capabilities::bound(CapabilitySet::empty())?;
    user.become_it()?;
    let mut held = vec![];
    note(&mut held, "capabilities", capabilities::keep(CapabilitySet::empty()))?;
    note(&mut held, "no_new_privs", rustix::thread::set_no_new_privs(true))?;
    // Before the filter, which does not know of it.
    note(&mut held, "landlock", files.confine())?;
    note(&mut held, "seccomp", filter::server())?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    tracing::info!("running as {} (uid {uid}, gid {gid}); confined by {}", user.name, held.join(", "));
    Ok(())
}

/// Confines a process that reads what targets name: it opens files for reading, and does nothing else. What the kernel lacks
/// of it is no reason to do without the rest, but for capabilities.
pub fn reader(kept: CapabilitySet) -> Result<()> {
    nursery(kept)?;
    let _ = filter::reader();
    Ok(())
}

/// Confines the process that starts those, and kills them.
pub fn nursery(kept: CapabilitySet) -> Result<()> {
    expect_single_thread()?;
    capabilities::keep(kept)?;
    let _ = rustix::thread::set_no_new_privs(true);
    Ok(())
}

/// What holds is listed; what does not is a warning, but for capabilities: to go on with all of them is no choice.
fn note<T, E: Display>(held: &mut Vec<&'static str>, name: &'static str, done: Result<T, E>) -> Result<()> {
    match done {
        Ok(_) => held.push(name),
        Err(error) if name == "capabilities" => anyhow::bail!("cannot give away capabilities: {error}"),
        Err(error) => tracing::warn!("not confined by {name}: {error}"),
    }
    Ok(())
}

/// How long a thread that has ended may be seen.
const PATIENCE: Duration = Duration::from_secs(2);

/// Capabilities and users are of threads: with a second one there would be a way around. One that was joined may be there for a
/// moment still.
fn expect_single_thread() -> Result<()> {
    let count = || Ok::<_, std::io::Error>(std::fs::read_dir("/proc/self/task")?.count());
    let (begin, mut threads) = (Instant::now(), count().context("cannot read /proc/self/task")?);
    while threads > 1 && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
        threads = count()?;
    }
    ensure!(threads == 1, "a process with {threads} threads cannot be confined as a whole");
    Ok(())
}

fn join(group: u32) -> Result<()> {
    let mut groups = rustix::process::getgroups().context("cannot read the groups of this process")?;
    let group = Gid::from_raw(group);
    if rustix::process::getegid() != group && !groups.contains(&group) {
        groups.push(group);
        rustix::thread::set_thread_groups(&groups).context("cannot join it")?;
    }
    Ok(())
}
