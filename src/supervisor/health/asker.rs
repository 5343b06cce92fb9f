//! Who asks the box, and writes down how it is: a process of its own outside of the [walls](crate::supervisor).
//!
//! ```text
//!              ask, give up, write down                        clone, execve
//! supervisor ───────────────────────────► asker ─────────────────────────────► boxd probe NAME
//!    │  ▲ ▲        answer, trouble          │                                        │
//!    │  │ └─────────────────────────────────┘                                        │
//!    │  └──────────────────── what the probe says, through a pipe ───────────────────┘
//!    └── reads the output and the messages of the box
//! ```
//!
//! A probe enters the box, for which it needs nearly everything, and so does whoever starts it. The supervisor reads
//! what the box writes, and is not to be able to do more than that. So the two are two processes: the asker is a copy of
//! the supervisor made before the walls stand, and shares nearly all its memory with it. It reads nothing of the box's:
//! of the supervisor's words it understands three, the box is that of its beginning, and what is to be written down it
//! passes on unread, to a file for people whose name it knows.
//!
//! It lives as long as the supervisor, also as the program that replaces that in place, and dies with it. A supervisor
//! whose asker has ended cannot make another one, and ends too: the next one begins outside of the walls.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::health::{Answer, FILE, OUTPUT_MAX};
use crate::launch::run_directory::{PARENT, replace_text};
use crate::name::Name;
use crate::programs;
use crate::supervisor::scope::Scope;
use crate::sys::{self, Called as _, Fork};

/// What it is called in ps(1), where it would be taken for another supervisor.
const NAME: &CStr = c"box-asker";

/// Where the package puts what asks.
const PROGRAM: &CStr = c"/usr/bin/boxd";

/// How long the end of a process is waited for that is about to end.
const DEATH: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Longest word: what is written down of a few probes is shorter by far.
const WORD_MAX: usize = 64 * 1024;

/// First bytes of words to the asker.
const ASK: u8 = b'a';
const GIVE_UP: u8 = b'g';
const WRITE_DOWN: u8 = b'w';

/// First bytes of its own.
const ANSWER: u8 = b'a';
const TROUBLE: u8 = b't';

/// Tells one question from the others, also from those of an earlier program of the same process.
pub type Question = u64;

const QUESTION: usize = size_of::<Question>();

/// The asker, as the supervisor has it.
#[derive(Debug)]
pub struct Asker {
    process: OwnedFd,
    socket: OwnedFd,
    output: OwnedFd,
}

/// Why a box is not asked any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("the process that asks the box has ended")]
    Ended,
    /// It cannot be talked to.
    #[error("cannot talk to the process that asks the box")]
    Talk(#[source] sys::Error),
    /// It said what it never says.
    #[error("the process that asks the box said what has no meaning")]
    Word,
}

/// What the asker says.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// What came of a question.
    Answer(Question, Answer),
    /// What it could not do, for people.
    Trouble(String),
}

impl Asker {
    /// Makes it, in a process that has one thread and all that a probe needs.
    ///
    /// # Errors
    ///
    /// The host is short of something.
    pub fn make(name: &Name, scope: &Scope) -> Result<Asker, sys::Error> {
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .called(|| "socketpair(AF_UNIX, SOCK_SEQPACKET)".to_owned())?;
        let (output, words) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .called(|| "pipe2(O_CLOEXEC | O_NONBLOCK)".to_owned())?;
        match sys::clone3(CloneFlags::empty())? {
            Fork::Child => {
                let outside = Outside {
                    name,
                    scope,
                    file: Path::new(PARENT).join(name.as_str()).join(FILE),
                    socket: theirs,
                    words,
                    asked: None,
                };
                sys::exit_now(outside.live().into())
            }
            Fork::Parent { pidfd, .. } => Ok(Asker {
                process: pidfd,
                socket,
                output,
            }),
        }
    }

    /// The one that an earlier program of this process made, from what [`Asker::descriptors`] said of it.
    pub fn adopt([process, socket, output]: [OwnedFd; 3]) -> Asker {
        Asker {
            process,
            socket,
            output,
        }
    }

