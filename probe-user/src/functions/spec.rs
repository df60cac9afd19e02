//! `Spec`: what a user writes to say which functions are meant.
//!
//! ```text
//! send_to_vendor                   a function by its name, as the file has it or demangled
//! ns::Class::method                with or without parameters, template arguments, a Rust hash
//! push_*   /^push_.*$/             a glob; a regular expression
//! libpush.so:send_to_vendor        only in files of this name, soname or end of path; a glob, too
//! libpush:send_to_vendor           a library without its `.so` and version
//! send_to_vendor+0x10              an instruction within a function
//! /path/to/libpush.so@0x1234       an address as `nm` and `objdump` print it for the file
//! [libpush.so+0x1234]              an offset in the file, as profiles show frames without a name
//! usdt:provider:name               a static tracepoint; usdt:libpush.so:provider:name only in one file
//! ```

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use super::names::generic_forms;
use super::pattern::Pattern;
use crate::target::Module;

/// Longer than any name that a compiler makes; what is longer was not written by a person.
const MAX_SPEC: usize = 8192;

/// What is looked for, and where.
#[derive(Clone, Debug)]
pub struct Spec {
    /// As it was written.
    pub text: String,
    /// The files in which it may be; `None` for all.
    pub library: Option<Library>,
    /// What it is.
    pub wanted: Wanted,
}

/// What is looked for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Functions, or an instruction so many bytes into one.
    Function {
        /// Its name.
        name: Pattern,
        /// Bytes from its start.
        offset: u64,
    },
    /// An address in the file's own address space.
    Address(u64),
    /// An offset in the file.
    FileOffset(u64),
    /// Static tracepoints.
    Usdt {
        /// Whose they are.
        provider: Pattern,
        /// What they are called.
        name: Pattern,
    },
}

impl Spec {
    /// Whether a function in a stack is meant, by its demangled name with or without parameters. An address or a tracepoint
    /// is in no name.
    pub fn is_of(&self, function: &str) -> bool {
        const ANONYMOUS: &str = "(anonymous namespace)";
        let Wanted::Function { name, .. } = &self.wanted else { return false };
        let scope = function.rfind(ANONYMOUS).map_or(0, |at| at + ANONYMOUS.len());
        let end = function[scope..].find('(').map_or(function.len(), |at| scope + at);
        let is = |name: &Pattern| name.matches(function) || name.matches(&function[..end]);
        let is_generic = || generic_forms(function).is_some_and(|forms| forms.iter().any(|form| name.matches(form)));
        is(name) || is_generic() || name.operators().is_some_and(|name| is(&name))
    }

    /// What it means where no function is called just so; see [`Pattern::operators`].
    pub(super) fn operators(&self) -> Option<Self> {
        let Wanted::Function { name, offset } = &self.wanted else { return None };
        let wanted = Wanted::Function { name: name.operators()?, offset: *offset };
        Some(Self { wanted, ..self.clone() })
    }
}

