//! `boxctl run` on the kernel of this machine: a box in the foreground, from its first byte to nothing being
//! left. Needs root.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use boxd::cgroup;
use boxd::handover::{self, Document};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A definition in a directory of its own; whatever runs of it is ended with it.
struct Definition {
    directory: tempfile::TempDir,
    name: String,
}

impl Definition {
    /// `name` is the test's, so that no two share a box.
    fn new(name: &str, command: &[&str], more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = format!("test-{name}-{}", std::process::id());
        let text =
            format!("command = {command:?}\n[root]\nhost = true\nwrites = \"discard\"\n{more}");
        fs::write(directory.path().join(format!("{name}.toml")), text).expect("written");
        Definition { directory, name }
    }

    fn shell(name: &str, script: &str) -> Self {
        Self::new(name, &["sh", "-c", script], "")
    }

    fn boxctl(&self) -> Command {
        let file = self.directory.path().join(format!("{}.toml", self.name));
        let mut command = Command::new(env!("CARGO_BIN_EXE_boxctl"));
        command
            .arg("run")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn output(&self) -> Output {
        self.boxctl().output().expect("boxctl runs")
    }

    /// Starts the box and returns when it says `up`, with the rest of what it says to come.
    fn up(&self) -> Run {
        let mut child = self.boxctl().spawn().expect("boxctl runs");
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut word = [0; 3];
        stdout.read_exact(&mut word).expect("the box says so");
        assert_eq!(&word, b"up\n");
        Run { child, stdout }
    }

    /// It is there soon after the payload has begun.
    fn document(&self) -> Document {
        let path = self.run_directory().join("document.json");
        eventually("the box is confirmed", || path.exists());
        let json = fs::read(path).expect("readable");
        handover::understand(&json).expect("a document")
    }

    fn run_directory(&self) -> PathBuf {
        Path::new("/run/boxd").join(&self.name)
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        assert!(!self.run_directory().exists());
        let name = format!("boxd-{}", self.name);
        for place in cgroup::plain::places(&name).expect("a cgroup2 tree") {
            assert!(!place.exists(), "{place:?}");
        }
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        let name = self.name.parse().expect("a name");
        if let Ok(directory) = boxd::launch::RunDirectory::claim(&name) {
            let _ = boxd::clean::clear(&name, &directory);
            let _ = directory.remove();
        }
        let _ = boxd::identity::release(&name);
    }
}

struct Run {
    child: Child,
    stdout: std::process::ChildStdout,
}

impl Run {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("boxctl is there");
    }

    /// How boxctl ended, and what came of the box after `up`.
    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("readable");
        (self.child.wait().expect("waited for"), rest)
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const WAIT: &str = "echo up; while :; do sleep 0.02; done";

/// The first command of the README, built for tests: the box that says who and where it is does so without systemd, and
/// asks for nothing that this machine has not got.
#[test]
fn the_first_command_of_the_readme_runs_its_box() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(repository.join("README.md")).expect("readable");
    assert!(readme.contains("\n    cargo run --release --bin boxctl -- run config/hello.toml\n"));
    // Under a name of its own, for others may run it at the same time.
    let hello = Definition::new("hello", &[], "");
    let file = hello.directory.path().join(format!("{}.toml", hello.name));
    fs::copy(repository.join("config/hello.toml"), file).expect("copied");
    let output = hello.output();
    let said = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{err}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("Hello from the box {}.", hello.name));
    for title in [
        "Who",
        "What it may",
        "Limits",
        "Namespaces",
        "What it sees",
        "Its files",
    ] {
        assert!(lines.contains(&title), "{title}: {said}");
    }
    let value = |label: &str| {
        let words = format!("  {label:<16} ");
        let found = lines.iter().find_map(|line| line.strip_prefix(&words));
        found.unwrap_or_else(|| panic!("{label}: {said}"))
    };
    assert_eq!(value("process"), "1");
    assert_eq!(value("user, group"), "0, 0");
    assert!(value("user ids").starts_with("0 to 65535, on the host "));
    assert_eq!(value("new privileges"), "none, whatever it executes");
    assert_eq!(value("system calls"), "filtered");
    assert_eq!(value("network"), "lo");
    assert!(!value("capabilities").contains("SYS_ADMIN"), "{said}");
    for kind in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"] {
        let own = fs::read_link(Path::new("/proc/self/ns").join(kind)).expect("its own");
        assert_ne!(Path::new(value(kind)), own, "{kind}");
    }
    for label in ["memory", "processor", "tasks"] {
        value(label);
    }
}

#[test]
fn the_exit_status_is_the_payloads() {
    for status in [0, 3, 255] {
        let definition = Definition::shell(&format!("exit-{status}"), &format!("exit {status}"));
        assert_eq!(definition.output().status.code(), Some(status));
        definition.assert_nothing_is_left();
    }
}

#[test]
fn a_payload_ended_by_a_signal_is_128_and_the_signal() {
    let definition = Definition::shell("killed", WAIT);
    let run = definition.up();
    kill(Pid::from_raw(definition.document().pid), Signal::SIGKILL).expect("it lives");
    assert_eq!(run.end().0.code(), Some(128 + 9));
    definition.assert_nothing_is_left();
}

