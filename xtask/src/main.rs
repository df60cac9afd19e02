//! The developer's commands, one file per command: `cargo xtask <command>`. Nothing here is part of the product.

mod bench;
mod demo;
mod ebpf;
mod shell;
mod test;
mod ui;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The developer's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the kernel object that `probe` embeds, or prove that the committed one is what the sources produce
    Ebpf(ebpf::Args),
    /// Install what the tests need and run all of them, saying what was skipped and why
    Test(test::Args),
    /// Build the pages that `probe` serves, or prove that the committed ones are what the sources produce
    Ui(ui::Args),
    /// Boot the oldest supported kernel and a new one under emulation, and check that the kernel programs work there
    Vm(vm::Args),
    /// Watch a service turn hot, and end with the alert, the culprit and the flamegraph
    Demo,
    /// Measure what probe costs, next to its peers
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Ebpf(args) => ebpf::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Ui(args) => ui::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Demo => demo::run(),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
