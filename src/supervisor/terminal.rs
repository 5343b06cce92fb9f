//! The terminal of a box: its output into the pipe that the relay reads, its input, its size.
//!
//! The other side is held open here as well. Else a program that closes it, as a getty does, would look like the end
//! of the output, and the kernel would report that again and again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::sys::{self, Called as _};

/// Bytes moved at once: a terminal's driver has hardly more.
const PORTION: usize = 16 * 1024;

/// The terminal of a box.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    /// The same, to be waited for in the other direction.
    entrance: OwnedFd,
    pipe: OwnedFd,
    peer: OwnedFd,
}

impl Terminal {
    /// Of its master, its other side, and the write end of the pipe for its output.
    pub fn adopt(master: OwnedFd, peer: OwnedFd, pipe: OwnedFd) -> Result<Terminal, sys::Error> {
        let entrance = rustix::io::fcntl_dupfd_cloexec(&master, 3)
            .called(|| "fcntl(terminal, F_DUPFD_CLOEXEC)".to_owned())?;
        Ok(Terminal {
            master,
            entrance,
            pipe,
            peer,
        })
    }

    /// The other side of the terminal of this master.
    pub fn peer_of(master: &OwnedFd) -> Result<OwnedFd, sys::Error> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        rustix::pty::ioctl_tiocgptpeer(master, flags).called(|| "ioctl(TIOCGPTPEER)".to_owned())
    }

    /// Readable when the box has written.
    pub fn exit(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// Writable when the box can be written to.
    pub fn entrance(&self) -> BorrowedFd<'_> {
        self.entrance.as_fd()
    }

    /// The master, its other side and the pipe, as [`Terminal::adopt`] got them.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.master.as_fd(), self.peer.as_fd(), self.pipe.as_fd()]
    }

    /// Moves output to the pipe, in the call that takes it from the terminal: no byte is ever in this process alone.
    /// False if there is none, or no room for it.
    pub fn move_output(&self) -> io::Result<bool> {
        let flags = SpliceFlags::NONBLOCK;
        match rustix::pipe::splice(&self.master, None, &self.pipe, None, PORTION, flags) {
            Ok(length) => Ok(length > 0),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Bytes of output that are not in the pipe yet.
    pub fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.master).unwrap_or(0)
    }

    /// Passes input to the box; how many bytes it takes now.
    pub fn write(&self, input: &[u8]) -> io::Result<usize> {
        match rustix::io::write(&self.master, input) {
            Ok(length) => Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Tells the box how large the window is.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // It fails for no terminal.
        let _ = rustix::termios::tcsetwinsize(&self.master, size);
    }
}
