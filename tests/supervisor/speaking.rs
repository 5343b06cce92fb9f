//! What a box says by sd_notify(3), and what becomes of it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use boxd::handover;
use boxd::supervisor::notification::REQUEST;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, IDS, Payload, send_with_fd, terminate};

/// No test, but a process of the box that says `SAY` so many `TIMES`, each line an assignment, then makes the file
/// `SENT`. With a barrier it waits until that is passed. At its end it makes the file `DONE`.
#[test]
fn speaker() {
    let Ok(say) = std::env::var("SAY") else {
        return;
    };
    let say = say.replace('|', "\n");
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let socket = UnixDatagram::unbound().expect("makes a socket");
    let to = variable("NOTIFY_SOCKET").expect("is set");
    socket.connect(to).expect("connects");
    if std::env::var("BENCH_IDS").is_ok_and(|ids| !ids.is_empty()) {
        // What a message is sent by is the real one; files are made by the other.
        let root = nix::unistd::Uid::from_raw(0);
        nix::unistd::setresuid(IDS.base.into(), root, root).expect("sets");
    }
    let times: u32 = std::env::var("TIMES").map_or(1, |times| times.parse().expect("is a number"));
    let (mut end, write) = io::pipe().expect("makes a pipe");
    for number in 0..times {
        let text = say.replace("%", &number.to_string());
        if text.contains("BARRIER=1") {
            send_with_fd(&socket, &text, &write);
        } else {
            socket.send(text.as_bytes()).expect("sends");
        }
    }
    drop(write);
    let make = |file| variable(file).map(|path| fs::write(path, "").expect("makes a file"));
    make("SENT");
    end.read_to_end(&mut Vec::new()).expect("reads");
    make("DONE");
}

/// A box that begins, does what it is told line by line through a pipe, and ends when that is closed.
struct Speaking {
    bench: Bench,
    supervisor: Child,
    orders: fs::File,
}

impl Speaking {
    fn begin(payload: Payload) -> Speaking {
        let bench = Bench::new();
        let orders = bench.directory.path().join("orders");
        nix::unistd::mkfifo(&orders, nix::sys::stat::Mode::S_IRWXU).expect("makes a pipe");
        let supervisor = bench.launch(Payload {
            script: "trap 'exit 0' TERM; exec <\"$BENCH_DIRECTORY/orders\"; echo up; \
                     while read -r order; do eval \"$order\"; done; exit 5",
            speaks: true,
            ..payload
        });
        let orders = fs::OpenOptions::new()
            .write(true)
            .open(orders)
            .expect("opens");
        let mut speaking = Speaking {
            bench,
            supervisor,
            orders,
        };
        speaking.bench.until_line("up");
        speaking
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("writes");
    }

    /// Has a process of the box say this, which waits until it is heard.
    fn say(&mut self, what: &str) {
        self.say_and_end(&format!("{what}\nBARRIER=1"));
    }

