//! Reading files of the kernel, which say that they are empty and may be of any length.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

/// None of the files that are read by this is longer; what is, is cut.
const MAX_BYTES: usize = 64 * 1024;

/// The text of a file; `None` when it cannot be read. What is no UTF-8 is replaced.
pub(super) fn read_small(path: impl AsRef<Path>) -> Option<String> {
    let mut file = File::open(path).ok()?;
    // Nearly all of them fit, so that there are two calls of the kernel: it makes the text anew for each small piece.
    let mut piece = [0; 4096];
    let mut bytes = Vec::new();
    while bytes.len() < MAX_BYTES {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    bytes.truncate(MAX_BYTES);
    Some(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_and_missing_ones_are_nothing() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, &vec![b'x'; 100_000]).expect("written");
        assert_eq!(read_small(file.path()).map(|text| text.len()), Some(65_536));
        assert_eq!(read_small("/proc/self/no-such-file"), None);
        assert!(read_small("/proc/self/stat").is_some_and(|text| text.len() > 50));
    }
}
