//! Whoever asks for metrics, one loop for all of them.
//!
//! Nobody is waited for: what a client sends and takes is read and written as far as it goes along, within a time and
//! a number of bytes. There are so many connections at each place where it is listened; one more takes the place of the
//! oldest of those there that have not asked yet, so that who holds connections open keeps nobody else out. What is
//! told is read at most once in a while, however often it is asked for.

use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, SocketFlags, accept_with, send, shutdown};

use super::exposition::older;
use super::http::{self, Format, HEAD_MAX, Refusal};
use crate::sys::give_heap_back;

/// Most connections at one place.
const CONNECTIONS: usize = 16;

/// A client has so long to ask, and again as long to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was read is told for so long.
const FRESH: Duration = Duration::from_secs(1);

/// After so long it is listened again where no connection could be accepted: for want of descriptors, above all.
const PAUSE: Duration = Duration::from_secs(1);

/// So many bytes of what a client says after its question are thrown away; who says more hears a reset.
const DRAINED: usize = 64 << 10;

/// Where it is listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The socket in the file system.
    Socket,
    /// The loopback address.
    Address,
}

/// Serves what `source` tells: OpenMetrics, or a sentence that says why there are none.
pub struct Server<S> {
    source: S,
    listening: Vec<(Place, OwnedFd)>,
    connections: Vec<Connection>,
    known: Option<Known>,
    /// Nothing is accepted until then.
    pause: Option<Instant>,
}

struct Connection {
    place: Place,
    socket: OwnedFd,
    until: Instant,
    stage: Stage,
}

enum Stage {
    /// This was said so far.
    Asking(Vec<u8>),
    /// So many bytes of these two were sent.
    Answering {
        begin: String,
        body: Rc<str>,
        sent: usize,
    },
    /// All is sent. What the client says is taken until it goes, since a close before that could make the kernel
    /// throw away what it has not taken: so many bytes.
    Parting(usize),
}

/// What was read last.
struct Known {
    at: Instant,
    openmetrics: Result<Rc<str>, String>,
    older: Option<Rc<str>>,
}

impl<S: FnMut() -> Result<String, String>> Server<S> {
    /// One that listens nowhere yet.
    pub fn new(source: S) -> Server<S> {
        Server {
            source,
            listening: Vec::new(),
            connections: Vec::new(),
            known: None,
            pause: None,
        }
    }

    /// Listens there by this socket, which does not block, and by no other; nowhere there without one. Who is
    /// connected already is served.
    pub fn listen(&mut self, place: Place, socket: Option<OwnedFd>) {
        self.listening.retain(|(other, _)| *other != place);
        self.listening.extend(socket.map(|socket| (place, socket)));
    }

    /// Waits until something happens, and does what follows. Whether it was that `wake` can be read.
    ///
    /// # Errors
    ///
    /// poll(2) fails: for want of memory alone.
    pub fn turn(&mut self, wake: BorrowedFd<'_>) -> io::Result<bool> {
        let Some(happened) = self.wait(wake)? else {
            return Ok(false);
        };
        let (places, clients) = happened[1..].split_at(self.listening.len());
        let connections = mem::take(&mut self.connections);
        for (connection, happened) in connections.into_iter().zip(clients) {
            let connection = match happened {
                true => self.go_on(connection),
                false => Some(connection),
            };
            let now = Instant::now();
            let connection = connection.filter(|connection| now < connection.until);
            self.connections.extend(connection);
        }
        for (index, _) in places.iter().enumerate().filter(|(_, happened)| **happened) {
            self.accept(index);
        }
        self.forget();
        Ok(happened[0])
    }