    /// What a program that replaces this one needs of it.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [
            self.process.as_fd(),
            self.socket.as_fd(),
            self.output.as_fd(),
        ]
    }

    /// Readable when it has said something, and when it has ended.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Has it ask the box. One question at a time: another one is answered at once while the last probe has not ended.
    pub fn ask(&self, question: Question) -> Result<(), sys::Error> {
        let [a, b, c, d, e, f, g, h] = question.to_le_bytes();
        self.say(&[ASK, a, b, c, d, e, f, g, h])
    }

    /// Has it end what it asks with all that was started for it; if that is nothing, there is no harm in it.
    pub fn give_up(&self) -> Result<(), sys::Error> {
        self.say(&[GIVE_UP])
    }

    /// Has it write this down as the health of the box.
    pub fn write_down(&self, json: &[u8]) -> Result<(), sys::Error> {
        self.say(&[&[WRITE_DOWN], json].concat())
    }

    fn say(&self, word: &[u8]) -> Result<(), sys::Error> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match word.len() <= WORD_MAX {
            true => send(&self.socket, word, flags),
            false => Err(Errno::MSGSIZE),
        };
        sent.called(|| ["send(asker, ", &word.len().to_string(), " bytes)"].concat())
            .map(drop)
    }

    /// The next of its words; none if it has said no more by now.
    ///
    /// # Errors
    ///
    /// There will be no other.
    pub fn hear(&self) -> Result<Option<Word>, Error> {
        let mut word = [0; 512];
        let length = match recv(&self.socket, &mut word, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Error::Ended),
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(Error::Ended),
            Err(errno) => {
                return Err(Error::Talk(sys::Error::new("recv(asker)", errno)));
            }
        };
        match word[..length].split_first() {
            Some((&TROUBLE, text)) => Ok(Some(Word::Trouble(
                String::from_utf8_lossy(text).into_owned(),
            ))),
            Some((&ANSWER, rest)) => match rest.split_first_chunk::<QUESTION>() {
                Some((question, [status])) => Ok(Some(Word::Answer(
                    Question::from_le_bytes(*question),
                    Answer::of_status((*status).into()),
                ))),
                _ => Err(Error::Word),
            },
            _ => Err(Error::Word),
        }
    }

    /// What a probe that has ended has said, at most [`OUTPUT_MAX`] bytes.
    pub fn output(&self) -> Vec<u8> {
        let mut output = vec![0; OUTPUT_MAX];
        let mut length = 0;
        while let Ok(read @ 1..) = rustix::io::read(&self.output, &mut output[length..]) {
            length += read;
        }
        output.truncate(length);
        // Nothing is left to be taken for what the next one says.
        let mut rest = [0; 512];
        while let Ok(1..) = rustix::io::read(&self.output, &mut rest) {}
        output
    }

    /// Lets it end, and waits a moment for that: nobody is to find it without its supervisor.
    pub fn dismiss(&self) {
        let _ = shutdown(&self.socket, Shutdown::Write);
        let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&DEATH));
    }
}

/// The other side.
struct Outside<'a> {
    name: &'a Name,
    scope: &'a Scope,
    file: PathBuf,
    socket: OwnedFd,
    words: OwnedFd,
    asked: Option<(Question, OwnedFd)>,
}

