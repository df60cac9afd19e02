//! Every form of unwind table that compilers and assemblers write: frames based on any register, or found through memory.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::probe;
use probe_tests::running::Running;
use probe_tests::trial::trial;

use super::{SMALL, c, whole_of};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::each_form_of_table", each),
        trial("unwind::each_form_of_table_under_a_signal_handler", interrupted),
        trial("unwind::a_thread_that_waits_below_a_frame_that_is_based_on_any_register", waiting),
    ]
}

/// Forms of the workload, which take equal time; those that end in `keeps_all` have two more frames.
const FORMS: [&str; 20] = [
    "by_rax",
    "by_rdx",
    "by_rcx",
    "by_rsi",
    "by_rdi",
    "by_r8",
    "by_r9",
    "by_r10",
    "by_r11",
    "by_kept_rbx",
    "by_kept_r12",
    "by_kept_r13",
    "by_kept_r14",
    "by_kept_r15",
    "by_part",
    "by_aligned_frame",
    "by_word",
    "by_word_of_register",
    "above_array",
    "returns_by_register",
];

/// What all of them are called by, from the first frame on.
const CALLERS: [&str; 6] =
    ["_start", "__libc_start_main_impl", "__libc_start_call_main", "main", "each_form", "without_frame_pointer"];

fn started(argument: &str) -> Result<Running> {
    Running::ready(Command::new(c("forms.c", &[])?).arg(argument))
}

/// Whether the frames are the form's, called as it was; below it there may be a handler.
fn is_form(frames: &[String], form: &str) -> bool {
    let called =
        frames.windows(CALLERS.len() + 1).any(|part| part[..CALLERS.len()] == CALLERS && part[CALLERS.len()] == form);
    let has = |name: &str| frames.iter().any(|frame| frame == name);
    let calls = form.starts_with("by_kept") || ["by_aligned_frame", "by_word", "by_word_of_register"].contains(&form);
    called && (!calls || !has("keeps_all") || has("between"))
}

fn each() -> Result<()> {
    let folded = whole_of(started("")?.pid(), SMALL)?;
    let known = folded.share(|frames| FORMS.iter().any(|form| is_form(frames, form)));
    ensure!(known >= SMALL, "only {known:.4} of the stacks are those of a form:\n{}", folded.show());
    for form in FORMS {
        let share = folded.share(|frames| is_form(frames, form));
        ensure!(share > 0.02, "{form} has {share:.4} of the stacks:\n{}", folded.show());
    }
    Ok(())
}

/// Whether the frames are the form's, and it is interrupted.
fn is_interrupted(frames: &[String], form: &str) -> bool {
    is_form(frames, form) && frames.iter().any(|frame| frame == "in_the_handler")
}

fn interrupted() -> Result<()> {
    let folded = whole_of(started("signals")?.pid(), SMALL)?;
    let known = folded.share(|frames| FORMS.iter().any(|form| is_form(frames, form)));
    ensure!(known >= SMALL, "only {known:.4} of the stacks are those of a form:\n{}", folded.show());
    // On a busy machine signals come too rarely to meet every one.
    let met = FORMS.iter().filter(|form| folded.share(|frames| is_interrupted(frames, form)) > 0.0).count();
    ensure!(met >= FORMS.len() / 2, "only {met} forms were interrupted:\n{}", folded.show());
    Ok(())
}

fn waiting() -> Result<()> {
    let target = started("pauses")?;
    let pid = target.pid().to_string();
    // Of a blocked thread the memory is read otherwise.
    let text = probe::run(["dump", "-p", &pid])?.expect(0)?.stdout;
    let frames = ["pauses", "between", "by_kept_rbx", "without_frame_pointer", "each_form", "main", "_start"];
    let mut rest = text.as_str();
    for frame in frames {
        rest = rest
            .split_once(frame)
            .with_context(|| format!("{frame} is missing, or not where it was called:\n{text}"))?
            .1;
    }
    ensure!(!text.contains("truncated"), "the stack is cut:\n{text}");
    Ok(())
}
