//! Planted causes, and who is named for them.

use super::*;
use crate::symbolize::{Kind, Line, Location, Measure, Module, Sample, Stack, ThreadInfo};

/// Builds a profile of `seconds` from (thread, stack from the root as `module!file@function#line`, samples).
pub(super) fn profile(seconds: u64, samples: &[(&str, &str, u64)]) -> Profile {
    let mut profile = Profile::default();
    profile.header.duration_ns = seconds * 1_000_000_000;
    for &(thread, stack, count) in samples {
        let at = |index: usize| u32::try_from(index).expect("small");
        let thread = profile.threads.iter().position(|known| known.name == thread).unwrap_or_else(|| {
            profile.threads.push(ThreadInfo { name: thread.into(), ..ThreadInfo::default() });
            profile.threads.len() - 1
        });
        let mut locations = Vec::new();
        for frame in stack.split(' ').rev() {
            let (module, rest) = frame.split_once('!').unwrap_or(("/bin/app", frame));
            let (file, rest) = rest.split_once('@').unwrap_or(("src/app.c", rest));
            let (function, line) = rest.rsplit_once('#').unwrap_or((rest, "1"));
            let kind = if module == "[kernel]" { Kind::Kernel } else { Kind::User };
            profile.modules.push(Module { path: module.into(), ..Module::default() });
            let line = Line { function: function.into(), file: file.into(), line: line.parse().expect("a number") };
            let module = Some(at(profile.modules.len() - 1));
            profile.locations.push(Location { kind, module, address: 0, lines: vec![line] });
            locations.push(at(profile.locations.len() - 1));
        }
        profile.stacks.push(Stack { locations, truncated: None });
        let stack = at(profile.stacks.len() - 1);
        profile.samples.push(Sample {
            thread: at(thread),
            stack,
            time_ns: 0,
            count,
            value: count,
            ..Sample::default()
        });
    }
    profile
}

fn names(culprits: &[Culprit]) -> Vec<&str> {
    culprits.iter().map(|culprit| culprit.function.as_str()).collect()
}

#[test]
fn a_hot_loop_is_named_with_its_hottest_line_and_thread() {
    let calm = profile(30, &[("main", "main serve", 20)]);
    let hot = profile(
        10,
        &[
            ("main", "main serve", 12),
            ("matcher", "run match_rules#41", 60),
            ("matcher", "run match_rules#42", 20),
            ("spare", "run match_rules#42", 8),
        ],
    );
    let found = culprits(&hot, &calm);
    assert_eq!(names(&found), ["match_rules"], "the share of the other fell");
    let first = &found[0];
    assert_eq!((first.line, first.share, first.baseline_share, first.change), (41, 88.0, 0.0, 88.0));
    assert_eq!(first.sentence(), "match_rules (app.c:41) went from 0 % to 88 % of the process, in thread matcher");
}

#[test]
fn leaves_in_the_kernel_and_in_run_time_libraries_are_charged_to_their_caller() {
    let hot = profile(
        10,
        &[
            ("t", "main copy_all#7 /usr/lib/x86_64-linux-gnu/libc.so.6!memcpy", 40),
            ("t", "main copy_all#9 /lib/libc-2.31.so!memcpy [kernel]!exc_page_fault", 30),
            ("t", "main copy_all#9 core::slice::copy", 5),
            ("t", "main other", 10),
            ("t", "[kernel]!kthread", 5),
            ("t", "main plugin /opt/libcheckout.so!work", 10),
        ],
    );
    let found = culprits(&hot, &Profile::default());
    assert_eq!(names(&found), ["copy_all", "other", "work", "kthread"]);
    assert_eq!((found[0].line, found[0].share), (7, 75.0));
}

#[test]
fn what_was_all_of_almost_nothing_and_is_all_of_a_core_is_named() {
    let calm = profile(30, &[("t", "main poll", 1), ("t", "main work", 9)]);
    let hot = profile(10, &[("t", "main work", 190), ("t", "main poll", 10)]);
    let found = culprits(&hot, &calm);
    assert_eq!(names(&found), ["work"], "the share of the other fell");
    assert_eq!(found[0].baseline_share, 90.0);
}

#[test]
fn a_new_caller_explains_a_helper_that_was_busy_before() {
    let calm = profile(30, &[("poller", "run poll#3 burn", 30)]);
    let hot = profile(10, &[("poller", "run poll#3 burn", 10), ("matcher", "run match_rules#41 burn", 180)]);
    let found = culprits(&hot, &calm);
    assert_eq!(names(&found), ["match_rules"]);
    assert_eq!((found[0].line, found[0].thread.as_str(), found[0].baseline_share), (41, "matcher", 0.0));
    assert_eq!(found[0].share, 94.7);
}

#[test]
fn one_sample_of_a_helper_in_the_baseline_does_not_make_it_new() {
    let calm = profile(30, &[("journal", "run write burn", 1)]);
    let hot = profile(10, &[("matcher", "run match_rules burn", 190)]);
    assert_eq!(names(&culprits(&hot, &calm)), ["match_rules"]);
}

#[test]
fn a_helper_that_everybody_calls_more_is_named_itself() {
    let calm = profile(30, &[("t", "main a burn", 10), ("t", "main b burn", 10)]);
    let hot = profile(10, &[("t", "main a burn", 90), ("t", "main b burn", 90), ("t", "main c burn", 10)]);
    assert_eq!(names(&culprits(&hot, &calm)), ["burn", "c"]);
}

