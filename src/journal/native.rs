//! journald's native protocol: entries as bytes, and the socket that takes them.
//!
//! One datagram is one entry: journald 253 and later read no further than the first entry of a datagram. The
//! protocol is described in <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// Where journald listens; sd_journal_send(3) writes to the same.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Longest entry that sendfile(2) is sure to carry as one datagram: the kernel passes at most 16 pages at
/// once, and an entry may begin in the midst of the first.
pub const DATAGRAM_MAX: usize = 15 * 4096;

/// Appends one field. A value with a newline is given with its length, any other as text; both carry any byte.
///
/// The name is `[A-Z0-9_]+`, begins with a letter and has at most 64 bytes, or journald drops the field.
pub fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// journald has it, or will find it in its queue.
    Sent,
    /// journald does not keep up: [`Socket::connection`] becomes writable when it does.
    Full,
    /// Nobody listens: try again later.
    Absent,
}

/// A connection to journald that is made when needed and made anew when journald was away.
///
/// It never blocks. It is connected, not merely addressed: only then does poll(2) tell when journald's queue
/// has room again.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    connection: Option<UnixDatagram>,
    carries_pages: bool,
}

impl Socket {
    /// To the journald that listens here, see [`SOCKET`]. Nothing is opened yet.
    pub fn to(path: impl Into<PathBuf>) -> Socket {
        Socket {
            path: path.into(),
            connection: None,
            carries_pages: sendfile_keeps_datagrams_whole(),
        }
    }

    /// The connection of the moment, to be polled for writing after [`Delivery::Full`].
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    /// Sends one entry.
    pub fn send(&mut self, entry: &[u8]) -> Delivery {
        self.deliver(|connection| match connection.send(entry) {
            Err(error) if too_big(&error) => send_as_memfd(connection, entry),
            result => result.map(drop),
        })
    }

    /// Sends the entry of `length` bytes that stands at the offset of `outlet`, and moves the offset past it.
    ///
    /// The offset belongs to the open file, which others hold too, and the kernel moves it in the same call in
    /// which it queues the datagram. So whoever reads the offset later knows whether the entry was sent, even
    /// if this process was killed meanwhile. There are two exceptions, in which an entry may be sent again by
    /// an heir if the sender is killed between two calls: before Linux 6.5 an entry that crosses the boundary
    /// of a page, and an entry that does not fit the socket's buffer and goes as a memfd.
    pub fn send_file(&mut self, outlet: &File, offset: u64, length: usize) -> Delivery {
        let crosses_page = offset / 4096 != (offset + length as u64 - 1) / 4096;
        let carried = length <= DATAGRAM_MAX && (self.carries_pages || !crosses_page);
        self.deliver(|connection| {
            if carried {
                match rustix::fs::sendfile(connection, outlet, None, length) {
                    Ok(_) => return Ok(()),
                    Err(rustix::io::Errno::MSGSIZE) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            let mut entry = vec![0; length];
            outlet.read_exact_at(&mut entry, offset)?;
            match connection.send(&entry) {
                Err(error) if too_big(&error) => send_as_memfd(connection, &entry)?,
                result => result.map(drop)?,
            }
            (&*outlet).seek(SeekFrom::Start(offset + length as u64))?;
            Ok(())
        })
    }

    fn deliver(&mut self, send: impl Fn(&UnixDatagram) -> io::Result<()>) -> Delivery {
        // The second attempt is for a journald that listens again while its old socket is still connected.
        for _ in 0..2 {
            let Some(connection) = self.connect() else {
                return Delivery::Absent;
            };
            match send(connection) {
                Ok(()) => return Delivery::Sent,
                Err(error) if full(&error) => return Delivery::Full,
                Err(_) => self.connection = None,
            }
        }
        Delivery::Absent
    }

    fn connect(&mut self) -> Option<&UnixDatagram> {
        if self.connection.is_none() {
            let connection = UnixDatagram::unbound().ok()?;
            connection.connect(&self.path).ok()?;
            connection.set_nonblocking(true).ok()?;
            self.connection = Some(connection);
        }
        self.connection.as_ref()
    }
}

fn full(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR)
        )
}

fn too_big(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(Errno::EMSGSIZE)
}

