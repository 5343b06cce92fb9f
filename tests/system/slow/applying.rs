//! Definitions that fail, and whoever applies them and is killed.

use crate::apply::{RUNS, history, hostname};
use crate::guest::{
    define_script, journal, must, pid, property, refused, sh, start, status, unit, wait_for,
    wait_for_state,
};

/// A box that does not become ready by its new definition runs by its last good one again, and is not tried with the
/// other at its next start; an earlier generation is brought back without touching a file.
#[test]
fn a_box_that_does_not_become_ready_is_put_back() {
    define_script("web", RUNS, "hostname = 'first'");
    define_script("app", RUNS, "requires = ['web']");
    must("boxctl start app");
    must("boxctl apply");
    define_script("web", "exit 7", "hostname = 'bad'\nready.when = 'notify'");
    define_script("app", RUNS, "requires = ['web']\nhostname = 'new'");
    let said = refused("boxctl apply");
    assert!(said.contains("box web did not restart"), "{said}");
    assert!(said.contains("last good definition"), "{said}");
    for name in ["web", "app"] {
        wait_for_state(&unit(name), "active");
    }
    assert_eq!(
        (hostname("web").as_str(), hostname("app").as_str()),
        ("first", "new")
    );
    assert_eq!(history()[..3], ["applied", "failed", "applied"]);
    assert!(must("boxctl history").contains("put back of"));
    must("systemctl daemon-reload; systemctl restart box@web");
    assert_eq!(hostname("web"), "first");
    // One that requires it is stopped with it, and started with it again.
    define_script("web", "exit 8", "ready.when = 'notify'");
    refused("boxctl apply");
    wait_for_state(&unit("app"), "active");
    assert_eq!(
        (hostname("web").as_str(), hostname("app").as_str()),
        ("first", "new")
    );
    let held = status("web")["definition"]["held"].to_string();
    assert!(held.contains("did not restart"), "{held}");

    define_script("web", RUNS, "hostname = 'second'");
    must("boxctl apply");
    assert_eq!(hostname("web"), "second");
    let file = must("cat /etc/boxd/web.toml");
    must("boxctl rollback");
    assert_eq!(hostname("web"), "first");
    must("systemctl restart box@web");
    assert_eq!(hostname("web"), "first");
    assert_eq!(must("cat /etc/boxd/web.toml"), file);
    must("boxctl apply");
    assert_eq!(hostname("web"), "second");
    refused("boxctl rollback 99");
}

