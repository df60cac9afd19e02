//! The files behind a file of an overlay. A process keeps the file that it has mapped when another one takes its place under
//! the same name in the upper layer ("copy up", Documentation/filesystems/overlayfs.rst): then the name leads to the new one,
//! and so does `/proc/PID/map_files`. The old one is found in the layer that it is in.

use std::path::{Path, PathBuf};

/// An overlay has 500 layers at most.
const MAX_LAYERS: usize = 500;

/// Where files of this path, as a process has it mapped, may lie in the layers of its overlay, the upper layer last. Empty
/// without an overlay.
pub fn files_in_layers(pid: u32, path: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read(super::folder(pid).join("mountinfo")).unwrap_or_default();
    let Some(overlay) = Overlay::of(&String::from_utf8_lossy(&mounts), path) else { return Vec::new() };
    // They are told as whoever mounted it saw them: on the host, if it is a container's.
    let hosts = [Path::new("/"), Path::new("/proc/1/root")];
    let candidates = overlay.candidates(path);
    let files = candidates.iter().flat_map(|path| hosts.map(|host| host.join(path.strip_prefix("/").unwrap_or(path))));
    files.filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file())).collect()
}

/// A mounted overlay.
#[derive(Debug, PartialEq, Eq)]
struct Overlay {
    /// Where it is mounted.
    point: PathBuf,
    /// The folder of it that is mounted there.
    root: PathBuf,
    layers: Vec<PathBuf>,
}

impl Overlay {
    /// The one that a path lies in, if it is an overlay that the innermost mount there is.
    fn of(mountinfo: &str, path: &str) -> Option<Self> {
        let mounts = mountinfo.lines().filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
            Path::new(path).starts_with(&point).then_some((point, root, filesystem))
        });
        // Of two at the same place, the last one is on top.
        let (point, root, filesystem) = mounts.max_by_key(|(point, _, _)| Path::new(point).components().count())?;
        let mut fields = filesystem.splitn(3, ' ');
        let ("overlay", Some(options)) = (fields.next()?, fields.nth(1)) else { return None };
        let layers = layers(options).into_iter().take(MAX_LAYERS).collect();
        Some(Self { point: point.into(), root: root.into(), layers })
    }

    fn candidates(&self, path: &str) -> Vec<PathBuf> {
        let Ok(inside) = Path::new(path).strip_prefix(&self.point) else { return Vec::new() };
        let inside = self.root.strip_prefix("/").unwrap_or(&self.root).join(inside);
        // What is relative was so to a folder that is not told: one above the upper layer, or above the mount.
        let bases = self.layers.iter().filter(|layer| layer.is_absolute()).chain([&self.point]);
        let bases: Vec<&Path> = bases.flat_map(|base| base.ancestors().skip(1)).collect();
        let mut candidates = Vec::new();
        for layer in &self.layers {
            match layer.is_absolute() {
                true => candidates.push(layer.join(&inside)),
                false => candidates.extend(bases.iter().map(|base| base.join(layer).join(&inside))),
            }
        }
        let mut seen = std::collections::HashSet::new();
        candidates.retain(|candidate| seen.insert(candidate.clone()));
        candidates
    }
}

/// The folders in the options of an overlay, the upper one last. Colons and commas in their names have a backslash before them.
fn layers(options: &str) -> Vec<PathBuf> {
    let options = split(options, ',');
    let of = |name: &'static str| options.iter().filter_map(move |option| option.strip_prefix(name)?.strip_prefix('='));
    let lower = of("lowerdir").flat_map(|folders| split(folders, ':'));
    let lower = lower.chain(of("lowerdir+").chain(of("datadir+")).map(str::to_owned));
    let all = lower.chain(of("upperdir").map(str::to_owned));
    all.filter(|folder| !folder.is_empty()).map(|folder| unescape(&folder).replace('\\', "").into()).collect()
}

/// At a separator that has no backslash before it.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut is_escaped = false;
    for letter in text.chars() {
        match parts.last_mut() {
            Some(part) if letter != separator || is_escaped => part.push(letter),
            _ => parts.push(String::new()),
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    parts
}

/// The kernel writes blanks and the like in octal numbers: `\040`.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
21 1 254:1 / / rw - ext4 /dev/vda1 rw
44 27 0:39 / /m rw,relatime - overlay o rw,lowerdir=low,upperdir=/d/up,workdir=/d/work,uuid=on
45 44 0:40 / /m/in rw - tmpfs t rw
46 27 0:41 /sub /n\\040n rw shared:3 - overlay o rw,lowerdir=/a\\:b:/c,upperdir=/up";

    #[test]
    fn a_file_may_be_in_each_layer() {
        let candidates = |path: &str| Overlay::of(MOUNTS, path).map(|overlay| overlay.candidates(path));
        let paths = |paths: &[&str]| Some(paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(candidates("/m/bin/app"), paths(&["/d/low/bin/app", "/low/bin/app", "/d/up/bin/app"]));
        assert_eq!(candidates("/n n/app"), paths(&["/a:b/sub/app", "/c/sub/app", "/up/sub/app"]));
        assert_eq!(candidates("/m/in/app"), None, "another file system is mounted there");
        assert_eq!(candidates("/usr/app"), None);
    }
}
