//! `box-supervisor` as systemd starts it, with real pipes, a real process in a real cgroup, and real sockets
//! where systemd and journald listen.
//!
//! Needs root and a cgroup2 tree. The supervisor runs in a mount namespace of its own, in which the journal's
//! socket is a test's; every supervisor is started by a copy of this program, see [`launcher`].

mod bench;
mod speaking;

use std::fs;
use std::io::{self};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use boxd::handover::{self, Document};
use boxd::plan::ReadyWhen;
use boxd::systemd::notify;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::FdFlags;

use bench::{Bench, Payload, processes, receive_up_to, terminate};

/// No test, but the process that starts a supervisor: it stands in for `boxd run` and, for an heir, for systemd.
#[test]
fn launcher() {
    let Some(directory) = std::env::var_os("BENCH_DIRECTORY").map(PathBuf::from) else {
        return;
    };
    // What the shell around cargo had open would stand where the descriptors belong.
    boxd::sys::close_from(3).expect("closes");
    let text = |name| std::env::var(name).unwrap_or_default();
    let cgroup = PathBuf::from(text("BENCH_CGROUP"));
    let descriptors = if text("BENCH_HEIR").is_empty() {
        begin(&directory, &cgroup)
    } else {
        inherit(&directory)
    };
    unshare(CloneFlags::CLONE_NEWNS).expect("unshares");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("makes private");
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("mounts");
    fs::create_dir_all("/run/systemd/journal").expect("makes a directory");
    let journal = directory.join("journal");
    let at = "/run/systemd/journal";
    mount(Some(&journal), at, none, MsFlags::MS_BIND, none).expect("binds");

    let away: Vec<(String, OwnedFd)> = descriptors
        .into_iter()
        .map(|(name, fd)| {
            let away = rustix::io::fcntl_dupfd_cloexec(&fd, 100).expect("duplicates");
            (name, away)
        })
        .collect();
    let mut passed = Vec::new();
    let mut names = Vec::new();
    for (name, fd) in away {
        let fd = rustix::io::fcntl_dupfd_cloexec(&fd, 3).expect("duplicates");
        assert_eq!(fd.as_raw_fd() as usize, 3 + passed.len());
        rustix::io::fcntl_setfd(&fd, FdFlags::empty()).expect("sets");
        passed.push(fd);
        names.push(name);
    }
    let mut words = vec![env!("CARGO_BIN_EXE_box-supervisor").to_owned()];
    let wrapper = text("BENCH_WRAPPER");
    words.splice(0..0, wrapper.split_whitespace().map(str::to_owned));
    let error = Command::new(&words[0])
        .args(&words[1..])
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDS", passed.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .exec();
    panic!("{error}");
}

