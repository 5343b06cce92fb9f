//! The begin of a program that does without what Rust's runtime does before `main`.

/// Makes a function without arguments, which returns an exit status, the `main` that libc calls.
///
/// Rust's own does more before: it looks for the bounds of the stack, for which libc reads `/proc/self/maps`, and has
/// an overflow of it reported by name, on a stack of its own. A program of which many stand on a host has neither the
/// code nor the memory for it to spare; there an overflow ends it by SIGSEGV and without a word. What else the runtime
/// does is up to the function: SIGPIPE is as it was inherited, and so are standard input, output and error, closed or
/// not. A panic that reaches the end of the function aborts.
///
/// For a program that says `#![no_main]`.
#[macro_export]
macro_rules! main_without_runtime {
    ($main:path) => {
        #[allow(unsafe_code, reason = "libc calls the only function of this name")]
        #[unsafe(no_mangle)]
        extern "C" fn main() -> std::ffi::c_int {
            std::ffi::c_int::from($main())
        }
    };
}
