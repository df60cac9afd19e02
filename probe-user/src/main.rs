//! The `probe` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    probe::cli::run()
}
