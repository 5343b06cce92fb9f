//! What boxes use and how they are, as a collector of metrics reads it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::guest::{
    define_script, journal, must, pid, property, sh, start, status, stop, unit, wait_for,
    wait_for_state, write,
};

const SOCKET: &str = "/run/boxd/metrics.sock";

const QUESTION: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n";

fn ask(stream: &mut (impl Read + Write), more: &str) -> Option<String> {
    stream
        .write_all(format!("{QUESTION}{more}\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The whole answer at the socket.
fn answer(more: &str) -> Option<String> {
    ask(&mut UnixStream::connect(SOCKET).ok()?, more)
}

fn answer_at(address: &str) -> Option<String> {
    ask(&mut TcpStream::connect(address).ok()?, "")
}

/// All samples by their names and labels.
fn samples(answer: &str) -> BTreeMap<String, f64> {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

fn told() -> BTreeMap<String, f64> {
    samples(&answer("").expect("an answer"))
}

fn told_of(name: &str, figure: &str) -> Option<f64> {
    told()
        .get(&format!("boxd_box_{figure}{{box=\"{name}\"}}"))
        .copied()
}

fn said_by_agent() -> String {
    must("journalctl --sync; journalctl --no-pager -o cat -u boxd.service")
}

/// What is told is what systemd and the kernel say, whatever becomes of a box; root alone is told, and who the settings
/// name; no client keeps another from being told; and an edit of the settings is followed, or what is wrong with it
/// said.
#[test]
fn metrics_are_served_to_those_who_may_read_them() {
    define_script(
        "web",
        "yes 0123456789 | head -n 100\nexec sleep infinity",
        "restart.policy = 'always'\nrestart.delay = '100ms'\nrestart.limit-interval = 0\n[output]\nrate-lines = 10\nrate-interval = '1h'\n[health]\ncommand = ['/bin/true']\ninterval = '1s'\n",
    );
    define_script("broken", "exit 3", "");
    define_script("gone", "exec sleep infinity", "");
    for name in ["web", "gone"] {
        start(name);
    }
    sh("systemctl start box@broken");
    wait_for_state(&unit("broken"), "failed");
    stop("gone");
    write("/etc/boxd.toml", "apply = 'plan'\n");
    sh("rm -f /etc/systemd/system/boxd.service; systemctl daemon-reload");
    must("systemctl restart boxd");
    wait_for("the socket is served", || answer("").is_some());

    let answer_of = answer("Accept: application/openmetrics-text\r\n").expect("an answer");
    assert!(answer_of.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0"));
    assert!(answer_of.ends_with("\n# EOF\n"), "{answer_of}");
    assert!(
        answer("")
            .expect("an answer")
            .contains("\r\nContent-Type: text/plain; version=0.0.4")
    );
    let all = told();
    assert!(!all.keys().any(|sample| sample.contains("gone")), "{all:?}");
    assert_eq!(all.get("boxd_unseen_boxes"), Some(&0.0));
    let of_broken = all.keys().filter(|sample| sample.contains("broken"));
    let of_broken: Vec<_> = of_broken.collect();
    assert_eq!(
        of_broken,
        [
            "boxd_box_restarts_total{box=\"broken\"}",
            "boxd_box_up{box=\"broken\"}"
        ]
    );
    assert_eq!(told_of("broken", "up"), Some(0.0));
    assert_eq!(told_of("web", "up"), Some(1.0));
    wait_for("it is healthy", || told_of("web", "healthy") == Some(1.0));
    wait_for("90 lines of 11 bytes are dropped", || {
        told_of("web", "output_dropped_bytes_total") == Some(990.0)
    });
    let started = status("web")["payload"]["started"]
        .as_f64()
        .expect("a time");
    assert_eq!(told_of("web", "start_time_seconds"), Some(started / 1e6));
    assert!(told_of("web", "start_duration_seconds").is_some_and(|took| took > 0.0));

    // What the cgroup has is told, and what it has not is not zero.
    let cgroup = status("web")["payload"]["cgroup"]
        .as_str()
        .expect("a path")
        .to_owned();
    let all = told();
    for (file, figure) in [
        ("cpu.stat", "cpu_seconds_total"),
        ("memory.current", "memory_bytes"),
        ("memory.peak", "memory_peak_bytes"),
        ("memory.events", "oom_kills_total"),
        ("pids.current", "tasks"),
        ("io.stat", "io_read_bytes_total"),
        ("cpu.pressure", "pressure_cpu_waiting_seconds_total"),
        ("memory.pressure", "pressure_memory_stalled_seconds_total"),
        ("io.pressure", "pressure_io_waiting_seconds_total"),
    ] {
        // Where pressure is not counted the file is there, and cannot be read.
        let there = fs::read_to_string(Path::new(&cgroup).join(file)).is_ok();
        let told = all.contains_key(&format!("boxd_box_{figure}{{box=\"web\"}}"));
        assert_eq!(told, there, "{figure}");
    }
    let cpu = told_of("web", "cpu_seconds_total").expect("it is told");
    assert!(cpu > 0.0, "{cpu}");

    must(&format!("kill -KILL {}", pid("web")));
    wait_for("it has restarted", || {
        told_of("web", "restarts_total") == Some(1.0) && told_of("web", "up") == Some(1.0)
    });

    // Some ask half a question, one takes no answer, and one says something else.
    let mut held: Vec<UnixStream> = (0..40)
        .map(|_| {
            let mut stream = UnixStream::connect(SOCKET).expect("connected");
            // It may have had to make room for another one already.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:");
            stream
        })
        .collect();
    held[39]
        .write_all(b" localhost\r\n\r\n")
        .expect("it has room");
    let refused = |text: &str| {
        let mut stream = UnixStream::connect(SOCKET).expect("connected");
        stream.write_all(text.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert!(refused("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(refused("DELETE /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(refused("\x16\x03\x01\n\n").starts_with("HTTP/1.1 400 "));
    assert_eq!(told_of("web", "up"), Some(1.0));
    drop(held);

    let owner = || {
        let metadata = fs::metadata(SOCKET).expect("it is there");
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
    };
    assert_eq!(owner(), (0, 0, 0o600));
    write(
        "/etc/boxd.toml",
        "apply = 'plan'\n[metrics]\naddress = '127.0.0.1:9400'\ngroup = 'daemon'\n",
    );
    wait_for("it is served at the address", || {
        answer_at("127.0.0.1:9400").is_some()
    });
    assert_eq!(
        samples(&answer_at("127.0.0.1:9400").expect("an answer"))["boxd_unseen_boxes"],
        0.0
    );
    assert_eq!(owner(), (0, 1, 0o660));
    assert_eq!(told_of("web", "up"), Some(1.0));

    // What cannot be followed changes nothing, and is said.
    write(
        "/etc/boxd.toml",
        "apply = 'plan'\n[metrics]\naddress = '0.0.0.0:9400'\ngroup = 'daemon'\n",
    );
    wait_for("the address is refused", || {
        said_by_agent().contains("/etc/boxd.toml:3:11")
    });
    assert!(answer_at("127.0.0.1:9400").is_some());
    let taken = TcpListener::bind("127.0.0.1:9401").expect("free");
    write(
        "/etc/boxd.toml",
        "apply = 'plan'\n[metrics]\naddress = '127.0.0.1:9401'\ngroup = 'nobody-here'\n",
    );
    let says = |words: &str| property("boxd.service", "StatusText").contains(words);
    wait_for("the group is not known", || {
        says("groupadd --system nobody-here")
    });
    assert!(TcpStream::connect("127.0.0.1:9400").is_err());
    write(
        "/etc/boxd.toml",
        "apply = 'plan'\n[metrics]\naddress = '127.0.0.1:9401'\n",
    );
    wait_for("the address is taken", || {
        says("cannot serve metrics at 127.0.0.1:9401")
    });
    drop(taken);
    wait_for("the address is tried again", || {
        answer_at("127.0.0.1:9401").is_some_and(|answer| answer.contains("boxd_box_up"))
    });
    wait_for("all is well again", || !says("cannot serve"));
    assert_eq!(owner(), (0, 0, 0o600));

    // An agent that was killed leaves the socket, and the next one takes its place.
    must("systemctl kill --signal=KILL boxd");
    wait_for("the next agent serves", || {
        answer("").is_some() && answer_at("127.0.0.1:9401").is_some()
    });
    must("rm /etc/boxd.toml");
    wait_for("the address is given up", || {
        TcpStream::connect("127.0.0.1:9401").is_err()
    });
    must("systemctl stop boxd");
    wait_for_state("boxd.service", "inactive");
    assert!(!Path::new(SOCKET).exists());
    assert_eq!(
        property(&unit("web"), "ActiveState"),
        "active",
        "{}",
        journal("web")
    );
    stop("web");
}
