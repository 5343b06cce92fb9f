//! Sockets start a box, outlive it, and are its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::guest::{
    define, inside, journal, must, pid, printed, property, refused, sh, start, status, unit,
    wait_for, wait_for_line, write,
};

/// Says what it was given, then answers every connection of its sockets with a line. Asked to stop, it answers those
/// it has taken first.
pub const SERVER: &str = r#"
import os, select, signal, socket, sys
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
count = int(os.environ["LISTEN_FDS"])
open_here = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1]
print("given", os.environ["LISTEN_PID"], os.environ["LISTEN_FDNAMES"], open_here, flush=True)
servers = [socket.socket(fileno=fd) for fd in range(3, 3 + count)]
for server in servers: server.setblocking(False)
while not stop:
    for server in select.select(servers, [], [], 0.5)[0]:
        if server.type == socket.SOCK_DGRAM:
            print("heard", server.recv(100).decode(), flush=True)
            continue
        try: taken, _ = server.accept()
        except BlockingIOError: continue
        taken.setblocking(True)
        if server.family == socket.AF_UNIX or taken.recv(1) == b"?":
            taken.sendall(b"hello\n")
        taken.close()
"#;

pub fn define_server(more: &str) {
    write("/usr/local/lib/server.py", SERVER);
    define(
        "web",
        &format!("command = ['/usr/bin/python3', '-I', '/usr/local/lib/server.py']\n{more}"),
    );
    must("systemctl daemon-reload");
}

/// Connects once, however long it takes to be answered; what was said.
pub fn ask(port: u16) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(Duration::from_secs(80)))?;
    connection.write_all(b"?")?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Socket activation as of any service: the first connection starts the box, which finds its sockets, in the
/// definition's order, and nothing else; a supervisor that is killed changes nothing about it.
#[test]
fn the_first_connection_starts_the_box_which_finds_its_sockets_and_nothing_else() {
    define_server(
        "start-at-boot = true\n\
         [[socket]]\nstream = '/run/web/control'\nname = 'control'\nmode = '0600'\n\
         [[socket]]\nstream = ['127.0.0.1:8080', '127.0.0.2:8080']\nname = 'http'\n\
         [[socket]]\ndatagram = '127.0.0.1:8080'\nname = 'log'\n",
    );
    assert!(property("sockets.target", "Wants").contains("box@web.socket"));
    assert!(!property("multi-user.target", "Wants").contains("box@web"));
    must("systemctl start box@web.socket");
    assert_eq!(property("box@web:http.socket", "ActiveState"), "active");
    assert_eq!(property(&unit("web"), "ActiveState"), "inactive");
    assert_eq!(must("stat -c %a /run/web/control"), "600");
    assert_eq!(ask(8080).expect("an answer"), "hello");
    assert_eq!(property(&unit("web"), "ActiveState"), "active");
    let given = "given 1 control:http:http:log [0, 1, 2, 3, 4, 5, 6]";
    wait_for_line("web", given);
    let datagram = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    datagram
        .send_to(b"hello", "127.0.0.1:8080")
        .expect("is sent");
    wait_for_line("web", "heard hello");
    let mut line = String::new();
    let control = UnixStream::connect("/run/web/control").expect("a connection");
    BufReader::new(control)
        .read_line(&mut line)
        .expect("an answer");
    assert_eq!(line, "hello\n");
    assert_eq!(
        inside("web", "sh -c 'echo ${LISTEN_FDS-none} $(ls /proc/self/fd)'"),
        "none 0 1 2 3"
    );

    let payload = pid("web");
    let supervisor = property(&unit("web"), "MainPID");
    must(&format!("kill -KILL {supervisor}"));
    wait_for("another supervisor", || {
        let new = property(&unit("web"), "MainPID");
        property(&unit("web"), "ActiveState") == "active" && new != supervisor && new != "0"
    });
    assert_eq!(pid("web"), payload);
    assert_eq!(ask(8080).expect("an answer"), "hello");

    let sockets = status("web")["sockets"].clone();
    assert_eq!(sockets[0]["unit"], "box@web.socket");
    assert_eq!(
        sockets[0]["listen"],
        serde_json::json!(["/run/web/control"])
    );
    assert_eq!(
        (&sockets[0]["is-open"], &sockets[1]["is-open"]),
        (&true.into(), &true.into())
    );
    let said = sh("boxctl stop web");
    assert_eq!(said.status, 0);
    assert!(
        said.err.contains("the next connection starts it again"),
        "{}",
        said.err
    );

    // Started by hand, it opens its sockets itself; all of them stop with the first.
    must("systemctl stop box@web.socket");
    assert_eq!(property("box@web:http.socket", "ActiveState"), "inactive");
    assert_eq!(sh("test -e /run/web/control").status, 1);
    assert!(ask(8080).is_err());
    start("web");
    assert_eq!(ask(8080).expect("an answer"), "hello");
    wait_for("a second life", || {
        printed("web").iter().filter(|line| *line == given).count() == 2
    });
}

