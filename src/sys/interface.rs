//! netdevice(7).
#![allow(
    unsafe_code,
    reason = "no library has the ioctls that bring an interface up"
)]

use std::os::fd::AsRawFd;

use super::{Called as _, Errno, Error};

/// Brings the loopback interface of this network namespace up; it then has 127.0.0.1 and ::1.
pub fn bring_loopback_up() -> Result<(), Error> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .called(|| "socket(AF_UNIX, SOCK_DGRAM)".to_owned())?;
    // SAFETY: plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request reads an ifreq, which `request` is, with a name that ends in a zero.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if result < 0 {
        let call = r#"ioctl(SIOCSIFFLAGS, "lo", IFF_UP)"#;
        return Err(Error::new(call, Errno::last()));
    }
    Ok(())
}