#[expect(
    clippy::zombie_processes,
    reason = "this process becomes the supervisor, which waits for it"
)]
fn begin(directory: &Path, cgroup: &Path) -> Vec<(String, OwnedFd)> {
    let text = |name| std::env::var(name).unwrap_or_default();
    let is_set = |name| !text(name).is_empty();
    let namespace = is_set("BENCH_NAMESPACE");
    let notify = directory.join("speak");
    let socket = is_set("BENCH_SPEAKS").then(|| {
        let socket = UnixDatagram::bind(&notify).expect("binds");
        rustix::net::sockopt::set_socket_passcred(&socket, true).expect("sets");
        socket
    });
    let (stdout, stdout_writer) = io::pipe().expect("makes a pipe");
    let (stderr, stderr_writer) = io::pipe().expect("makes a pipe");
    let enter = if namespace {
        "exec unshare --pid --fork /bin/sh -c \"$2\""
    } else {
        "exec /bin/sh -c \"$2\""
    };
    let child = Command::new("/bin/sh")
        .args(["-c", &format!("echo $$ >\"$1\"; {enter}"), "sh"])
        .arg(cgroup.join("cgroup.procs"))
        .arg(text("BENCH_SCRIPT"))
        .env("NOTIFY_SOCKET", &notify)
        .env("SPEAKER", speaker())
        .stdin(Stdio::null())
        .stdout(stdout_writer)
        .stderr(stderr_writer)
        .spawn()
        .expect("starts");
    let pid = if namespace {
        loop {
            let found = processes(cgroup);
            let other = found.iter().find(|pid| **pid != child.id() as i32);
            if let Some(pid) = other {
                break *pid;
            }
        }
    } else {
        let events = cgroup.join("cgroup.events");
        let populated = || {
            fs::read_to_string(&events)
                .expect("reads")
                .contains("populated 1")
        };
        let entered = || fs::read_to_string(format!("/proc/{}/cgroup", child.id()));
        while !populated() && entered().is_ok_and(|text| !text.contains("boxd-test")) {
            std::thread::yield_now();
        }
        child.id() as i32
    };
    let pidfd = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(pid).expect("is no zero"),
        rustix::process::PidfdFlags::empty(),
    )
    .expect("opens");
    let document = handover::seal(&Document {
        version: handover::VERSION,
        boxd: env!("CARGO_PKG_VERSION").into(),
        name: "test".parse().expect("is a name"),
        description: "A test".into(),
        pid,
        started: 0,
        cgroup: cgroup.to_owned(),
        scope: "box-test.scope".into(),
        ids: is_set("BENCH_IDS").then_some(bench::IDS),
        root: "host".into(),
        ready: match socket {
            Some(_) => ReadyWhen::Notify,
            None => ReadyWhen::Started,
        },
        ready_by: (handover::now() + 60 * bench::PATIENCE).as_micros() as u64,
        output: boxd::plan::Output::default(),
        watchdog: None,
        health: None,
        stop_signal: libc::SIGTERM,
        stop_timeout: Duration::from_millis(text("BENCH_TIMEOUT").parse().expect("is a number")),
        idle: None,
    })
    .expect("seals");
    let mut all = vec![
        (handover::FD_DOCUMENT, document),
        (handover::FD_PROCESS, pidfd),
        (handover::FD_STDOUT, stdout.into()),
        (handover::FD_STDERR, stderr.into()),
    ];
    all.extend(socket.map(|socket| (handover::FD_NOTIFY, socket.into())));
    all.into_iter()
        .map(|(name, fd)| {
            notify::store(name, fd.as_fd()).expect("stores");
            (name.to_owned(), fd)
        })
        .collect()
}

/// How a payload starts [`speaking::speaker`].
fn speaker() -> String {
    let program = std::env::current_exe().expect("is known");
    format!("{} --exact speaking::speaker", program.display())
}

fn inherit(directory: &Path) -> Vec<(String, OwnedFd)> {
    let stream = UnixStream::connect(directory.join("store")).expect("connects");
    std::iter::from_fn(|| receive_up_to(&stream, 32))
        .map(|(name, fd)| (name.trim_end().to_owned(), fd.expect("has a descriptor")))
        .collect()
}

#[test]
fn a_box_is_ready_its_output_reaches_the_journal_and_its_status_is_passed_on() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new("echo one; echo two >&2; printf half; exit 3"));
    let status = bench.until_end(&mut supervisor);
    assert_eq!(status.code(), Some(3), "{bench:?}");
    let mut lines = bench.lines.clone();
    lines.sort();
    assert_eq!(lines, ["half", "one", "two"]);
    assert_eq!(bench.told[0], "READY=1");
    assert!(bench.told[1].starts_with("STATUS=running, pid "));
    assert_eq!(
        bench.told.last().map(String::as_str),
        Some("STATUS=ended with exit status 3")
    );
    assert_eq!(bench.result(), Some("exit-code"));
    assert!(bench.store.is_empty(), "{:?}", bench.store);
}

#[test]
fn a_box_ended_by_a_signal_gives_128_and_its_number() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new("kill -USR1 $$"));
    assert_eq!(bench.until_end(&mut supervisor).code(), Some(138));
    assert_eq!(bench.result(), Some("signal"));
}

#[test]
fn a_box_that_handles_the_stop_signal_has_its_say() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new(
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done",
    ));
    bench.until_line("up");
    terminate(&supervisor);
    assert_eq!(bench.until_end(&mut supervisor).code(), Some(0));
    assert_eq!(bench.lines, ["up", "bye"]);
    assert!(bench.told.iter().any(|line| line == "STOPPING=1"));
    assert!(
        bench
            .told
            .iter()
            .any(|line| line.starts_with("EXTEND_TIMEOUT_USEC="))
    );
    assert_eq!(bench.result(), Some("success"));
}

