//! The collector's end.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::Shutdown;
use rustix::net::sockopt::socket_peercred;

use super::frame::{self, REPLY, REQUEST};
use crate::control::{Answer, Collector, Refusal, Reply, Request, answer};

/// Connections at a time: the server's threads that wait for recordings or events, and some more.
const MAX_CONNECTIONS: usize = 32;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(120);
/// How long a request may take from its first byte to its last, and a reply to be taken.
const TRANSFER: Duration = Duration::from_secs(10);

/// Who is answered, besides root and the user that the collector runs as.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peers {
    /// The server's user.
    pub uid: Option<u32>,
    /// Its group, to which the socket belongs.
    pub gid: Option<u32>,
}

impl Peers {
    pub(super) fn admits(self, uid: u32) -> bool {
        uid == 0 || Some(uid) == self.uid || uid == rustix::process::geteuid().as_raw()
    }
}

/// A socket at which a collector is asked. Dropping it removes it; requests that are being answered go on.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    /// Device and inode of the socket's file.
    place: Option<(u64, u64)>,
    socket: Arc<UnixListener>,
}

impl Listener {
    /// Listens at `path` with a thread for each connection. Takes the place of a socket that is left there.
    pub fn start(path: &Path, peers: Peers, collector: Arc<dyn Collector>) -> Result<Self> {
        let failed = || format!("cannot listen at {}", path.display());
        // Made under another name: whoever finds it by its own finds it ready.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(failed),
            _ => {}
        }
        let socket = UnixListener::bind(&temporary).with_context(failed)?;
        if let Some(gid) = peers.gid
            && let Err(error) = chown(&temporary, None, Some(gid))
        {
            tracing::warn!("group {gid} cannot use {}: {error}", path.display());
        }
        fs::set_permissions(&temporary, Permissions::from_mode(0o660)).with_context(failed)?;
        fs::rename(&temporary, path).with_context(failed)?;
        let place = fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
        let socket = Arc::new(socket);
        let accepting = Arc::clone(&socket);
        let accept = move || accept(&accepting, peers, &collector);
        std::thread::Builder::new().name("control".into()).spawn(accept).with_context(failed)?;
        Ok(Self { path: path.to_owned(), place, socket })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another daemon may have put its own there.
        if fs::metadata(&self.path).map(|data| (data.dev(), data.ino())).ok() == self.place {
            let _ = fs::remove_file(&self.path);
        }
        // Wakes the thread that waits for connections.
        let _ = rustix::net::shutdown(&*self.socket, Shutdown::Both);
    }
}

fn accept(socket: &UnixListener, peers: Peers, collector: &Arc<dyn Collector>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut stream = match socket.accept() {
            Ok((stream, _)) => stream,
            // Shut down.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => {
                // Too many open files, for example: others may close some.
                tracing::warn!("a connection of the server cannot be taken: {error}");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        match socket_peercred(&stream) {
            Ok(peer) if peers.admits(peer.uid.as_raw()) => {}
            Ok(peer) => {
                let (pid, uid) = (peer.pid.as_raw_nonzero(), peer.uid.as_raw());
                tracing::warn!("refused pid {pid} of user {uid}: only root and the server's user are answered");
                continue;
            }
            Err(error) => {
                tracing::warn!("refused a connection whose user is not known: {error}");
                continue;
            }
        }
        if open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            let reason = format!("{MAX_CONNECTIONS} connections are open already");
            let busy = Answer::Refused(Refusal::Busy { reason, retry_after_s: 1 });
            let _ = send(&mut stream, &Reply { answer: busy, body: Vec::new() }, Duration::from_millis(10));
            continue;
        }
        let (collector, leaving) = (Arc::clone(collector), Leave(Arc::clone(&open)));
        let talk = move || {
            let _leaving = leaving;
            if let Err(error) = talk(&mut stream, &*collector) {
                tracing::debug!("a connection of the server ended: {error}");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("control".into()).spawn(talk) {
            tracing::warn!("a connection of the server cannot be answered: {error}");
        }
    }
}

/// Counts a connection until it ends, in whatever way.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Answers one request after the other. What is no request ends it.
fn talk(stream: &mut UnixStream, collector: &dyn Collector) -> io::Result<()> {
    while let Some((json, _)) = frame::read(stream, REQUEST, IDLE, TRANSFER)? {
        let request: Request = serde_json::from_slice(&json)?;
        let reply = answer(collector, &request, &|| !frame::has_ended(stream));
        send(stream, &reply, TRANSFER)?;
    }
    Ok(())
}

fn send(stream: &mut UnixStream, reply: &Reply, limit: Duration) -> io::Result<()> {
    let json = serde_json::to_vec(&reply.answer)?;
    if json.len() > REPLY.json || reply.body.len() > REPLY.body {
        let reason = format!("the answer of {} bytes is too large", json.len() + reply.body.len());
        let json = serde_json::to_vec(&Answer::Refused(Refusal::Failed { reason }))?;
        return frame::write(stream, &json, &[], limit);
    }
    frame::write(stream, &json, &reply.body, limit)
}
