//! keyctl(2).
#![allow(unsafe_code, reason = "no library has keyctl")]

use super::{Errno, Error, checked};

/// Leaves the inherited session keyring for a new, empty one; session-keyring(7).
///
/// A kernel without keyrings has none to leave.
pub fn join_new_session_keyring() -> Result<(), Error> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the name is null, which asks for an anonymous keyring; nothing is read from memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    match checked(result) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(Error::new(
            "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)",
            errno,
        )),
    }
}