    /// What has happened to `wake`, to where it is listened, and to the connections, in this order; none after a
    /// signal.
    fn wait(&mut self, wake: BorrowedFd<'_>) -> io::Result<Option<Vec<bool>>> {
        let now = Instant::now();
        self.pause = self.pause.filter(|until| now < *until);
        let listen = match self.pause {
            None => PollFlags::IN,
            Some(_) => PollFlags::empty(),
        };
        let mut fds = vec![PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        fds.extend(self.listening.iter().map(|(_, fd)| PollFd::new(fd, listen)));
        fds.extend(self.connections.iter().map(|connection| {
            let flags = match connection.stage {
                Stage::Asking(_) | Stage::Parting(_) => PollFlags::IN,
                Stage::Answering { .. } => PollFlags::OUT,
            };
            PollFd::new(&connection.socket, flags)
        }));
        let until = self.connections.iter().map(|connection| connection.until);
        let stale = self.known.as_ref().map(|known| known.at + FRESH);
        let next = until.chain(self.pause).chain(stale).min();
        let left = next.map(|next| next.saturating_duration_since(now));
        // Rounded up: what is due has passed.
        let left = left.map(|left| left + Duration::from_millis(1));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        Ok(Some(
            fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
        ))
    }

    fn accept(&mut self, index: usize) {
        let (place, listening) = &self.listening[index];
        let place = *place;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(listening, flags) {
            Ok(socket) => {
                self.make_room(place);
                self.connections.push(Connection {
                    place,
                    socket,
                    until: Instant::now() + PATIENCE,
                    stage: Stage::Asking(Vec::new()),
                });
            }
            // It has gone again.
            Err(Errno::WOULDBLOCK | Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => self.pause = Some(Instant::now() + PAUSE),
        }
    }

    /// Lets go of a connection at this place if there are too many: the oldest that is not being answered, or else the
    /// oldest.
    fn make_room(&mut self, place: Place) {
        let here = |connection: &&Connection| connection.place == place;
        if self.connections.iter().filter(here).count() < CONNECTIONS {
            return;
        }
        let there = |answering: bool| {
            self.connections.iter().position(|connection| {
                connection.place == place
                    && (answering || !matches!(connection.stage, Stage::Answering { .. }))
            })
        };
        if let Some(oldest) = there(false).or_else(|| there(true)) {
            self.connections.remove(oldest);
        }
    }

    /// Goes on with a client as far as it goes along; none when it is done with.
    fn go_on(&mut self, mut connection: Connection) -> Option<Connection> {
        let mut space = [0; 4096];
        loop {
            let done = match &mut connection.stage {
                Stage::Answering { begin, body, sent } => {
                    let left = match begin.as_bytes().get(*sent..) {
                        Some(left) if !left.is_empty() => left,
                        _ => &body.as_bytes()[*sent - begin.len()..],
                    };
                    if left.is_empty() {
                        shutdown(&connection.socket, Shutdown::Write).ok()?;
                        connection.stage = Stage::Parting(0);
                        continue;
                    }
                    let result = send(&connection.socket, left, SendFlags::NOSIGNAL);
                    result.map(|length| *sent += length)
                }
                Stage::Parting(taken) => match rustix::io::read(&connection.socket, &mut space) {
                    Ok(0) => return None,
                    Ok(length) if *taken + length > DRAINED => return None,
                    other => other.map(|length| *taken += length),
                },
                Stage::Asking(said) => match rustix::io::read(&connection.socket, &mut space) {
                    Ok(0) => return None,
                    Ok(length) => {
                        let length = length.min(HEAD_MAX - said.len());
                        said.extend_from_slice(&space[..length]);
                        if let Some(answer) = self.answer_to(said) {
                            connection.stage = answer;
                            connection.until = Instant::now() + PATIENCE;
                        }
                        Ok(())
                    }
                    Err(errno) => Err(errno),
                },
            };
            match done {
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Some(connection),
                Err(_) => return None,
            }
        }
    }

    /// The answer to what was said; none as long as there may be more.
    fn answer_to(&mut self, said: &[u8]) -> Option<Stage> {
        let refused = |refusal, sentence: &str| Stage::Answering {
            begin: http::refusal(refusal, sentence),
            body: "".into(),
            sent: 0,
        };
        let request = match http::request(said) {
            Ok(None) => return None,
            Ok(Some(request)) => request,
            Err(refusal) => {
                return Some(refused(
                    refusal,
                    "metrics are told to GET /metrics HTTP/1.1",
                ));
            }
        };
        Some(match self.text(request.format) {
            Ok(text) => Stage::Answering {
                begin: http::preface(request.format, text.len()),
                body: match request.head_alone {
                    true => "".into(),
                    false => text,
                },
                sent: 0,
            },
            Err(sentence) => refused(Refusal::Unavailable, &sentence),
        })
    }

    fn text(&mut self, format: Format) -> Result<Rc<str>, String> {
        self.forget();
        let known = match &mut self.known {
            Some(known) => known,
            none => {
                let openmetrics = (self.source)().map(Rc::from);
                none.insert(Known {
                    // Reading takes its time too.
                    at: Instant::now(),
                    openmetrics,
                    older: None,
                })
            }
        };
        let openmetrics = known.openmetrics.clone()?;
        Ok(match format {
            Format::OpenMetrics => openmetrics,
            Format::Text => {
                let text = || Rc::from(older(&openmetrics));
                Rc::clone(known.older.get_or_insert_with(text))
            }
        })
    }

    /// What is not fresh any more is not kept: it may be a megabyte.
    fn forget(&mut self) {
        if let Some(known) = &self.known
            && known.at.elapsed() >= FRESH
        {
            self.known = None;
            give_heap_back();
        }
    }
}
