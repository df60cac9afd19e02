//! Rows that are derived: of small programs in assembly and C, against the tables of this machine's libraries, and of noise.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use fastrand::Rng;
use object::{Object as _, ObjectSymbol as _};
use probe_ebpf::kept::register;
use probe_ebpf::table::{DERIVED, rule};

use super::image::{Image, Piece};
use super::{derive, trial};
use crate::unwind::Table;
use crate::unwind::rules::{FP_AT_FP, FP_LOST, Rule};

/// What the machine's compiler makes of a source; `None` if it does not.
fn compile(compiler: &str, kind: &str, source: &str, options: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (input, made) = (folder.path().join(format!("a.{kind}")), folder.path().join("a"));
    std::fs::write(&input, source).unwrap();
    let output = Command::new(compiler).args(options).arg("-o").arg(&made).arg(&input).output();
    let is_made = output.is_ok_and(|output| output.status.success());
    if !is_made {
        println!("skipped: {compiler} {} does not compile", options.join(" "));
    }
    is_made.then(|| std::fs::read(made).unwrap())
}

/// The derived rows at the symbols of a program in assembly whose names begin with `at_`.
fn rows(source: &str) -> Option<HashMap<String, Rule>> {
    let padding = ".space 600, 0xcc\n";
    let bytes = compile("cc", "s", &format!(".text\n{source}\n{padding}"), &["-static", "-nostdlib", "-Wl,-e,main"])?;
    let file = object::File::parse(&*bytes).unwrap();
    let table = Table::build(&*bytes).unwrap();
    let symbols = file.symbols().filter(|symbol| symbol.name().is_ok_and(|name| name.starts_with("at_")));
    let rule = |address: u64| {
        let found = table.rule(address).unwrap();
        Rule { kind: found.row.rule, operand: found.row.cfa_offset, saved: found.saved }
    };
    Some(symbols.map(|s| (s.name().unwrap().to_owned(), rule(s.address()))).collect())
}

fn function(name: &str, body: &str) -> String {
    format!(".p2align 4\n.globl {name}\n.type {name}, @function\n{name}:\n{body}\n.size {name}, .-{name}\n")
}

const fn derived(rule: u8, cfa_offset: i32, fp: u8) -> (u8, i32, u8) {
    (rule | DERIVED, cfa_offset, fp)
}

#[track_caller]
fn expect(rows: &HashMap<String, Rule>, at: &str, wanted: (u8, i32, u8)) {
    let rule = rows[at];
    assert_eq!((rule.kind, rule.operand, rule.fp()), wanted, "{at}: {rule:?}");
}

const UNKNOWN: (u8, i32, u8) = (rule::NONE, 0, 0);

#[test]
fn pushes_and_frames_are_followed() {
    let source = function(
        "main",
        "push %rbx\n at_pushed: push %rbp\n at_saved: mov %rdi, %rbp\n sub $40, %rsp\n at_deep: call leaf\n\
         at_behind: add $40, %rsp\n pop %rbp\n at_restored: pop %rbx\n at_end: ret",
    ) + &function("leaf", "at_leaf: xor %eax, %eax\n ret")
        + &function("frame", "push %rbp\n mov %rsp, %rbp\n sub %rdi, %rsp\n at_dynamic: nop\n leave\n at_left: ret");
    let Some(rows) = rows(&source) else { return };
    expect(&rows, "at_pushed", derived(rule::RSP, 16, 0));
    expect(&rows, "at_saved", derived(rule::RSP, 24, 0));
    expect(&rows, "at_deep", derived(rule::RSP, 64, 3));
    expect(&rows, "at_behind", derived(rule::RSP, 64, 3));
    expect(&rows, "at_restored", derived(rule::RSP, 16, 0));
    expect(&rows, "at_end", derived(rule::RSP, 8, 0));
    expect(&rows, "at_leaf", derived(rule::RSP, 8, 0));
    expect(&rows, "at_dynamic", derived(rule::RBP, 16, 2));
    expect(&rows, "at_left", derived(rule::RSP, 8, 0));
}

#[test]
fn saved_stack_pointers_are_found_in_memory() {
    let source = function(
        "main",
        "mov %rsp, %rax\n and $-32, %rsp\n at_register: sub $96, %rsp\n mov %rax, 64(%rsp)\n at_aligned: nop\n\
         mov 64(%rsp), %rsp\n at_restored: ret",
    ) + &function(
        "realigns",
        "lea 8(%rsp), %r10\n and $-32, %rsp\n push -8(%r10)\n push %rbp\n mov %rsp, %rbp\n push %r10\n\
         sub %rdi, %rsp\n at_realigned: nop\n mov -8(%rbp), %r10\n leave\n lea -8(%r10), %rsp\n ret",
    );
    let Some(rows) = rows(&source) else { return };
    expect(&rows, "at_register", derived(rule::REGISTER | register::RAX, 8, 0));
    expect(&rows, "at_aligned", derived(rule::RSP_DEREF, 64 * 256 + 8, 0));
    expect(&rows, "at_restored", derived(rule::RSP, 8, 0));
    expect(&rows, "at_realigned", derived(rule::RBP_DEREF, -8 * 256, FP_AT_FP));
}

