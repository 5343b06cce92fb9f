//! execve(2) with descriptors at the numbers of sd_listen_fds(3).
#![allow(
    unsafe_code,
    reason = "no library places a descriptor at a number it does not own"
)]

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::fcntl_dupfd_cloexec;

use super::{Called as _, Error, FIRST_PASSED, checked, close_on_exec_from};

/// Becomes another program that finds these descriptors, in their order, at the numbers from 3 on, and no
/// others but 0, 1 and 2.
///
/// When it fails, the descriptors with these numbers are no longer what their owners think: the caller may say
/// so on standard error and exit, nothing else.
pub fn exec_with_descriptors(
    program: &CString,
    arguments: &[CString],
    environment: &[CString],
    descriptors: Vec<OwnedFd>,
) -> Result<Infallible, Error> {
    let end = place_descriptors(descriptors)?;
    // What systemd gave this process and is not passed on has no such flag yet.
    close_on_exec_from(end)?;
    nix::unistd::execve(program, arguments, environment).called(|| format!("execve({program:?})"))
}

/// Puts these descriptors, in their order, at the numbers from 3 on, where a program that is executed finds them;
/// the first number after them.
///
/// Only for a process about to become another program, in a function that never returns: whatever owned one of
/// these numbers must be neither used nor dropped afterwards, whether this succeeds or not.
pub fn place_descriptors(descriptors: Vec<OwnedFd>) -> Result<RawFd, Error> {
    let end = FIRST_PASSED + descriptors.len() as RawFd;
    // Out of the way first, so that none is overwritten before it has been placed.
    let copies = descriptors
        .iter()
        .map(|fd| {
            fcntl_dupfd_cloexec(fd, end)
                .called(|| format!("fcntl({}, F_DUPFD_CLOEXEC, {end})", fd.as_raw_fd()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    // From here on the numbers they had may be anything's.
    std::mem::forget(descriptors);
    for (copy, number) in copies.iter().zip(FIRST_PASSED..) {
        let from = copy.as_raw_fd();
        // SAFETY: takes numbers only and touches no memory. Whatever owned `number` is neither used nor dropped
        // again, which is the caller's promise above.
        let result = unsafe { libc::dup2(from, number) };
        checked(result.into())
            .map_err(|errno| Error::new(format!("dup2({from}, {number})"), errno))?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// In a child, for its descriptors are lost afterwards.
    #[test]
    fn the_program_finds_the_descriptors_in_their_order_and_no_others() {
        let (mut read, write) = std::io::pipe().expect("a pipe");
        let (first_read, mut first) = std::io::pipe().expect("a pipe");
        let (second_read, mut second) = std::io::pipe().expect("a pipe");
        first.write_all(b"one ").expect("written");
        second.write_all(b"two ").expect("written");
        drop((first, second));
        // SAFETY: the child of this one thread makes system calls and allocations only; glibc keeps its
        // allocator usable in a forked child.
        let child = match unsafe { nix::unistd::fork() }.expect("a child") {
            nix::unistd::ForkResult::Parent { child } => child,
            nix::unistd::ForkResult::Child => {
                let script = c"cat <&3; cat <&4; ls /proc/self/fd | wc -l >&5";
                let arguments = [c"sh".to_owned(), c"-c".to_owned(), script.to_owned()];
                let descriptors = vec![first_read.into(), second_read.into(), write.into()];
                // cat(1) writes to standard output, which is the pipe as well.
                let output: &OwnedFd = &descriptors[2];
                let _ = nix::unistd::dup2_stdout(output);
                let _ = exec_with_descriptors(
                    &c"/bin/sh".to_owned(),
                    &arguments,
                    &[c"PATH=/usr/bin:/bin".to_owned()],
                    descriptors,
                );
                std::process::abort()
            }
        };
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("readable");
        nix::sys::wait::waitpid(child, None).expect("waited for");
        // 0 to 5, and the directory that ls(1) reads.
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            ["one", "two", "7"]
        );
    }
}
