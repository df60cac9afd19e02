//! The manifest for Kubernetes: what it grants, and to whom.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, SecurityContext, VolumeMount};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use libtest_mimic::Trial;
use probe_tests::trial::unprivileged;
use probe_tests::workload;

use crate::files;
use crate::manifest::{Manifest, capabilities};

pub fn tests() -> Vec<Trial> {
    vec![
        unprivileged("kubernetes::every_field_is_known_to_the_api", every_field),
        unprivileged("kubernetes::the_collector_has_its_capabilities_and_nothing_else", collector),
        unprivileged("kubernetes::the_server_is_not_root_and_has_no_capability", server),
        unprivileged("kubernetes::the_server_is_asked_how_it_is", server_is_probed),
        unprivileged("kubernetes::nobody_has_a_token_for_the_cluster", no_token),
        unprivileged("kubernetes::both_see_the_store_and_only_the_collector_writes_it", volumes),
        unprivileged("kubernetes::the_configuration_is_right", configuration),
    ]
}

fn every_field() -> Result<()> {
    let text = files::read("kubernetes.yaml")?;
    Manifest::parse(&text)?;
    // And not because nothing is ever refused.
    for (right, wrong) in [
        ("readOnlyRootFilesystem:", "readOnlyRootFileSystem:"),
        ("hostPID: true", "hostPid: true"),
        ("hostPID: true", "hostPID: true\n      hostPID: true"),
        ("hostPID: true", "hostPID: \"yes\""),
        ("kind: DaemonSet", "kind: Daemonset"),
    ] {
        ensure!(text.contains(right), "{right} is not there");
        ensure!(Manifest::parse(&text.replacen(right, wrong, 1)).is_err(), "{wrong} is taken");
    }
    Ok(())
}

fn security(container: &Container) -> Result<&SecurityContext> {
    let context = container.security_context.as_ref().context("no securityContext")?;
    let name = &container.name;
    ensure!(context.privileged == Some(false), "{name} is privileged");
    ensure!(context.allow_privilege_escalation == Some(false), "{name} can have more privileges");
    ensure!(context.read_only_root_filesystem == Some(true), "{name} can write its root file system");
    let resources = container.resources.as_ref().context("no resources")?;
    for side in [&resources.requests, &resources.limits] {
        let side = side.as_ref().with_context(|| format!("{name} has no requests or no limits"))?;
        ensure!(side.keys().map(String::as_str).eq(["cpu", "memory"]), "{name}: {side:?}");
    }
    Ok(context)
}

fn arguments(container: &Container) -> Vec<&str> {
    container.args.iter().flatten().map(String::as_str).collect()
}

fn collector() -> Result<()> {
    let manifest = Manifest::read()?;
    let (pod, container) = (manifest.pod()?, manifest.container("collector")?);
    ensure!(pod.host_pid == Some(true), "the processes of the node are not seen");
    ensure!(pod.host_network != Some(true) && pod.host_ipc != Some(true), "it is in more namespaces of the node");
    ensure!(arguments(container).starts_with(&["daemon", "--only", "collector"]), "{:?}", container.args);
    let context = security(container)?;
    ensure!(context.run_as_user == Some(0), "another user than root loses the capabilities when it is started");
    let granted = capabilities(container)?;
    ensure!(granted.iter().cloned().collect::<BTreeSet<_>>() == files::collector(), "it has {granted:?}");
    ensure!(granted.len() == files::collector().len(), "one is there twice: {granted:?}");
    ensure!(container.ports.is_none(), "it has no network");
    let fields = container.env.iter().flatten().filter_map(|variable| {
        let field = variable.value_from.as_ref()?.field_ref.as_ref()?;
        Some((variable.name.as_str(), field.field_path.as_str()))
    });
    let node = [("PROBE__COLLECTOR__HOST", "spec.nodeName"), ("PROBE__COLLECTOR__ADDRESS", "status.hostIP")];
    ensure!(fields.eq(node), "snapshots would name the pod instead of the node");
    Ok(())
}

