//! Operators who have attached to the terminal of a box.
//!
//! Nobody waits for them. What the box shows lies in the relay's inlet, where each has a place of his own up to which
//! he has seen it; who is slower than the box misses what is not held any more, and is told where he goes on. Of input
//! one message of each is held until the box takes it, and no other is read meanwhile. A supervisor that dies or is
//! replaced leaves them alone: their next one is asked at the same socket, which lies in systemd's store.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::terminal::Terminal;
use crate::attach::protocol::{
    INPUT_MAX, MESSAGE_MAX, OUTPUT_MAX, RECENT, Reply, Request, VERSION,
};
use crate::journal::relay::Stream;

/// Most operators at a time.
const CLIENTS: usize = 8;

/// Of what the box has shown, who comes sees so many bytes: a screen or two.
const RECENT_BYTES: u64 = 4 * 1024;

/// Messages taken from one, and sent to one, before others have their turn.
const AT_ONCE: usize = 8;

/// The socket, and those who came.
#[derive(Debug)]
pub struct Attached {
    listener: OwnedFd,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// The next byte of output for it; none before it has said hello.
    seen: Option<u64>,
    /// What it typed and the box did not take yet.
    input: Vec<u8>,
}

/// How things stand after everybody had his turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tended {
    /// Somebody has more to say or to see at once.
    pub more: bool,
    /// Input waits for the box to take it.
    pub input_waits: bool,
}

/// What became of a client's turn.
enum Turn {
    Done,
    More,
    Gone,
}

impl Attached {
    /// Nobody came yet to this socket, which listens and does not block.
    pub fn new(listener: OwnedFd) -> Attached {
        Attached {
            listener,
            clients: Vec::new(),
        }
    }

    /// The socket.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Lets in who waits at the door. `watch` is to tell when one of them can be read or written anew,
    /// `EPOLLET` of epoll(7).
    pub fn accept(&mut self, watch: &dyn Fn(BorrowedFd<'_>) -> io::Result<()>) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // One that cannot be let in now is when the next one comes.
        while let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            if self.clients.len() == CLIENTS {
                self.clients.retain(|client| !has_left(&client.socket));
            }
            if self.clients.len() == CLIENTS {
                let why = format!("{CLIENTS} others are attached to it");
                let _ = send(&socket, &Reply::Refused(&why));
                continue;
            }
            if watch(socket.as_fd()).is_ok() {
                self.clients.push(Client {
                    socket,
                    seen: None,
                    input: Vec::new(),
                });
            }
        }
    }

    /// Gives everybody his turn: to type, and to see.
    pub fn tend(&mut self, terminal: &Terminal, stream: &Stream) -> Tended {
        let mut tended = Tended::default();
        let mut buffer = Vec::new();
        self.clients.retain_mut(|client| {
            for turn in [
                client.listen(terminal, stream.head(), &mut buffer),
                client.show(stream, &mut buffer),
            ] {
                match turn {
                    Turn::Done => {}
                    Turn::More => tended.more = true,
                    Turn::Gone => return false,
                }
            }
            tended.input_waits |= !client.input.is_empty();
            true
        });
        tended
    }

    /// Shows everybody what he can take of the rest, says that the box has ended, and lets all go.
    pub fn part(&mut self, stream: &Stream, status: u8) {
        let mut buffer = Vec::new();
        for mut client in self.clients.drain(..) {
            while let Turn::More = client.show(stream, &mut buffer) {}
            if client.seen.is_some() {
                let _ = send(&client.socket, &Reply::Ended(status));
            }
        }
    }
}

