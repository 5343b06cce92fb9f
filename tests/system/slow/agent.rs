//! The agent: editing the file is enough.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::apply::{RUNS, history};
use crate::guest::{
    define, define_script, must, pid, property, sh, start, unit, wait_for, wait_for_state, write,
};
use crate::sockets::{SERVER, ask, define_server};

/// Waits until `systemctl status boxd` has these words.
#[track_caller]
fn agent_says(words: &str) {
    wait_for(&format!("boxd.service says {words:?}"), || {
        property("boxd.service", "StatusText").contains(words)
    });
}

/// The agent does all that when a file is edited, however that is done; what it cannot use it says, and nothing depends
/// on its life.
#[test]
fn an_edited_file_is_enough() {
    let waits = "while ! test -e /told/it; do sleep 0.2; done; . /told/it; \
                 systemd-notify --ready; exec sleep infinity";
    let text = |hostname: &str| {
        format!(
            "command = ['/bin/sh', '-c', '{waits}']\nhostname = '{hostname}'\nready.when = 'notify'\n\
             ready.timeout = '10min'\nrestart.policy = 'no'\n[[mount]]\nbind = '/srv/told'\nat = '/told'\n"
        )
    };
    let runs_as = |hostname: &str| {
        let ran = sh("boxctl exec web -- cat /etc/hostname");
        ran.status == 0 && ran.out == hostname
    };
    let web = "/etc/boxd/web.toml";
    must("mkdir -p /srv/told; echo true > /srv/told/it");
    define("web", &text("first"));
    define_script("db", RUNS, "");
    start("web");
    start("db");
    let before = ["web", "db"].map(pid);
    must("systemctl unmask boxd; systemctl start boxd");
    agent_says("generation 1 is in force");
    assert_eq!(["web", "db"].map(pid), before);

    // As editors write: by another name, or in place and not at once.
    write("/etc/boxd/.new", &text("second"));
    must("mv /etc/boxd/.new /etc/boxd/web.toml");
    wait_for("the second definition", || runs_as("second"));
    agent_says("generation 2 is in force");
    let (start, rest) = (text("third"), "description = 'Third'\n");
    let mut file = fs::File::create(web).expect("truncated");
    std::thread::sleep(Duration::from_secs(2));
    file.write_all(rest.as_bytes()).expect("written");
    std::thread::sleep(Duration::from_secs(2));
    file.write_all(start.as_bytes()).expect("written");
    drop(file);
    wait_for("the third definition", || runs_as("third"));
    agent_says("generation 3 is in force");
    assert_eq!(property(&unit("web"), "Description"), "Third");

    define(
        "new",
        "command = ['/bin/sleep', 'infinity']\nstart-at-boot = true\n",
    );
    wait_for_state(&unit("new"), "active");
    agent_says("generation 4 is in force");
    must("rm /etc/boxd/new.toml");
    wait_for_state(&unit("new"), "inactive");
    agent_says("generation 5 is in force");

    let payload = pid("web");
    define("web", "hostnme = 'broken'\n");
    agent_says("box web is held: its file");
    wait_for("the problem is in its journal", || {
        must("journalctl --sync; journalctl --no-pager -o cat -u boxd").contains("hostnme")
    });
    must("mv /etc/boxd /etc/boxd.away");
    agent_says("/etc/boxd is not there");
    must("mv /etc/boxd.away /etc/boxd");
    agent_says("box web is held: its file");
    assert_eq!(pid("web"), payload);
    // The generation before knows it by its own words, and nothing is to be done.
    define("web", &format!("{rest}{start}"));
    wait_for("it is not held any more", || {
        !property("boxd.service", "StatusText").contains("held")
    });
    assert_eq!(pid("web"), payload);

    let refused = text("refused").replace(waits, "exit 7");
    define("web", &refused);
    agent_says("box web is held: it did not restart");
    assert!(runs_as("third"));
    assert_eq!(history()[..2], ["applied", "failed"]);

    must("rm /srv/told/it");
    define("web", &text("fourth"));
    wait_for("box web waits for its word", || runs_as("fourth"));
    let killed = property("boxd.service", "MainPID");
    must("systemctl kill --signal=KILL boxd");
    wait_for("another agent", || {
        !["0", &killed].contains(&&*property("boxd.service", "MainPID"))
    });
    must("echo true > /srv/told/it");
    wait_for_state(&unit("web"), "active");
    wait_for("it is finished", || history()[0] == "applied");
    let payload = pid("web");

    write("/etc/boxd.toml", "apply = 'plan'\n");
    define("web", &text("fifth"));
    agent_says("`boxctl apply` would restart web");
    must("systemctl stop boxd");
    assert_eq!([pid("web"), pid("db")], [payload, before[1]]);
    must("boxctl apply; rm /etc/boxd.toml");
    assert!(runs_as("fifth"));
    must("systemctl restart box@web; systemctl stop box@web box@db");
}

/// Ends the clients, also where the test fails.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Under load a bad change refuses nobody, nor does its end: who connects meanwhile is answered by the definition before.
#[test]
fn a_bad_change_under_load_is_put_back_and_nobody_is_refused() {
    let socket = "[[socket]]\nstream = 8080\nbacklog = 4096\n";
    define_server(socket);
    write("/usr/local/lib/bad.py", &SERVER.replace("hello", "bye"));
    must("systemctl start box@web.socket");
    assert_eq!(ask(8080).expect("an answer"), "hello");
    must("systemctl unmask boxd; systemctl start boxd");
    agent_says("generation 1 is in force");
    let enough = AtomicBool::new(false);
    let answered = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let _at_last = Enough(&enough);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !enough.load(Ordering::Relaxed) {
                        let said = ask(8080).expect("an answer");
                        assert!(["hello", "bye"].contains(&&*said), "{said}");
                        answered.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(200));
                    }
                })
            })
            .collect();
        let more_answers = || {
            let seen = answered.load(Ordering::Relaxed);
            let lives = || clients.iter().any(|client| !client.is_finished());
            wait_for("more answers", || {
                !lives() || answered.load(Ordering::Relaxed) > seen + 8
            });
        };
        more_answers();
        let bad = "command = ['/bin/false']\nready.when = 'notify'\nrestart.policy = 'no'\n";
        define("web", &format!("{bad}{socket}"));
        agent_says("box web is held: it did not restart");
        more_answers();
        assert_eq!(history()[..3], ["applied", "failed", "applied"]);
        assert_eq!(ask(8080).expect("an answer"), "hello");

        // What comes up and does the wrong thing somebody sees, and takes back.
        define(
            "web",
            &format!("command = ['/usr/bin/python3', '-I', '/usr/local/lib/bad.py']\n{socket}"),
        );
        agent_says("generation 4 is in force");
        assert_eq!(ask(8080).expect("an answer"), "bye");
        must("boxctl rollback");
        assert_eq!(ask(8080).expect("an answer"), "hello");
        define("db", "command = ['/bin/sleep', 'infinity']\n");
        agent_says("box web is held: rolled back");
        more_answers();
        assert_eq!(ask(8080).expect("an answer"), "hello");
        enough.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("nobody was refused");
        }
    });
}
