//! `boxctl`: everything by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    boxd::cli::main()
}
