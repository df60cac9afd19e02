//! C: offsets, addresses, aliases, indirect functions, clones, imports, and what cannot be probed.

use super::*;

/// Every function begins with a marker that can be found again in the file.
const SOURCE: &str = r#"
#define MARK(n) __asm__ volatile(".byte 0x0f, 0x1f, 0x80; .long " #n)
__attribute__((noinline)) int push_one(int n) { MARK(0x11111111); return n + 1; }
__attribute__((noinline)) int push_two(int n) { MARK(0x22222222); return n + 2; }
int also_two(int) __attribute__((alias("push_two")));
int counter = 7;
__asm__(".text; .globl no_size; .type no_size, @function; no_size: ret");
__asm__(".text; .globl locked; .type locked, @function; locked: lock incl (%rdi); ret; .size locked, .-locked");
int main(void) { return push_one(1) + push_two(2) + counter; }
"#;

fn marker(place: &Place) -> Option<u8> {
    let bytes = bytes_at(place, place.size as usize);
    bytes.windows(7).find(|window| window[..3] == [0x0f, 0x1f, 0x80]).map(|window| window[3])
}

#[test]
fn a_function_is_found_in_every_kind_of_executable() {
    for options in
        [&["-O2", "-no-pie"][..], &["-O2", "-pie", "-fPIE"], &["-O2", "-shared", "-fPIC"], &["-O1", "-static"]]
    {
        let workshop = Workshop::new();
        let Some(made) = workshop.compile("cc", SOURCE, "made", options) else { continue };
        let place = one(&made, "push_one");
        assert_eq!((marker(&place), &place.kind), (Some(0x11), &Kind::Entry), "{options:?}");
        assert!(place.size > 7 && place.kind == Kind::Entry && !place.module.build_id().is_empty(), "{place:?}");
        assert_eq!(one(&made, "made:push_one").file_offset, place.file_offset);
        // The same place by its address and by its offset in the file.
        let by_address = one(&made, &format!("made@{:#x}", place.address));
        let by_offset = one(&made, &format!("[made+{:#x}]", place.file_offset));
        for other in [by_address, by_offset] {
            assert_eq!(
                (other.file_offset, &other.kind, other.name.as_str()),
                (place.file_offset, &Kind::Entry, "push_one")
            );
        }
    }
}

#[test]
fn patterns_find_all_and_aliases_are_one_place() {
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("cc", SOURCE, "made", &["-O2"]) else { return };
    for pattern in ["push_*", "/^push_/", "push_[a-z]*"] {
        let found = find(&made, pattern).unwrap();
        let mut names = names(&found);
        names.sort_unstable();
        assert_eq!((names, found.omitted), (vec!["push_one", "push_two"], 0), "{pattern}");
    }
    let place = one(&made, "also_two");
    assert_eq!((place.symbol.as_str(), &place.aliases), ("also_two", &vec!["push_two".to_owned()]));
    assert_eq!(one(&made, "push_two").aliases, ["also_two"]);
    assert_eq!(find(&made, "*_two").unwrap().places.len(), 1);
}

#[test]
fn offsets_are_taken_at_instructions_only() {
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("cc", SOURCE, "made", &["-O2", "-fcf-protection=none"]) else { return };
    let start = one(&made, "push_one");
    let place = one(&made, "push_one+0x7");
    assert_eq!((place.file_offset, &place.kind), (start.file_offset + 7, &Kind::Instruction(Some(7))));
    assert!(place.kind != Kind::Entry && place.to_string() == "made:push_one+0x7");
    assert_eq!(one(&made, &format!("made@{:#x}", place.address)).kind, Kind::Instruction(Some(7)));
    for (spec, wanted) in [("push_one+3", "no instruction"), ("push_one+0x1000", "has only")] {
        let missing = find(&made, spec).unwrap_err();
        assert!(matches!(missing.why, Why::Refused(_)) && missing.to_string().contains(wanted), "{missing}");
    }
}

#[test]
fn what_cannot_be_probed_says_why() {
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("cc", SOURCE, "made", &["-O2"]) else { return };
    for (spec, wanted) in [
        ("counter", "it is data"),
        ("no_size", "no size"),
        ("locked", "locked instruction"),
        ("made@0x0", "not in executable code"),
        ("[made+0x0]", "not in executable code"),
        ("[made+0xffffffffff]", "not in executable code"),
    ] {
        let missing = find(&made, spec).unwrap_err();
        assert!(matches!(missing.why, Why::Refused(_)) && missing.to_string().contains(wanted), "{spec}: {missing}");
    }
    // What is found beside them is found.
    let found = find(&made, "/^(push_one|locked)$/").unwrap();
    assert_eq!((names(&found), found.refused.len()), (vec!["push_one"], 1));
}

