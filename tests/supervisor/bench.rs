//! The surroundings of a supervisor under test: a cgroup, and the sockets of systemd and journald.

use std::collections::HashMap;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use boxd::identity::IdRange;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Nothing here takes so long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The ids of a box that has its own.
pub const IDS: IdRange = IdRange {
    base: IdRange::BASE_MIN,
};

/// A box whose payload is a shell script.
#[derive(Debug, Clone, Copy)]
pub struct Payload {
    pub script: &'static str,
    /// It is pid 1 of a pid namespace, as in a real box.
    pub namespace: bool,
    pub stop_timeout: Duration,
    /// It speaks for itself, and is ready when it says so: `NOTIFY_SOCKET` and `SPEAKER`.
    pub speaks: bool,
    /// It has ids of its own, and what it says is said by one of them.
    pub ids: bool,
}

impl Payload {
    pub fn new(script: &'static str) -> Payload {
        Payload {
            script,
            namespace: false,
            stop_timeout: PATIENCE,
            speaks: false,
            ids: false,
        }
    }
}

/// The surroundings of a supervisor: systemd's socket, journald's socket and a cgroup.
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub cgroup: PathBuf,
    pub notify: UnixDatagram,
    pub journal: Option<UnixDatagram>,
    /// What systemd's store holds.
    pub store: HashMap<String, OwnedFd>,
    /// The assignments systemd was told, in order.
    pub told: Vec<String>,
    /// The payload's lines that came to the journal.
    pub lines: Vec<String>,
    /// All other entries.
    pub entries: Vec<String>,
}

impl Bench {
    pub fn new() -> Bench {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().expect("makes a directory");
        fs::create_dir(directory.path().join("journal")).expect("makes a directory");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = cgroup2().join(format!("boxd-test-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).expect("makes a cgroup");
        let notify = UnixDatagram::bind(directory.path().join("notify")).expect("binds");
        notify.set_nonblocking(true).expect("sets");
        let mut bench = Bench {
            directory,
            cgroup,
            notify,
            journal: None,
            store: HashMap::new(),
            told: Vec::new(),
            lines: Vec::new(),
            entries: Vec::new(),
        };
        bench.open_journal();
        bench
    }

    pub fn journal_path(&self) -> PathBuf {
        self.directory.path().join("journal/socket")
    }

    pub fn open_journal(&mut self) {
        let journal = UnixDatagram::bind(self.journal_path()).expect("binds");
        journal.set_nonblocking(true).expect("sets");
        self.journal = Some(journal);
    }

    pub fn close_journal(&mut self) {
        self.journal = None;
        fs::remove_file(self.journal_path()).expect("removes");
    }

    /// Starts a payload and its first supervisor.
    pub fn launch(&self, payload: Payload) -> Child {
        self.start(&[
            ("BENCH_SCRIPT", payload.script),
            ("BENCH_NAMESPACE", if payload.namespace { "1" } else { "" }),
            (
                "BENCH_TIMEOUT",
                &payload.stop_timeout.as_millis().to_string(),
            ),
            ("BENCH_SPEAKS", if payload.speaks { "1" } else { "" }),
            ("BENCH_IDS", if payload.ids { "1" } else { "" }),
        ])
    }

    /// Starts another supervisor from what is in the store; `wrapper` runs it.
    pub fn succeed(&self, wrapper: &str) -> Child {
        let path = self.directory.path().join("store");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("binds");
        let child = self.start(&[("BENCH_HEIR", "1"), ("BENCH_WRAPPER", wrapper)]);
        let (stream, _) = listener.accept().expect("accepts");
        for (name, fd) in &self.store {
            send_fd(&stream, name, fd);
        }
        child
    }

    pub fn start(&self, environment: &[(&str, &str)]) -> Child {
        Command::new(std::env::current_exe().expect("is known"))
            .args(["--exact", "launcher", "--nocapture"])
            .env("BENCH_DIRECTORY", self.directory.path())
            .env("BENCH_CGROUP", &self.cgroup)
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.directory.path().join("stderr")).expect("creates"))
            .spawn()
            .expect("starts")
    }

