//! What the watcher hears: processes that come and go, and what others ask of it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result};

use super::watcher::Watcher;
use crate::record::Lifecycle;

/// How much may wait. What does not fit waits in the recorder, which counts what it has to drop.
const WAITING: usize = 1024;

/// Something to be done by the watcher's thread.
pub(super) type Ask = Box<dyn FnOnce(&mut Watcher) + Send>;

/// See the head of this file.
pub(super) enum Heard {
    Lifecycle(Lifecycle),
    Ask(Ask),
}

/// A channel in which both come together.
pub(super) fn join(events: Receiver<Lifecycle>) -> Result<(SyncSender<Heard>, Receiver<Heard>)> {
    let (send, receive) = sync_channel(WAITING);
    let forward = send.clone();
    let forward = move || events.into_iter().try_for_each(|event| forward.send(Heard::Lifecycle(event)));
    let started = std::thread::Builder::new().name("lifecycle".into()).spawn(forward);
    started.context("cannot start the thread that hears of processes")?;
    Ok((send, receive))
}