#[test]
fn what_callees_leave_alone_is_known_above_them() {
    let function_with = |name: &str, callee: &str| {
        let body = format!(
            "mov %rsp, %rcx\n and $-32, %rsp\n sub $96, %rsp\n at_{name}: call {callee}\n at_{name}_behind: nop\n\
             mov %rcx, %rsp\n at_{name}_end: ret"
        );
        function(name, &body)
    };
    let source = function("main", "call kept\n call lost\n call elsewhere\n ret")
        + &function_with("kept", "leaves")
        + &function_with("lost", "changes")
        + &function_with("elsewhere", "calls")
        + &function("leaves", "test %edi, %edi\n je 1f\n xor %eax, %eax\n 1: at_leaf: ret")
        + &function("changes", "test %edi, %edi\n je 1f\n mov $1, %cl\n 1: ret")
        + &function("calls", "call leaves\n ret");
    let Some(rows) = rows(&source) else { return };
    expect(&rows, "at_kept", derived(rule::REGISTER | register::RCX, 8, 0));
    expect(&rows, "at_kept_behind", derived(rule::REGISTER | register::RCX, 8, 0));
    expect(&rows, "at_kept_end", derived(rule::RSP, 8, 0));
    expect(&rows, "at_leaf", derived(rule::RSP, 8, 0));
    for unknown in ["at_lost", "at_lost_behind", "at_elsewhere", "at_elsewhere_behind"] {
        expect(&rows, unknown, UNKNOWN);
    }
}

#[test]
fn where_paths_disagree_nothing_is_known() {
    let source = function(
        "main",
        "test %edi, %edi\n je 1f\n push %rbx\n 1: at_joined: nop\n nop\n jmp 1b",
    ) + &function("clobbers", "mov $5, %ebp\n at_clobbered: nop\n ret")
        // At the return the stack pointer is elsewhere: what was taken for its entry is none.
        + ".p2align 4\n.byte 0xcc\n.p2align 4\n at_nowhere: add $24, %rsp\n at_part: xor %eax, %eax\n pop %rbp\n ret\n";
    let Some(rows) = rows(&source) else { return };
    expect(&rows, "at_joined", UNKNOWN);
    expect(&rows, "at_clobbered", derived(rule::RSP, 8, FP_LOST));
    expect(&rows, "at_part", UNKNOWN);
}

#[test]
fn calls_that_do_not_return_lead_nowhere() {
    let dies = function("dies", "sub $8, %rsp\n mov $60, %eax\n syscall\n hlt");
    let source =
        dies + &function(
            "main",
            "push %rbx\n sub $16, %rsp\n test %edi, %edi\n je 1f\n add $16, %rsp\n pop %rbx\n ret\n 1: call dies",
        ) + &function("next", "at_next: push %rbx\n at_pushed: pop %rbx\n ret");
    let Some(rows) = rows(&source) else { return };
    expect(&rows, "at_next", derived(rule::RSP, 8, 0));
    expect(&rows, "at_pushed", derived(rule::RSP, 16, 0));
}

#[test]
fn switches_lead_where_their_tables_say() {
    let cases = "cmp $2, %edi\n ja 9f\n mov %edi, %edi\n lea table(%rip), %rdx\n movslq (%rdx,%rdi,4), %rax\n add %rdx, %rax\n jmp *%rax\n\
                 8: at_case: mov $1, %eax\n add $24, %rsp\n ret\n 9: xor %eax, %eax\n add $24, %rsp\n ret\n";
    let source = function("main", &format!("sub $24, %rsp\n {cases}"))
        + ".section .rodata\n.p2align 2\ntable: .long 8b-table, 9b-table, 8b-table\n.text\n";
    let Some(rows) = rows(&source) else { return };
    expect(&rows, "at_case", derived(rule::RSP, 32, 0));
}

#[test]
fn threads_and_programs_have_a_first_frame() {
    let source = function("main", "xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n at_start: call clone\n hlt")
        + &function(
            "clone",
            "mov $56, %eax\n syscall\n test %eax, %eax\n jnz 1f\n xor %ebp, %ebp\n pop %rdi\n at_thread: call *%r9\n hlt\n\
             1: at_parent: ret",
        );
    let Some(rows) = rows(&source) else { return };
    expect(&rows, "at_start", derived(rule::END, 0, 0));
    expect(&rows, "at_thread", derived(rule::END, 0, 0));
    expect(&rows, "at_parent", derived(rule::RSP, 8, 0));
}

/// As the dynamic linker begins: what it calls has a table, so that it is only presumed to return.
#[test]
fn a_program_that_begins_by_looking_for_another_has_a_first_frame() {
    let with_table = |name| function(name, ".cfi_startproc\n mov %rdi, %rax\n ret\n .cfi_endproc");
    let source = function(
        "main",
        "mov %rsp, %rdi\n call find\n mov %rax, %r12\n mov %rsp, %r13\n and $-16, %rsp\n xor %ebp, %ebp\n call set_up\n\
         at_handover: mov %r13, %rsp\n jmp *%r12",
    ) + &with_table("find")
        + &with_table("set_up");
    let Some(rows) = rows(&source) else { return };
    expect(&rows, "at_handover", derived(rule::END, 0, 0));
}