#[test]
fn output_arrives_byte_by_byte_to_the_last_on_its_own_stream() {
    let definition = Definition::shell(
        "bytes",
        r"head -c 3000000 /dev/zero | tr '\0' x; printf 'end\377'; printf 'other' >&2",
    );
    let output = definition.output();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout.len(), 3_000_004);
    assert!(output.stdout.ends_with(b"xend\xff"));
    assert!(output.stderr.ends_with(b"other"));
}

#[test]
fn what_stays_in_the_background_ends_with_the_box_and_holds_nothing_up() {
    let definition = Definition::shell("background", "sleep 1000 & echo out; exit 4");
    let output = definition.output();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(output.stdout, b"out\n");
    definition.assert_nothing_is_left();
}

#[test]
fn a_reader_that_leaves_ends_the_box_as_it_ends_a_pipeline() {
    let definition = Definition::shell("reader", "echo up; while echo more; do :; done; exit 7");
    let Run { mut child, stdout } = definition.up();
    drop(stdout);
    // The shell sees EPIPE, SIGPIPE being ignored for the first process of a pid namespace.
    assert!(!child.wait().expect("waited for").success());
    definition.assert_nothing_is_left();
}

#[test]
fn a_signal_to_boxctl_asks_the_box_to_stop() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let name = format!("stop-{}", signal as i32);
        let definition = Definition::shell(&name, &format!("trap 'echo bye; exit 5' TERM; {WAIT}"));
        let run = definition.up();
        run.signal(signal);
        let (status, rest) = run.end();
        assert_eq!((status.code(), rest.as_str()), (Some(5), "bye\n"));
        definition.assert_nothing_is_left();
    }
}

#[test]
fn a_box_that_does_not_stop_is_killed_after_its_time() {
    let script = format!("trap '' TERM; {WAIT}");
    let definition = Definition::new(
        "grace",
        &["sh", "-c", &script],
        "[stop]\ntimeout = \"100ms\"\n",
    );
    let run = definition.up();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.end().0.code(), Some(128 + 9));
    definition.assert_nothing_is_left();
}

#[test]
fn a_second_signal_kills_at_once() {
    let script = format!("trap 'echo asked' TERM; {WAIT}");
    let definition = Definition::new(
        "twice",
        &["sh", "-c", &script],
        "[stop]\ntimeout = \"1h\"\n",
    );
    let mut run = definition.up();
    run.signal(Signal::SIGINT);
    let mut asked = [0; 6];
    run.stdout.read_exact(&mut asked).expect("the box hears");
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().0.code(), Some(128 + 9));
    definition.assert_nothing_is_left();
}

#[test]
fn a_box_runs_once() {
    let definition = Definition::shell("once", WAIT);
    let run = definition.up();
    let second = definition.output();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&definition.name), "{said}");
    // The first one did not notice.
    assert!(cgroup::is_populated(&definition.document().cgroup).expect("its state"));
    run.signal(Signal::SIGQUIT);
    assert_eq!(run.end().0.code(), Some(128 + 9));
}

#[test]
fn a_box_whose_boxctl_is_killed_dies_and_does_not_stand_in_the_way() {
    let definition = Definition::shell("orphan", WAIT);
    let run = definition.up();
    let cgroup = definition.document().cgroup;
    run.signal(Signal::SIGKILL);
    run.end();
    eventually("the box dies with boxctl", || {
        !cgroup::is_populated(&cgroup).expect("its state")
    });
    let run = definition.up();
    run.signal(Signal::SIGQUIT);
    run.end();
    definition.assert_nothing_is_left();
}

#[test]
fn a_launch_that_fails_says_why_and_leaves_nothing() {
    let missing = Definition::new("missing", &["/nonexistent"], "");
    let stranger = Definition::new("stranger", &["true"], "[security]\nusers = \"host\"\n");
    let file = stranger
        .directory
        .path()
        .join(format!("{}.toml", stranger.name));
    let text = fs::read_to_string(&file).expect("readable");
    fs::write(&file, format!("user = \"nobody-of-that-name\"\n{text}")).expect("written");
    for (definition, word, status) in [
        (missing, "/nonexistent", 203),
        (stranger, "nobody-of-that-name", 217),
    ] {
        let output = definition.output();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(word), "{said}");
        assert_eq!(output.status.code(), Some(status), "{said}");
        definition.assert_nothing_is_left();
    }
}