#[test]
fn a_box_that_ignores_the_stop_signal_is_killed_with_all_its_processes() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload {
        stop_timeout: Duration::from_millis(100),
        ..Payload::new("trap '' TERM; setsid sleep 1000 & echo up; while :; do sleep 0.01; done")
    });
    bench.until_line("up");
    terminate(&supervisor);
    assert_eq!(bench.until_end(&mut supervisor).code(), Some(137));
    assert_eq!(bench.result(), Some("timeout"));
    assert!(bench.processes().is_empty());
}

#[test]
fn pid_1_without_a_handler_is_killed_at_once_and_counts_as_stopped() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload {
        namespace: true,
        // Far beyond the patience of this test.
        stop_timeout: Duration::from_secs(3600),
        ..Payload::new("echo up; exec sleep 1000")
    });
    bench.until_line("up");
    // The shell may still be about to become sleep; as pid 1 without a handler both are deaf.
    terminate(&supervisor);
    assert_eq!(bench.until_end(&mut supervisor).code(), Some(0));
    assert!(bench.processes().is_empty());
}

#[test]
fn what_outlives_the_first_process_is_killed() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new("setsid sleep 1000 & exit 0"));
    assert_eq!(bench.until_end(&mut supervisor).code(), Some(0));
    assert!(bench.processes().is_empty());
}

#[test]
fn output_survives_a_journal_that_goes_and_comes_back() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new(
        "trap 'exit 0' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.002; done",
    ));
    bench.until_line("20");
    bench.close_journal();
    std::thread::sleep(Duration::from_millis(100));
    bench.open_journal();
    let before = bench.lines.len();
    bench.until("more lines", |bench| bench.lines.len() > before + 50);
    terminate(&supervisor);
    assert_eq!(bench.until_end(&mut supervisor).code(), Some(0));
    let numbers: Vec<usize> = bench
        .lines
        .iter()
        .map(|line| line.parse().expect("is a number"))
        .collect();
    // What the old socket held when it was closed is gone with it; the supervisor loses nothing and doubles
    // nothing.
    assert!(numbers.is_sorted());
    assert!(
        numbers
            .windows(2)
            .filter(|pair| pair[0] + 1 != pair[1])
            .count()
            <= 1
    );
}

#[test]
fn a_flood_waits_for_a_slow_journal_and_none_of_it_is_lost() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new("exec seq 1 100000"));
    bench.until_ready();
    let mut greatest = 0;
    for _ in 0..200 {
        bench.take_entries(50);
        let status = fs::read_to_string(format!("/proc/{}/status", supervisor.id()));
        let anonymous = status.ok().and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"))?;
            line.trim_end_matches("kB").trim().parse::<u32>().ok()
        });
        greatest = greatest.max(anonymous.expect("the supervisor lives"));
    }
    assert_eq!(bench.until_end(&mut supervisor).code(), Some(0));
    assert_eq!(bench.lines.len(), 100_000);
    let in_order = (1..=100_000usize).map(|number| number.to_string());
    assert!(
        bench
            .lines
            .iter()
            .zip(in_order)
            .all(|(line, number)| *line == number)
    );
    assert!(greatest < 2048, "{greatest} KiB");
}

#[test]
fn a_stuck_journal_does_not_hold_a_stop_and_what_is_dropped_is_counted() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new("exec yes"));
    bench.until_ready();
    bench.close_journal();
    std::thread::sleep(Duration::from_millis(50));
    terminate(&supervisor);
    let status = bench.until_end(&mut supervisor);
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        bench.told.last().map(String::as_str),
        Some("STATUS=stopped")
    );
}