#[test]
fn an_indirect_function_is_refused_and_its_implementations_are_listed() {
    let source = r#"
static int slow(int n) { __asm__ volatile(""); return n; }
static int fast(int n) { __asm__ volatile("nop"); return n; }
int level;
static int (*choose(void))(int) { return level > 3 ? fast : slow; }
int work(int) __attribute__((ifunc("choose")));
int main(void) { return work(0); }
"#;
    for options in [&["-O2", "-fPIE", "-pie"][..], &["-O2", "-no-pie"]] {
        let workshop = Workshop::new();
        let Some(made) = workshop.compile("cc", source, "made", options) else { continue };
        let missing = find(&made, "work").unwrap_err();
        let Why::Refused(refusals) = &missing.why else { panic!("{missing}") };
        let Reason::Indirect(places) = &refusals[0].reason else { panic!("{missing}") };
        let mut names: Vec<_> = places.iter().map(|place| place.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["fast", "slow"], "{options:?}");
        assert!(missing.hint().contains("made:fast"), "{}", missing.hint());
        assert_eq!(one(&made, "made:fast").file_offset, places.iter().find(|p| p.name == "fast").unwrap().file_offset);
    }
}

#[test]
fn an_unknown_name_lists_the_nearest() {
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("cc", SOURCE, "made", &["-O2"]) else { return };
    let missing = find(&made, "push_oen").unwrap_err();
    let Why::Unknown { files: 1, stripped, nearest } = &missing.why else { panic!("{missing}") };
    assert_eq!((stripped.len(), nearest[0].as_str()), (0, "push_one"));
    assert!(missing.problem().hint.contains("did you mean push_one"), "{}", missing.hint());
    let missing = find(&made, "mad.so:push_one").unwrap_err();
    assert!(matches!(&missing.why, Why::NoSuchLibrary { .. }), "{missing}");
}

#[test]
fn an_import_leads_to_its_definition() {
    let workshop = Workshop::new();
    let library = "int send_to_vendor(int n) { return n + 1; }";
    let user = "int send_to_vendor(int); int main(void) { return send_to_vendor(1); }";
    let options = ["-O2", "-shared", "-fPIC", "-Wl,-soname,libpush.so.1"];
    let Some(library) = workshop.compile("cc", library, "libpush.so.1.2", &options) else { return };
    let Some(user) = workshop.compile("cc", user, "user", &["-O2", "libpush.so.1.2"]) else { return };
    let finder = Finder::of_files(&[&user, &library]).unwrap();
    for spec in ["send_to_vendor", "libpush.so.1:send_to_vendor", "libpush:send_*", "libpush.so.1.2:send_to_vendor"] {
        let found = finder.find(&spec.parse().unwrap()).unwrap();
        assert_eq!((found.places.len(), &found.places[0].imported_by), (1, &None), "{spec}");
    }
    let found = finder.find(&"user:send_to_vendor".parse().unwrap()).unwrap();
    let place = &found.places[0];
    assert!(place.module.path.ends_with("libpush.so.1.2") && place.imported_by.as_ref().unwrap().ends_with("/user"));
    let missing = find(&user, "send_to_vendor").unwrap_err();
    assert!(matches!(missing.why, Why::OnlyImported { .. }), "{missing}");
    let missing = finder.find(&"libpsh.so:x".parse().unwrap()).unwrap_err();
    assert!(missing.hint().contains("libpush.so.1.2"), "{missing} {}", missing.hint());
}

#[test]
fn parts_and_copies_of_functions_are_told_apart() {
    let source = r#"
extern void die(const char *) __attribute__((noreturn, cold));
void die(const char *text) { __builtin_trap(); }
__attribute__((noinline)) int risky(int n) { if (n > 100) die("a"); return n * 2; }
__attribute__((noinline)) static int copied(int n, int m) { __asm__ volatile("" :: "r"(n)); return n * m; }
int main(int count, char **v) { return risky(count) + copied(count, 3) + copied(count + 1, 3); }
"#;
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("cc", source, "made", &["-O2", "-fno-ipa-cp-clone"]) else { return };
    // Whether the compiler copies the function or not, its name finds it.
    assert!(one(&made, "copied").symbol.starts_with("copied"));
    assert_eq!(one(&made, "risky").symbol, "risky");
    if let Err(missing) = find(&made, "risky.cold") {
        assert!(missing.to_string().contains("cold part") || matches!(missing.why, Why::Unknown { .. }), "{missing}");
    }
}