/// Answers one connection of its first socket, and says what it was started with.
const SERVER: &str = r#"
import os, socket
print(os.environ["LISTEN_FDS"], os.environ["LISTEN_FDNAMES"], os.environ["LISTEN_PID"] == str(os.getpid()))
print([fd for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}")], flush=True)
socket.socket(fileno=3).accept()[0].sendall(b"hello from the box")
"#;

#[test]
fn sockets_are_open_when_the_box_begins_and_end_with_it() {
    let place = tempfile::tempdir().expect("a directory");
    let (path, second) = (place.path().join("a"), place.path().join("run/b"));
    let (path, second) = (path.display(), second.display());
    let definition = Definition::new(
        "sockets",
        &["python3", "-c", SERVER],
        &format!(
            "[[socket]]\nstream = \"{path}\"\nname = \"first\"\nmode = \"0600\"\n\
             [[socket]]\ndatagram = \"{second}\"\nname = \"second\"\ndirectory-mode = \"0700\"\n"
        ),
    );
    let mut child = definition.boxctl().spawn().expect("boxctl runs");
    // It waits in the queue until the box takes it.
    let mut connection = None;
    eventually("somebody listens", || {
        connection = UnixStream::connect(place.path().join("a")).ok();
        connection.is_some()
    });
    let mut answer = String::new();
    let answered = connection
        .as_mut()
        .map(|connection| connection.read_to_string(&mut answer));
    assert!(matches!(answered, Some(Ok(_))), "{answered:?}");
    assert_eq!(answer, "hello from the box");
    let mut said = String::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_to_string(&mut said).expect("readable");
    let status = child.wait().expect("waited for");
    assert_eq!(status.code(), Some(0));
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("2 first:second True"));
    assert_eq!(
        lines.next(),
        Some("[0, 1, 2, 3, 4]"),
        "nothing else is open"
    );
    assert!(!place.path().join("a").exists());
    assert!(!place.path().join("run/b").exists());
    definition.assert_nothing_is_left();

    // An address that is taken is no reason to begin.
    let _other = UnixListener::bind(place.path().join("a")).expect("bound");
    let output = definition.output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("somebody does already"), "{said}");
    assert!(place.path().join("a").exists(), "it is another's");
    definition.assert_nothing_is_left();
}

/// What a person sees who runs the box at a terminal of 30 rows and 90 columns.
struct Terminal {
    master: fs::File,
    other_side: OwnedFd,
    boxctl: Child,
    seen: String,
}

impl Terminal {
    fn run(definition: &Definition) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        unlockpt(&master).expect("unlocked");
        let other_side = ioctl_tiocgptpeer(&master, flags).expect("its other side");
        let size = Winsize {
            ws_row: 30,
            ws_col: 90,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("sized");
        rustix::io::ioctl_fionbio(&master, true).expect("set");
        let side = || other_side.try_clone().expect("duplicated");
        let mut boxctl = definition.boxctl();
        boxctl.env("TERM", "vt100");
        boxctl.stdin(side()).stdout(side()).stderr(side());
        Terminal {
            boxctl: boxctl.spawn().expect("boxctl runs"),
            master: master.into(),
            other_side,
            seen: String::new(),
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = self.master.read(&mut buffer) {
            self.seen += &String::from_utf8_lossy(&buffer[..length]);
        }
    }

    #[track_caller]
    fn sees(&mut self, text: &str) {
        eventually(text, || {
            self.read();
            self.seen.contains(text)
        });
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("typed");
    }

    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the end of boxctl", || {
            self.read();
            status = self.boxctl.try_wait().expect("waited for");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.other_side).expect("modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

#[test]
fn a_box_with_a_terminal_has_the_operators_for_as_long_as_it_runs() {
    let script = "trap 'echo stopped; exit 6' TERM; echo \"on $(tty) $(stty size) $TERM\"; \
                  while read -r line; do echo \"got $line\"; test \"$line\" != exit || exit 9; done";
    let define = |name: &str| {
        let command = ["sh", "-c", script];
        let definition = Definition::new(name, &command, "");
        let file = definition
            .directory
            .path()
            .join(format!("{}.toml", definition.name));
        let text = fs::read_to_string(&file).expect("readable");
        fs::write(&file, format!("tty = true\n{text}")).expect("written");
        definition
    };
    let definition = define("tty");
    let mut terminal = Terminal::run(&definition);
    terminal.sees("on /dev/console 30 90 vt100\r\n");
    terminal.types("hello\r");
    terminal.sees("got hello\r\n");
    assert!(!terminal.is_cooked());
    terminal.types("exit\r");
    assert_eq!(terminal.ends(), Some(9), "{}", terminal.seen);
    assert!(terminal.is_cooked());
    definition.assert_nothing_is_left();

    // The keys that detach elsewhere stop it here.
    let mut terminal = Terminal::run(&definition);
    terminal.sees(" vt100\r\n");
    terminal.types("\x1d\x1d\x1d");
    terminal.sees("stopping box");
    assert_eq!(terminal.ends(), Some(6), "{}", terminal.seen);
    assert!(terminal.seen.contains("stopped\r\n"), "{}", terminal.seen);
    assert!(terminal.is_cooked());
    definition.assert_nothing_is_left();

    // Without a terminal of the operator's, what is read is typed, and then the input is at its end.
    let mut boxctl = definition
        .boxctl()
        .stdin(Stdio::piped())
        .spawn()
        .expect("boxctl runs");
    let mut stdin = boxctl.stdin.take().expect("a pipe");
    stdin.write_all(b"a line\n").expect("written");
    drop(stdin);
    let output = boxctl.wait_with_output().expect("waited for");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("got a line\r\n"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
    definition.assert_nothing_is_left();
}
