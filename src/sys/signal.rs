//! sigaction(2) and raise(3).
#![allow(
    unsafe_code,
    reason = "setting a handler is unsafe; setting none is not"
)]

use super::{Errno, Error, checked};

/// Every signal does what signal(7) says it does by default, and none is blocked.
///
/// execve(2) resets handlers but keeps what is ignored, as Rust's runtime ignores SIGPIPE, and keeps the mask.
pub fn reset_dispositions() -> Result<(), Error> {
    #[repr(C)]
    struct KernelSigaction {
        handler: usize,
        flags: libc::c_ulong,
        restorer: usize,
        mask: u64,
    }
    const SIGNALS: i32 = 64;
    let default = KernelSigaction {
        handler: libc::SIG_DFL,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    for signal in 1..=SIGNALS {
        // SAFETY: the struct is the kernel's, whose mask has 64 bits, and outlives the call. libc's own
        // function would refuse the two signals it keeps for itself.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                std::ptr::null_mut::<KernelSigaction>(),
                size_of::<u64>(),
            )
        };
        match checked(result) {
            // SIGKILL and SIGSTOP.
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(errno) => {
                let call = format!("rt_sigaction({signal}, SIG_DFL)");
                return Err(Error::new(call, errno));
            }
        }
    }
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(|errno| Error::new("sigprocmask(SIG_SETMASK, [])", errno))
}

/// Ends this process as SIGTERM does, which systemd takes for a good end of a service. Returns only if the kernel does
/// not let it.
pub fn end_by_sigterm() {
    use nix::sys::signal::{SigSet, Signal, raise};
    let _ = raise(Signal::SIGTERM);
    let _ = SigSet::from(Signal::SIGTERM).thread_unblock();
}

/// A write to somebody who is gone fails, and nothing else happens. Rust's runtime does the same in programs that have it.
pub fn ignore_sigpipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is set. It fails for signals that cannot be ignored only.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

/// The kernel may say that a file is ready, or that somebody wants one on which a lease was taken, and nothing happens.
pub fn ignore_sigio() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is set. It fails for signals that cannot be ignored only.
    let _ = unsafe { signal(Signal::SIGIO, SigHandler::SigIgn) };
}