/// Under load, a restart refuses nobody: whoever connects is answered, if not by this box then by the next.
#[test]
fn a_restart_loses_no_connection_attempt() {
    let lives = || {
        let given = |line: &&String| line.starts_with("given");
        printed("web").iter().filter(given).count()
    };
    let before = lives();
    define_server("[[socket]]\nstream = 8080\nbacklog = 4096\n");
    must("systemctl start box@web.socket");
    let enough = AtomicBool::new(false);
    let answered = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !enough.load(Ordering::Relaxed) {
                        assert_eq!(ask(8080).expect("an answer"), "hello");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for round in 0..4 {
            let before = answered.load(Ordering::Relaxed);
            wait_for("a hundred answers", || {
                clients.iter().any(|client| client.is_finished())
                    || answered.load(Ordering::Relaxed) > before + 100
            });
            if round < 3 {
                must("systemctl restart box@web");
            }
        }
        enough.store(true, Ordering::Relaxed);
    });
    assert_eq!(lives() - before, 4);
}

/// `idle-stop`: connections that last and connections that come and go keep a box alive; without any it is stopped,
/// well, whatever its restart policy, and the next connection starts it, even one that comes while it stops.
#[test]
fn a_box_that_nobody_uses_is_stopped_until_the_next_connection() {
    define_server(
        "idle-stop = '5s'\n[[socket]]\nstream = 8080\n[[socket]]\nname = 'unix'\nstream = '/run/web/socket'\n\
         [restart]\npolicy = 'always'\n",
    );
    must("systemctl start box@web.socket");
    assert_eq!(ask(8080).expect("an answer"), "hello");
    let first = pid("web");
    let held = TcpStream::connect(("127.0.0.1", 8080)).expect("a connection");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(pid("web"), first, "a connection lives");
    drop(held);
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500));
        let mut line = String::new();
        let connection = UnixStream::connect("/run/web/socket").expect("a connection");
        BufReader::new(connection)
            .read_line(&mut line)
            .expect("an answer");
        assert_eq!(line, "hello\n");
        assert_eq!(ask(8080).expect("an answer"), "hello");
    }
    assert_eq!(pid("web"), first, "connections came and went");
    wait_for("a stop", || {
        property(&unit("web"), "ActiveState") != "active"
    });
    // This life or the next answers.
    assert_eq!(ask(8080).expect("an answer"), "hello");
    let inactive = || property(&unit("web"), "ActiveState") == "inactive";
    wait_for("the end", inactive);
    assert_eq!(ask(8080).expect("an answer"), "hello");
    assert_ne!(pid("web"), first);
    wait_for("another end", inactive);
    assert_eq!(property(&unit("web"), "Result"), "success");
    assert_eq!(property(&unit("web"), "NRestarts"), "0");
    assert_eq!(property("box@web.socket", "SubState"), "listening");
    assert!(journal("web").contains("nobody has used its sockets for 5s"));
    assert_eq!(sh("test -e /run/boxd/web").status, 1);
}

/// A slip in the definition closes no socket; the box then does not start and says why, until systemd has had enough
/// and closes the socket itself. Without a definition a box that runs goes on, and nothing starts it again.
#[test]
fn a_broken_definition_keeps_its_sockets_and_a_removed_one_does_not() {
    define_server("[[socket]]\nstream = 8080\n");
    must("systemctl start box@web.socket");
    assert_eq!(ask(8080).expect("an answer"), "hello");
    let good = std::fs::read_to_string("/etc/boxd/web.toml").expect("a definition");
    let payload = pid("web");
    define("web", &format!("no-such-key = 1\n{good}"));
    // A slow machine does not fail five times in ten seconds.
    must("mkdir -p /etc/systemd/system/box@web.service.d");
    must(
        "printf '[Unit]\\nStartLimitIntervalSec=1h\\n' > /etc/systemd/system/box@web.service.d/zz-limit.conf",
    );
    must("systemctl daemon-reload");
    assert_eq!(ask(8080).expect("an answer"), "hello");
    assert_eq!(pid("web"), payload);
    must("systemctl stop box@web");
    let mut waiting = TcpStream::connect(("127.0.0.1", 8080)).expect("a connection");
    let _ = waiting.write_all(b"?");
    wait_for("enough starts", || {
        property("box@web.socket", "Result") == "service-start-limit-hit"
    });
    assert!(journal("web").contains("no-such-key"), "{}", journal("web"));
    assert!(ask(8080).is_err());

    define("web", &good);
    must("systemctl daemon-reload; systemctl reset-failed; systemctl start box@web.socket");
    assert_eq!(ask(8080).expect("an answer"), "hello");
    must("rm /etc/boxd/web.toml; systemctl daemon-reload");
    assert_eq!(ask(8080).expect("an answer"), "hello");
    must("systemctl stop box@web");
    assert!(ask(8080).is_err());
    refused("systemctl start box@web.socket");
}
