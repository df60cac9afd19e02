//! End-to-end tests: the real `probe`, on this machine's kernel, against programs whose truth is known. One file per
//! question. They run two at a time, and alone where they fail like that; those that measure time or shares of the processor
//! most exactly run one after the other from the first.

use libtest_mimic::{Conclusion, Trial};
use probe_tests::trial;

mod containers;
mod counts;
mod daemon;
mod dump;
mod errors;
mod faults;
mod floods;
mod formats;
mod functions;
mod governor;
mod holdings;
mod hostile;
mod incidents;
mod latency;
mod lifetime;
mod live;
mod memory;
mod names;
mod patched;
mod processes;
mod rounds;
mod rules;
mod sampling;
mod stacks;
mod symbols;
mod unwind;
mod waits;

/// Tests at a time where they do not mind each other.
const COMPANY: usize = 2;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let threads = arguments.test_threads;
    let in_company = [
        stacks::tests(),
        unwind::in_company(),
        symbols::tests(),
        names::tests(),
        formats::tests(),
        errors::tests(),
        hostile::tests(),
        dump::tests(),
        faults::tests(),
        latency::tests(),
        functions::tests(),
        holdings::tests(),
        memory::tests(),
        live::tests(),
        patched::tests(),
        rules::tests(),
        containers::tests(),
        lifetime::tests(),
        floods::tests(),
        daemon::tests(),
        processes::tests(),
        rounds::tests(),
    ];
    let alone =
        [unwind::alone(), waits::tests(), counts::tests(), sampling::tests(), governor::tests(), incidents::tests()];
    let run = |groups: Vec<Vec<Trial>>, usual| {
        trial::run(&arguments, groups.into_iter().flatten().collect(), threads.unwrap_or(usual))
    };
    let conclusions = [run(in_company.into(), COMPANY), run(alone.into(), 1)];
    // Ends with the exit code of a failure where something failed.
    conclusions.iter().for_each(Conclusion::exit_if_failed);
}
