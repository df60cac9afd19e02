//! Which container a process is in, by the names that container runtimes give to control groups.

use super::cgroup::Groups;

/// A container, and the pod that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id; `None` outside of one.
    pub id: Option<String>,
    /// Uid of its Kubernetes pod; `None` outside of one.
    pub pod: Option<String>,
}

impl Container {
    /// The container of a process; empty outside of one, and when the process is gone.
    pub fn of(pid: u32) -> Self {
        Groups::read(pid).map(|groups| Self::by(&groups)).unwrap_or_default()
    }

    /// The container of a process with these groups: docker, containerd, CRI-O and Podman, with or without systemd.
    pub fn by(groups: &Groups) -> Self {
        let found = groups.paths().map(|path| Self {
            // The innermost: a container may hold others.
            id: path.rsplit('/').find_map(id).map(str::to_owned),
            pod: path.rsplit('/').find_map(pod),
        });
        found.max_by_key(|found| (found.id.is_some(), found.pod.is_some())).unwrap_or_default()
    }
}

/// `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID`, `libpod-ID.scope`, `SLICE:cri-containerd:ID`.
fn id(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (runtime, id) = name.rsplit_once([':', '-']).unwrap_or(("", name));
    // Who watches a container is not in it.
    let is_monitor = runtime.ends_with("conmon");
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && !is_monitor).then_some(id)
}

/// `podUID`, `kubepods-burstable-podUID.slice` with `_` in place of `-`, and the same before a `:`.
fn pod(name: &str) -> Option<String> {
    let name = name.split(':').next().unwrap_or(name);
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let at = if name.starts_with("pod") { 0 } else { name.rfind("-pod")? + 1 };
    let uid = name[at..].strip_prefix("pod")?.replace('_', "-");
    // Of pods that come from a file the uid is a hash without dashes.
    let is_uid = match uid.len() {
        36 => uid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        }),
        32 => uid.bytes().all(|byte| byte.is_ascii_hexdigit()),
        _ => false,
    };
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7c1f0a4e5b6d8c9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f70";
    const POD: &str = "2f3d5a1c-9b8e-4c7d-a6f5-0e1d2c3b4a59";

    #[test]
    fn containers_are_known_by_their_groups() {
        let slice = POD.replace('-', "_");
        for (text, has_id, has_pod) in [
            ("0::/\n".to_owned(), false, false),
            ("0::/user.slice/user-1000.slice/session-3.scope\n".into(), false, false),
            ("0::/system.slice/nginx.service\n".into(), false, false),
            (format!("12:cpu,cpuacct:/docker/{ID}\n0::/system.slice/containerd.service\n"), true, false),
            (format!("0::/system.slice/docker-{ID}.scope\n"), true, false),
            (format!("0::/system.slice/docker-{ID}.scope/init.scope\n"), true, false),
            (format!("11:memory:/kubepods/besteffort/pod{POD}/{ID}\n"), true, true),
            (format!("11:memory:/kubepods/pod{POD}/{ID}\n"), true, true),
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{ID}.scope\n"
                ),
                true,
                true,
            ),
            (format!("0::/kubepods.slice/kubepods-pod{slice}.slice/crio-{ID}.scope\n"), true, true),
            (format!("0::/kubepods.slice/kubepods-pod{slice}.slice/crio-conmon-{ID}.scope\n"), false, true),
            (format!("0::/kubepods-burstable-pod{slice}.slice:cri-containerd:{ID}\n"), true, true),
            (format!("0::/machine.slice/libpod-{ID}.scope/container\n"), true, false),
            (format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"), false, false),
            (format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n"), true, false),
            (format!("4:memory:/ecs/0123456789abcdef0123456789abcdef/{ID}\n"), true, false),
            // A container within a container.
            (format!("0::/docker/{}/docker/{ID}\n", "0".repeat(64)), true, false),
            // Too short, or no number.
            (format!("0::/docker/{}\n", &ID[1..]), false, false),
            (format!("0::/docker/{}g\n", &ID[1..]), false, false),
        ] {
            let expected = Container { id: has_id.then(|| ID.into()), pod: has_pod.then(|| POD.into()) };
            assert_eq!(Container::by(&Groups::parse(&text)), expected, "{text}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        let of_file = Container::by(&Groups::parse(&format!("0::/kubepods/burstable/pod{hash}/{ID}\n")));
        assert_eq!(of_file.pod.as_deref(), Some(hash));
    }

    #[test]
    fn who_is_gone_is_in_no_container() {
        assert_eq!(Container::of(u32::MAX), Container::default());
    }
}