    /// Takes what has come to the sockets.
    pub fn take(&mut self) {
        while let Some((text, fd)) = receive(&self.notify) {
            let assignments: Vec<&str> = text.lines().collect();
            let name = assignments
                .iter()
                .find_map(|line| line.strip_prefix("FDNAME="));
            if assignments.contains(&"FDSTORE=1") {
                let name = name.expect("has a name").to_owned();
                assert!(assignments.contains(&"FDPOLL=0"), "{name} may be dropped");
                self.store.insert(name, fd.expect("has a descriptor"));
            } else if assignments.contains(&"FDSTOREREMOVE=1") {
                self.store.remove(name.expect("has a name"));
            } else {
                self.told.extend(assignments.into_iter().map(str::to_owned));
            }
        }
        self.take_entries(usize::MAX);
    }

    pub fn take_entries(&mut self, most: usize) {
        let mut buffer = vec![0; 1 << 17];
        for _ in 0..most {
            let Some(Ok(length)) = self
                .journal
                .as_ref()
                .map(|journal| journal.recv(&mut buffer))
            else {
                return;
            };
            let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if entry.contains("\nBOX_STREAM=") {
                let at = entry.find("\nMESSAGE=").expect("has a message");
                self.lines.push(
                    entry[at + "\nMESSAGE=".len()..]
                        .trim_end_matches('\n')
                        .to_owned(),
                );
            } else {
                self.entries.push(entry);
            }
        }
    }

    /// Takes until this holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Bench) -> bool) {
        let begin = Instant::now();
        loop {
            self.take();
            if holds(self) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "never: {what}; {self:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn until_ready(&mut self) {
        self.until("ready", |bench| {
            bench.told.iter().any(|line| line == "READY=1")
        });
    }

    pub fn until_line(&mut self, line: &str) {
        self.until(line, |bench| bench.lines.iter().any(|found| found == line));
    }

    /// Takes until the supervisor has ended, and what it left.
    pub fn until_end(&mut self, supervisor: &mut Child) -> ExitStatus {
        let begin = Instant::now();
        loop {
            self.take();
            if let Some(status) = supervisor.try_wait().expect("waits") {
                self.take();
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "does not end; {self:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn result(&self) -> Option<&str> {
        self.entries
            .iter()
            .flat_map(|entry| entry.lines())
            .find_map(|field| field.strip_prefix("BOX_RESULT="))
    }

    pub fn processes(&self) -> Vec<i32> {
        processes(&self.cgroup)
    }
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench")
            .field("told", &self.told)
            .field("lines", &self.lines.len())
            .field("entries", &self.entries)
            .field(
                "stderr",
                &fs::read_to_string(self.directory.path().join("stderr")),
            )
            .finish_non_exhaustive()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..1000 {
            match fs::remove_dir(&self.cgroup) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return,
            }
        }
    }
}

pub fn cgroup2() -> PathBuf {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.join("cgroup.procs").exists() && path.join("cgroup.controllers").exists())
        .expect("a cgroup2 tree is mounted")
}

pub fn processes(cgroup: &Path) -> Vec<i32> {
    fs::read_to_string(cgroup.join("cgroup.procs"))
        .expect("reads")
        .lines()
        .map(|line| line.parse().expect("is a pid"))
        .collect()
}

pub fn send_fd(stream: &UnixStream, name: &str, fd: &OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    // A stream keeps no messages apart: each is padded to the same length.
    let padded = format!("{name:32}");
    rustix::net::sendmsg(
        stream,
        &[IoSlice::new(padded.as_bytes())],
        &mut ancillary,
        SendFlags::empty(),
    )
    .expect("sends");
}

/// Sends a datagram that has a descriptor with it.
pub fn send_with_fd(socket: &UnixDatagram, text: &str, fd: impl AsFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(text.as_bytes())],
        &mut ancillary,
        SendFlags::empty(),
    )
    .expect("sends");
}

pub fn receive(socket: impl AsFd) -> Option<(String, Option<OwnedFd>)> {
    receive_up_to(socket, 4096)
}

pub fn receive_up_to(socket: impl AsFd, length: usize) -> Option<(String, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = vec![0; length];
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .ok()
    .filter(|message| message.bytes > 0)?;
    buffer.truncate(message.bytes);
    let fd = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .next();
    Some((String::from_utf8(buffer).expect("is text"), fd))
}

pub fn terminate(supervisor: &Child) {
    kill(Pid::from_raw(supervisor.id() as i32), Signal::SIGTERM).expect("signals");
}
