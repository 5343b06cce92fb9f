//! A terminal of the box's own devpts: pty(7).
//!
//! Root of a box can put anything at the paths of a terminal. What is found there counts only if it is the
//! multiplexer of a devpts, and the other side is taken from it and not from a path.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::sys::{self, Called as _};

/// The size of a terminal whose window nobody has told.
pub const SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// Where the kernel makes terminals.
const MULTIPLEXER: &str = "/dev/pts/ptmx";

/// Where a box finds its terminal; <https://systemd.io/CONTAINER_INTERFACE>.
const CONSOLE: &str = "/dev/console";

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The box has no terminals.
    #[error("cannot open a terminal in the box: {0}")]
    None(&'static str),
    /// A call failed.
    #[error("cannot open a terminal in the box")]
    Call(#[from] sys::Error),
}

/// Both sides of a terminal, close-on-exec.
#[derive(Debug)]
pub struct Terminal {
    /// What a program beyond it reads and writes; does not block.
    pub master: OwnedFd,
    /// What the box's programs read and write.
    pub peer: OwnedFd,
}

impl Terminal {
    /// Makes one in the devpts of the root this process has. It becomes nobody's controlling terminal.
    pub fn open(size: Option<Winsize>) -> Result<Terminal, Error> {
        const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let master = match open(MULTIPLEXER, flags) {
            Err(error) if error.errno() == sys::Errno::ENOENT => {
                return Err(Error::None("it has no /dev/pts"));
            }
            other => other?,
        };
        let status = rustix::fs::fstat(&master).called(|| format!("fstat({MULTIPLEXER:?})"))?;
        let file_system =
            rustix::fs::fstatfs(&master).called(|| format!("fstatfs({MULTIPLEXER:?})"))?;
        if !FileType::from_raw_mode(status.st_mode).is_char_device()
            || file_system.f_type as u64 != DEVPTS_SUPER_MAGIC
        {
            return Err(Error::None("what it has at /dev/pts/ptmx is none"));
        }
        rustix::pty::unlockpt(&master).called(|| "ioctl(TIOCSPTLCK)".to_owned())?;
        let peer = peer_of(&master)?;
        if let Some(size) = size {
            rustix::termios::tcsetwinsize(&master, size)
                .called(|| "ioctl(TIOCSWINSZ)".to_owned())?;
        }
        Ok(Terminal { master, peer })
    }

    /// Gives it to a user of the box; the group stays that of terminals.
    pub fn give(&self, uid: u32) -> Result<(), Error> {
        rustix::fs::fchown(&self.peer, Some(Uid::from_raw(uid)), None)
            .called(|| format!("fchown(terminal, {uid})"))?;
        Ok(())
    }

    /// Makes it the controlling terminal of this process, which leads a session without one, and its standard
    /// streams, by the name under which the box's programs can find it.
    pub fn become_stdio(self) -> Result<(), Error> {
        let console = open(CONSOLE, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC)?;
        let identity = |fd: &OwnedFd| {
            rustix::fs::fstat(fd)
                .called(|| "fstat(terminal)".to_owned())
                .map(|status| (status.st_dev, status.st_ino, status.st_rdev))
        };
        if identity(&console)? != identity(&self.peer)? {
            return Err(Error::None("what it has at /dev/console is another"));
        }
        become_stdio(&console)?;
        Ok(())
    }
}

/// The side of a terminal that is the box's, from its master: TIOCGPTPEER of ioctl_tty(2).
pub fn peer_of(master: &OwnedFd) -> Result<OwnedFd, sys::Error> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(master, flags).called(|| "ioctl(TIOCGPTPEER)".to_owned())
}

/// Makes a terminal the controlling one of this process, and its standard streams.
pub fn become_stdio(terminal: &OwnedFd) -> Result<(), sys::Error> {
    rustix::process::ioctl_tiocsctty(terminal).called(|| "ioctl(TIOCSCTTY)".to_owned())?;
    rustix::stdio::dup2_stdin(terminal)
        .and_then(|()| rustix::stdio::dup2_stdout(terminal))
        .and_then(|()| rustix::stdio::dup2_stderr(terminal))
        .called(|| "dup2(terminal, 0 to 2)".to_owned())
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd, sys::Error> {
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::INTR) => open(path, flags),
        other => other.called(|| format!("openat2({path:?}, RESOLVE_NO_SYMLINKS)")),
    }
}
