//! The `sconce` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sconce::cli::main()
}
