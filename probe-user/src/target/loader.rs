//! What a command is going to map: asked of its dynamic linker, before it runs.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// Scripts whose interpreter is a script.
const MAX_SCRIPTS: usize = 4;
/// The first line of a script is no longer (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// Program headers are at the beginning, and so is the name of the dynamic linker.
const ELF_HEAD: u64 = 64 * 1024;
/// More than any linker lists.
const MAX_LIST: u64 = 1 << 20;

/// The files of a command that are known before it runs: the program, its interpreter if it is a script, and the libraries
/// that the dynamic linker lists for them, preloaded ones included.
pub fn files_of_command(program: &OsStr) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut next = find(program);
    for _ in 0..=MAX_SCRIPTS {
        let Some(path) = next.take() else { break };
        next = add(&path, &mut files);
    }
    files
}

/// Adds a program with its libraries; what it is run by, if it is a script.
fn add(path: &Path, files: &mut Vec<PathBuf>) -> Option<PathBuf> {
    let mut head = Vec::new();
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))?;
    (&file).take(HEAD as u64).read_to_end(&mut head).ok()?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let interpreter = PathBuf::from(OsStr::from_bytes(words.next()?));
        // What `env` becomes is the interpreter that is meant.
        let is_env = interpreter.file_name().is_some_and(|name| name == "env");
        let real = is_env.then(|| words.find(|word| !word.starts_with(b"-"))).flatten();
        if let Some(real) = real.and_then(|name| find(OsStr::from_bytes(name))) {
            add(&interpreter, files);
            return Some(real);
        }
        return Some(interpreter);
    }
    let add_new = |files: &mut Vec<PathBuf>, path: &Path| {
        // As the kernel names mapped files.
        files.extend(std::fs::canonicalize(path).ok().filter(|path| !files.contains(path)));
    };
    add_new(files, path);
    for library in linker(&file).and_then(|linker| list(&linker, path)).unwrap_or_default() {
        add_new(files, &library);
    }
    None
}

/// A program as the shell finds it.
fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(is_program)
}

/// The dynamic linker that a program names.
fn linker(file: &File) -> Option<PathBuf> {
    let mut head = vec![0; file.metadata().ok()?.len().min(ELF_HEAD) as usize];
    file.read_exact_at(&mut head, 0).ok()?;
    let header = FileHeader64::<Endianness>::parse(&*head).ok()?;
    let endian = header.endian().ok()?;
    let headers = header.program_headers(endian, &*head).ok()?;
    let name = headers.iter().find_map(|header| header.interpreter(endian, &*head).ok().flatten())?;
    Some(PathBuf::from(OsString::from_vec(name.to_vec()))).filter(|path| path.is_absolute())
}

/// The libraries that a dynamic linker would load, without running the program: glibc's and musl's know `--list`.
fn list(linker: &Path, program: &Path) -> Option<Vec<PathBuf>> {
    let program = std::path::absolute(program).ok()?;
    let mut child = Command::new(linker)
        .arg("--list")
        .arg(program)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut text = Vec::new();
    let read = child.stdout.take()?.take(MAX_LIST).read_to_end(&mut text);
    let _ = child.wait();
    read.ok()?;
    Some(parse(&text))
}

/// Lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)`, or with a path alone.
fn parse(list: &[u8]) -> Vec<PathBuf> {
    let path = |line: &[u8]| {
        let end = line.windows(4).rposition(|window| window == b" (0x")?;
        let begin = line[..end].windows(4).position(|window| window == b" => ").map_or(0, |at| at + 4);
        let path = line[begin..end].trim_ascii();
        path.starts_with(b"/").then(|| PathBuf::from(OsStr::from_bytes(path)))
    };
    list.split(|byte| *byte == b'\n').filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_a_linker_is_understood() {
        let list = b"\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/with space/libc.so.6 (0x00007f1)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n\tlibx.so => not found\n\tstatically linked\n";
        let expected = ["/lib/with space/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(list), expected);
    }

    #[test]
    fn what_a_command_maps_is_known_before_it_runs() {
        let names = |program: &str| -> Vec<String> {
            let files = files_of_command(OsStr::new(program));
            files.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
        };
        let shell = names("sh");
        assert!(shell.len() > 1 && shell.iter().any(|name| name.starts_with("libc.")), "{shell:?}");
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/usr/bin/env -S sh\nexit\n").expect("written");
        let of_script = names(&script.to_string_lossy());
        assert!(shell.iter().all(|name| of_script.contains(name)) && of_script.len() > shell.len(), "{of_script:?}");
        assert!(names("/nowhere/program").is_empty() && names("/proc/self/maps").len() <= 1);
        std::fs::write(&script, [b"#!".as_slice(), script.as_os_str().as_bytes()].concat()).expect("written");
        assert!(names(&script.to_string_lossy()).is_empty(), "a script that is run by itself");
    }
}
