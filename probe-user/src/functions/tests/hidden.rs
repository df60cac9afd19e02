//! Functions that exist only within others.

use super::*;

#[test]
fn a_function_that_is_only_inlined_says_where() {
    let source = "static inline __attribute__((always_inline)) int tiny(int n) { __asm__ volatile(\"nop\" : \"+r\"(n)); return n * 3; }\n\
                  __attribute__((noinline)) int first(int n) { return tiny(n) + tiny(n + 1); }\n\
                  __attribute__((noinline)) int second(int n) { return tiny(n); }\n\
                  int main(int n, char **v) { return first(n) + second(n); }";
    let ways = [
        ("cc", &["-O2", "-g"][..], "none"),
        ("cc", &["-O2", "-g"], "zlib"),
        ("cc", &["-O2", "-g"], "zstd"),
        ("cc", &["-O2", "-g", "-gdwarf-4"], "none"),
        ("clang", &["-O2", "-g", "-gdwarf-5"], "none"),
    ];
    for (compiler, options, compression) in ways {
        let workshop = Workshop::new();
        let Some(made) = workshop.compile(compiler, source, "made", options) else { continue };
        let compress = format!("--compress-debug-sections={compression}");
        let Some(()) = workshop.run("objcopy", &[&compress, "made"]) else { continue };
        let missing = find(&made, "tiny").unwrap_err();
        let Why::OnlyInlined { inlined, .. } = &missing.why else { panic!("{missing}") };
        assert_eq!((inlined.name.as_str(), inlined.copies), ("tiny", 3), "{compiler} {options:?} {compression}");
        assert!(["first", "second"].iter().all(|name| inlined.into.iter().any(|into| into == name)), "{inlined:?}");
        assert!(missing.to_string().contains("only inlined") && missing.hint().contains("first"), "{missing}");
    }
}

#[test]
fn inlined_methods_are_known_by_their_whole_names() {
    let source = "namespace ns { struct Class { int n = 1;\n\
                  __attribute__((always_inline)) int tiny(int m) { return n * m + 1; } }; }\n\
                  __attribute__((noinline)) int caller(int n) { ns::Class c; return c.tiny(n); }\n\
                  int main(int n, char **v) { return caller(n); }";
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("c++", source, "made", &["-O2", "-g"]) else { return };
    for spec in ["ns::Class::tiny", "ns::Class::tiny(int)", "ns::*::tiny*"] {
        let missing = find(&made, spec).unwrap_err();
        let Why::OnlyInlined { inlined, .. } = &missing.why else { panic!("{spec}: {missing}") };
        assert_eq!((inlined.name.as_str(), inlined.copies), ("ns::Class::tiny(int)", 1), "{spec}");
        assert_eq!(inlined.into, ["caller(int)"]);
    }
    assert!(matches!(find(&made, "ns::Other::tiny").unwrap_err().why, Why::Unknown { .. }));
}

#[test]
fn inlined_functions_of_rust_are_known_without_their_hash() {
    let source = "mod pricing { #[inline(always)] pub fn tiny(n: u32) -> u32 { std::hint::black_box(n) * 3 } }\n\
                  #[inline(never)] fn caller(n: u32) -> u32 { pricing::tiny(n) }\n\
                  fn main() { println!(\"{}\", caller(std::env::args().count() as u32)); }";
    let workshop = Workshop::new();
    workshop.write("made.rs", source);
    let Some(()) = workshop.run("rustc", &["-Copt-level=2", "-g", "-o", "made", "made.rs"]) else { return };
    let missing = find(&workshop.path("made"), "made::pricing::tiny").unwrap_err();
    let Why::OnlyInlined { inlined, .. } = &missing.why else { panic!("{missing}") };
    assert_eq!(inlined.name, "made::pricing::tiny");
    assert!(inlined.into.contains(&"made::caller".to_owned()), "{inlined:?}");
}