fn server() -> Result<()> {
    let manifest = Manifest::read()?;
    let container = manifest.container("server")?;
    ensure!(arguments(container).first() == Some(&"serve"), "{:?}", container.args);
    let context = security(container)?;
    ensure!(context.run_as_non_root == Some(true), "it may be root");
    ensure!(context.run_as_user.is_some_and(|user| user != 0), "it is root");
    ensure!(context.run_as_group.is_some_and(|group| group != 0), "it is in root's group");
    ensure!(capabilities(container)?.is_empty(), "it has capabilities");
    let seccomp = context.seccomp_profile.as_ref().context("no seccomp profile")?;
    ensure!(seccomp.type_ == "RuntimeDefault", "{seccomp:?}");
    // The collector answers this user, gives its files to this group, and the image runs as both by itself.
    let (user, group) = (context.run_as_user.unwrap_or(0), context.run_as_group.unwrap_or(0));
    let pod = manifest.pod()?.security_context.as_ref().context("no securityContext of the pod")?;
    ensure!(pod.fs_group == Some(group), "the collector is not in group {group}");
    let configured = format!("user = \"{user}:{group}\"");
    ensure!(manifest.probe_toml()?.contains(&configured), "{configured} is not in the configuration");
    let image = files::read("Dockerfile")?;
    let users: Vec<_> = image.lines().filter_map(|line| line.strip_prefix("USER ")).collect();
    ensure!(users == [format!("{user}:{group}")], "the image runs as {users:?}");
    Ok(())
}

fn server_is_probed() -> Result<()> {
    let manifest = Manifest::read()?;
    let container = manifest.container("server")?;
    let port = &container.ports.as_ref().and_then(|ports| ports.first()).context("no port")?;
    let listen = format!("listen = \"0.0.0.0:{}\"", port.container_port);
    ensure!(manifest.probe_toml()?.contains(&listen), "{listen} is not in the configuration");
    let by_name = port.name.clone().map(IntOrString::String).context("the port has no name")?;
    for (probe, path) in [(&container.liveness_probe, "/healthz"), (&container.readiness_probe, "/readyz")] {
        let get = probe.as_ref().and_then(|probe| probe.http_get.as_ref()).context(path)?;
        let expected = HTTPGetAction { path: Some(path.into()), port: by_name.clone(), ..HTTPGetAction::default() };
        ensure!(*get == expected, "{get:?}");
    }
    Ok(())
}

fn no_token() -> Result<()> {
    let manifest = Manifest::read()?;
    let pod = manifest.pod()?;
    ensure!(manifest.account.automount_service_account_token == Some(false), "the account gives its token");
    ensure!(pod.automount_service_account_token == Some(false), "the pods take a token");
    ensure!(pod.service_account_name == manifest.account.metadata.name, "{:?}", pod.service_account_name);
    let name = &manifest.namespace.metadata.name;
    for other in [&manifest.account.metadata, &manifest.config.metadata, &manifest.daemons.metadata] {
        ensure!(other.namespace == *name, "{:?} is elsewhere", other.name);
    }
    Ok(())
}

fn mount<'a>(container: &'a Container, path: &str) -> Option<&'a VolumeMount> {
    container.volume_mounts.iter().flatten().find(|mount| mount.mount_path == path)
}

fn volumes() -> Result<()> {
    let manifest = Manifest::read()?;
    let (collector, server) = (manifest.container("collector")?, manifest.container("server")?);
    for (path, collector_writes, server_writes) in [
        ("/etc/probe", false, false),
        ("/run/probe", true, false),
        ("/var/lib/probe", true, false),
        ("/var/lib/probe-server", true, true),
    ] {
        let writes = |container| {
            let mount: &VolumeMount = mount(container, path).with_context(|| format!("{path} is not mounted"))?;
            anyhow::Ok((mount.name.clone(), mount.read_only != Some(true)))
        };
        let (one, other) = (writes(collector)?, writes(server)?);
        ensure!(one.0 == other.0, "{path} is not the same for both");
        ensure!((one.1, other.1) == (collector_writes, server_writes), "{path} can be written: {one:?}, {other:?}");
    }
    ensure!(mount(collector, "/etc/probe-tokens").is_none(), "the collector sees the tokens");
    let volumes: Vec<_> = manifest.pod()?.volumes.iter().flatten().collect();
    for mount in [collector, server].iter().flat_map(|container| container.volume_mounts.iter().flatten()) {
        ensure!(volumes.iter().any(|volume| volume.name == mount.name), "there is no volume {}", mount.name);
    }
    let run = volumes.iter().find(|volume| volume.name == "run").context("no volume for the socket")?;
    ensure!(run.empty_dir.is_some(), "a socket outlives its pod");
    Ok(())
}

fn configuration() -> Result<()> {
    let folder = workload::scratch()?;
    let config = folder.path().join("probe.toml");
    fs::write(&config, Manifest::read()?.probe_toml()?)?;
    files::expect_right(&config)
}
