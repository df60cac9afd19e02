//! What the routes share, and how they ask for what blocks.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::access::Access;
use super::hub::Hub;
use super::metrics::{Exposition, Traffic};
use super::on_demand::{Allowance, OnDemand};
use super::problem::Problem;
use super::snapshots::Snapshots;
use crate::control::{Collector, Refusal};
use crate::snapshot::{Store, Timestamp};

/// Writes metrics that another part of the process knows.
pub type Source = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// What is served.
pub struct Setup {
    /// Who is asked for what is live.
    pub collector: Arc<dyn Collector>,
    /// The stored snapshots; need not be writable.
    pub store: Store,
    /// The folder of the journal of alerts.
    pub journal: PathBuf,
    /// Who may do what.
    pub access: Access,
    /// How much.
    pub limits: Limits,
    /// What definitions of functions and of rules look like, as JSON Schemas.
    pub definitions: Definitions,
    /// Metrics beside those of this room.
    pub metrics: Vec<Source>,
}

/// The JSON Schemas of definitions.
#[derive(Clone, Debug)]
pub struct Definitions {
    /// Of a `[[function]]`.
    pub function: serde_json::Value,
    /// Of a `[[rule]]`.
    pub rule: serde_json::Value,
}

/// How much is served at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Recordings on demand.
    pub recordings: Allowance,
    /// Dumps on demand.
    pub dumps: Allowance,
    /// Listeners to events.
    pub listeners: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            recordings: Allowance { at_once: 2, a_minute: 10 },
            dumps: Allowance { at_once: 2, a_minute: 30 },
            listeners: 64,
        }
    }
}

/// What the routes share.
pub struct Server {
    collector: Arc<dyn Collector>,
    snapshots: Arc<Snapshots>,
    /// Rendering takes a processor and some memory: the others wait.
    renders: Arc<Semaphore>,
    pub journal: PathBuf,
    pub access: Access,
    pub hub: Hub,
    pub recordings: OnDemand,
    pub dumps: OnDemand,
    pub traffic: Traffic,
    pub sources: Vec<Source>,
    /// The OpenAPI document.
    pub document: String,
    pub started: Timestamp,
}

impl Server {
    pub fn new(setup: Setup, document: String) -> Result<Self> {
        let Setup { collector, store, journal, access, limits, definitions: _, metrics } = setup;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            snapshots: Arc::new(Snapshots::new(store)),
            renders: Arc::new(Semaphore::new(processors.min(4))),
            journal,
            access,
            hub: Hub::start(Arc::clone(&collector), limits.listeners)?,
            collector,
            recordings: OnDemand::new("recordings", limits.recordings),
            dumps: OnDemand::new("dumps", limits.dumps),
            traffic: Traffic::default(),
            sources: metrics,
            document,
            started: std::time::SystemTime::now().into(),
        })
    }

    /// Asks the collector.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Collector) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        let collector = Arc::clone(&self.collector);
        blocking(move || question(&*collector).map_err(Problem::from)).await
    }

    /// Looks into the store.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Snapshots) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let snapshots = Arc::clone(&self.snapshots);
        blocking(move || look(&snapshots)).await
    }

    /// Does what takes a processor and memory, when there is a place for it.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshots) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let Ok(permit) = Arc::clone(&self.renders).acquire_owned().await else { return Err(broken()) };
        let snapshots = Arc::clone(&self.snapshots);
        blocking(move || {
            // Until the work is done, even if nobody waits for the answer any more.
            let _permit = permit;
            work(&snapshots)
        })
        .await
    }
}

/// Does what blocks on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(broken()))
}

fn broken() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed at this request; its log says more")
}
