//! Stripped files: debug files by build id and by debug link, MiniDebugInfo.

use super::*;

const SOURCE: &str = "static __attribute__((noinline)) int secret(int n) { __asm__ volatile(\"\"); return n; }\n\
                      int main(void) { return secret(1); }";

/// A stripped program, and its symbols in a file of their own; where `secret` is.
fn stripped(workshop: &Workshop, options: &[&str]) -> Option<(PathBuf, u64)> {
    let made = workshop.compile("cc", SOURCE, "made", &[&["-O1", "-g"], options].concat())?;
    let offset = one(&made, "secret").file_offset;
    workshop.run("objcopy", &["--only-keep-debug", "made", "made.debug"])?;
    workshop.run("strip", &["made"])?;
    let missing = find(&made, "secret").unwrap_err();
    assert!(missing.hint().contains("debug symbols of") && missing.hint().contains("made"), "{}", missing.hint());
    Some((made, offset))
}

#[test]
fn a_debug_file_beside_the_program_is_used() {
    for id in ["-Wl,--build-id=sha1", "-Wl,--build-id=none"] {
        for folder in ["", ".debug"] {
            let workshop = Workshop::new();
            let Some((made, offset)) = stripped(&workshop, &[id]) else { return };
            let Some(()) = workshop.run("objcopy", &["--add-gnu-debuglink=made.debug", "made"]) else { return };
            let debug = workshop.path(folder).join("made.debug");
            std::fs::create_dir_all(workshop.path(folder)).unwrap();
            std::fs::rename(workshop.path("made.debug"), &debug).unwrap();
            assert_eq!(one(&made, "secret").file_offset, offset, "{id} {folder}");
            // Another file of that name is not.
            let other = workshop.compile("cc", "int main(void) { return 0; }", "other", &["-g", "-O0"]).unwrap();
            std::fs::copy(other, &debug).unwrap();
            assert!(find(&made, "secret").is_err(), "{id} {folder}");
        }
    }
}

#[test]
fn a_debug_file_is_found_by_build_id_below_any_root() {
    let workshop = Workshop::new();
    let Some((made, offset)) = stripped(&workshop, &["-Wl,--build-id=sha1"]) else { return };
    let module = std::sync::Arc::new(crate::target::Module::open(&made).unwrap());
    let (start, rest) = module.build_id().split_at(2);
    let folder = workshop.path("root/usr/lib/debug/.build-id").join(start);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::rename(workshop.path("made.debug"), folder.join(format!("{rest}.debug"))).unwrap();
    let finder = Finder::of_modules([module], [workshop.path("nowhere"), workshop.path("root")]);
    assert_eq!(finder.find(&"secret".parse().unwrap()).unwrap().places[0].file_offset, offset);
}

#[test]
fn a_debug_file_that_was_cut_says_so() {
    let workshop = Workshop::new();
    let Some((made, _)) = stripped(&workshop, &["-Wl,--build-id=sha1"]) else { return };
    let Some(()) = workshop.run("objcopy", &["--add-gnu-debuglink=made.debug", "made"]) else { return };
    let module = crate::target::Module::open(&made).unwrap();
    let debug = workshop.path("made.debug");
    let whole = std::fs::read(&debug).unwrap();
    let problem = |bytes: &[u8]| {
        std::fs::write(&debug, bytes).unwrap();
        separate(&module, &Image::open(module.file().unwrap()).unwrap(), &[PathBuf::from("/")]).problem
    };
    assert_eq!(problem(&whole), None);
    for length in [0, 10, 64, whole.len() / 4, whole.len() / 2, whole.len() - 1] {
        assert!(problem(&whole[..length]).is_some(), "cut to {length} bytes of {}", whole.len());
    }
}

#[test]
fn mini_debug_info_is_used() {
    let workshop = Workshop::new();
    let Some((made, offset)) = stripped(&workshop, &[]) else { return };
    let Some(()) = workshop.run("objcopy", &["-S", "--keep-symbol=secret", "made.debug", "mini"]) else { return };
    let Some(()) = workshop.run("xz", &["mini"]) else { return };
    let Some(()) = workshop.run("objcopy", &["--add-section", ".gnu_debugdata=mini.xz", "made"]) else { return };
    assert_eq!(one(&made, "secret").file_offset, offset);
    // Damaged, it is as good as none.
    let whole = std::fs::read(workshop.path("mini.xz")).unwrap();
    for at in (0..whole.len()).step_by(17) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        std::fs::write(workshop.path("mini.xz"), bytes).unwrap();
        workshop.run("objcopy", &["--update-section", ".gnu_debugdata=mini.xz", "made"]).unwrap();
        let _ = find(&made, "secret");
    }
}

#[test]
fn unwind_information_says_where_a_function_without_a_name_begins_and_ends() {
    let workshop = Workshop::new();
    let Some(made) = workshop.compile("cc", SOURCE, "made", &["-O1"]) else { return };
    let named = one(&made, "secret");
    let Some(()) = workshop.run("strip", &["made"]) else { return };
    let at = |address: u64| one(&made, &format!("made@{address:#x}"));
    let entry = at(named.address);
    assert_eq!(entry.to_string(), format!("made@{:#x}", named.address));
    assert_eq!((entry.kind, entry.size), (Kind::Entry, named.size));
    let last = named.size - 1;
    assert_eq!(at(named.address + last).kind, Kind::Instruction(Some(last)), "it returns there");
    let module = std::sync::Arc::new(crate::target::Module::open(&made).unwrap());
    let finder = Finder::of_modules([module], [workshop.path("nowhere")]);
    let found = finder.find(&format!("made@{:#x}", named.address).parse().unwrap()).unwrap();
    assert_eq!(finder.returns(&found.places[0]).unwrap().offsets.len(), 1, "it can be timed");
    // Without it nothing says where instructions begin: a probe within one would destroy the program.
    let Some(()) = workshop.run("objcopy", &["--remove-section=.eh_frame", "made"]) else { return };
    let refused = find(&made, &format!("made@{:#x}", named.address)).unwrap_err();
    assert!(refused.problem().message.contains("neither symbols nor unwinding information"), "{refused:?}");
    // But what is compiled for indirect branch tracking does.
    let Some(made) = workshop.compile("cc", SOURCE, "made", &["-O1", "-fcf-protection=full"]) else { return };
    let named = one(&made, "main");
    for line in [&["strip", "made"][..], &["objcopy", "--remove-section=.eh_frame", "made"]] {
        let Some(()) = workshop.run(line[0], &line[1..]) else { return };
    }
    let entry = one(&made, &format!("made@{:#x}", named.address));
    assert_eq!((entry.address, entry.kind), (named.address, Kind::Instruction(None)));
    assert!(find(&made, &format!("made@{:#x}", named.address + 1)).is_err());
}
