//! Files made by the machine's C compiler; where there is none, these tests say so and pass.

use std::process::Command;

use super::*;

const SOURCE: &str = "extern int puts(const char *);\n\
                      int named(int n) { volatile int a[40]; a[n] = n; puts(\"\"); return a[n]; }\n\
                      int main(void) { return named(3); }\n";

/// The file that the compiler makes with these options; `None` if it cannot.
fn compile(options: &[&str]) -> Option<Vec<u8>> {
    compile_source(SOURCE, options)
}

fn compile_source(text: &str, options: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (source, made) = (folder.path().join("a.c"), folder.path().join("a"));
    std::fs::write(&source, text).unwrap();
    let output = Command::new("cc").args(options).arg("-o").arg(&made).arg(&source).output();
    let compiled = output.is_ok_and(|output| output.status.success());
    if !compiled {
        println!("skipped: cc {} does not compile", options.join(" "));
    }
    compiled.then(|| std::fs::read(made).unwrap())
}

fn symbol(file: &object::File, name: &str) -> u64 {
    use object::ObjectSymbol;
    file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap().address()
}

#[test]
fn linkage_tables_have_their_rule() {
    for options in [["-O2", "-Wl,-z,lazy", "-fcf-protection=none"], ["-O2", "-Wl,-z,lazy", "-fcf-protection=full"]] {
        let Some(bytes) = compile(&options) else { continue };
        let file = object::File::parse(&*bytes).unwrap();
        let plt = file.section_by_name(".plt").unwrap().address();
        let row = Table::build(&*bytes).unwrap().lookup(plt + 16).unwrap();
        assert_eq!(row.rule, rule::PLT, "{options:?}: {row:?}");
        assert!([9, 10, 11].contains(&row.cfa_offset), "{options:?}: {row:?}");
    }
}

#[test]
fn debug_frame_serves_where_there_is_no_eh_frame() {
    let without = ["-O2", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions"];
    for more in [&[][..], &["-gz=none"], &["-gz=zlib"], &["-fno-omit-frame-pointer"]] {
        let Some(bytes) = compile(&[&without[..], more].concat()) else { continue };
        let file = object::File::parse(&*bytes).unwrap();
        assert!(file.section_by_name(".debug_frame").is_some());
        let table = Table::build(&*bytes).unwrap();
        let named = symbol(&file, "named");
        let frame = if more == ["-fno-omit-frame-pointer"] { rule::RBP } else { rule::RSP };
        assert_eq!(table.lookup(named).map(|row| (row.rule, row.cfa_offset)), Some((rule::RSP, 8)), "{more:?}");
        assert_eq!(table.lookup(named + 25).unwrap().rule, frame, "{more:?}");
    }
}

#[test]
fn the_first_frame_has_no_caller() {
    for options in [&["-O2"][..], &["-O2", "-static"], &["-O2", "-static-pie"]] {
        let Some(bytes) = compile(options) else { continue };
        let file = object::File::parse(&*bytes).unwrap();
        let table = Table::build(&*bytes).unwrap();
        assert_eq!(table.lookup(symbol(&file, "_start") + 8).unwrap().rule, rule::END, "{options:?}");
        assert_eq!(table.unreadable_entries, 0, "{options:?}");
    }
}

#[test]
fn a_library_without_unwind_information_for_it_still_returns_from_signals() {
    let source = "asm(\".p2align 4; nop; .global back; back: mov $15, %rax; syscall\"); int main(void) { return 0; }";
    let bare = ["-static", "-nostdlib", "-Wl,-e,main"];
    for more in [&["-O2"][..], &["-O2", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none"], &["-static-pie"]] {
        let Some(bytes) = compile_source(source, &[&bare[..], more].concat()) else { continue };
        let file = object::File::parse(&*bytes).unwrap();
        let (back, table) = (symbol(&file, "back"), Table::build(&*bytes).unwrap());
        for address in [back - 1, back, back + 8] {
            assert_eq!(table.lookup(address).unwrap().rule, rule::SIGNAL, "{more:?} {address:#x}");
        }
        let mut made = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut made, &bytes).unwrap();
        assert_eq!(Table::of_file(&made, Effort::Full), Ok(table), "{more:?}");
    }
}
