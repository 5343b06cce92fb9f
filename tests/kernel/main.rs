//! Boxes on the kernel of this machine, each from a plan made by hand: no definition, no systemd, no cgroup.

use std::process::ExitCode;

mod boxes;
mod entering;
mod failures;
mod harness;
mod mounts;
mod privileges;
mod roots;
mod running;
mod seccomp;
mod separation;
mod walls;

use harness::Test;

fn main() -> ExitCode {
    harness::run(&[
        entering::TESTS,
        failures::TESTS,
        mounts::TESTS,
        privileges::TESTS,
        roots::TESTS,
        seccomp::TESTS,
        separation::TESTS,
        walls::TESTS,
    ])
}