impl Outside<'_> {
    /// All it does, until nobody talks to it any more; its exit status.
    fn live(mut self) -> bool {
        if let Err(error) = self.prepare() {
            self.trouble("the process that asks the box cannot begin: ", &error);
            return true;
        }
        loop {
            sys::give_memory_back();
            let (heard, ended) = self.wait();
            if ended {
                self.answer();
            }
            if heard && !self.listen() {
                self.give_up();
                return false;
            }
        }
    }

    /// It dies with the supervisor, and has nothing of its descriptors: the output of the box would not end with it.
    fn prepare(&self) -> Result<(), sys::Error> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .called(|| "prctl(PR_SET_PDEATHSIG, SIGKILL)".to_owned())?;
        let kept = [Some(self.socket.as_fd()), Some(self.words.as_fd())];
        let kept: Vec<BorrowedFd<'_>> = kept
            .into_iter()
            .chain([self.scope.directory()])
            .flatten()
            .collect();
        sys::close_all_but(&kept)?;
        // Only a name.
        let _ = rustix::thread::set_name(NAME);
        Ok(())
    }

    /// Waits; whether there is a word, and whether the probe has ended.
    fn wait(&self) -> (bool, bool) {
        let socket = PollFd::new(&self.socket, PollFlags::IN);
        let happened = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let Some((_, probe)) = &self.asked else {
            let mut fds = [socket];
            let _ = poll(&mut fds, None);
            return (happened(&fds[0]), false);
        };
        let mut fds = [socket, PollFd::new(probe, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        (happened(&fds[0]), happened(&fds[1]))
    }

    /// Does what it is told to. False: there is nobody who could say another word.
    fn listen(&mut self) -> bool {
        // As large a piece is mapped on its own, and given back at the end.
        let mut word = Vec::with_capacity(WORD_MAX);
        let buffer = rustix::buffer::spare_capacity(&mut word);
        match recv(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        }
        match word.split_first() {
            Some((&ASK, question)) => {
                if let Ok(question) = question.try_into() {
                    self.ask(Question::from_le_bytes(question));
                }
            }
            Some((&GIVE_UP, _)) => self.give_up(),
            Some((&WRITE_DOWN, json)) => {
                if let Err(error) = replace_text(&self.file, json) {
                    self.trouble("its health cannot be written down: ", &error);
                }
            }
            _ => {}
        }
        true
    }

    fn ask(&mut self, question: Question) {
        if self.asked.is_some() {
            // Whatever it waits for in the kernel, the box is behind it.
            self.tell(b"the last probe was killed, and does not end");
            self.say_answer(question, Answer::Timeout.exit_status());
            return;
        }
        match self.start() {
            Ok(probe) => self.asked = Some((question, probe)),
            Err(error) => {
                self.tell(["cannot ask: ", &error.to_string()].concat().as_bytes());
                self.say_answer(question, Answer::Error.exit_status());
            }
        }
    }

    /// Starts a probe, which dies with this process.
    fn start(&self) -> Result<OwnedFd, sys::Error> {
        let program = programs::beside_or(PROGRAM);
        let arguments = [
            c"boxd".to_owned(),
            c"probe".to_owned(),
            CString::new(self.name.as_str()).unwrap_or_default(),
        ];
        match sys::clone3(CloneFlags::empty())? {
            Fork::Child => {
                let Err(error) = become_probe(&self.words, &program, &arguments);
                self.tell(error.to_string().as_bytes());
                sys::exit_now(Answer::Error.exit_status())
            }
            Fork::Parent { pidfd, .. } => Ok(pidfd),
        }
    }

    /// Tells what came of a probe that has ended.
    fn answer(&mut self) {
        let Some((question, probe)) = &self.asked else {
            return;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(probe.as_fd()), options) {
            Ok(None) => return,
            Ok(Some(status)) => status.exit_status(),
            Err(_) => None,
        };
        let status = status.and_then(|status| u8::try_from(status).ok());
        let question = *question;
        self.asked = None;
        self.end_probe();
        self.say_answer(question, status.unwrap_or(Answer::Error.exit_status()));
    }

    /// Ends what is being asked. Its answer comes all the same, when the process has ended.
    fn give_up(&self) {
        if let Some((_, probe)) = &self.asked {
            // One that has ended is still to be waited for.
            let _ = sys::send_signal(probe.as_fd(), libc::SIGKILL);
        }
        self.end_probe();
    }

    /// Ends what a probe has left in the box.
    fn end_probe(&self) {
        if let Err(error) = self.scope.kill_probe() {
            self.trouble("what a probe started cannot be ended: ", &error);
        }
    }

    /// As a probe would.
    fn tell(&self, text: &[u8]) {
        let _ = rustix::io::write(&self.words, text);
    }

    fn say_answer(&self, question: Question, status: u8) {
        let [a, b, c, d, e, f, g, h] = question.to_le_bytes();
        self.say(&[ANSWER, a, b, c, d, e, f, g, h, status]);
    }

    fn trouble(&self, what: &str, error: &dyn std::error::Error) {
        let text = error.to_string();
        let shown = text.len().min(256);
        self.say(&[&[TROUBLE], what.as_bytes(), &text.as_bytes()[..shown]].concat());
    }

    /// A supervisor that is gone needs no word.
    fn say(&self, word: &[u8]) {
        let _ = send(&self.socket, word, SendFlags::NOSIGNAL);
    }
}

fn become_probe(
    output: &OwnedFd,
    program: &CString,
    arguments: &[CString],
) -> Result<Infallible, sys::Error> {
    // What the supervisor blocks to look at it later is to end this program.
    SigSet::empty()
        .thread_set_mask()
        .called(|| "sigprocmask(SIG_SETMASK, [])".to_owned())?;
    rustix::stdio::dup2_stdout(output).called(|| "dup2(pipe, 1)".to_owned())?;
    // It needs no environment, and must not have systemd's sockets.
    sys::exec_with_descriptors(program, arguments, &[], Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides, in one process.
    fn sides(directory: &Path, test: impl FnOnce(Asker, Outside<'_>)) {
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("sockets");
        let (output, words) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let process = socket.try_clone().expect("another");
        let outside = Outside {
            name: &"web".parse().expect("a name"),
            scope: &Scope::open(Path::new("/sys/fs/cgroup/no/such")),
            file: directory.join(FILE),
            socket: theirs,
            words,
            asked: None,
        };
        test(Asker::adopt([process, socket, output]), outside);
    }

    #[test]
    fn what_is_to_be_written_down_is_and_other_words_are_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        sides(directory.path(), |asker, mut outside| {
            asker.write_down(b"{}\n").expect("said");
            assert!(outside.listen());
            let file = directory.path().join(FILE);
            assert_eq!(std::fs::read(&file).expect("written"), b"{}\n");
            for word in [&b"x"[..], b"a", b"a1234567", b"a123456789", b"g", b"gg"] {
                asker.say(word).expect("said");
                assert!(outside.listen());
            }
            assert!(outside.asked.is_none());
            assert_eq!(asker.hear().expect("nothing"), None);
            let long = vec![b' '; WORD_MAX];
            let error = asker.write_down(&long).expect_err("too long");
            assert_eq!(error.errno(), sys::Errno::EMSGSIZE);
            asker.write_down(&long[1..]).expect("said");
            assert!(outside.listen());
            assert_eq!(std::fs::read(&file).expect("written").len(), WORD_MAX - 1);
            // It is told what went wrong.
            outside.file = directory.path().join("no/such");
            asker.write_down(b"{}").expect("said");
            assert!(outside.listen());
            let Some(Word::Trouble(what)) = asker.hear().expect("a word") else {
                panic!("nothing is said");
            };
            assert!(
                what.starts_with("its health cannot be written down: "),
                "{what}"
            );
            drop(asker);
            assert!(!outside.listen());
        });
    }

    #[test]
    fn an_answer_is_to_its_question_and_what_was_said_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        sides(directory.path(), |asker, outside| {
            outside.tell(&[b'x'; 10 * OUTPUT_MAX]);
            outside.say_answer(1 << 40, 1);
            assert_eq!(
                asker.hear().expect("a word"),
                Some(Word::Answer(1 << 40, Answer::Failure))
            );
            assert_eq!(asker.output(), [b'x'; OUTPUT_MAX]);
            assert_eq!(asker.output(), b"");
            for word in [&b"x"[..], b"a", b"a12345678", b"a1234567890"] {
                outside.say(word);
                assert!(matches!(asker.hear(), Err(Error::Word)), "{word:?}");
            }
            drop(outside);
            assert!(matches!(asker.hear(), Err(Error::Ended)));
        });
    }
}
