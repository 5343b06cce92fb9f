//! Called by systemd at boot and at every daemon-reload with three directories: units of normal, early and
//! late priority; systemd.generator(7).

use std::path::Path;
use std::process::ExitCode;

use boxd::definition::Layers;
use boxd::generation::Store;
use boxd::generator::{generate, log};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [normal, _early, _late] = arguments.as_slice() else {
        log("called with other arguments than the three directories of systemd.generator(7)");
        return ExitCode::FAILURE;
    };
    for error in generate(&Layers::system(), &Store::system(), Path::new(normal)) {
        log(&error.to_string());
    }
    // A broken definition is the failure of its box, not of the boot.
    ExitCode::SUCCESS
}
