//! Makes a table of the files of `ui/dist`, which `serve::app` puts into the binary. They are compressed already, by
//! `cargo xtask ui`.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/dist");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files).map_err(|error| Error::other(format!("{}: {error}", root.display())))?;
    files.sort();
    let mut table = String::from("&[\n");
    for file in files.iter().filter(|file| !is_compressed(file)) {
        let path = file.strip_prefix(&root).map_err(Error::other)?.display().to_string();
        let file = file.display().to_string();
        table.push_str(&format!(
            "    Asset {{ path: {path:?}, brotli: include_bytes!({:?}), gzip: include_bytes!({:?}) }},\n",
            format!("{file}.br"),
            format!("{file}.gz"),
        ));
    }
    table.push(']');
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| Error::other("there is no OUT_DIR"))?;
    fs::write(Path::new(&out).join("assets.rs"), table)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "br" || ending == "gz")
}
