//! The manifest for Kubernetes, read into the API's own types: what these do not know is refused.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Namespace, PodSpec, ServiceAccount};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::Value;

use crate::files;

/// All objects, in the order in which they are made.
pub struct Manifest {
    pub namespace: Namespace,
    pub account: ServiceAccount,
    pub config: ConfigMap,
    pub daemons: DaemonSet,
}

impl Manifest {
    pub fn read() -> Result<Self> {
        Self::parse(&files::read("kubernetes.yaml")?)
    }

    pub fn parse(text: &str) -> Result<Self> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
        let count = documents.len();
        let Ok([namespace, account, config, daemons]) = <[Value; 4]>::try_from(documents) else {
            bail!("{count} objects, not four");
        };
        Ok(Self {
            namespace: strictly(namespace)?,
            account: strictly(account)?,
            config: strictly(config)?,
            daemons: strictly(daemons)?,
        })
    }

    pub fn pod(&self) -> Result<&PodSpec> {
        self.daemons.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).context("the DaemonSet has no pods")
    }

    pub fn container(&self, name: &str) -> Result<&Container> {
        let found = self.pod()?.containers.iter().find(|container| container.name == name);
        found.with_context(|| format!("there is no container {name}"))
    }

    /// The configuration that both containers read.
    pub fn probe_toml(&self) -> Result<&str> {
        let data = self.config.data.as_ref().and_then(|data| data.get("probe.toml"));
        data.map(String::as_str).context("the ConfigMap has no probe.toml")
    }
}

/// The types pass over fields that they do not know; such a field is missing when they are written again.
fn strictly<T: DeserializeOwned + Serialize>(value: Value) -> Result<T> {
    let object: T = serde_json::from_value(value.clone()).with_context(|| format!("{:#}", value["kind"]))?;
    let again = serde_json::to_value(&object)?;
    ensure!(again == value, "the API would take this only as {again:#}, of {value:#}");
    Ok(object)
}

/// The capabilities of a container. Fails unless it drops all that it does not name.
pub fn capabilities(container: &Container) -> Result<Vec<String>> {
    let capabilities = container.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
    let capabilities = capabilities.with_context(|| format!("{} says nothing of capabilities", container.name))?;
    ensure!(capabilities.drop.as_deref() == Some(&["ALL".to_owned()]), "{} keeps capabilities", container.name);
    Ok(capabilities.add.clone().unwrap_or_default())
}
