//! The developer's commands, one file per command: `cargo xtask <command>`. Nothing here is part of the product.

mod ebpf;
mod shell;

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
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Ebpf(args) => ebpf::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
