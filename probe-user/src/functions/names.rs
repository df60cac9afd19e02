//! Whether a symbol is called by a name: as the file has it, or demangled, with or without parameters, template arguments
//! and the hash that Rust adds.

use std::cell::Cell;

use super::demangle::{CloneKind, Cloned, forms, without_version};
use super::pattern::Pattern;
use crate::text::MAX_NAME;

/// A pattern, prepared for being held against many symbols.
pub(super) struct Query<'pattern> {
    pattern: &'pattern Pattern,
    /// The exact name without spaces, in which people differ.
    squeezed: Option<String>,
    /// What the mangled form of every matching name contains.
    needle: Option<String>,
    /// Bytes of names that may still be demangled.
    budget: Cell<usize>,
}

/// A browser's symbols are a quarter of this, demangled.
const MAX_DEMANGLED: usize = 512 << 20;

impl<'pattern> Query<'pattern> {
    pub fn new(pattern: &'pattern Pattern) -> Self {
        Self {
            pattern,
            squeezed: pattern.exact().map(squeeze),
            needle: needle(pattern),
            budget: Cell::new(MAX_DEMANGLED),
        }
    }

    /// Whether a symbol, as the file has it, is meant.
    pub fn matches(&self, symbol: &str) -> bool {
        // Nearly all symbols end here; one that is not mangled would have it, too.
        if self.needle.as_deref().is_some_and(|needle| !symbol.contains(needle)) {
            return false;
        }
        let name = without_version(symbol);
        if self.is(symbol) || self.is(name) {
            return true;
        }
        let clone = Cloned::of(name);
        // A part of a function is not the function.
        let is_whole = clone.kind == CloneKind::Whole;
        if is_whole && clone.base.len() < name.len() && self.is(clone.base) {
            return true;
        }
        let possible = self.needle.as_deref().is_none_or(|needle| clone.base.contains(needle));
        if !possible || !(is_whole || self.pattern.exact().is_none()) {
            return false;
        }
        let budget = self.budget.get();
        if budget == 0 {
            return false;
        }
        let forms = forms(clone.base);
        if generic_forms(clone.base).is_some_and(|forms| forms.iter().any(|form| self.is(form))) {
            return true;
        }
        // What is not mangled costs nothing, what cannot be demangled may have cost much.
        let is_mangled = clone.base.starts_with("_Z") || clone.base.starts_with("_R");
        let failed = if is_mangled { MAX_NAME } else { 0 };
        let cost = forms.as_ref().map_or(failed, |forms| forms.iter().map(String::len).sum());
        self.budget.set(budget.saturating_sub(cost));
        if cost >= budget {
            tracing::debug!("too many names to demangle all of them");
        }
        forms.is_some_and(|forms| forms.iter().any(|form| self.is(form)))
    }

    fn is(&self, name: &str) -> bool {
        let squeezed = self.squeezed.as_ref();
        self.pattern.matches(name) || squeezed.is_some_and(|text| name.contains(' ') && *text == squeeze(name))
    }
}

/// What a generic function of Go is called without the types that it was made for, as its own tools write it and as its source
/// does: `main.sum[...]` and `main.sum` for `main.sum[go.shape.int]`. `None` for others.
pub(super) fn generic_forms(symbol: &str) -> Option<[String; 2]> {
    if symbol.starts_with(['_', '<']) || !symbol.contains('.') || !symbol.contains('[') {
        return None;
    }
    let (mut short, mut plain, mut depth) = (String::new(), String::new(), 0_usize);
    for c in symbol.chars() {
        match c {
            '[' => {
                if depth == 0 {
                    short.push_str("[...]");
                }
                depth += 1;
            }
            ']' => depth = depth.checked_sub(1)?,
            c if depth == 0 => {
                short.push(c);
                plain.push(c);
            }
            _ => {}
        }
    }
    (depth == 0).then_some([short, plain])
}

fn squeeze(name: &str) -> String {
    name.split_whitespace().collect()
}

