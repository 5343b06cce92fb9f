//! Definitions that fail, whoever applies them and is killed, and settings by command.

use crate::apply::{RUNS, history, hostname};
use crate::guest::{
    define_script, journal, must, pid, property, refused, sh, start, status, stop, unit, wait_for,
    wait_for_state, write,
};

/// A box that does not become ready by its new definition runs by its last good one again, and is not tried with the
/// other at its next start; an earlier generation is brought back without touching a file.
#[test]
fn a_box_that_does_not_become_ready_is_put_back() {
    define_script("web", RUNS, "hostname = 'first'");
    // One with sockets does not wait for a connection if it ran.
    let app = |hostname: &str| {
        let socket = "[[socket]]\nstream = '/run/app.socket'";
        let more = format!("requires = ['web']\nhostname = '{hostname}'\n{socket}");
        define_script("app", RUNS, &more);
    };
    app("old");
    must("boxctl apply; systemctl start box@app.socket box@app");
    define_script("web", "exit 7", "hostname = 'bad'\nready.when = 'notify'");
    app("new");
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

/// One command changes a box that runs and what it starts by; what cannot be leaves both as they were.
#[test]
fn a_setting_holds_at_once_and_for_the_next_start() {
    let more = "[resources]\nmemory = '64M'\ntasks = 50";
    define_script("web", RUNS, more);
    start("web");
    must("boxctl apply");
    let before = pid("web");
    let scope = "/sys/fs/cgroup/box.slice/box-web.scope";
    let read = |file: &str| must(&format!("cat {scope}/{file}"));
    let memory = || read("memory.max").parse::<u64>().expect("a number") >> 20;
    let drop_in = "/etc/boxd/web.toml.d/90-set.toml";
    let runtime = "/run/boxd/definitions/web.toml.d/95-set-runtime.toml";

    let said = must("boxctl set web memory=96M cpu=0.5");
    for words in [
        "resources.memory: \"64M\" -> \"96M\"",
        "runs on",
        &format!("{drop_in} is written"),
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(memory(), 96);
    assert!(read("cpu.max").starts_with("50000 "), "{}", read("cpu.max"));
    assert_eq!(status("web")["limits"]["memory"], 96 << 20);
    assert!(must("boxctl explain memory web").contains(&format!("{drop_in}:")));
    assert!(must("boxctl diff").contains("+ resources.memory = \"96M\""));
    assert!(must("boxctl plan").contains("Nothing is to be done"));

    // An earlier generation that somebody wanted back is not undone by the way.
    must("boxctl apply; boxctl rollback");
    assert_eq!(memory(), 64);
    let said = refused("boxctl set web memory=112M");
    assert!(
        said.contains("rolled back") && said.contains("boxctl apply"),
        "{said}"
    );
    must("boxctl apply");
    assert_eq!(memory(), 96);

    // The later word counts, and is gone with what it was written to.
    must("boxctl set --runtime web memory=80M");
    assert_eq!(memory(), 80);
    must(&format!(
        "test -e {runtime}; boxctl set --runtime web memory=; test ! -e {runtime}"
    ));
    assert_eq!(memory(), 96);
    must("boxctl set --runtime web memory=80M; boxctl set web memory=112M");
    assert_eq!(memory(), 112);

    // What is refused changes nothing: not the box, not a file.
    must("systemctl set-property --runtime box@web.service TasksMax=45");
    let file = must(&format!("cat {drop_in}"));
    for (arguments, words) in [
        ("cpu=1 memory=lots", "90-set.toml:"),
        ("cpu=1 io-read./dev/none=1M", "/dev/none does not exist"),
        ("cpu=1 cpus=4000", "CPU 4000 is not online"),
        ("hostname=x", "boxctl edit --drop-in web"),
        (
            "health.tcp=127.0.0.1:1",
            "cannot be changed while a box runs",
        ),
        ("cpu=1 tasks=40", "TasksMax= of its own"),
    ] {
        let said = refused(&format!("boxctl set web {arguments}"));
        assert!(said.contains(words), "{arguments}: {said}");
        let files = must(&format!("cat {drop_in}; ls -A /etc/boxd/web.toml.d"));
        assert_eq!(files, format!("{file}\n90-set.toml"), "{arguments}");
        assert!(read("cpu.max").starts_with("50000 "), "{arguments}");
    }

    // Several at once: one after the other, and none is lost. The unit's own limit counts from then on.
    assert_eq!(read("pids.max"), "50");
    must(
        "for it in memory-swap=1M memory-high=90M cpu-weight=40 cpus=0; do boxctl set web $it & done; wait",
    );
    let limits = [
        "memory.swap.max",
        "memory.high",
        "cpu.weight",
        "cpuset.cpus",
    ]
    .map(read);
    assert_eq!(limits, ["1048576", "94371840", "40", "0"]);
    assert_eq!(read("pids.max"), "45");
    assert_eq!(must(&format!("grep -c = {drop_in}")), "6");

    // What else was edited meanwhile waits for its turn.
    define_script("web", RUNS, &format!("hostname = 'edited'\n{more}"));
    must("boxctl set web restart.policy=always 'description=Shop \"1\"' memory=128M");
    assert_eq!(memory(), 128);
    assert_eq!(property(&unit("web"), "Restart"), "always");
    for unit in [unit("web"), "box-web.scope".to_owned()] {
        assert_eq!(property(&unit, "Description"), "Shop \"1\"");
    }
    let plan = must("boxctl plan");
    assert!(
        plan.contains("restart  web") && plan.contains("edited"),
        "{plan}"
    );
    assert!(!plan.contains("memory"), "{plan}");
    assert_eq!((hostname("web").as_str(), pid("web")), ("web", before));

    stop("web");
    let said = must("boxctl set web memory=48M");
    assert!(said.contains("for its next start"), "{said}");
    // A controller that the host has and box.slice is kept from: systemd says nothing, and the kernel has no limit.
    write(
        "/etc/systemd/system/box.slice.d/off.conf",
        "[Slice]\nDisableControllers=io\n",
    );
    must("systemctl daemon-reload");
    start("web");
    assert_eq!((hostname("web").as_str(), memory()), ("edited", 48));
    let said = refused("boxctl set web io-weight=50 memory=96M");
    assert!(
        said.contains("\"io\"") && said.contains("nothing is written"),
        "{said}"
    );
    assert_eq!(memory(), 48);
    assert_eq!(must(&format!("grep -c io-weight {drop_in}; true")), "0");
    must("boxctl set web memory=");
    assert_eq!(memory(), 64, "the definition's");
}