#[test]
fn a_new_function_is_charged_with_all_that_it_calls() {
    // One that does more than before, though its share falls, and a new one whose time is in helpers that both have.
    let helpers = |caller: &str, count: u64| {
        ["md5", "copy", "parse", "sort"].map(|helper| (format!("main {caller} {helper}"), count / 4))
    };
    let made = |seconds, parts: &[(&str, u64)]| {
        let stacks: Vec<(String, u64)> = parts.iter().flat_map(|(caller, count)| helpers(caller, *count)).collect();
        profile(seconds, &stacks.iter().map(|(stack, count)| ("t", stack.as_str(), *count)).collect::<Vec<_>>())
    };
    let calm = made(60, &[("search", 228), ("serve", 172)]);
    let hot = made(10, &[("search", 31 * 4), ("reindex", 46 * 4), ("serve", 23 * 4)]);
    let found = culprits(&hot, &calm);
    assert_eq!(found[0].function, "reindex", "{found:?}");
    assert_eq!((found[0].share, found[0].baseline_share), (46.0, 0.0));
    assert!(!found.iter().any(|culprit| culprit.function == "search"), "its share fell: {found:?}");
    // The same if it was there before, with next to nothing.
    let calm = made(60, &[("search", 228), ("serve", 148), ("reindex", 24)]);
    let found = culprits(&hot, &calm);
    assert_eq!(found[0].function, "reindex", "{found:?}");
}

#[test]
fn of_two_callers_of_a_helper_the_one_that_grew_is_named() {
    let calm = profile(10, &[("t", "main search burn", 57), ("t", "main list burn", 5), ("t", "main rest", 38)]);
    let hot = profile(10, &[("t", "main search burn", 31), ("t", "main list burn", 46), ("t", "main rest", 23)]);
    assert_eq!(names(&culprits(&hot, &calm)), ["list"]);
}

#[test]
fn a_lock_of_the_standard_library_gives_way_to_who_takes_it() {
    let gthr = "/usr/include/x86_64-linux-gnu/c++/12/bits/gthr-default.h@__gthread_mutex_lock";
    let stack = format!(
        "/usr/lib/libc.so.6!start_thread /usr/lib/libstdc++.so.6!execute_native_thread_routine transfer#7 {gthr} /usr/lib/libc.so.6!___pthread_mutex_lock"
    );
    assert_eq!(names(&culprits(&profile(1, &[("t", &stack, 9)]), &Profile::default())), ["transfer"]);
}

#[test]
fn what_was_as_busy_before_is_not_named() {
    let calm = profile(30, &[("t", "main steady", 300)]);
    let hot = profile(10, &[("t", "main steady", 100), ("t", "main new", 5)]);
    assert_eq!(names(&culprits(&hot, &calm)), ["new"]);
}

#[test]
fn equals_are_ordered_by_name_and_nothing_gives_nothing() {
    let hot = profile(1, &[("t", "b", 1), ("t", "c", 1), ("t", "a", 1)]);
    assert_eq!(names(&culprits(&hot, &Profile::default())), ["a", "b", "c"]);
    assert_eq!(culprits(&Profile::default(), &hot), []);
}

#[test]
fn what_adds_next_to_nothing_is_not_named_beside_what_does() {
    let hot = profile(1, &[("t", "reads_clock", 8), ("t", "match_rules", 980), ("t", "serve", 12)]);
    assert_eq!(names(&culprits(&hot, &Profile::default())), ["match_rules", "serve"]);
    let many: Vec<String> = (0..300).map(|number| format!("f{number:03}")).collect();
    let flat: Vec<_> = many.iter().map(|function| ("t", function.as_str(), 1)).collect();
    assert_eq!(names(&culprits(&profile(1, &flat), &Profile::default())), ["f000"], "somebody is");
}

#[test]
fn a_function_without_a_source_is_placed_by_its_module() {
    let culprit = Culprit { function: "f".into(), module: "/opt/libx.so".into(), share: 12.4, ..Culprit::default() };
    assert_eq!(culprit.sentence(), "f (libx.so) went from 0 % to 12 % of the process");
}

#[test]
fn memory_is_charged_by_its_bytes_however_steadily_it_grows() {
    let grown = |seconds, leaks: u64| {
        let mut profile =
            profile(seconds, &[("main", "main leaks", 3), ("main", "main serve", 900), ("main", "main caches", 1)]);
        for (sample, (measure, value)) in profile.samples.iter_mut().zip([
            (Measure::Resident, leaks),
            (Measure::Time, 900),
            (Measure::Mapped, 1 << 40),
        ]) {
            (sample.measure, sample.value) = (measure, value);
        }
        profile
    };
    let found = growth_culprits(&grown(60, 30 << 20), &grown(30, 15 << 20), 30 << 20);
    assert_eq!(names(&found), ["leaks"]);
    assert_eq!((found[0].bytes, found[0].share), (Some(30 << 20), 100.0));
    let sentence = found[0].sentence();
    assert_eq!(
        sentence,
        "leaks (app.c:1) took 30.0 MiB, 100 % of the 30.0 MiB that the process grew by, in thread main"
    );
    assert_eq!(names(&culprits(&grown(60, 1), &Profile::default())), ["serve"], "time has nothing to do with it");
}