/// Something that the mangled form of every name of a pattern contains: the last identifier of a name, the longest of a
/// glob. Those that mangling writes otherwise are of no use, nor are the types of parameters.
fn needle(pattern: &Pattern) -> Option<String> {
    let (name, is_exact) = match pattern {
        Pattern::Exact(name) => (name.as_str(), true),
        Pattern::Glob(name, _) => (name.as_str(), false),
        Pattern::Regex(_) => return None,
    };
    if name.contains("operator") {
        return None;
    }
    let plain = name.split(['(', '<']).next().unwrap_or_default();
    // The hash of a Rust name is written otherwise.
    let is_hash = |part: &str| part.len() == 17 && part.starts_with('h');
    let usable = |part: &&str| !part.is_empty() && !ABBREVIATED.contains(part) && !is_hash(part);
    let last = plain.rsplit("::").next()?.trim_start_matches('~');
    if last.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && usable(&last) {
        return Some(last.to_owned());
    }
    if is_exact {
        return None;
    }
    // Within brackets there are characters to choose from.
    let plain = plain.split('[').next().unwrap_or_default();
    let parts = plain.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    // Short ones are found everywhere, and may be what is left of a word that mangling abbreviates.
    parts.filter(|part| part.len() > 3 && usable(part)).max_by_key(|part| part.len()).map(str::to_owned)
}

/// Words in demangled names that mangled ones do not have.
const ABBREVIATED: [&str; 44] = [
    "allocator",
    "anonymous",
    "auto",
    "basic_string",
    "bool",
    "char",
    "char16_t",
    "char32_t",
    "char8_t",
    "closure",
    "const",
    "construction",
    "covariant",
    "decltype",
    "double",
    "extern",
    "float",
    "function",
    "guard",
    "impl",
    "initializer",
    "iostream",
    "isize",
    "istream",
    "lambda",
    "long",
    "namespace",
    "nullptr_t",
    "ostream",
    "return",
    "shim",
    "short",
    "signed",
    "string",
    "temporary",
    "thunk",
    "typeinfo",
    "unnamed",
    "unsafe",
    "unsigned",
    "usize",
    "variable",
    "virtual",
    "void",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, symbol: &str) -> bool {
        Query::new(&Pattern::parse(pattern).unwrap()).matches(symbol)
    }

    #[test]
    fn cxx_names_match_in_every_form() {
        let symbol = "_ZN2ns5Class6methodEiPKc";
        for pattern in
            ["ns::Class::method", "ns::Class::method(int, char const*)", "ns::Class::method(int,char const*)", symbol]
        {
            assert!(matches(pattern, symbol), "{pattern}");
        }
        assert!(matches("ns::*::method", symbol) && matches("*::method(*", symbol) && matches("ns::Cla??::m*", symbol));
        assert!(matches("std::string::*", "_ZNSs4sizeEv") && matches("std::*", "_ZSt4findv"));
        assert!(matches("/Class::meth/", symbol));
        assert!(!matches("Class::method", symbol) && !matches("ns::Class::method(int)", symbol));
        // int ns::twice<int>(int)
        for pattern in ["ns::twice", "ns::twice<int>", "int ns::twice<int>(int)", "ns::twice<int>(int)"] {
            assert!(matches(pattern, "_ZN2ns5twiceIiEET_S1_"), "{pattern}");
        }
        assert!(matches("ns::V::operator+", "_ZN2ns1VplERKS0_") && matches("ns::V::~V", "_ZN2ns1VD2Ev"));
    }

    #[test]
    fn rust_names_match_without_their_hash() {
        let legacy = "_ZN7pricing8evaluate17h0123456789abcdefE";
        assert!(matches("pricing::evaluate", legacy) && matches("pricing::evaluate::h0123456789abcdef", legacy));
        assert!(matches("pricing::evaluate", &format!("{legacy}.llvm.1234")));
        // pricing::evaluate::<i32>
        let generic = "_RINvCs1234_7pricing8evaluatelE";
        assert!(matches("pricing::evaluate", generic) && matches("pricing::evaluate::<i32>", generic));
    }

    #[test]
    fn generic_functions_of_go_match_without_their_types() {
        let (function, method) = ("main.sum[go.shape.int,go.shape.[]uint8]", "main.(*box[go.shape.int]).get");
        for pattern in ["main.sum", "main.sum[...]", "main.sum*", "main.s?m", function] {
            assert!(matches(pattern, function), "{pattern}");
        }
        assert!(matches("main.(*box).get", method) && matches("main.(*box[...]).get", method));
        assert!(!matches("main.su", function) && !matches("main.sum]", "main.sum]["));
    }

    #[test]
    fn clones_and_versions_are_the_function_and_parts_are_not() {
        assert!(matches("work", "work.isra.0") && matches("work", "work.constprop.0.isra.0"));
        assert!(!matches("work", "work.part.0") && !matches("work", "work.cold"));
        assert!(matches("work.part.0", "work.part.0") && matches("work*", "work.cold"));
        assert!(matches("memcpy", "memcpy@@GLIBC_2.14") && matches("memcpy@@GLIBC_2.14", "memcpy@@GLIBC_2.14"));
    }
}
