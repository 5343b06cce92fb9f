//! System calls by number, and a filter that keeps them from happening.
#![allow(
    unsafe_code,
    reason = "no library makes system calls of any number, 32-bit ones, or listens to a filter"
)]

use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

/// The sixth argument of calls that must not happen.
pub const MARK: u64 = 0x6270_726f;

/// The error that calls with the mark end with where the box lets them through. The kernel has none of this number.
pub const LET_THROUGH: i32 = 4000;

/// Puts a filter on this thread that stops every call whose sixth argument is [`MARK`] until the listener has
/// answered. The kernel does the most severe of what several filters say, and this is the least severe of all that
/// keep a call from happening: what the box refuses is refused as ever, and what it lets through is heard of.
pub fn listen() -> Result<OwnedFd, Errno> {
    // SAFETY: prctl(2) with this option takes no pointer.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(Errno::last());
    }
    let instruction = |code: u32, jump_false: u8, operand: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_false,
        k: operand,
    };
    // The lower half alone: 32-bit programs have no other.
    let sixth = (std::mem::offset_of!(libc::seccomp_data, args) + 5 * size_of::<u64>()) as u32;
    let sixth = if cfg!(target_endian = "big") {
        sixth + 4
    } else {
        sixth
    };
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, sixth),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, MARK as u32),
        instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_USER_NOTIF),
        instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions live through the call, which only reads them.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}

/// Answers one call that waits at the listener with [`LET_THROUGH`].
pub fn answer(listener: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: both are plain numbers, for which zeros are a value; the kernel wants the first to be zeros.
    let (mut call, mut answer): (libc::seccomp_notif, libc::seccomp_notif_resp) =
        unsafe { (zeroed(), zeroed()) };
    // SAFETY: `call` is what this request writes to.
    let got = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut call,
        )
    };
    Errno::result(got)?;
    answer.id = call.id;
    answer.error = -LET_THROUGH;
    // SAFETY: `answer` is what this request reads.
    let sent = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut answer,
        )
    };
    Errno::result(sent).map(drop)
}

/// The error number with which a call ends on a thread that [`listen`]s: it does not happen, whatever it is.
pub fn marked_call(number: u64, arguments: [u64; 5]) -> i32 {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: the kernel does not carry out a call with the mark, so what the arguments mean does not matter.
    let result = unsafe { libc::syscall(number as i64, first, second, third, fourth, fifth, MARK) };
    if result == -1 { Errno::last_raw() } else { 0 }
}

/// The same through the gate of 32-bit programs, without arguments but the sixth.
#[cfg(target_arch = "x86_64")]
pub fn marked_call_as_x86(number: u32) -> i32 {
    let result: u64;
    // SAFETY: the interrupt changes rax and, on some kernels, r8 to r11; the sixth argument is in rbp, which is put
    // back. The kernel does not carry out a call with the mark.
    unsafe {
        std::arch::asm!(
            "push rbp",
            "mov ebp, {mark:e}",
            "int 0x80",
            "pop rbp",
            mark = in(reg) MARK as u32,
            inlateout("rax") u64::from(number) => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    -(result as i32)
}

/// keyctl(2) with numbers only.
pub fn keyctl(operation: u32, first: i64, second: i64) -> Result<i64, Errno> {
    // SAFETY: callers ask for operations that take numbers.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second, 0, 0) };
    Errno::result(result)
}

/// `KEYCTL_SEARCH` of keyctl(2) for a key of the type `user`.
pub fn search_key(keyring: i64, description: &std::ffi::CStr) -> Result<i64, Errno> {
    // SAFETY: both strings live through the call, which reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_SEARCH,
            keyring,
            c"user".as_ptr(),
            description.as_ptr(),
            0,
        )
    };
    Errno::result(result)
}

/// request_key(2) for a key of the type `user`, without asking anybody for it.
pub fn request_key(description: &std::ffi::CStr) -> Result<i64, Errno> {
    // SAFETY: both strings live through the call, which reads them; the third is absent.
    let result = unsafe {
        libc::syscall(
            libc::SYS_request_key,
            c"user".as_ptr(),
            description.as_ptr(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    };
    Errno::result(result)
}