#[test]
fn a_killed_supervisor_leaves_the_box_and_its_heirs_lose_and_double_no_line() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new(
        "trap 'exit 7' TERM; n=0; while :; do n=$((n+1)); echo $n; \
         [ $((n % 500)) = 0 ] && sleep 0.01; done",
    ));
    bench.until_ready();
    let payload = bench.processes();
    for round in 0..20 {
        let lines = bench.lines.len() + 100 + 37 * round;
        bench.until("lines", |bench| bench.lines.len() >= lines);
        supervisor.kill().expect("kills");
        assert_eq!(
            supervisor.wait().expect("waits").signal(),
            Some(libc::SIGKILL)
        );
        bench.take();
        assert_eq!(bench.processes()[0], payload[0]);
        supervisor = bench.succeed("");
    }
    let lines = bench.lines.len() + 100;
    bench.until("lines", |bench| bench.lines.len() >= lines);
    let ready = bench.told.iter().filter(|line| *line == "READY=1").count();
    assert!(ready >= 2, "{ready}");
    terminate(&supervisor);
    let status = bench.until_end(&mut supervisor);
    for (index, line) in bench.lines.iter().enumerate() {
        assert_eq!(*line, (index + 1).to_string());
    }
    // The payload was the first supervisor's child, and this test does not wait for it: what the kernel keeps
    // of a process nobody has waited for tells its status.
    assert_eq!(status.code(), Some(7), "{bench:?}");
    assert!(bench.store.is_empty());
}

#[test]
fn a_box_that_ends_while_nobody_supervises_is_reported_by_the_heir() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new("echo up; sleep 0.2; echo last; exit 0"));
    bench.until_line("up");
    supervisor.kill().expect("kills");
    supervisor.wait().expect("waits");
    bench.take();
    bench.until("its end", |bench| bench.processes().is_empty());
    let mut heir = bench.succeed("");
    let status = bench.until_end(&mut heir);
    assert!(
        matches!(status.code(), Some(0 | 255)),
        "{status:?} {bench:?}"
    );
    assert_eq!(bench.lines, ["up", "last"]);
}

#[test]
fn without_descriptors_there_is_nothing_to_supervise() {
    let output = Command::new(env!("CARGO_BIN_EXE_box-supervisor"))
        .env_remove("LISTEN_PID")
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("is text");
    assert!(
        text.contains("box-supervisor is started by `boxd run NAME`"),
        "{text}"
    );
}

/// The calls at which a supervisor is killed: a sample, or with `BOXD_SWEEP` set every one.
fn calls(first: u32) -> impl Iterator<Item = u32> {
    let every = std::env::var_os("BOXD_SWEEP").is_some();
    (first..).step_by(if every { 1 } else { 5 })
}

/// Runs a supervisor so that it is killed at its system call of this number.
fn killed_at(call: u32) -> String {
    format!("strace -D -qq -o /dev/null -e trace=all -e inject=all:signal=KILL:when={call}")
}

#[test]
fn killed_at_any_system_call_a_supervisor_loses_and_doubles_no_line() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new(
        "trap 'exit 7' TERM; n=0; while :; do n=$((n+1)); echo $n; \
         [ $((n % 7)) = 0 ] && sleep 0.001; done",
    ));
    bench.until_ready();
    for call in calls(1) {
        supervisor.kill().expect("kills");
        supervisor.wait().expect("waits");
        bench.take();
        assert!(!bench.processes().is_empty());
        let told = bench.told.len();
        supervisor = bench.succeed(&killed_at(call));
        bench.until_end(&mut supervisor);
        // Far beyond the start, where every round of the loop is like the one before.
        if bench.told[told..].len() >= 2 && call >= 250 {
            break;
        }
    }
    supervisor = bench.succeed("");
    let lines = bench.lines.len() + 20;
    bench.until("lines", |bench| bench.lines.len() >= lines);
    terminate(&supervisor);
    bench.until_end(&mut supervisor);
    for (index, line) in bench.lines.iter().enumerate() {
        assert_eq!(*line, (index + 1).to_string());
    }
}