/// Switches, loops, recursion, callbacks, an array whose size is not known, calls at the end, and such that do not return.
const PROGRAM: &str = include_str!("tests/program.c");

#[test]
fn what_compilers_make_is_derived_as_their_tables_have_it() {
    for compiler in ["gcc", "clang"] {
        for level in ["-O0", "-O1", "-O2", "-O3", "-Os"] {
            for frame in ["-fomit-frame-pointer", "-fno-omit-frame-pointer"] {
                let options = [level, frame, "-fasynchronous-unwind-tables"];
                let Some(bytes) = compile(compiler, "c", PROGRAM, &options) else { continue };
                let trial = trial::of(&*bytes).unwrap();
                println!("{compiler} {level} {frame}: {trial:?}");
                assert_eq!(trial.different, 0, "{compiler} {level} {frame}: {:?}", trial.examples);
                assert!(trial.same * 100 >= trial.instructions * 95, "{compiler} {level} {frame}: {trial:?}");
            }
        }
    }
}

#[test]
fn libraries_are_derived_as_their_tables_have_them() {
    for (name, least) in [("libz.so.1", 97), ("liblzma.so.5", 95), ("libc.so.6", 92), ("libstdc++.so.6", 85)] {
        let path = format!("/usr/lib/x86_64-linux-gnu/{name}");
        let Some(bytes) = Path::new(&path).exists().then(|| std::fs::read(&path).unwrap()) else { continue };
        let trial = trial::of(&*bytes).unwrap();
        assert!(trial.different * 100_000 <= trial.instructions, "{name}: {:?}", trial.examples);
        assert!(trial.same * 100 >= trial.instructions * least, "{name}: {} of {}", trial.same, trial.instructions);
    }
}

#[test]
fn a_library_without_tables_is_covered() {
    let Ok(file) = std::fs::File::open("/usr/lib/x86_64-linux-musl/libc.so") else {
        println!("skipped: there is no musl");
        return;
    };
    let found = trial::coverage(&file).unwrap();
    let share = found.derived as f64 / (found.bytes - found.padding) as f64;
    assert!(share > 0.985, "{share} {:x?}", found.stretches);
}

/// Code at an address, with nothing known of it but entries.
fn image(code: &[u8], entries: Vec<u64>) -> Image<'_> {
    const START: u64 = 0x40_1000;
    Image {
        gaps: vec![Piece { start: START, bytes: code }],
        code: vec![std::ops::Range { start: START, end: START + code.len() as u64 }],
        entries: entries.iter().map(|entry| START + entry % (code.len() as u64 + 1)).collect(),
        taken: vec![START],
        pointers: vec![START + 1, 0, u64::MAX],
        start: Some(START),
        endless: HashSet::new(),
        endless_slots: HashSet::new(),
        slots: HashMap::new(),
        base: 0x40_0000,
        read: Box::new(move |address, size| {
            let offset = usize::try_from(address.checked_sub(START)?).ok()?;
            let bytes = code.get(offset..)?;
            bytes.get(..bytes.len().min(size as usize))
        }),
    }
}

#[test]
fn noise_and_damaged_code_are_survived() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let mut random = Rng::with_seed(0xc0de);
    for round in 0..300 {
        let length = random.usize(1..4000);
        let mut code: Vec<u8> = if round % 3 == 0 {
            std::iter::repeat_with(|| random.u8(..)).take(length).collect()
        } else {
            let at = random.usize(..own.len() - length);
            own[at..at + length].to_vec()
        };
        for _ in 0..random.usize(..20) {
            let at = random.usize(..code.len());
            code[at] = [0xe8, 0xeb, 0x74, 0xc3, 0xff, 0x48, 0x5c, random.u8(..)][random.usize(..8)];
        }
        let entries = std::iter::repeat_with(|| random.u64(..length as u64)).take(8).collect();
        let image = image(&code, entries);
        if let Some(facts) = derive(&image) {
            assert!(facts.is_sorted_by_key(|&(address, ..)| address));
            assert!(facts.len() <= code.len());
        }
    }
}

#[test]
fn hostile_code_is_given_up() {
    // Jumps to the next byte but one, overlapping; calls to everywhere; conditional jumps back; pushes without end.
    let patterns: [&[u8]; 6] =
        [&[0xeb, 0x00], &[0xe8, 0x01, 0x00, 0x00, 0x00], &[0x75, 0xfc], &[0x50], &[0x74, 0x01, 0x48], &[0x00]];
    for pattern in patterns {
        let code: Vec<u8> = pattern.iter().copied().cycle().take(1 << 17).collect();
        let entries = (0..1 << 17).step_by(61).collect();
        let _ = derive(&image(&code, entries));
    }
}
