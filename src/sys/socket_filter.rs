//! `SO_ATTACH_FILTER`; socket(7).
#![allow(unsafe_code, reason = "no library attaches a filter to a socket")]

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Error, Instruction, checked};

/// Lets only those messages into a socket for which this program returns something else than 0.
pub fn attach_filter(socket: BorrowedFd<'_>, program: &[Instruction]) -> Result<(), Error> {
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        // The kernel does not write there.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `filter`, whose size is passed, and the array it points to, of the length it states, live through the
    // call, and `Instruction` is laid out as `sock_filter`. The kernel only reads them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    checked(result.into()).map(drop).map_err(|errno| {
        let call = format!(
            "setsockopt(SO_ATTACH_FILTER, {} instructions)",
            program.len()
        );
        Error::new(call, errno)
    })
}