impl Client {
    fn listen(&mut self, terminal: &Terminal, head: u64, buffer: &mut Vec<u8>) -> Turn {
        for _ in 0..AT_ONCE {
            if !self.pass_on(terminal) {
                return Turn::Done;
            }
            buffer.resize(INPUT_MAX + 1, 0);
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let length = match rustix::net::recv(&self.socket, &mut buffer[..], flags) {
                Ok((_, length)) if (1..=buffer.len()).contains(&length) => length,
                Err(Errno::AGAIN | Errno::INTR) => return Turn::Done,
                // It has left, or says what nobody of this protocol says.
                Ok(_) | Err(_) => return Turn::Gone,
            };
            match (Request::decode(&buffer[..length]), self.seen) {
                (Some(Request::Hello { version, from }), None) => {
                    if version != VERSION {
                        let why = "its supervisor speaks another version of the protocol: install the same \
                                   version of boxd on both sides";
                        let _ = send(&self.socket, &Reply::Refused(why));
                        return Turn::Gone;
                    }
                    self.seen = Some(match from {
                        RECENT => head.saturating_sub(RECENT_BYTES),
                        from => from.min(head),
                    });
                }
                (Some(Request::Input(bytes)), Some(_)) => self.input.extend_from_slice(bytes),
                (Some(Request::Size(rows, columns)), Some(_)) => terminal.resize(rows, columns),
                (Some(Request::Hello { .. }), Some(_)) | (Some(_), None) | (None, _) => {
                    return Turn::Gone;
                }
            }
        }
        Turn::More
    }

    /// Whether all it typed so far is the box's.
    fn pass_on(&mut self, terminal: &Terminal) -> bool {
        while !self.input.is_empty() {
            match terminal.write(&self.input) {
                Ok(0) => return false,
                Ok(length) => {
                    self.input.drain(..length);
                }
                // Of a box that has ended.
                Err(_) => self.input.clear(),
            }
        }
        // Nothing is kept of what was typed.
        self.input = Vec::new();
        true
    }

    fn show(&mut self, stream: &Stream, buffer: &mut Vec<u8>) -> Turn {
        let Some(mut seen) = self.seen else {
            return Turn::Done;
        };
        for _ in 0..AT_ONCE {
            if seen >= stream.head() {
                return Turn::Done;
            }
            buffer.resize(OUTPUT_MAX, 0);
            // What cannot be read back now is tried again with the next that comes.
            let Ok((at, length)) = stream.shown(seen, buffer) else {
                return Turn::Done;
            };
            let bytes = &buffer[..length];
            match send(&self.socket, &Reply::Output { at, bytes }) {
                Ok(()) => seen = at + length as u64,
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => {
                    return Turn::Done;
                }
                Err(_) => return Turn::Gone,
            }
            self.seen = Some(seen);
        }
        Turn::More
    }
}

fn send(socket: &OwnedFd, reply: &Reply<'_>) -> Result<(), Errno> {
    let packet = reply.encode();
    debug_assert!(packet.len() <= MESSAGE_MAX);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::send(socket, &packet, flags).map(drop)
}