#[test]
fn killed_at_any_system_call_of_a_stop_a_supervisor_leaves_a_box_that_can_be_stopped() {
    // Before this call it is not ready, which the test above is about.
    for call in calls(60) {
        let mut bench = Bench::new();
        let mut supervisor = bench.launch(Payload::new(
            "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done",
        ));
        bench.until_line("up");
        supervisor.kill().expect("kills");
        supervisor.wait().expect("waits");
        bench.take();
        let told = bench.told.len();
        supervisor = bench.succeed(&killed_at(call));
        let begin = Instant::now();
        let dead = loop {
            bench.take();
            if supervisor.try_wait().expect("waits").is_some() {
                break true;
            }
            // It waits for events, so the next call is one that the stop causes.
            if bench.told.len() >= told + 2 && begin.elapsed() > Duration::from_millis(200) {
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if !dead {
            terminate(&supervisor);
            let status = bench.until_end(&mut supervisor);
            if status.code().is_some() {
                // It came to its end before the call was reached.
                assert_eq!(status.code(), Some(0), "call {call}");
                assert!(bench.store.is_empty(), "call {call}");
                return;
            }
        }
        bench.take();
        if bench.store.contains_key(handover::FD_DOCUMENT) {
            let told = bench.told.len();
            let mut heir = bench.succeed("");
            bench.until("ready again", |bench| {
                bench.told[told..].iter().any(|line| line == "READY=1")
            });
            terminate(&heir);
            let status = bench.until_end(&mut heir);
            assert_eq!(status.code(), Some(0), "call {call}: {status:?} {bench:?}");
            assert!(bench.store.is_empty(), "call {call}: {:?}", bench.store);
        }
        // Without the document the box was over, and only the forgetting was left.
        assert!(bench.processes().is_empty(), "call {call}");
        assert_eq!(bench.lines, ["up", "bye"], "call {call}");
    }
}

#[test]
fn killed_at_any_system_call_a_supervisor_leaves_its_heir_the_end_to_report() {
    let mut unknown = 0;
    for call in calls(60) {
        let mut bench = Bench::new();
        let mut supervisor = bench.launch(Payload::new("echo up; sleep 0.3; echo last; exit 3"));
        bench.until_line("up");
        supervisor.kill().expect("kills");
        supervisor.wait().expect("waits");
        bench.take();
        supervisor = bench.succeed(&killed_at(call));
        let status = bench.until_end(&mut supervisor);
        let mut done = status.code().is_some();
        let mut code = status.code();
        if !done && bench.store.contains_key(handover::FD_DOCUMENT) {
            let mut heir = bench.succeed("");
            code = bench.until_end(&mut heir).code();
        } else if !done {
            // Everything was said and forgotten; only the exit itself was missed.
            code = Some(3);
            done = true;
        }
        assert!(matches!(code, Some(3 | 255)), "call {call}: {bench:?}");
        unknown += u32::from(code == Some(255));
        assert!(bench.store.len() <= 1, "call {call}: {:?}", bench.store);
        assert_eq!(bench.lines, ["up", "last"], "call {call}");
        if done {
            break;
        }
    }
    // Before Linux 6.15 nobody knows how a stranger's child ended, once it was waited for.
    let release = rustix::system::uname();
    let release = release.release().to_str().expect("is text");
    let mut numbers = release.split(['.', '-']).map(|text| text.parse::<u32>());
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) >= (6, 15)
    {
        assert_eq!(unknown, 0);
    }
}

#[test]
fn a_supervisor_is_replaced_in_place_and_still_learns_how_its_child_ends() {
    let mut bench = Bench::new();
    let mut supervisor = bench.launch(Payload::new(
        "trap 'exit 7' TERM; n=0; while :; do n=$((n+1)); echo $n; \
         [ $((n % 50)) = 0 ] && sleep 0.001; done",
    ));
    bench.until_ready();
    for _ in 0..50 {
        let ready = bench.told.iter().filter(|line| *line == "READY=1").count();
        kill(Pid::from_raw(supervisor.id() as i32), Signal::SIGUSR1).expect("signals");
        bench.until("ready again", |bench| {
            bench.told.iter().filter(|line| *line == "READY=1").count() > ready
        });
    }
    terminate(&supervisor);
    assert_eq!(
        bench.until_end(&mut supervisor).code(),
        Some(7),
        "{bench:?}"
    );
    for (index, line) in bench.lines.iter().enumerate() {
        assert_eq!(*line, (index + 1).to_string());
    }
    assert!(bench.store.is_empty());
}
