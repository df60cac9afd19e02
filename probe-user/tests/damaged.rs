//! Executables that are damaged in some hundred ways: whatever reads them (names, functions, allocators, unwind tables) neither
//! panics nor hangs nor takes more than its share. The readers run in this process, which has limits for that: one that
//! goes wild ends the test. Damage is drawn with a fixed seed, so that it is the same each time.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use fastrand::Rng;
use object::{Object as _, ObjectSection as _};
use probe::functions::Finder;
use probe::heap::Found;
use probe::reader::Job as _;
use probe::symbolize::Name;
use probe::target::Module;
use probe::unwind::{self, Effort, Table};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What this process may take, in bytes: ten times what the sound files do.
const MEMORY: u64 = 1 << 30;
/// How much processor time, in seconds.
const TIME: u64 = 60;
/// Ways of damage to each part of a file.
const WAYS: usize = 12;

/// With everything that is read: an allocator, debug information, a note, symbols, a tail call, a table of unwinding.
const SOURCE: &str = "#include <stdlib.h>\n\
    static inline __attribute__((always_inline)) int tiny(int n) { return n * 3 + 1; }\n\
    __attribute__((noinline)) void *malloc(size_t size) { static char all[4096]; return all + size % 64; }\n\
    __attribute__((noinline)) void free(void *memory) { (void)memory; }\n\
    __attribute__((noinline)) int push_one(int n) { return tiny(n); }\n\
    int main(int n, char **v) { free(malloc(n)); return push_one(n) + (v != 0); }\n";

/// Parts that say where others are, or how they are read.
const SECTIONS: [&str; 16] = [
    ".eh_frame",
    ".eh_frame_hdr",
    ".symtab",
    ".strtab",
    ".shstrtab",
    ".dynsym",
    ".dynstr",
    ".dynamic",
    ".debug_info",
    ".debug_abbrev",
    ".debug_line",
    ".debug_str",
    ".debug_rnglists",
    ".note.gnu.build-id",
    ".gnu_debuglink",
    ".text",
];

/// A sound file; `None`, after saying so, without a compiler.
fn sound(folder: &Path, options: &[&str]) -> Option<Vec<u8>> {
    let (source, made) = (folder.join("made.c"), folder.join("made"));
    fs::write(&source, SOURCE).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-g", "-fno-builtin", "-Wl,--build-id", "-o"]).arg(&made).arg(&source).args(options);
    match compiler.status() {
        Ok(status) if status.success() => {}
        _ => {
            eprintln!("skipped: no C compiler; apt-get install gcc");
            return None;
        }
    }
    // A debug link, to a file that is not there.
    fs::write(folder.join("made.debug"), "x").unwrap();
    let linked = Command::new("objcopy").arg("--add-gnu-debuglink=made.debug").arg(&made).current_dir(folder).status();
    assert!(linked.is_ok_and(|status| status.success()), "objcopy comes with the compiler");
    fs::remove_file(folder.join("made.debug")).unwrap();
    Some(fs::read(made).unwrap())
}

/// The parts of a file, by their names: its headers, and its sections.
fn parts(bytes: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let file = object::File::parse(bytes).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let mut parts = vec![
        ("the ELF header".to_owned(), 16..64),
        ("the program headers".to_owned(), word(32)..word(32) + 56 * usize::from(bytes[56])),
        ("the section headers".to_owned(), word(40)..word(40) + 64 * usize::from(bytes[60])),
    ];
    for section in file.sections() {
        let name = section.name().unwrap();
        if let Some((start, size)) = section.file_range().filter(|_| SECTIONS.contains(&name)) {
            parts.push((name.to_owned(), start as usize..(start + size) as usize));
        }
    }
    parts
}

/// Damages a part in one of several ways.
fn damage(bytes: &mut Vec<u8>, part: &std::ops::Range<usize>, way: usize, random: &mut Rng) {
    let at = |random: &mut Rng, size: usize| part.start + random.usize(..part.len().saturating_sub(size).max(1));
    match way % 6 {
        // Bits.
        0 => (0..=random.usize(..8)).for_each(|_| bytes[at(random, 1)] ^= 1 << random.usize(..8)),
        // Numbers that are much too large, or wrap around.
        1 => {
            let number = [u64::MAX, 1 << 63, 1 << 50, u64::from(u32::MAX), 0x7fff_ffff, 0][random.usize(..6)];
            let at = at(random, 8) & !7;
            bytes.iter_mut().skip(at).zip(number.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        }
        // Continuation bits without end.
        2 => {
            let (begin, length) = (at(random, 16), random.usize(1..64));
            bytes[begin..(begin + length).min(part.end)].fill([0xff, 0x80, 0x00][random.usize(..3)]);
        }
        // Noise.
        3 => {
            let (begin, length) = (at(random, 64), random.usize(1..256));
            let end = (begin + length).min(part.end);
            bytes[begin..end].iter_mut().for_each(|byte| *byte = random.u8(..));
        }
        // A piece is where another should be.
        4 => {
            let length = random.usize(1..=part.len().min(64));
            let (from, to) = (at(random, length), at(random, length));
            bytes.copy_within(from..from + length, to);
        }
        // The file ends within it.
        _ => bytes.truncate(at(random, 1)),
    }
}

/// Reads everything; how much was found.
fn read(path: &Path) -> usize {
    let Ok(file) = File::open(path) else { return 0 };
    let table = Table::of_file(&file, Effort::Full).map_or(0, |table| table.rows.len());
    let functions = unwind::functions(&file);
    let mut found = table + functions.len();
    if let Ok(finder) = Finder::of_files(&[path]) {
        for spec in ["*", "push_one", "tiny", "usdt:*:*"] {
            found += finder.find(&spec.parse().unwrap()).map_or(0, |found| found.places.len());
        }
    }
    let Ok(module) = Module::open(path) else { return found };
    let module = Arc::new(module);
    found += usize::from(!Found::look(&module, []).is_empty());
    let (told, Some(handle)) = module.tell() else { return found };
    for depth in ["Full", "Symbols"] {
        let offsets: Vec<u64> = (0x1000..0x1400).step_by(16).chain([0, u64::MAX]).collect();
        let name = serde_json::json!({ "module": &told, "offsets": &offsets, "depth": depth });
        let name: Name = serde_json::from_value(name).unwrap();
        let named = name.run(vec![handle.try_clone_to_owned().unwrap()]);
        assert_eq!(named.answer.len(), offsets.len());
        found += serde_json::to_string(&named.answer).unwrap().matches("push_one").count();
    }
    found
}

#[test]
fn files_that_are_damaged_in_hundreds_of_ways_are_survived() {
    for (what, most) in [(Resource::Data, MEMORY), (Resource::Cpu, TIME)] {
        let maximum = getrlimit(what).maximum;
        setrlimit(what, Rlimit { current: Some(most), maximum }).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut random = Rng::with_seed(15);
    let mut files = 0;
    for options in [&[][..], &["-gz=zlib", "-no-pie"]] {
        let Some(sound) = sound(folder.path(), options) else { return };
        let path = folder.path().join("damaged");
        fs::write(&path, &sound).unwrap();
        assert!(read(&path) > 20, "a sound file is read");
        for (name, part) in parts(&sound) {
            for way in 0..WAYS {
                let mut bytes = sound.clone();
                damage(&mut bytes, &part, way, &mut random);
                fs::write(&path, &bytes).unwrap();
                // Whoever fails is to say which it was.
                println!("{name}, {way}");
                read(&path);
                files += 1;
            }
        }
    }
    assert!(files >= 300, "{files} files");
}
