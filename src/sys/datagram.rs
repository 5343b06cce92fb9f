//! recvmsg(2) with credentials and descriptors.
#![allow(
    unsafe_code,
    reason = "rustix takes no credentials of a sender it cannot see, and nix loses descriptors of a message that had more"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Most descriptors in one message, `SCM_MAX_FD` of unix(7).
const DESCRIPTORS_MAX: usize = 253;

/// Room for the control messages of one datagram, in units that are aligned for their headers.
const CONTROL: usize = 1280 / size_of::<u64>();

/// A datagram's sender, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// In the pid namespace of this process; 0 if it cannot be seen from there. It may have ended.
    pub pid: i32,
    /// In the user namespace of this process.
    pub uid: u32,
}

/// What [`receive_datagram`] received.
#[derive(Debug)]
pub struct Datagram {
    /// Bytes of the buffer that are its content.
    pub length: usize,
    /// It was longer than the buffer.
    pub truncated: bool,
    /// Known if the socket has `SO_PASSCRED`.
    pub sender: Option<Sender>,
    /// Its descriptors, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// The next datagram of a socket of unix(7); `WouldBlock` if there is none.
pub fn receive_datagram(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Datagram> {
    const {
        // SAFETY: computes a length.
        let rights =
            unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<libc::c_int>()) as u32) };
        // SAFETY: likewise.
        let credentials = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) };
        assert!((rights + credentials) as usize <= CONTROL * size_of::<u64>());
    };
    let mut control = [0u64; CONTROL];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: plain data for which zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `header` points to `part`, which describes `buffer`, and to `control` with its length; all of them
    // outlive the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut datagram = Datagram {
        length,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        sender: None,
        descriptors: Vec::new(),
    };
    // SAFETY: the kernel has set the header to describe what it wrote into `control`, which is aligned for it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !next.is_null() {
        // SAFETY: not null, so it lies whole in `control`, where the kernel wrote it.
        let message = unsafe { next.read() };
        // SAFETY: computes the place behind a header that lies in `control`.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: computes a length.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let length = (message.cmsg_len as usize).saturating_sub(head);
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
            for index in 0..length / size_of::<libc::c_int>() {
                // SAFETY: the message has this many whole numbers, not aligned in any case.
                let number = unsafe { data.cast::<libc::c_int>().add(index).read_unaligned() };
                // SAFETY: the kernel has just installed it in this process, for whoever receives the message.
                datagram
                    .descriptors
                    .push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        } else if message.cmsg_level == libc::SOL_SOCKET
            && message.cmsg_type == libc::SCM_CREDENTIALS
            && length >= size_of::<libc::ucred>()
        {
            // SAFETY: the message is long enough for one, not aligned in any case.
            let credentials = unsafe { data.cast::<libc::ucred>().read_unaligned() };
            datagram.sender = Some(Sender {
                pid: credentials.pid,
                uid: credentials.uid,
            });
        }
        // SAFETY: both describe `control` as the kernel left it.
        next = unsafe { libc::CMSG_NXTHDR(&raw const header, next) };
    }
    Ok(datagram)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

    use super::*;

    #[test]
    fn a_datagram_comes_with_its_sender_and_descriptors() {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair");
        setsockopt(&ours, sockopt::PassCred, &true).expect("set");
        let mut buffer = [0; 8];
        let nothing = receive_datagram(ours.as_fd(), &mut buffer).expect_err("nothing is there");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let (mut pipe, end) = io::pipe().expect("a pipe");
        let ends = vec![end.as_raw_fd(); DESCRIPTORS_MAX];
        sendmsg::<()>(
            theirs.as_raw_fd(),
            &[IoSlice::new(b"READY=1 and more")],
            &[ControlMessage::ScmRights(&ends)],
            MsgFlags::empty(),
            None,
        )
        .expect("sent");
        drop(end);
        let datagram = receive_datagram(ours.as_fd(), &mut buffer).expect("received");
        assert_eq!(&buffer, b"READY=1 ");
        assert!(datagram.truncated);
        assert_eq!(datagram.length, 8);
        assert_eq!(datagram.descriptors.len(), DESCRIPTORS_MAX);
        let sender = datagram.sender.expect("is known");
        assert_eq!(sender.pid, std::process::id() as i32);
        assert_eq!(sender.uid, rustix::process::getuid().as_raw());
        drop(datagram);
        let mut rest = String::new();
        io::Read::read_to_string(&mut pipe, &mut rest).expect("every end is closed");
    }
}
