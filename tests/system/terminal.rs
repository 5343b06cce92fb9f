//! A box with a terminal, and operators who attach to it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::guest::{
    define_script, everything, journal, must, nothing_left, pid, printed, property, refused, sh,
    start, stop, unit, wait_for, wait_for_line, wait_for_state,
};

/// Answers each line it reads.
const TALK: &str = r#"
echo "tty $(tty), $(stat -c %F /dev/console), $(stat -c %U $(tty))"
test /dev/console -ef /dev/pts/0 && echo one terminal
test -e /dev/tty1 && echo a terminal of the host
stty size
printf '\033[1mready\033[0m\n'
while read -r line; do
  case $line in
    size) stty size;;
    big) yes filler | head -n 20000; echo "big" done;;
    stuff) perl -e 'exit !syscall(16, 0, 0x5412, "x")' && echo stuffed || echo refused;;
    exit) exit 7;;
    *) echo "got $line";;
  esac
done
"#;

/// A person at a terminal, with a command on it.
pub struct Operator {
    terminal: File,
    other_side: OwnedFd,
    child: Child,
    seen: String,
}

impl Operator {
    fn new(rows: u16, columns: u16, command: &[&str]) -> Operator {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).expect("a terminal");
        unlockpt(&terminal).expect("unlocked");
        let other_side = ioctl_tiocgptpeer(&terminal, flags).expect("its other side");
        let side = || other_side.try_clone().expect("duplicated");
        let child = {
            tcsetwinsize(&terminal, size(rows, columns)).expect("sized");
            // The one who waits for it is its parent: setsid(1) becomes the command.
            Command::new("setsid")
                .arg("--ctty")
                .args(command)
                .stdin(side())
                .stdout(side())
                .stderr(side())
                .spawn()
                .expect("setsid is there")
        };
        rustix::io::ioctl_fionbio(&terminal, true).expect("set");
        Operator {
            terminal: terminal.into(),
            other_side,
            child,
            seen: String::new(),
        }
    }

    #[track_caller]
    pub fn attach(name: &str) -> Operator {
        let mut operator = Operator::new(40, 100, &["boxctl", "attach", name]);
        operator.sees(&format!("attached to box {name}"));
        operator
    }

    pub fn types(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).expect("typed");
    }

    /// Waits until this has been shown since it was looked for last.
    #[track_caller]
    pub fn sees(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        wait_for(&format!("{text:?} on the terminal"), || {
            while let Ok(length @ 1..) = self.terminal.read(&mut buffer) {
                self.seen += &String::from_utf8_lossy(&buffer[..length]);
            }
            self.seen.contains(text)
        });
        let end = self.seen.find(text).expect("it was there") + text.len();
        self.seen.drain(..end);
    }

    fn resizes(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.terminal, size(rows, columns)).expect("sized");
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.other_side).expect("modes")
    }

    /// The exit status of the command, once it has ended.
    #[track_caller]
    fn ends(&mut self) -> i32 {
        let mut status = None;
        let mut buffer = [0; 4096];
        wait_for("the end of the command", || {
            // It waits until its last words are read.
            while let Ok(length @ 1..) = self.terminal.read(&mut buffer) {
                self.seen += &String::from_utf8_lossy(&buffer[..length]);
            }
            status = self.child.try_wait().expect("waited for");
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn is_cooked(modes: &Termios) -> bool {
    use rustix::termios::LocalModes;
    let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    modes.local_modes.contains(cooked)
}

/// A connection to the terminal of a box, by nobody who says anything.
fn knock(name: &str) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
    let door = format!("/run/boxd/{name}/attach");
    let address = SocketAddrUnix::new(door).expect("an address");
    let knock = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    connect(&knock, &address).expect("connects");
    knock
}

/// A box has a terminal of its own, whose lines are in the journal as others are. Operators attach to it together,
/// leave it with it and their own terminals in order, and one who does not look holds up nobody.
#[test]
fn operators_share_the_terminal_of_a_box_and_leave_it() {
    define_script("talk", TALK, "tty = true");
    start("talk");
    wait_for_line("talk", "\u{1b}[1mready\u{1b}[0m");
    let lines = printed("talk");
    assert_eq!(
        lines,
        [
            "tty /dev/console, character special file, root",
            "one terminal",
            "24 80",
            "\u{1b}[1mready\u{1b}[0m"
        ]
    );
    assert!(!journal("talk").contains('\r'), "{lines:#?}");
    let streams = must("journalctl -o json -u box@talk BOX_STREAM=tty | wc -l");
    assert_eq!(streams, "4");

    let mut first = Operator::attach("talk");
    first.sees("ready");
    first.types("hello\r");
    first.sees("got hello");
    first.types("size\r");
    first.sees("40 100");
    first.resizes(50, 120);
    wait_for("the new size", || {
        first.types("size\r");
        printed("talk").contains(&"50 120".to_owned())
    });
    // What is typed cannot be put into the terminal by the box itself: TIOCSTI.
    first.types("stuff\r");
    first.sees("refused");
    assert!(!is_cooked(&first.modes()));

    // The second looks at nothing of what comes.
    let mut second = Operator::attach("talk");
    second.types("big\r");
    first.sees("big done");
    wait_for_line("talk", "big done");
    let filler = printed("talk");
    let filler = filler.iter().filter(|line| *line == "filler").count();
    assert_eq!(filler, 20000, "the journal has every line");
    first.types("after\r");
    first.sees("got after");
    second.sees("got after");

    first.types("\x1d\x1d\x1d");
    assert_eq!(first.ends(), 0);
    first.sees("detached from box talk");
    assert!(is_cooked(&first.modes()));
    must(&format!("kill -TERM {}", second.child.id()));
    assert_eq!(second.ends(), 128 + 15);
    assert!(is_cooked(&second.modes()));

    // There is room for eight. A ninth is told so, and comes in when one of them has left.
    let crowd: Vec<OwnedFd> = (0..8).map(|_| knock("talk")).collect();
    let said = refused("boxctl attach talk </dev/null");
    assert!(
        said.contains("cannot attach to box talk: 8 others are attached to it"),
        "{said}"
    );
    drop(crowd);
    let mut last = Operator::new(
        24,
        80,
        &["boxctl", "attach", "--detach-keys", "ctrl-p,q", "talk"],
    );
    last.sees("^P q");
    last.types("\x1d\x1d\x1dstill\r");
    last.sees("got ");
    last.types("\x10q");
    assert_eq!(last.ends(), 0);

    // One who stays sees the end.
    let mut witness = Operator::attach("talk");
    witness.types("exit\r");
    assert_eq!(witness.ends(), 7);
    assert!(is_cooked(&witness.modes()));
    witness.sees("has ended, with status 7");
    wait_for_state(&unit("talk"), "failed");
    assert_eq!(property(&unit("talk"), "ExecMainStatus"), "7");

    define_script("deaf", "exec sleep infinity", "");
    start("deaf");
    let said = refused("boxctl attach deaf");
    assert!(
        said.contains("tty = true") && said.contains("boxctl exec -t deaf"),
        "{said}"
    );
    assert_eq!(sh("boxctl attach deaf").status, 125);
    assert_eq!(sh("boxctl attach no-such-box").status, 125);
}

/// The supervisor is killed and replaced under a box with a terminal: no line is lost or doubled, and who has attached
/// goes on with the next one. A stop ends the box and lets them go, and nothing is left.
#[test]
fn a_terminal_outlives_its_supervisor() {
    define_script("game", "exec sleep infinity", "tty = true");
    start("game");
    stop("game");
    let before = everything();
    define_script(
        "game",
        "(i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done) &
         stty -echo; while read -r line; do echo \"got $line\"; done",
        "tty = true\n[output]\nrate-lines = 100000",
    );
    start("game");
    wait_for_line("game", "tick 3");
    let payload = pid("game");
    let mut operator = Operator::attach("game");
    operator.types("one\r");
    operator.sees("got one");
    for (signal, word) in [("KILL", "two"), ("USR1", "three"), ("KILL", "four")] {
        let supervisor = property(&unit("game"), "MainPID");
        let handed_over = journal("game").matches("was taken over").count();
        must(&format!("kill -{signal} {supervisor}"));
        wait_for("the next supervisor", || {
            journal("game").matches("was taken over").count() > handed_over
        });
        operator.types(&format!("{word}\r"));
        operator.sees(&format!("got {word}"));
    }
    assert_eq!(pid("game"), payload);
    let seen = printed("game").len();
    wait_for("more output", || printed("game").len() > seen + 2);
    let printed = printed("game");
    let ticks: Vec<_> = printed
        .iter()
        .filter(|line| line.starts_with("tick "))
        .collect();
    for (number, line) in ticks.iter().enumerate() {
        assert_eq!(**line, format!("tick {number}"), "{printed:#?}");
    }
    stop("game");
    operator.ends();
    operator.sees("box game has ended");
    assert!(is_cooked(&operator.modes()));
    // Its own terminal is one of the host's.
    drop(operator);
    nothing_left(&before);
}

/// A command or a shell in a box has the size of the terminal of whoever asked for it, also when that changes; what
/// boxctl shows by itself fits that terminal, and is coloured unless that is not wanted.
#[test]
fn commands_shells_and_tables_follow_the_operators_terminal() {
    define_script(
        "web",
        "exec sleep infinity",
        "description = 'A shop front with so many words about it that no narrow terminal has room for them all'",
    );
    start("web");
    for command in [
        &["boxctl", "exec", "-it", "web", "--", "sh"][..],
        &["boxctl", "shell", "web"],
    ] {
        let mut operator = Operator::new(33, 77, command);
        operator.sees("# ");
        operator.types("stty size\r");
        operator.sees("\n33 77");
        operator.resizes(50, 120);
        operator.types("until stty size | grep -x '50 120'; do sleep 0.2; done\r");
        operator.sees("\n50 120");
        operator.types("exit 3\r");
        assert_eq!(operator.ends(), 3, "{command:?}");
    }

    let table = |words: &str| {
        let mut operator = Operator::new(24, 60, &["env", "TERM=xterm", "sh", "-c", words]);
        assert_eq!(operator.ends(), 0);
        operator.seen
    };
    let coloured = table("boxctl status");
    assert!(coloured.contains("\x1b["), "{coloured:?}");
    let plain = table("NO_COLOR=1 boxctl status");
    assert!(!plain.contains('\x1b'), "{plain:?}");
    assert!(plain.contains("A shop"), "{plain}");
    let longest = plain.lines().map(|line| line.chars().count()).max();
    assert_eq!(longest, Some(60), "{plain}");

    let list: serde_json::Value =
        serde_json::from_str(&must("boxctl list --json")).expect("the list is JSON");
    let names: Vec<&str> = list
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry| entry["name"].as_str())
        .collect();
    assert_eq!(names, ["hello", "web"]);
}
