//! What others ask of a running daemon: to stop, to go on by another configuration, or whatever only the watcher can tell.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::inbox::Heard;
use super::limits::Load;
use super::settings::Settings;
use super::watcher::Watcher;
use crate::config::Source;
use crate::control::Refusal;
use crate::supervise::{Beat, Heart};

/// How long the watcher may take to answer: it may be taking a dump of a large process.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Debug)]
pub struct Control {
    heart: Heart,
    settings: OnceLock<Arc<Settings>>,
    is_stopping: AtomicBool,
    inbox: OnceLock<SyncSender<Heard>>,
    load: Mutex<Load>,
}

impl Control {
    /// Of a daemon that tells `heart` how it is. Without settings nothing can be changed.
    pub fn new(heart: Heart, settings: Option<Arc<Settings>>) -> Self {
        let control = Self {
            heart,
            settings: OnceLock::new(),
            is_stopping: AtomicBool::new(false),
            inbox: OnceLock::new(),
            load: Mutex::default(),
        };
        if let Some(settings) = settings {
            let _ = control.settings.set(settings);
        }
        control
    }

    /// Tells the supervisor, without which the daemon ends.
    pub fn beat(&self, beat: Beat) {
        if !self.heart.beat(beat) && !self.stop() {
            tracing::error!("the supervisor is gone: stopping");
        }
    }

    /// Ends it. True if that was asked for before.
    pub fn stop(&self) -> bool {
        let was_stopping = self.is_stopping.swap(true, Ordering::Relaxed);
        if let Some(inbox) = self.inbox.get() {
            // If it is full the watcher is awake.
            let _ = inbox.try_send(Heard::Ask(Box::new(|_| {})));
        }
        was_stopping
    }

    /// Checks another configuration, see [`Settings::prepare`].
    pub fn prepare(&self, source: Source) -> Result<u64> {
        self.settings()?.prepare(source, false)
    }

    /// Goes on by the configuration that was checked, and waits until it does. What is wrong leaves it as it was.
    pub fn switch(&self) -> Result<()> {
        self.settings()?.switch(|config| {
            let config = config.clone();
            Ok(self.ask(move |watcher| watcher.reload(config))?)
        })
    }

    /// Goes on as before.
    pub fn forget(&self) {
        if let Ok(settings) = self.settings() {
            settings.forget();
        }
    }

    /// Whether there is a watcher to be asked.
    pub fn is_ready(&self) -> bool {
        self.inbox.get().is_some()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    pub(super) fn settings(&self) -> Result<&Arc<Settings>, Refusal> {
        let reason = "this daemon's configuration cannot be changed";
        self.settings.get().ok_or_else(|| Refusal::Unavailable { reason: reason.into() })
    }

    /// From now on the watcher is asked here.
    pub(super) fn listen(&self, inbox: SyncSender<Heard>) {
        let _ = self.inbox.set(inbox);
    }

    /// Asks the watcher.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Watcher) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.ask_for(PATIENCE, question)
    }

    fn ask_for<T: Send + 'static>(
        &self,
        patience: Duration,
        question: impl FnOnce(&mut Watcher) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let unavailable = |reason: &str| Refusal::Unavailable { reason: reason.into() };
        let inbox = self.inbox.get().ok_or_else(|| unavailable("the collector is not ready yet"))?;
        let (send, receive) = sync_channel(1);
        // Taken by the watcher when it begins with it, or by whoever has waited for long enough: what is refused does not
        // happen later.
        let question = Arc::new(Mutex::new(Some(question)));
        let asked = Arc::clone(&question);
        let take = |question: &Mutex<Option<_>>| question.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ask = move |watcher: &mut Watcher| {
            if let Some(question) = take(&asked) {
                let _ = send.send(question(watcher));
            }
        };
        inbox.try_send(Heard::Ask(Box::new(ask))).map_err(|_| unavailable("the collector is busy or stopping"))?;
        match receive.recv_timeout(patience) {
            Ok(answer) => Ok(answer),
            Err(_) if take(&question).is_some() => Err(unavailable("the collector does not answer")),
            Err(_) => receive.recv_timeout(patience).map_err(|_| unavailable("the collector does not answer")),
        }
    }

    /// What the daemon itself takes of the host.
    pub(super) fn load(&self) -> Load {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_load(&self, load: Load) {
        *self.load.lock().unwrap_or_else(PoisonError::into_inner) = load;
    }
}

#[cfg(test)]
mod tests;