/// journald reads an entry from a memfd that comes with an empty datagram; it must be sealed to be mapped.
fn send_as_memfd(connection: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    let mut file = File::from(memfd_create(
        c"box-entry",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?);
    file.write_all(entry)?;
    fcntl(
        &file,
        FcntlArg::F_ADD_SEALS(
            SealFlag::F_SEAL_SEAL
                | SealFlag::F_SEAL_SHRINK
                | SealFlag::F_SEAL_GROW
                | SealFlag::F_SEAL_WRITE,
        ),
    )?;
    sendmsg::<UnixAddr>(
        connection.as_raw_fd(),
        &[],
        &[ControlMessage::ScmRights(&[file.as_raw_fd()])],
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(())
}

/// Since Linux 6.5 sendfile(2) hands a socket all pages of one call at once; before, each page became a
/// datagram of its own.
fn sendfile_keeps_datagrams_whole() -> bool {
    let mut release = [0; 16];
    let length = File::open("/proc/sys/kernel/osrelease")
        .and_then(|mut file| file.read(&mut release))
        .unwrap_or(0);
    at_least_6_5(&release[..length])
}

fn at_least_6_5(release: &[u8]) -> bool {
    let mut numbers = release.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0u32, |number, digit| {
            number
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
        })
    });
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::mem::MaybeUninit;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    struct Listener {
        _directory: tempfile::TempDir,
        path: PathBuf,
        socket: UnixDatagram,
    }

    fn listener() -> Listener {
        let directory = tempfile::tempdir().expect("makes a directory");
        let path = directory.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("binds");
        Listener {
            _directory: directory,
            path,
            socket,
        }
    }

    impl Listener {
        fn receive(&self) -> Vec<u8> {
            let mut buffer = vec![0; 1 << 20];
            let length = self.socket.recv(&mut buffer).expect("receives");
            buffer.truncate(length);
            buffer
        }
    }

    #[test]
    fn a_value_with_a_newline_is_given_with_its_length() {
        let mut entry = Vec::new();
        field(&mut entry, "A", b"x=\0\xff");
        field(&mut entry, "B", b"1\n2");
        field(&mut entry, "C", b"");
        assert_eq!(entry, b"A=x=\0\xff\nB\n\x03\0\0\0\0\0\0\x001\n2\nC=\n");
    }

    #[test]
    fn kernel_releases_are_compared_by_number() {
        for release in [
            "6.5.0",
            "6.12.48+deb13-amd64",
            "6.18.44-fc",
            "7.0.0",
            "10.1",
        ] {
            assert!(at_least_6_5(release.as_bytes()), "{release}");
        }
        for release in ["6.4.16", "6.1.0-18-amd64", "5.15.0", ""] {
            assert!(!at_least_6_5(release.as_bytes()), "{release}");
        }
    }

    #[test]
    fn the_offset_of_the_outlet_tells_what_was_sent() {
        let listener = listener();
        for carries_pages in [true, false] {
            let mut socket = Socket::to(&listener.path);
            socket.carries_pages &= carries_pages;
            let mut outlet = tempfile::tempfile().expect("makes a file");
            let content: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
            outlet.write_all(&content).expect("writes");
            outlet.rewind().expect("rewinds");
            let mut offset = 0;
            for length in [1, 4094, 1, 8, 5000, DATAGRAM_MAX, 3, DATAGRAM_MAX, 60_000] {
                assert_eq!(
                    socket.send_file(&outlet, offset as u64, length),
                    Delivery::Sent
                );
                assert_eq!(listener.receive(), content[offset..offset + length]);
                offset += length;
                assert_eq!(outlet.stream_position().expect("tells"), offset as u64);
            }
        }
    }

    #[test]
    fn a_full_queue_moves_no_offset_and_becomes_writable_when_read() {
        let listener = listener();
        let mut socket = Socket::to(&listener.path);
        let mut outlet = tempfile::tempfile().expect("makes a file");
        outlet.write_all(&[b'x'; 8192]).expect("writes");
        outlet.rewind().expect("rewinds");
        let mut sent = 0;
        while socket.send_file(&outlet, sent, 1) == Delivery::Sent {
            sent += 1;
        }
        assert_eq!(socket.send_file(&outlet, sent, 1), Delivery::Full);
        assert_eq!(outlet.stream_position().expect("tells"), sent);
        listener.receive();
        assert_eq!(socket.send_file(&outlet, sent, 1), Delivery::Sent);
    }

    #[test]
    fn a_journald_that_comes_back_is_found_again() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let path = directory.path().join("socket");
        let mut socket = Socket::to(&path);
        assert_eq!(socket.send(b"A=1\n"), Delivery::Absent);
        let first = UnixDatagram::bind(&path).expect("binds");
        assert_eq!(socket.send(b"A=1\n"), Delivery::Sent);
        drop(first);
        assert_eq!(socket.send(b"A=2\n"), Delivery::Absent);
        std::fs::remove_file(&path).expect("removes");
        assert_eq!(socket.send(b"A=3\n"), Delivery::Absent);
        let second = UnixDatagram::bind(&path).expect("binds");
        assert_eq!(socket.send(b"A=4\n"), Delivery::Sent);
        let mut buffer = [0; 16];
        let length = second.recv(&mut buffer).expect("receives");
        assert_eq!(&buffer[..length], b"A=4\n");
    }

    #[test]
    fn an_entry_too_big_for_a_datagram_comes_as_a_sealed_memfd() {
        let listener = listener();
        let mut socket = Socket::to(&listener.path);
        let entry = vec![b'y'; 1 << 20];
        assert_eq!(socket.send(&entry), Delivery::Sent);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut nothing = [0; 1];
        let message = recvmsg(
            &listener.socket,
            &mut [IoSliceMut::new(&mut nothing)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .expect("receives");
        assert_eq!(message.bytes, 0);
        let Some(RecvAncillaryMessage::ScmRights(mut descriptors)) = control.drain().next() else {
            panic!("no descriptor came");
        };
        let mut file = File::from(descriptors.next().expect("one descriptor"));
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("reads");
        assert_eq!(content.len(), 0, "the offset stands at the end");
        file.rewind().expect("rewinds");
        file.read_to_end(&mut content).expect("reads");
        assert_eq!(content, entry);
        assert!(file.write_all(b"z").is_err());
    }
}
