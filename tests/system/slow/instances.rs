//! Several boxes of one definition.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;

use crate::apply::{RUNS, history, hostname};
use crate::guest::{
    define, define_script, everything, inside, journal, must, nothing_left, pid, printed, property,
    refused, sh, start, start_refused, stop, unit, wait_for, wait_for_line, wait_for_state, write,
};

const THREE: [&str; 3] = ["web:1", "web:2", "web:3"];

fn pids() -> [i64; 3] {
    THREE.map(pid)
}

fn states(of: &[&str]) -> Vec<String> {
    let state = |name: &&str| property(&unit(name), "ActiveState");
    of.iter().map(state).collect()
}

/// Waits until all scripts have come to their end, where a signal ends them: a shell that is about to begin another
/// program blocks it for a moment, and as the first process of its box it is spared what it has no handler for.
fn all_asleep() {
    let comm = |name: &&str| fs::read_to_string(format!("/proc/{}/comm", pid(name)));
    wait_for("all instances sleep", || {
        THREE
            .iter()
            .all(|name| comm(name).is_ok_and(|comm| comm == "sleep\n"))
    });
}

/// Each instance is a box with an id range, files and a journal of its own, and has what is its own in its host name,
/// environment, mounts and sockets; one target stands for all, at boot and for those who depend on them.
#[test]
fn instances_are_boxes_of_their_own() {
    for number in 1..=3 {
        write(
            &format!("/srv/web/{number}/who"),
            &format!("the {number}th\n"),
        );
    }
    let web = |instances: &str| {
        define_script(
            "web",
            "echo \"number $NUMBER of $NAME at $PLACE\"; cat /data/who; exec sleep infinity",
            &format!(
                "{instances}\nhostname = ['shop-', {{ instance = 'index' }}, '.test']\nstart-at-boot = true\n\
                 environment = {{ NUMBER = {{ instance = 'index' }}, NAME = {{ instance = 'name' }}, \
                 PLACE = ['$NUMBER/', {{ instance = 'index' }}, '/%i'] }}\n\
                 [[mount]]\nbind = ['/srv/web/', {{ instance = 'index' }}]\nat = '/data'"
            ),
        );
        must("systemctl daemon-reload");
    };
    web("instances = 3");
    define_script("front", RUNS, "requires = ['web']");
    must("systemctl daemon-reload; systemctl start box-web.target");
    all_asleep();
    must("systemctl stop box-web.target");
    for name in THREE {
        wait_for_state(&unit(name), "inactive");
    }
    // Whoever takes the lock of the generations first makes it, and it stays.
    must(
        "install -d -m 700 /var/lib/boxd/generations && install -m 600 /dev/null /var/lib/boxd/generations/.lock",
    );
    let before = everything();
    must("systemctl start box@front");
    assert_eq!(states(&THREE), ["active"; 3]);
    assert_eq!(property("box-web.target", "ActiveState"), "active");
    let wants = property("multi-user.target", "Wants");
    assert!(
        wants.contains("box-web.target") && !wants.contains("box@web"),
        "{wants}"
    );
    let mut ids = BTreeSet::new();
    for (index, name) in (1..).zip(THREE) {
        assert_eq!(hostname(name), format!("shop-{index}.test"));
        let lines = [
            format!("number {index} of {name} at $NUMBER/{index}/%i"),
            format!("the {index}th"),
        ];
        wait_for_line(name, &lines[1]);
        // The target was started once before.
        let printed = printed(name);
        assert!(printed.ends_with(&lines), "{printed:?}");
        ids.insert(inside(name, "cut -c 1-30 /proc/self/uid_map"));
        let scope = format!("/sys/fs/cgroup/box.slice/box-{name}.scope");
        let there = sh(&format!(
            "test -d {scope} || test -d /sys/fs/cgroup/unified/box.slice/box-{name}.scope"
        ));
        assert_eq!(there.status, 0, "{scope}");
        must(&format!(
            "journalctl -q --sync; journalctl BOX_NAME={name} | grep -q 'number {index}'"
        ));
    }
    assert_eq!(ids.len(), 3, "{ids:?}");

    let page = must("boxctl status web");
    for name in THREE {
        assert!(
            page.contains(name) && page.contains("starts at boot"),
            "{page}"
        );
    }
    let table = must("boxctl status; boxctl list; boxctl logs web");
    for words in ["web:1 ", "web:3 ", "3 instances", "number 1", "number 3"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    for (command, words) in [
        ("boxctl exec web -- true", "web:1 to web:3; say which"),
        (
            "boxctl start web:4",
            "the instances of web are web:1 to web:3",
        ),
        ("boxctl start web:0", "counted from 1"),
        ("boxctl start web:01", "without zeros"),
        ("boxctl disable web:2", "say web"),
        ("boxctl set web memory=1G", "which has instances"),
    ] {
        let said = refused(command);
        assert!(said.contains(words), "{command}: {said}");
    }
    for (name, words) in [("web", "box-web.target"), ("web:4", "web:1 to web:3")] {
        let said = start_refused(name);
        assert!(said.contains(words), "{name}: {said}");
    }
    must("systemctl reset-failed");

    let old = pids();
    must("boxctl stop web:2");
    assert_eq!(states(&THREE), ["active", "inactive", "active"]);
    assert_eq!(property(&unit("front"), "ActiveState"), "active");
    must("boxctl start web");
    let new = pids();
    assert_eq!([new[0], new[2]], [old[0], old[2]]);
    all_asleep();
    must("boxctl disable web");
    assert!(!property("multi-user.target", "Wants").contains("box-web"));
    must("boxctl stop web");
    assert_eq!(
        states(&["web:1", "web:2", "web:3", "front"]),
        ["inactive"; 4]
    );
    assert_eq!(property("box-web.target", "ActiveState"), "inactive");
    // systemctl waits for the target, and not for what stops with it.
    must("boxctl enable web; boxctl start web");
    all_asleep();
    must("systemctl stop box-web.target");
    for name in THREE {
        wait_for_state(&unit(name), "inactive");
    }
    nothing_left(&before);

    // Of one that is not to be read nobody knows how many it is; what runs is stopped all the same.
    must("boxctl start web");
    all_asleep();
    web("instances = 0");
    must("boxctl stop web");
    assert_eq!(states(&THREE), ["inactive"; 3]);
}

/// Each instance listens at its own address, and a connection starts the one that it is for.
#[test]
fn a_connection_starts_the_instance_it_is_for() {
    write(
        "/usr/local/lib/answer.py",
        "import os, socket\nserver = socket.socket(fileno=3)\n\
         print(os.environ['LISTEN_FDNAMES'], flush=True)\n\
         while True:\n    taken, _ = server.accept()\n    taken.sendall(b'%s\\n' % socket.gethostname().encode())\n    taken.close()\n",
    );
    define(
        "pool",
        "command = ['/usr/bin/python3', '-I', '/usr/local/lib/answer.py']\ninstances = 2\nstart-at-boot = true\n\
         [[socket]]\nstream = [{ path = ['/run/pool-', { instance = 'index' }] }, { address = '127.0.0.1', port = 9000, plus = 'index' }]\n\
         [[socket]]\nname = '2'\nstream = { path = ['/run/pool-', { instance = 'index' }, '.control'] }\n",
    );
    // A socket of another box that is named as an instance would be.
    define(
        "web",
        "command = ['/bin/sleep', 'infinity']\n[[socket]]\nstream = '/run/a'\n[[socket]]\nname = '2'\nstream = '/run/b'\n",
    );
    must("systemctl daemon-reload; systemctl start box-pool.target box@web.socket");
    let both = ["pool:1", "pool:2"];
    assert_eq!(states(&both), ["inactive"; 2]);
    let ask = |path: &str| {
        let connection = UnixStream::connect(path).expect("a connection");
        let mut line = String::new();
        BufReader::new(connection)
            .read_line(&mut line)
            .expect("a line");
        line
    };
    assert_eq!(ask("/run/pool-2"), "pool-2\n");
    assert_eq!(states(&both), ["inactive", "active"]);
    wait_for_line("pool:2", "box@pool.socket:box@pool.socket:2");
    let listen = property("box@pool:2.socket", "Listen");
    assert!(listen.contains("127.0.0.1:9002"), "{listen}");
    must("boxctl apply");
    define("web", "command = ['/bin/sleep', 'infinity']\n");
    must("boxctl apply");
    assert_eq!(property("box@web:2.socket", "ActiveState"), "inactive");
    assert_eq!(property("box@pool:2.socket", "ActiveState"), "active");
    must("boxctl stop pool");
    assert_eq!(states(&both), ["inactive"; 2]);
    assert_eq!(property("box@pool:2.socket", "ActiveState"), "active");
    must("systemctl stop box-pool.target");
    for unit in [
        "box@pool:1.socket",
        "box@pool:2.socket",
        "box@pool:2:2.socket",
    ] {
        wait_for_state(unit, "inactive");
    }
}

/// A script that is ready when there is a file of its instance's number at the gate.
const GATED: &str =
    "while [ ! -e /gate/$NUMBER ]; do sleep 0.2; done; systemd-notify --ready; exec sleep infinity";

fn gated(instances: u32, more: &str) {
    define_script(
        "web",
        GATED,
        &format!(
            "instances = {instances}\n{more}\nenvironment = {{ NUMBER = {{ instance = 'index' }} }}\n\
             [ready]\nwhen = 'notify'\n[[mount]]\nbind = '/srv/gate'\nat = '/gate'"
        ),
    );
}

/// Instances are restarted one at a time, each when the one before is ready; where one does not come up by a new
/// definition the others are left as they are, and it goes back. Their number can change at any time.
#[test]
fn instances_are_restarted_one_after_the_other() {
    let open = |number: u32| write(&format!("/srv/gate/{number}"), "");
    let close = || must("rm -f /srv/gate/*");
    (1..=3).for_each(open);
    gated(3, "");
    must("boxctl start web; boxctl apply");
    let rolls = |command: &'static str| {
        let old = pids();
        close();
        let rolling = std::thread::spawn(move || sh(command));
        for (number, name) in (1..).zip(THREE) {
            wait_for("the next one restarts", || {
                property(&unit(name), "ActiveState") == "activating"
            });
            let waiting = usize::try_from(number).expect("a number");
            let now = THREE.map(|name| property(&unit(name), "ActiveState"));
            let expected: Vec<&str> = (0..3)
                .map(|index| {
                    if index + 1 == waiting {
                        "activating"
                    } else {
                        "active"
                    }
                })
                .collect();
            assert_eq!(now[..], expected[..]);
            for (later, old) in THREE.iter().zip(old).skip(waiting) {
                assert_eq!(pid(later), old, "{later}");
            }
            open(number);
        }
        let ran = rolling.join().expect("joined");
        assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
        let new = pids();
        assert!(old.iter().all(|old| !new.contains(old)));
    };
    rolls("boxctl restart web");
    gated(3, "hostname = ['new-', { instance = 'index' }]");
    rolls("boxctl apply");
    assert_eq!(THREE.map(hostname), ["new-1", "new-2", "new-3"]);

    let old = pids();
    define_script("web", "exit 5", "instances = 3\n[ready]\nwhen = 'notify'");
    let said = refused("boxctl apply");
    assert!(
        said.contains("box web:1 did not restart") && !said.contains("web:2 did"),
        "{said}"
    );
    assert_eq!(pids()[1..], old[1..]);
    assert_eq!(hostname("web:1"), "new-1");
    assert_eq!(history()[..2], ["applied", "failed"]);
    let said = must("boxctl restart web 2>&1; boxctl status web");
    assert!(
        said.contains("web:1 did not restart") && said.contains("Held"),
        "{said}"
    );
    assert_eq!(THREE.map(hostname), ["new-1", "new-2", "new-3"]);

    let old = pids();
    gated(2, "hostname = ['new-', { instance = 'index' }]");
    let plan = must("boxctl plan");
    assert!(
        plan.contains("stop     web:3: its definition has no such instance"),
        "{plan}"
    );
    must("boxctl apply");
    assert_eq!(states(&THREE), ["active", "active", "inactive"]);
    gated(3, "hostname = ['new-', { instance = 'index' }]");
    let said = must("boxctl apply");
    assert!(said.contains("start web:3"), "{said}");
    assert_eq!(pids()[..2], old[..2]);
    assert_eq!(hostname("web:3"), "new-3");

    define_script("web", RUNS, "");
    let said = must("boxctl plan; boxctl apply");
    assert!(said.contains("start    web"), "{said}");
    assert_eq!(
        states(&["web", "web:1", "web:2", "web:3"]),
        ["active", "inactive", "inactive", "inactive"]
    );
    gated(2, "");
    must("boxctl apply");
    assert_eq!(
        states(&["web", "web:1", "web:2"]),
        ["inactive", "active", "active"]
    );
    must("rm /etc/boxd/web.toml; boxctl apply");
    assert_eq!(states(&["web:1", "web:2"]), ["inactive"; 2]);
    assert_eq!(property("box-web.target", "ActiveState"), "inactive");
    assert!(journal("web:1").contains("ready"));
    start_refused("web:1");
    define_script("web", RUNS, "");
    must("systemctl daemon-reload");
    start("web");
    stop("web");
}
