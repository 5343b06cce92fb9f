//! seccomp(2): a filter on the system calls of this process.
#![allow(unsafe_code, reason = "no library in use loads a seccomp filter")]

use super::{Errno, Error};

/// One instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do: class, size and mode, or operation and source.
    pub code: u16,
    /// Instructions skipped if a comparison holds.
    pub jump_true: u8,
    /// Instructions skipped if it does not.
    pub jump_false: u8,
    /// A constant, an offset or a distance.
    pub operand: u32,
}

/// The kernel takes no longer program, `BPF_MAXINSNS`.
pub const MOST_INSTRUCTIONS: usize = 4096;

/// Installs a filter on all threads of this process, for good. The caller has `no_new_privs` set or
/// `CAP_SYS_ADMIN` in its user namespace.
pub fn set_seccomp_filter(
    program: &[Instruction],
    log: bool,
    allow_speculation: bool,
) -> Result<(), Error> {
    const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
    const _: () = assert!(align_of::<Instruction>() >= align_of::<libc::sock_filter>());

    let mut flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
    if log {
        flags |= libc::SECCOMP_FILTER_FLAG_LOG;
    }
    if allow_speculation {
        flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    }
    let call = || {
        format!(
            "seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {} instructions)",
            program.len()
        )
    };
    let length = u16::try_from(program.len()).map_err(|_| Error::new(call(), Errno::EINVAL))?;
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `filter` and the array it points to, of the length it states, live through the call, and
    // `Instruction` is laid out as `sock_filter`. The kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    match result {
        0 => Ok(()),
        -1 => Err(Error::new(call(), Errno::last())),
        // With TSYNC, the id of a thread whose own filter is not an ancestor of the caller's.
        _ => Err(Error::new(call(), Errno::ESRCH)),
    }
}

/// Any system call by its number, for tests of what a filter says to it.
#[cfg(test)]
pub fn call_by_number(number: i64, arguments: [u64; 6]) -> Result<i64, Errno> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: tests call only what their filter refuses, or what takes no pointer.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    match result {
        -1 => Err(Errno::last()),
        result => Ok(result),
    }
}

/// A system call through the gate of 32-bit programs, without arguments: its result as the kernel returns it.
#[cfg(all(test, target_arch = "x86_64"))]
pub fn call_as_x86(number: u32) -> i32 {
    let result: u64;
    // SAFETY: the interrupt clobbers rax and, on some kernels, r8 to r11; the call takes no pointer.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("rax") u64::from(number) => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack),
        );
    }
    result as i32
}
