//! Alerts from the journal to the wire: against strict fakes of each service, against real servers, and with processes that
//! are killed at any instant. Nothing here needs the kernel's help or root.

mod channels;
mod command;
mod delivery;
mod fake;
mod kill;
mod real;
mod receivers;
mod scene;

fn main() {
    // The tests start this program again as the process that they kill.
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--dispatch") => return kill::dispatch(&arguments[2..]),
        Some("--append") => return kill::append(&arguments[2..]),
        _ => {}
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let groups =
        [channels::tests(), delivery::tests(), receivers::tests(), kill::tests(), real::tests(), command::tests()];
    libtest_mimic::run(&arguments, groups.into_iter().flatten().collect()).exit();
}
