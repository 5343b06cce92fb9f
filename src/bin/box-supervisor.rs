//! The process that stays with a box.

fn main() -> std::process::ExitCode {
    boxd::supervisor::main()
}