    /// Has a process of the box say this and end.
    fn say_and_end(&mut self, what: &str) {
        // An order is a line.
        let what = what.replace('\n', "|");
        self.order(&format!("SAY='{what}' $SPEAKER >/dev/null"));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bench.directory.path().join(name)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.supervisor.id() as i32), signal).expect("signals");
    }

    /// The supervisor does nothing until this has happened.
    fn while_stopped(&mut self, what: impl FnOnce(&mut Speaking)) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.supervisor.id());
        wait_for("a stopped supervisor", || {
            fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
        });
        what(self);
        self.signal(Signal::SIGCONT);
    }

    fn replace(&mut self) {
        self.supervisor.kill().expect("kills");
        self.supervisor.wait().expect("waits");
        self.bench.take();
        self.supervisor = self.bench.succeed("");
    }

    /// What systemd was told since there were so many words.
    fn until_told(&mut self, since: usize, words: &[&str]) {
        self.bench.until(&format!("{words:?}"), |bench| {
            let told = &bench.told[since..];
            words
                .iter()
                .all(|word| told.iter().any(|told| told == word))
        });
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < crate::bench::PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `STATUS=`, `ERRNO=` and `EXIT_STATUS=` are passed on; a supervisor that comes later says them again, since systemd
/// forgets them with the process that told it.
#[test]
fn an_heir_says_what_the_box_has_said() {
    let mut talker = Speaking::begin(Payload::new(""));
    let words = ["STATUS=serving 3 of 4", "ERRNO=2", "EXIT_STATUS=5"];
    talker.say("READY=1\nSTATUS=serving 3 of 4\nERRNO=2");
    talker.say("EXIT_STATUS=5");
    talker.until_told(0, &["READY=1"]);
    talker.until_told(0, &words);
    for upgrade in [false, true] {
        let told = talker.bench.told.len();
        match upgrade {
            false => talker.replace(),
            true => talker.signal(Signal::SIGUSR1),
        }
        talker.until_told(told, &["READY=1"]);
        talker.until_told(told, &words);
    }
    // Taken back, it is forgotten.
    let told = talker.bench.told.len();
    talker.say("STATUS=");
    talker.bench.until("no status of its own", |bench| {
        bench.told[told..]
            .iter()
            .any(|told| told.starts_with("STATUS=running, pid "))
    });
    let told = talker.bench.told.len();
    talker.replace();
    talker.until_told(told, &["READY=1", "ERRNO=2"]);
    assert!(!talker.bench.told[told..].contains(&words[0].to_owned()));
    drop(talker.orders);
    assert_eq!(
        talker.bench.until_end(&mut talker.supervisor).code(),
        Some(5)
    );
}

/// `BARRIER=1` is passed when all before it is with systemd, and not before.
#[test]
fn a_barrier_is_passed_after_what_was_said_before_it() {
    let mut talker = Speaking::begin(Payload {
        ids: true,
        ..Payload::new("")
    });
    talker.say("READY=1\nSTATUS=early");
    talker.until_told(0, &["READY=1", "STATUS=early"]);
    let (sent, done) = (talker.file("sent"), talker.file("done"));
    talker.while_stopped(|talker| {
        talker.say_and_end("STATUS=between");
        talker.say_and_end("STATUS=late");
        let files = "SENT=$BENCH_DIRECTORY/sent DONE=$BENCH_DIRECTORY/done";
        talker.order(&format!("{files} SAY=BARRIER=1 $SPEAKER >/dev/null"));
        wait_for("the barrier is sent", || sent.exists());
        assert!(!done.exists());
    });
    wait_for("the barrier is passed", || done.exists());
    talker.bench.take();
    assert!(
        talker.bench.told.contains(&"STATUS=late".to_owned()),
        "{:?}",
        talker.bench
    );
    terminate(&talker.supervisor);
    assert_eq!(
        talker.bench.until_end(&mut talker.supervisor).code(),
        Some(0)
    );
}

/// Of a sender that has ended nobody can tell the cgroup any more: it is believed by its id if that is the box's
/// alone, and not otherwise.
#[test]
fn a_sender_that_has_ended_is_believed_by_its_id_alone() {
    for ids in [false, true] {
        let mut talker = Speaking::begin(Payload {
            ids,
            ..Payload::new("")
        });
        let gone = talker.file("gone");
        talker.while_stopped(|talker| {
            talker.say_and_end("READY=1");
            talker.order(": >\"$BENCH_DIRECTORY/gone\"");
            wait_for("the sender has ended", || gone.exists());
        });
        if ids {
            talker.until_told(0, &["READY=1"]);
        } else {
            talker.bench.until("a stranger", |bench| {
                let words = "which is not in the box, or has ended";
                bench.entries.iter().any(|entry| entry.contains(words))
            });
            assert!(!talker.bench.told.contains(&"READY=1".to_owned()));
            talker.say("READY=1");
            talker.until_told(0, &["READY=1"]);
        }
        terminate(&talker.supervisor);
        assert_eq!(
            talker.bench.until_end(&mut talker.supervisor).code(),
            Some(0)
        );
    }
}

/// A box that says more than anybody wants to know waits, loses none of it, and costs systemd a few messages a second;
/// its output and its stop do not wait behind it.
#[test]
fn a_flood_of_messages_is_dammed_and_nothing_of_it_is_lost() {
    const MESSAGES: u32 = 300;
    let mut talker = Speaking::begin(Payload::new(""));
    let done = talker.file("done");
    let begin = Instant::now();
    talker.order(&format!(
        "DONE=$BENCH_DIRECTORY/done TIMES={MESSAGES} SAY='STATUS=number %' $SPEAKER >/dev/null & echo begun"
    ));
    talker.bench.until_line("begun");
    wait_for("the flood is over", || {
        // The queue of this socket must not fill up, or nobody would be told anything.
        done.exists() || {
            talker.bench.take();
            false
        }
    });
    let took = begin.elapsed();
    // 64 in a second, and some wait in the socket's own queue.
    assert!(took >= Duration::from_secs(3), "{took:?}");
    let last = format!("; it says: number {}", MESSAGES - 1);
    talker.bench.until("the last one", |bench| {
        bench.told.iter().any(|told| told.ends_with(&last))
    });
    let statuses = talker.bench.told.iter();
    let statuses = statuses.filter(|told| told.contains("number ")).count() as u128;
    let most = begin.elapsed().as_millis() / 250 + 2;
    assert!(statuses <= most, "{statuses} in {took:?}");
    talker.say("READY=1");
    talker.until_told(0, &["READY=1"]);

    // For ever.
    talker.order("TIMES=1000000 SAY='STATUS=number %' $SPEAKER >/dev/null & echo again");
    talker.bench.until_line("again");
    terminate(&talker.supervisor);
    assert_eq!(
        talker.bench.until_end(&mut talker.supervisor).code(),
        Some(0)
    );
    assert!(talker.bench.processes().is_empty());
}

/// A box that reloads is shown as reloading by the next supervisor too. An upgrade waits as long as somebody waits for
/// the end of a reload, since nobody could tell them of it then.
#[test]
fn an_upgrade_waits_for_a_reload_and_an_heir_knows_of_one() {
    let mut talker = Speaking::begin(Payload::new(""));
    let taken_over = |talker: &Speaking| {
        let entries = talker.bench.entries.iter();
        entries
            .filter(|entry| entry.contains("supervision was taken over"))
            .count()
    };
    talker.say("READY=1");
    talker.until_told(0, &["READY=1"]);
    // By its own will.
    talker.say("RELOADING=1");
    talker.until_told(0, &["RELOADING=1"]);
    for upgrade in [false, true] {
        let told = talker.bench.told.len();
        match upgrade {
            false => talker.replace(),
            true => talker.signal(Signal::SIGUSR1),
        }
        talker.until_told(told, &["READY=1", "RELOADING=1"]);
    }
    let told = talker.bench.told.len();
    talker.say("READY=1");
    talker.until_told(told, &["READY=1"]);
    let told = talker.bench.told.len();
    talker.replace();
    talker.say("STATUS=done");
    talker.until_told(told, &["READY=1", "STATUS=done"]);
    assert!(!talker.bench.told[told..].contains(&"RELOADING=1".to_owned()));

    // This process is in the cgroup of the supervisor, as `boxd reload` is.
    let ask = |talker: &Speaking| {
        let socket = UnixDatagram::unbound().expect("makes a socket");
        socket.connect(talker.file("speak")).expect("connects");
        let (answers, end) = io::pipe().expect("makes a pipe");
        let request = std::str::from_utf8(REQUEST).expect("is text");
        send_with_fd(&socket, request, &end);
        answers
    };
    let mut answers = ask(&talker);
    let mut byte = [0];
    answers.read_exact(&mut byte).expect("the request stands");
    let told = talker.bench.told.len();
    talker.say("RELOADING=1");
    talker.until_told(told, &["RELOADING=1"]);
    let before = taken_over(&talker);
    talker.signal(Signal::SIGUSR1);
    talker.say("STATUS=still at it");
    talker.until_told(told, &["STATUS=still at it"]);
    assert_eq!(taken_over(&talker), before);
    talker.say("READY=1");
    answers.read_exact(&mut byte).expect("it is done");
    wait_for("the upgrade", || {
        talker.bench.take();
        taken_over(&talker) > before
    });

    // Nobody waits for who has given up.
    let mut answers = ask(&talker);
    answers.read_exact(&mut byte).expect("the request stands");
    drop(answers);
    let before = taken_over(&talker);
    talker.signal(Signal::SIGUSR1);
    wait_for("the upgrade", || {
        talker.bench.take();
        taken_over(&talker) > before
    });
    terminate(&talker.supervisor);
    assert_eq!(
        talker.bench.until_end(&mut talker.supervisor).code(),
        Some(0)
    );
}

/// A line of which a part was read when its supervisor was killed or replaced is one line, whole and once.
#[test]
fn a_line_that_is_half_read_is_whole_under_the_next_supervisor() {
    let mut talker = Speaking::begin(Payload::new(""));
    talker.say("READY=1");
    talker.until_told(0, &["READY=1"]);
    let mut expected = Vec::new();
    for (number, upgrade) in [false, true, false, true].into_iter().enumerate() {
        talker.order(&format!(
            "printf 'half {number}, '; printf '%020000d' 0 >&2"
        ));
        wait_for("it is read", || {
            [handover::FD_STDOUT, handover::FD_STDERR]
                .iter()
                .all(|name| {
                    let pipe = &talker.bench.store[*name];
                    rustix::io::ioctl_fionread(pipe.as_fd()).expect("asks") == 0
                })
        });
        let told = talker.bench.told.len();
        match upgrade {
            false => talker.replace(),
            true => talker.signal(Signal::SIGUSR1),
        }
        talker.until_told(told, &["READY=1"]);
        talker.order(&format!("echo whole {number}; echo {number} >&2"));
        let line = format!("half {number}, whole {number}");
        talker.bench.until_line(&line);
        expected.push(line);
        let line = format!("{:020000}{number}", 0);
        talker.bench.until_line(&line);
        expected.push(line);
    }
    assert_eq!(talker.bench.lines[1..], expected);
    terminate(&talker.supervisor);
    assert_eq!(
        talker.bench.until_end(&mut talker.supervisor).code(),
        Some(0)
    );
}
