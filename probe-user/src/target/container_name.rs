//! How people call a container, by what runtimes and the kubelet leave on the host for everybody who looks: no socket of a
//! runtime, which would give away the host, and no request to an API.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

/// The host's files, also from within a container that shares the host's processes; and our own, where init's may not be
/// looked at.
const HOSTS: [&str; 2] = ["/proc/1/root", "/"];
/// Links to the logs of all containers: `POD_NAMESPACE_CONTAINER-ID.log`
/// (<https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-location-node>).
const KUBELET: &str = "var/log/containers";
/// A folder for each container, with what Docker knows of it.
const DOCKER: &str = "var/lib/docker/containers";
/// Longest description that is read, in bytes.
const MAX_DESCRIPTION: u64 = 1 << 20;

/// The name of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerName {
    /// Namespace of its Kubernetes pod; empty without one.
    pub namespace: String,
    /// As it is called within its pod, if it is in one: `NAMESPACE/POD/CONTAINER`.
    pub name: String,
}

impl ContainerName {
    /// The name of a container by its id; `None` where nobody has left it.
    pub fn of(id: &str) -> Option<Self> {
        HOSTS.iter().find_map(|host| Self::below(Path::new(host), id))
    }

    fn below(host: &Path, id: &str) -> Option<Self> {
        of_kubelet(&host.join(KUBELET), id).or_else(|| of_docker(&host.join(DOCKER), id))
    }
}

fn of_kubelet(folder: &Path, id: &str) -> Option<ContainerName> {
    let names = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| link(name.to_str()?, id)).next()
}

/// Neither names of pods nor of namespaces and containers have a `_`.
fn link(name: &str, id: &str) -> Option<ContainerName> {
    let name = name.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
    let mut parts = name.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let name = crate::text::sanitize(&format!("{namespace}/{pod}/{container}"));
    parts.next().is_none().then(|| ContainerName { namespace: namespace.to_owned(), name })
}

fn of_docker(folder: &Path, id: &str) -> Option<ContainerName> {
    let mut text = Vec::new();
    let file = File::open(folder.join(id).join("config.v2.json")).ok()?;
    file.take(MAX_DESCRIPTION).read_to_end(&mut text).ok()?;
    let known: Value = serde_json::from_slice(&text).ok()?;
    let name = known["Name"].as_str()?.trim_start_matches('/');
    (!name.is_empty()).then(|| ContainerName { namespace: String::new(), name: crate::text::sanitize(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7c1f0a4e5b6d8c9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70";

    #[test]
    fn names_are_those_that_runtimes_leave() {
        let host = tempfile::tempdir().expect("a folder");
        let other = "0".repeat(64);
        assert_eq!(ContainerName::below(host.path(), ID), None);
        let docker = host.path().join(DOCKER).join(ID);
        std::fs::create_dir_all(&docker).expect("made");
        std::fs::write(docker.join("config.v2.json"), r#"{"ID":"7c1f","Name":"/web\u001b[1m-1"}"#).expect("written");
        let named = ContainerName::below(host.path(), ID).expect("named");
        assert!(named.namespace.is_empty() && named.name.starts_with("web") && !named.name.contains('\u{1b}'));
        std::fs::write(docker.join("config.v2.json"), "{").expect("written");
        assert_eq!(ContainerName::below(host.path(), ID), None);
        let kubelet = host.path().join(KUBELET);
        std::fs::create_dir_all(&kubelet).expect("made");
        for (name, id) in [("web-0_shop_proxy", other.as_str()), ("checkout-7d9f_shop_app", ID)] {
            // The links lead to where a container of ours does not see.
            std::os::unix::fs::symlink("/nowhere", kubelet.join(format!("{name}-{id}.log"))).expect("linked");
        }
        let named = ContainerName::below(host.path(), ID).expect("named");
        assert_eq!((named.namespace.as_str(), named.name.as_str()), ("shop", "shop/checkout-7d9f/app"));
    }

    #[test]
    fn what_is_no_such_link_is_none() {
        for name in
            ["x.log", "a_b_c.log", &format!("a_b-{ID}.log"), &format!("a_b_c_d-{ID}.log"), &format!("a_b_c-{ID}")]
        {
            assert_eq!(link(name, ID), None, "{name}");
        }
    }
}
