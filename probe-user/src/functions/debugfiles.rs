//! Where the symbols of a stripped file are: in a debug file of its own, found by build id or by `.gnu_debuglink`, or
//! compressed within itself (MiniDebugInfo).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::Crc;

use super::image::{Image, string_at};
use crate::target::Module;

/// MiniDebugInfo of a few megabytes is large.
const MAX_INFLATED: u64 = 128 << 20;
/// `xz -9e` asks for 64 MiB to be inflated.
const MAX_XZ_KIB: u32 = 128 << 10;
/// Of a larger debug file the checksum is not computed.
const MAX_SUMMED: u64 = 1 << 30;

/// The debug file of a module. `roots` are folders that are `/` to somebody: the host's, the process's.
pub(super) fn separate(module: &Module, image: &Image<'_>, roots: &[PathBuf]) -> Option<File> {
    by_build_id(module, roots).or_else(|| by_link(module, image, roots))
}

fn by_build_id(module: &Module, roots: &[PathBuf]) -> Option<File> {
    let (folder, file) = module.build_id.split_at_checked(2).filter(|(_, file)| !file.is_empty())?;
    let below = format!("usr/lib/debug/.build-id/{folder}/{file}.debug");
    roots.iter().find_map(|root| {
        let debug = Module::open(&root.join(&below)).ok()?;
        if debug.build_id == module.build_id { debug.file()?.try_clone().ok() } else { None }
    })
}

fn by_link(module: &Module, image: &Image<'_>, roots: &[PathBuf]) -> Option<File> {
    let link = image.data(image.section(".gnu_debuglink")?)?;
    let name = string_at(&link, 0).filter(|name| !name.is_empty() && !name.contains('/') && *name != "..")?;
    let at = (name.len() + 4) & !3;
    let checksum = u32::from_le_bytes(*link.get(at..)?.first_chunk()?);
    let folder = Path::new(&module.path).parent()?.strip_prefix("/").ok()?;
    roots.iter().find_map(|root| {
        let beside = [folder.to_owned(), folder.join(".debug"), Path::new("usr/lib/debug").join(folder)];
        beside.into_iter().find_map(|folder| {
            let debug = Module::open(&root.join(folder).join(name)).ok()?;
            let is_same = match (module.build_id.as_str(), debug.build_id.as_str()) {
                ("", _) | (_, "") => crc32(debug.file()?) == Some(checksum),
                (ours, theirs) => ours == theirs,
            };
            if is_same { debug.file()?.try_clone().ok() } else { None }
        })
    })
}

fn crc32(file: &File) -> Option<u32> {
    let length = file.metadata().ok()?.len();
    let (mut sum, mut at, mut buffer) = (Crc::new(), 0, vec![0; 1 << 16]);
    while at < length && length <= MAX_SUMMED {
        let read = file.read_at(&mut buffer, at).ok().filter(|&read| read > 0)?;
        sum.update(&buffer[..read]);
        at += read as u64;
    }
    (length <= MAX_SUMMED).then(|| sum.sum())
}

/// The symbols that a stripped file has within itself, as an ELF file in `.gnu_debugdata`.
pub(super) fn mini(image: &Image<'_>) -> Option<Image<'static>> {
    let packed = image.data(image.section(".gnu_debugdata")?)?;
    let mut bytes = Vec::new();
    let reader = lzma_rust2::XzReader::new_mem_limit(packed.as_slice(), false, MAX_XZ_KIB);
    reader.take(MAX_INFLATED).read_to_end(&mut bytes).ok()?;
    Image::of_bytes(bytes).ok()
}
