//! C++ and Rust: overloads, namespaces, templates, demangled names.

use super::*;

const SOURCE: &str = r#"
#include <string>
namespace ns {
struct Class {
    int total = 0;
    __attribute__((noinline)) explicit Class(int n) : total(n) { asm volatile(""); }
    __attribute__((noinline)) int method(int n) { asm volatile(""); return total += n; }
    __attribute__((noinline)) int method(const std::string &s) const { asm volatile(""); return s.size() + total; }
    __attribute__((noinline)) Class operator+(const Class &o) const { asm volatile(""); return Class(total + o.total); }
};
template <typename T> __attribute__((noinline)) T twice(T n) { asm volatile(""); return n + n; }
namespace { __attribute__((noinline)) int hidden(int n) { asm volatile(""); return n; } }
}
int main() {
    ns::Class c(1);
    return c.method(1) + c.method(std::string("a")) + (c + c).total + ns::twice(2) + (int)ns::twice(2.0) + ns::hidden(3);
}
"#;

#[test]
fn cxx_names_are_found_with_and_without_parameters() {
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("c++", SOURCE, "made", &["-O1"]) else { return };
    assert_eq!(find(&made, "ns::Class::method").unwrap().places.len(), 2, "overloads");
    let place = one(&made, "ns::Class::method(int)");
    assert_eq!((place.symbol.as_str(), place.name.as_str()), ("_ZN2ns5Class6methodEi", "ns::Class::method(int)"));
    assert_eq!(one(&made, "_ZN2ns5Class6methodEi").file_offset, place.file_offset);
    assert_eq!(one(&made, "made:ns::Class::method(int)").file_offset, place.file_offset);
    assert_eq!(find(&made, "ns::twice").unwrap().places.len(), 2, "instances of a template");
    assert_eq!(one(&made, "ns::twice<int>").symbol, "_ZN2ns5twiceIiEET_S1_");
    assert_eq!(one(&made, "ns::Class::operator+").symbol, "_ZNK2ns5ClassplERKS0_");
    assert!(one(&made, "ns::(anonymous namespace)::hidden").symbol.contains("hidden"));
    // Constructors for whole objects and for bases are one.
    assert!(one(&made, "ns::Class::Class").aliases.iter().all(|alias| alias.starts_with("_ZN2ns5ClassC")));
    assert!(find(&made, "ns::*").unwrap().places.len() >= 7);
}

#[test]
fn a_name_without_its_namespace_is_suggested_with_it() {
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("c++", SOURCE, "made", &["-O1"]) else { return };
    for wrong in ["method", "ns::Clas::method", "ns::Class::metod"] {
        let missing = find(&made, wrong).unwrap_err();
        assert!(missing.hint().contains("ns::Class::method(int)"), "{wrong}: {}", missing.hint());
    }
}

#[test]
fn rust_names_are_found_without_their_hash() {
    let source = "mod pricing {\n\
                  #[inline(never)] pub fn evaluate(n: u32) -> u32 { std::hint::black_box(n) + 1 }\n\
                  #[inline(never)] pub fn generic<T: std::fmt::Debug>(n: T) -> usize { std::hint::black_box(format!(\"{n:?}\")).len() }\n\
                  pub struct Book(pub u32);\n\
                  impl Drop for Book { #[inline(never)] fn drop(&mut self) { std::hint::black_box(self.0); } } }\n\
                  fn main() { let b = pricing::Book(pricing::evaluate(1)); println!(\"{}\", pricing::generic(b.0)); }";
    let workshop = Workshop::new();
    workshop.write("made.rs", source);
    for mangling in ["legacy", "v0"] {
        let options = ["-Copt-level=1", "-o", mangling, "made.rs", "--crate-name=made"];
        let version = format!("-Csymbol-mangling-version={mangling}");
        let more = if mangling == "v0" { vec![version.as_str()] } else { vec![] };
        let Some(()) = workshop.run("rustc", &[&options[..], &more].concat()) else { continue };
        let made = workshop.path(mangling);
        let place = one(&made, "made::pricing::evaluate");
        assert_eq!(place.name, "made::pricing::evaluate", "{mangling}");
        assert!(place.symbol.starts_with("_ZN") || place.symbol.starts_with("_R"), "{}", place.symbol);
        assert!(one(&made, "made::pricing::generic").name.starts_with("made::pricing::generic"));
        assert_eq!(
            one(&made, "<made::pricing::Book as core::ops::drop::Drop>::drop").symbol,
            one(&made, "/Book.*::drop$/").symbol
        );
        let missing = find(&made, "pricing::evalute").unwrap_err();
        assert!(missing.hint().contains("made::pricing::evaluate"), "{}", missing.hint());
    }
}

#[test]
fn functions_in_stacks_are_known_by_their_specs() {
    let is_of = |spec: &str, function: &str| spec.parse::<Spec>().unwrap().is_of(function);
    for (spec, function, expected) in [
        ("handle", "handle", true),
        ("lib.so:handle", "handle", true),
        ("handle", "handle_all", false),
        ("handle*", "handle_all", true),
        ("ns::Class::run", "ns::Class::run(int, char const*)", true),
        ("ns::Class::run(int)", "ns::Class::run(int)", true),
        ("(anonymous namespace)::run", "(anonymous namespace)::run(int)", true),
        ("lib.so@0x1234", "handle", false),
        ("usdt:app:handle", "handle", false),
    ] {
        assert_eq!(is_of(spec, function), expected, "{spec} {function}");
    }
}
