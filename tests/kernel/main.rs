//! End-to-end tests: the real `probe`, on this machine's kernel, against programs whose truth is known. One file per
//! question. They run one after the other, because they measure shares of the processor.

mod containers;
mod daemon;
mod dump;
mod errors;
mod faults;
mod formats;
mod functions;
mod governor;
mod incidents;
mod latency;
mod lifetime;
mod live;
mod memory;
mod processes;
mod rules;
mod stacks;
mod symbols;
mod unwind;
mod waits;

fn main() {
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let groups = [
        stacks::tests(),
        unwind::tests(),
        waits::tests(),
        dump::tests(),
        faults::tests(),
        latency::tests(),
        functions::tests(),
        governor::tests(),
        incidents::tests(),
        memory::tests(),
        live::tests(),
        rules::tests(),
        symbols::tests(),
        containers::tests(),
        lifetime::tests(),
        formats::tests(),
        errors::tests(),
    ];
    let tests = groups.into_iter().flatten().chain(daemon::tests()).chain(processes::tests()).collect();
    libtest_mimic::run(&arguments, tests).exit();
}
