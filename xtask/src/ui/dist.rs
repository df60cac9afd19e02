//! `Dist`: the files of the built application in memory, and their compressed forms.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

/// Files by their paths, with `/` between folders.
pub struct Dist(BTreeMap<String, Vec<u8>>);

impl Dist {
    /// Reads a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        read(folder, "", &mut files)?;
        Ok(Self(files))
    }

    /// Adds a `.br` and a `.gz` for each file. The same bytes come out on any machine.
    pub fn compress(&mut self) -> Result<()> {
        for (path, bytes) in self.0.clone() {
            let mut small = Vec::new();
            let parameters = brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 22, ..Default::default() };
            brotli::BrotliCompress(&mut &bytes[..], &mut small, &parameters)?;
            self.0.insert(format!("{path}.br"), small);
            let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
            gzip.write_all(&bytes)?;
            self.0.insert(format!("{path}.gz"), gzip.finish()?);
        }
        Ok(())
    }

    /// How many files the first page loads beside itself, and their bytes.
    pub fn first_page(&self) -> Result<(usize, usize)> {
        let html = self.0.get("index.html").context("the build has no index.html")?;
        let html = String::from_utf8_lossy(html);
        let names = self.0.keys().filter(|name| is_code(name) && html.contains(&format!("/{name}\"")));
        // Without what it imports at once it shows nothing, and the first route's own chunk comes with it.
        let mut all: Vec<&str> = names.map(String::as_str).collect();
        let mut at = 0;
        while let Some(name) = all.get(at).copied() {
            let text = String::from_utf8_lossy(&self.0[name]).into_owned();
            for other in self.0.keys().filter(|other| is_code(other)) {
                let file = other.rsplit('/').next().unwrap_or(other);
                let is_first = file.starts_with("TargetsView") || text.contains(&format!("from\"./{file}\""));
                if is_first && !all.contains(&other.as_str()) {
                    all.push(other);
                }
            }
            at += 1;
        }
        let bytes = all.iter().filter_map(|name| self.0.get(&format!("{name}.br"))).map(Vec::len).sum();
        Ok((all.len(), bytes))
    }

    /// Bytes of everything by brotli.
    pub fn compressed_bytes(&self) -> usize {
        self.0.iter().filter(|(name, _)| name.ends_with(".br")).map(|(_, bytes)| bytes.len()).sum()
    }

    /// The files that are not the same in both.
    pub fn difference<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let missing = other.0.keys().filter(|name| !self.0.contains_key(*name));
        let changed = self.0.iter().filter(|(name, bytes)| other.0.get(*name) != Some(bytes)).map(|(name, _)| name);
        missing.chain(changed).map(String::as_str).collect()
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts the files in the place of what a folder has.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(folder);
        for (path, bytes) in &self.0 {
            let file = folder.join(path);
            fs::create_dir_all(file.parent().unwrap_or(folder))?;
            fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

fn is_code(name: &str) -> bool {
    name.ends_with(".js") || name.ends_with(".css")
}

fn read(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.insert(path, fs::read(entry.path())?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dist(files: &[(&str, &str)]) -> Dist {
        Dist(files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect())
    }

    #[test]
    fn the_first_page_is_what_its_html_names_and_what_that_imports() {
        let mut built = dist(&[
            ("index.html", "<script src=\"/assets/index-1.js\"></script><link href=\"/assets/index-2.css\">"),
            ("assets/index-1.js", "import{a}from\"./shared-3.js\";import(\"./Other-4.js\")"),
            ("assets/index-2.css", "a{}"),
            ("assets/shared-3.js", "export const a=1"),
            ("assets/Other-4.js", "1"),
            ("assets/TargetsView-5.js", "1"),
        ]);
        built.compress().unwrap();
        assert_eq!(built.first_page().unwrap().0, 4);
        assert_eq!(built.len(), 18);
    }

    #[test]
    fn what_is_missing_added_or_changed_is_named() {
        let (a, b) = (dist(&[("x", "1"), ("y", "1")]), dist(&[("x", "2"), ("z", "1")]));
        assert_eq!(a.difference(&b), ["z", "x", "y"]);
        assert!(a.difference(&a).is_empty());
    }
}