/// Whoever applies definitions may be killed at any moment, and the disk may be full then: the next one finishes what
/// was begun, or takes it back, for all boxes that ran before.
#[test]
fn what_was_half_applied_is_finished_or_taken_back() {
    // Comes up, or fails, when it is told to.
    let waits = "while ! test -e /told/it; do sleep 0.2; done; . /told/it; \
                 systemd-notify --ready; exec sleep infinity";
    let waiting = |hostname: &str| {
        let more = "ready.when = 'notify'\nready.timeout = '10min'\nrestart.policy = 'no'\n\
                    [[mount]]\nbind = '/srv/told'\nat = '/told'";
        define_script("web", waits, &format!("hostname = '{hostname}'\n{more}"));
    };
    let tell = |what: &str| {
        must(&format!(
            "echo '{what}' > /srv/new; mv /srv/new /srv/told/it"
        ))
    };
    let begin = || {
        std::process::Command::new("sh")
            .args(["-c", "exec boxctl apply > /srv/said 2>&1"])
            .spawn()
            .expect("boxctl runs")
    };
    let comes_up = |hostname: &str| {
        wait_for("box web waits for its word", || {
            let ran = sh("boxctl exec web -- cat /etc/hostname");
            ran.status == 0 && ran.out == hostname
        });
    };
    let killed = |hostname: &str| {
        must("rm /srv/told/it");
        waiting(hostname);
        let mut boxctl = begin();
        comes_up(hostname);
        boxctl.kill().expect("killed");
        boxctl.wait().expect("ended");
        assert_eq!(history()[0], "applying");
    };
    must("mkdir -p /srv/told");
    tell("true");
    waiting("first");
    define_script("app", RUNS, "requires = ['web']");
    define_script("db", RUNS, "");
    must("boxctl start app db; boxctl apply");
    let db = pid("db");
    // What the host does not have yet holds a definition back until it has it.
    let mount = "[[mount]]\nbind = '/srv/late'\nat = '/late'";
    define_script("db", RUNS, &format!("hostname = 'late'\n{mount}"));
    let said = sh("boxctl apply");
    assert!(said.err.contains("/srv/late"), "{}", said.err);
    assert_eq!(pid("db"), db);
    must("mkdir /srv/late; systemctl restart box@db");
    assert_eq!(hostname("db"), "late");
    assert!(status("db")["definition"]["held"].is_null());

    killed("second");
    let mut boxctl = begin();
    wait_for("it is finished", || {
        sh("cat /srv/said").out.contains("half applied")
    });
    tell("true");
    assert!(
        boxctl.wait().expect("ended").success(),
        "{}",
        must("cat /srv/said")
    );
    assert_eq!(
        (hostname("web").as_str(), history()[0].as_str()),
        ("second", "applied")
    );
    let before = ["web", "app"].map(pid);
    must("boxctl apply");
    assert_eq!(["web", "app"].map(pid), before);

    // It fails, and fails for whoever finishes this; meanwhile the disk is filled, and the file edited.
    must(
        "mount -t tmpfs -o size=512k none /mnt; cp -a /var/lib/boxd/generations/. /mnt; \
          mount --bind /mnt /var/lib/boxd/generations",
    );
    killed("third");
    tell("test \"$(cat /etc/hostname)\" != third || exit 7");
    wait_for_state(&unit("web"), "failed");
    must("rm /srv/told/it");
    let mut boxctl = begin();
    comes_up("third");
    sh("cat /dev/zero > /var/lib/boxd/generations/filled");
    waiting("fourth");
    tell("test \"$(cat /etc/hostname)\" != third || exit 7");
    assert!(
        !boxctl.wait().expect("ended").success(),
        "{}",
        must("cat /srv/said")
    );
    for name in ["web", "app"] {
        wait_for_state(&unit(name), "active");
    }
    assert_eq!(hostname("web"), "second", "{}", must("cat /srv/said"));
    assert!(must("boxctl history").contains("put back of"));
    must("rm -f /var/lib/boxd/generations/filled; boxctl apply");
    assert_eq!(hostname("web"), "fourth");
    assert_eq!(history()[..3], ["applied", "applied", "failed"]);

    // What requires a box whose sockets are opened anew is stopped with it, and comes back with it.
    let listening = |path: &str| {
        define_script("web", RUNS, &format!("[[socket]]\nstream = '/run/{path}'"));
    };
    listening("first.socket");
    must("boxctl apply; systemctl start box@web.socket box@app");
    let before = ["web", "app"].map(pid);
    listening("second.socket");
    let said = must("boxctl apply");
    assert!(said.contains("restart app, restart web"), "{said}");
    assert_eq!(property("box@web.socket", "ActiveState"), "active");
    must("test -S /run/second.socket");
    for (name, before) in ["web", "app"].into_iter().zip(before) {
        wait_for_state(&unit(name), "active");
        assert_ne!(pid(name), before, "{name}");
    }
    // Nor is a file that is not understood passed over in silence.
    must(
        "umount /var/lib/boxd/generations /mnt; mkdir /var/lib/boxd/generations/999; \
          echo '{' > /var/lib/boxd/generations/999/GENERATION",
    );
    must("systemctl restart box@web");
    assert!(journal("web").contains("generations/999/GENERATION"));
    assert!(refused("boxctl apply").contains("move the directory"));
}