impl FromStr for Spec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "an empty name");
        ensure!(text.len() <= MAX_SPEC, "a name of {} bytes", text.len());
        let (library, wanted) = parse(text)?;
        Ok(Self { text: text.to_owned(), library, wanted })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse(text: &str) -> Result<(Option<Library>, Wanted)> {
    if let Some(rest) = text.strip_prefix("usdt:") {
        return usdt(rest);
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some((library, offset)) = bracketed.and_then(|inner| inner.rsplit_once("+0x")) {
        let Some(offset) = hex(offset) else { bail!("`{text}`: no offset behind +0x") };
        return Ok((Some(Library::new(library)?), Wanted::FileOffset(offset)));
    }
    if let Some((library, address)) = text.rsplit_once("@0x") {
        let Some(address) = hex(address) else { bail!("`{text}`: no address behind @0x") };
        return Ok((Some(Library::new(library)?), Wanted::Address(address)));
    }
    // A path begins with a slash as well, but a regular expression for names has no `:/` in it.
    let is_regex = text.len() > 2 && text.starts_with('/') && text.ends_with('/') && !text.contains(":/");
    let (library, name) = match lone_colon(text).filter(|_| !is_regex) {
        Some(at) => (Some(Library::new(&text[..at])?), &text[at + 1..]),
        None => (None, text),
    };
    ensure!(!name.is_empty(), "`{text}` names a library, but no function");
    let (name, offset) = offset(name);
    let name = Pattern::parse(name)?;
    ensure!(offset == 0 || name.exact().is_some(), "`{text}`: an offset needs one function, not a pattern");
    Ok((library, Wanted::Function { name, offset }))
}

/// The first colon that is none of a pair: `::` is part of a name.
fn lone_colon(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_colon = |at: usize| bytes.get(at) == Some(&b':');
    (0..bytes.len()).find(|&at| is_colon(at) && !is_colon(at + 1) && !(at > 0 && is_colon(at - 1)))
}

fn usdt(text: &str) -> Result<(Option<Library>, Wanted)> {
    let mut parts: Vec<&str> = text.rsplitn(3, ':').collect();
    parts.reverse();
    let (library, provider, name) = match parts[..] {
        [provider, name] => (None, provider, name),
        [library, provider, name] => (Some(Library::new(library)?), provider, name),
        _ => bail!("`usdt:{text}`: a static tracepoint is written usdt:provider:name"),
    };
    ensure!(!provider.is_empty() && !name.is_empty(), "`usdt:{text}`: a provider or a name is empty");
    Ok((library, Wanted::Usdt { provider: Pattern::parse(provider)?, name: Pattern::parse(name)? }))
}

/// Takes an offset off a name: `name+0x10`, `name+16`. `operator+` has none.
fn offset(name: &str) -> (&str, u64) {
    let split = name.rsplit_once('+').filter(|(name, _)| !name.is_empty());
    let number = |text: &str| text.strip_prefix("0x").map_or_else(|| text.parse().ok(), hex);
    split.and_then(|(name, text)| Some((name, number(text)?))).unwrap_or((name, 0))
}

fn hex(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

/// A library by its file name, soname or path.
#[derive(Clone, Debug)]
pub struct Library {
    text: String,
    pattern: Pattern,
}

impl Library {
    /// A library as it was written.
    pub fn new(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "an empty name of a library");
        Ok(Self { text: text.to_owned(), pattern: Pattern::glob(text) })
    }

    /// Whether a file is meant.
    pub fn matches(&self, module: &Module, soname: Option<&str>) -> bool {
        let path = module.path.as_str();
        if self.text.contains('/') {
            // The whole path, or its end from a slash on.
            let ends = path.match_indices('/').map(|(at, _)| &path[at + 1..]);
            return self.pattern.matches(path) || ends.into_iter().any(|end| self.pattern.matches(end));
        }
        let file = path.rsplit('/').next().unwrap_or(path);
        let is_stem = |name: &str| name.strip_prefix(&self.text).is_some_and(|rest| rest.starts_with(".so"));
        [Some(file), soname].into_iter().flatten().any(|name| self.pattern.matches(name) || is_stem(name))
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<String>, String) {
        let spec: Spec = text.parse().unwrap();
        let wanted = match spec.wanted {
            Wanted::Function { name, offset: 0 } => name.to_string(),
            Wanted::Function { name, offset } => format!("{name} and {offset}"),
            Wanted::Address(address) => format!("address {address:#x}"),
            Wanted::FileOffset(offset) => format!("offset {offset:#x}"),
            Wanted::Usdt { provider, name } => format!("{provider}/{name}"),
        };
        (spec.library.map(|library| library.to_string()), wanted)
    }

    #[test]
    fn every_form_is_understood() {
        let in_library = |library: &str, wanted: &str| (Some(library.to_owned()), wanted.to_owned());
        let anywhere = |wanted: &str| (None, wanted.to_owned());
        assert_eq!(read("send_to_vendor"), anywhere("send_to_vendor"));
        assert_eq!(read("ns::Class::method(int)"), anywhere("ns::Class::method(int)"));
        assert_eq!(read("libc.so.6:malloc"), in_library("libc.so.6", "malloc"));
        assert_eq!(read("libx.so:ns::f"), in_library("libx.so", "ns::f"));
        assert_eq!(read("/usr/lib/libx.so:ns::f"), in_library("/usr/lib/libx.so", "ns::f"));
        assert_eq!(read("/^push_.*$/"), anywhere("/^push_.*$/"));
        assert_eq!(read("/usr/lib/libx.so:/^a$/"), in_library("/usr/lib/libx.so", "/^a$/"));
        assert_eq!(read("name+0x10"), anywhere("name and 16"));
        assert_eq!(read("libx.so:name+16"), in_library("libx.so", "name and 16"));
        assert_eq!(read("ns::operator+"), anywhere("ns::operator+"));
        assert_eq!(read("/path/to/file@0x1234"), in_library("/path/to/file", "address 0x1234"));
        assert_eq!(read("[libx.so+0x1234]"), in_library("libx.so", "offset 0x1234"));
        assert_eq!(read("usdt:libc:setjmp"), anywhere("libc/setjmp"));
        assert_eq!(read("usdt:libc.so.6:libc:*"), in_library("libc.so.6", "libc/*"));
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        let bad = ["", "libx.so:", ":name", "push_*+0x10", "libx.so@0xzz", "usdt:x", "usdt::x", "/(/", "@0x10"];
        for text in bad {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
        assert!("x".repeat(MAX_SPEC + 1).parse::<Spec>().is_err());
    }
}