/// Whether the other side is closed.
fn has_left(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec::default();
    matches!(poll(&mut fds, Some(&now)), Ok(1))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    use rustix::pty::OpenptFlags;

    use super::*;
    use crate::handover;
    use crate::journal::gate::Gate;
    use crate::journal::native::Socket;
    use crate::journal::relay::{Buffers, Descriptors, Sent, Style};
    use crate::plan::Output;

    struct Attachable {
        directory: tempfile::TempDir,
        attached: Attached,
        terminal: Terminal,
        stream: Stream,
        output: io::PipeWriter,
    }

    fn seqpacket() -> OwnedFd {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .expect("makes a socket")
    }

    impl Attachable {
        fn new() -> Attachable {
            let directory = tempfile::tempdir().expect("makes a directory");
            let listener = seqpacket();
            let address = SocketAddrUnix::new(directory.path().join("attach")).expect("an address");
            rustix::net::bind(&listener, &address).expect("binds");
            rustix::net::listen(&listener, 64).expect("listens");
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = rustix::pty::openpt(flags).expect("makes a terminal");
            rustix::pty::unlockpt(&master).expect("unlocks");
            let peer = Terminal::peer_of(&master).expect("opens");
            let (pipe, output) = io::pipe().expect("makes a pipe");
            let of_terminal = output.try_clone().expect("duplicates").into();
            let memfd = || handover::memfd("test", c"test").expect("makes a memfd");
            let descriptors = Descriptors {
                pipe: pipe.into(),
                inlet: memfd(),
                outlet: memfd(),
            };
            let [style, _] = Style::of(&Output::default(), true);
            Attachable {
                directory,
                attached: Attached::new(listener),
                terminal: Terminal::adopt(master, peer, of_terminal).expect("adopts"),
                stream: Stream::adopt("test", "tty", style, descriptors, Sent::default())
                    .expect("adopts"),
                output,
            }
        }

        fn knock(&self) -> OwnedFd {
            let socket = seqpacket();
            let address = SocketAddrUnix::new(self.directory.path().join("attach"));
            rustix::net::connect(&socket, &address.expect("an address")).expect("connects");
            socket
        }

        fn accept(&mut self) {
            self.attached.accept(&|_| Ok(()));
        }

        fn tend(&mut self) {
            self.attached.tend(&self.terminal, &self.stream);
        }

        fn shows(&mut self, text: &[u8]) {
            io::Write::write_all(&mut self.output, text).expect("writes");
            // No journal takes it: it is read for all that.
            let mut socket = Socket::to(self.directory.path().join("no-journal"));
            let (mut buffers, mut gate) = (Buffers::default(), Gate::new(None));
            self.stream
                .pump(&mut socket, &mut buffers, &mut gate, &mut |_| Ok(()))
                .expect("moves");
        }
    }

    fn say(socket: &OwnedFd, request: &Request<'_>) {
        let sent = rustix::net::send(socket, &request.encode(), SendFlags::NOSIGNAL);
        sent.expect("sends");
    }

    fn hello(version: u8, from: u64) -> Request<'static> {
        Request::Hello { version, from }
    }

    /// The next packet; empty at the end.
    fn hears(socket: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let mut packet = vec![0; MESSAGE_MAX];
        let (_, length) = rustix::net::recv(socket, &mut packet[..], RecvFlags::DONTWAIT)?;
        packet.truncate(length);
        Ok(packet)
    }

    #[track_caller]
    fn is_refused(socket: &OwnedFd, words: &str) {
        let packet = hears(socket).expect("is told something");
        match Reply::decode(&packet) {
            Some(Reply::Refused(why)) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(hears(socket), Ok(Vec::new()), "and let go");
    }

    #[test]
    fn eight_are_let_in_and_who_leaves_makes_room() {
        let mut it = Attachable::new();
        let mut operators: Vec<OwnedFd> = (0..CLIENTS).map(|_| it.knock()).collect();
        it.accept();
        let late = it.knock();
        it.accept();
        is_refused(&late, "8 others are attached to it");
        assert_eq!(it.attached.clients.len(), CLIENTS);
        for operator in &operators {
            assert_eq!(hears(operator), Err(Errno::AGAIN));
        }
        operators.pop();
        let next = it.knock();
        it.accept();
        say(&next, &hello(VERSION, RECENT));
        it.tend();
        assert_eq!(hears(&next), Err(Errno::AGAIN));
        assert_eq!(it.attached.clients.len(), CLIENTS);
    }

    #[test]
    fn who_is_not_understood_is_let_go_and_no_other() {
        let mut it = Attachable::new();
        let operators = [(); 6].map(|()| it.knock());
        it.accept();
        let [good, newer, dumb, twice, noise, silent] = &operators;
        say(good, &hello(VERSION, RECENT));
        say(newer, &hello(VERSION + 1, RECENT));
        say(dumb, &Request::Input(b"rm -rf /\n"));
        say(twice, &hello(VERSION, RECENT));
        say(twice, &hello(VERSION, RECENT));
        rustix::net::send(noise, b"?", SendFlags::NOSIGNAL).expect("sends");
        it.tend();
        is_refused(newer, "another version of the protocol");
        for gone in [dumb, twice, noise] {
            assert_eq!(hears(gone), Ok(Vec::new()));
        }
        it.shows(b"hello\r\n");
        it.tend();
        let packet = hears(good).expect("is shown something");
        let (at, bytes) = (0, &b"hello\r\n"[..]);
        assert_eq!(Reply::decode(&packet), Some(Reply::Output { at, bytes }));
        // Who has not said hello is shown nothing.
        assert_eq!(hears(silent), Err(Errno::AGAIN));
        assert_eq!(it.attached.clients.len(), 2);
        it.attached.part(&it.stream, 7);
        let packet = hears(good).expect("is told of the end");
        assert_eq!(Reply::decode(&packet), Some(Reply::Ended(7)));
        assert_eq!(hears(silent), Ok(Vec::new()));
    }
}
