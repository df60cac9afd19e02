//! The library is a row of rooms in the order in which data flows, as `src/lib.rs` lists them. A room imports only
//! rooms above it in that list; test modules may look anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_room_imports_only_rooms_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms = rooms(&fs::read_to_string(source.join("lib.rs")).unwrap());
    assert!(rooms.len() > 5, "src/lib.rs lists the rooms: {rooms:?}");
    let mut wrong = Vec::new();
    for (at, room) in rooms.iter().enumerate() {
        for file in files_of(&source, room) {
            for import in imports(&fs::read_to_string(&file).unwrap()) {
                if rooms.iter().position(|room| *room == import).is_some_and(|place| place > at) {
                    wrong.push(format!("{}: `{room}` may not import `{import}`", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The modules of `lib.rs`, in their order.
fn rooms(lib: &str) -> Vec<String> {
    let modules = lib.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'));
    modules.map(str::to_owned).collect()
}

/// A room's files: `room.rs`, or all below `room/` but for files of tests.
fn files_of(source: &Path, room: &str) -> Vec<PathBuf> {
    let mut files = vec![source.join(format!("{room}.rs"))];
    let mut folders = vec![source.join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                files.push(entry);
            }
        }
    }
    files.retain(|file| file.extension().is_some_and(|e| e == "rs") && !file.ends_with("tests.rs") && file.exists());
    files
}

/// The modules that follow `crate::` in a file's code: one name, or the outermost names within braces.
fn imports(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        found.extend(rest.strip_prefix('{').map_or_else(|| vec![name(rest)], outermost));
    }
    found.remove("");
    found
}

/// A file without its comments and without its test module, which stands at the end.
fn code(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    lines[..end].iter().filter(|line| !line.starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The names at the first level of a list in braces; `list` begins after the opening one.
fn outermost(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                names.push(name(list[start..at].trim_start()));
                break;
            }
            ',' if depth == 0 => {
                names.push(name(list[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> String {
    text.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect()
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "//! crate::comment\nuse crate::target::Process;\nuse crate::{\n    kernel::{self, Event},\n    text,\n};\n\
                fn f() -> crate::record::Window { $crate::x!() }\n// crate::serve\n#[cfg(test)]\nmod tests {\n    use crate::daemon;\n}\n";
    let found: Vec<_> = imports(text).into_iter().collect();
    assert_eq!(found, ["kernel", "record", "target", "text"]);
}
