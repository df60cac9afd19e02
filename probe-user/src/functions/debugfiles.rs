//! Where the symbols of a stripped file are: in a debug file of its own, found by build id or by `.gnu_debuglink`, or
//! compressed within itself (MiniDebugInfo).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
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

/// The debug files of a module, the best first, and why what was found is none of them.
#[derive(Default)]
pub(crate) struct Separate {
    pub files: Vec<File>,
    pub problem: Option<&'static str>,
}

/// Looks for the debug files of a module. `roots` are folders that are `/` to somebody: the host's, the process's. What is
/// taken has the module's build id or, where one of both has none, the checksum of the debug link.
pub(crate) fn separate(module: &Module, image: &Image<'_>, roots: &[PathBuf]) -> Separate {
    let mut found = Separate::default();
    if let Some((folder, file)) = module.build_id().split_at_checked(2).filter(|(_, file)| !file.is_empty()) {
        let below = format!("usr/lib/debug/.build-id/{folder}/{file}.debug");
        roots.iter().for_each(|root| found.consider(module, &root.join(&below), None));
    }
    by_link(module, image, roots, &mut found);
    found
}

fn by_link(module: &Module, image: &Image<'_>, roots: &[PathBuf], found: &mut Separate) -> Option<()> {
    let link = image.data(image.section(".gnu_debuglink")?)?;
    let name = string_at(&link, 0).filter(|name| !name.is_empty() && !name.contains('/') && *name != "..")?;
    let at = (name.len() + 4) & !3;
    let checksum = u32::from_le_bytes(*link.get(at..)?.first_chunk()?);
    let folder = Path::new(&module.path).parent()?.strip_prefix("/").ok()?;
    for root in roots {
        for folder in [folder.to_owned(), folder.join(".debug"), Path::new("usr/lib/debug").join(folder)] {
            found.consider(module, &root.join(folder).join(name), Some(checksum));
        }
    }
    Some(())
}

impl Separate {
    fn consider(&mut self, module: &Module, path: &Path, checksum: Option<u32>) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let is_same = |file: &File| {
            file.metadata().is_ok_and(|known| (known.dev(), known.ino()) == (metadata.dev(), metadata.ino()))
        };
        // A link may lead to the very file that has it.
        if module.file().is_some_and(is_same) || self.files.iter().any(is_same) {
            return;
        }
        let problem = match Module::open(path) {
            Err(_) => "the debug file cannot be read",
            Ok(debug) => {
                let is_of_module = match (module.build_id(), debug.build_id(), checksum) {
                    (ours, theirs, _) if !ours.is_empty() && ours == theirs => true,
                    ("", _, Some(checksum)) | (_, "", Some(checksum)) => debug.file().and_then(crc32) == Some(checksum),
                    _ => false,
                };
                match debug.file().filter(|_| is_of_module).map(File::try_clone) {
                    Some(Ok(file)) => {
                        if Image::open(&file).is_ok_and(|image| !image.is_damaged) {
                            return self.files.push(file);
                        }
                        // What is left of it may have names.
                        self.files.push(file);
                        "the debug file is damaged"
                    }
                    Some(Err(_)) => "the debug file cannot be read",
                    None => "the debug file is of another build",
                }
            }
        };
        self.problem.get_or_insert(problem);
    }
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

/// The symbols that a stripped file has within itself, as an ELF file in `.gnu_debugdata`; `Some(None)` where it is damaged.
pub(crate) fn mini(image: &Image<'_>) -> Option<Option<Image<'static>>> {
    let packed = image.section(".gnu_debugdata")?;
    Some(image.data(packed).and_then(inflate))
}

fn inflate(packed: Vec<u8>) -> Option<Image<'static>> {
    let mut bytes = Vec::new();
    let reader = lzma_rust2::XzReader::new_mem_limit(packed.as_slice(), false, MAX_XZ_KIB);
    reader.take(MAX_INFLATED).read_to_end(&mut bytes).ok()?;
    Image::of_bytes(bytes).ok()
}
