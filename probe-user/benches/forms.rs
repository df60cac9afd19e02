//! Which forms the unwind tables of files have, in rows; for `cargo xtask bench forms`. Paths come one a line on the standard
//! input; a line for each form goes to the standard output: the form, its rows, and files that have it.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use probe::unwind::{Effort, Table};
use probe_ebpf::table::{Row, rule};

/// Files that are named of each form.
const NAMED: usize = 3;

fn main() {
    let mut forms: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
    let mut seen = HashSet::new();
    let paths = std::io::read_to_string(std::io::stdin()).unwrap_or_default();
    for path in paths.lines() {
        let Ok(file) = File::open(path) else { continue };
        // Hard links lead to one file.
        if file.metadata().is_ok_and(|metadata| !seen.insert((metadata.dev(), metadata.ino()))) {
            continue;
        }
        let Ok(table) = Table::of_file(&file, Effort::Full) else { continue };
        let mut of_file: BTreeMap<&str, usize> = BTreeMap::from([("files", 1)]);
        for row in &table.rows {
            *of_file.entry(name(*row)).or_default() += 1;
        }
        *of_file.entry("entries that cannot be read").or_default() += table.unreadable_entries as usize;
        for (form, rows) in of_file {
            let (all, files) = forms.entry(form).or_default();
            *all += rows;
            if rows > 0 && files.len() < NAMED {
                files.push(path.rsplit('/').next().unwrap_or(path).to_owned());
            }
        }
    }
    for (form, (rows, files)) in forms {
        println!("{form}\t{rows}\t{}", files.join(" "));
    }
}

/// What a row is in words; those that cannot be followed begin with `no: `.
fn name(row: Row) -> &'static str {
    match row.rule {
        rule::NONE => "no information",
        rule::END => "the first frame",
        rule::RSP => "stack pointer",
        rule::RBP => "frame pointer",
        rule::PLT => "linkage table",
        rule::SIGNAL => "signal frame",
        rule::RSP_DEREF | rule::RBP_DEREF => "aligned stack, by stack or frame pointer",
        rule::OTHER_STACK => "another stack",
        rule::UNSUPPORTED_EXPRESSION => "no: expression",
        rule::UNSUPPORTED_REGISTER => "no: register",
        rule::UNSUPPORTED_OFFSET => "no: offset",
        rule::UNSUPPORTED_RETURN_ADDRESS => "no: return address",
        rule::UNSUPPORTED_FRAME_POINTER => "no: frame pointer",
        other => match other & 0xf0 {
            rule::REGISTER => "another register",
            rule::DEREF => "aligned stack, by another register",
            rule::INDEXED => "above an array",
            rule::RETURN_ADDRESS_IN => "return address in a register",
            _ => "no: unknown rule",
        },
    }
}
