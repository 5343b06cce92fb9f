//! `org.boxd1` on the system bus: who may ask what, and what becomes of it.

use std::collections::BTreeSet;

use crate::guest::{
    define_script, must, pid, property, sh, start, status, unit, wait_for, wait_for_state, write,
};

/// What a caller must be allowed to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Look,
    Manage,
    Configure,
}

use Need::{Configure, Look, Manage, Nothing};

const HOST: &str = "/org/boxd1";
const BOX: &str = "/org/boxd1/box/web_2dfront";

/// Every method there is, as dbus-send(1) calls it: object, interface, method, need, and arguments with which it works.
const METHODS: &[(&str, &str, &str, Need, &str)] = &[
    (HOST, INTROSPECTABLE, "Introspect", Nothing, ""),
    (HOST, PEER, "Ping", Nothing, ""),
    (HOST, PEER, "GetMachineId", Nothing, ""),
    (
        HOST,
        PROPERTIES,
        "Get",
        Look,
        "string:org.boxd1.Manager string:Version",
    ),
    (HOST, PROPERTIES, "GetAll", Look, "string:org.boxd1.Manager"),
    (
        HOST,
        PROPERTIES,
        "Set",
        Look,
        "string:org.boxd1.Manager string:Version variant:string:x",
    ),
    (HOST, MANAGER, "ListBoxes", Look, ""),
    (HOST, MANAGER, "GetBox", Look, "string:web-front"),
    (HOST, MANAGER, "Status", Look, "array:string:web-front"),
    (HOST, MANAGER, "List", Look, ""),
    (HOST, MANAGER, "Stats", Look, "array:string:web-front"),
    (HOST, MANAGER, "Check", Look, ""),
    (HOST, MANAGER, "Doctor", Look, ""),
    (HOST, MANAGER, "Plan", Look, "boolean:true"),
    (HOST, MANAGER, "Rollback", Configure, "uint64:$generation"),
    (HOST, MANAGER, "Apply", Configure, ""),
    (HOST, MANAGER, "History", Look, "boolean:false"),
    (HOST, MANAGER, "Diff", Look, "uint64:0 uint64:0"),
    (BOX, INTROSPECTABLE, "Introspect", Look, ""),
    (BOX, PEER, "Ping", Look, ""),
    (BOX, PEER, "GetMachineId", Look, ""),
    (
        BOX,
        PROPERTIES,
        "Get",
        Look,
        "string:org.boxd1.Box string:State",
    ),
    (BOX, PROPERTIES, "GetAll", Look, "string:org.boxd1.Box"),
    (
        BOX,
        PROPERTIES,
        "Set",
        Look,
        "string:org.boxd1.Box string:State variant:string:x",
    ),
    (BOX, BOXES, "Inspect", Look, ""),
    (BOX, BOXES, "Plan", Look, ""),
    (BOX, BOXES, "Security", Look, ""),
    (BOX, BOXES, "Explain", Look, "string:command"),
    (BOX, BOXES, "Stop", Manage, ""),
    (BOX, BOXES, "Start", Manage, ""),
    (BOX, BOXES, "Reload", Manage, ""),
    (BOX, BOXES, "Pause", Manage, ""),
    (BOX, BOXES, "Resume", Manage, ""),
    // SIGURG, which ends nobody.
    (BOX, BOXES, "Kill", Manage, "int32:23 boolean:true"),
    (BOX, BOXES, "Restart", Manage, ""),
    (
        BOX,
        BOXES,
        "Set",
        Configure,
        "array:string:description=Set boolean:false",
    ),
    (BOX, BOXES, "Enable", Configure, "boolean:true"),
    (BOX, BOXES, "Disable", Configure, "boolean:false"),
];

/// Every property there is. All are for those who may look.
const PROPERTY: &[(&str, &str, &str)] = &[
    (HOST, MANAGER, "Version"),
    (HOST, MANAGER, "Generation"),
    (BOX, BOXES, "Name"),
    (BOX, BOXES, "Unit"),
    (BOX, BOXES, "Description"),
    (BOX, BOXES, "State"),
    (BOX, BOXES, "Since"),
    (BOX, BOXES, "Health"),
    (BOX, BOXES, "Result"),
    (BOX, BOXES, "Restarts"),
    (BOX, BOXES, "FirstProcess"),
    (BOX, BOXES, "StartAtBoot"),
    (BOX, BOXES, "Definition"),
    (BOX, BOXES, "DefinitionNewer"),
    (BOX, BOXES, "Problem"),
    (BOX, BOXES, "Held"),
];

const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
const PEER: &str = "org.freedesktop.DBus.Peer";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const MANAGER: &str = "org.boxd1.Manager";
const BOXES: &str = "org.boxd1.Box";

const RUNS: &str = "trap 'echo read anew' HUP; while :; do sleep 0.2; done";

/// A call as a line of a shell script.
fn call(object: &str, interface: &str, member: &str, arguments: &str) -> String {
    format!(
        "dbus-send --system --print-reply=literal --reply-timeout=250000 --dest=org.boxd1 {object} {interface}.{member} {arguments}"
    )
}

/// Has the agent there, which the lab keeps from all other tests.
fn agent() {
    must("rm -f /etc/systemd/system/boxd.service; systemctl daemon-reload; systemctl start boxd");
    wait_for("the name on the bus", || {
        sh(&call(HOST, PEER, "Ping", "")).status == 0
    });
}

/// Methods and properties of an object, as its introspection has them.
fn introspected(object: &str) -> BTreeSet<(String, String)> {
    let xml = must(&call(object, INTROSPECTABLE, "Introspect", ""));
    let mut found = BTreeSet::new();
    let mut interface = String::new();
    for line in xml.lines() {
        let name = || {
            let (_, rest) = line.split_once("name=\"").expect("a name");
            rest.split('"').next().unwrap_or_default().to_owned()
        };
        if line.contains("<interface ") {
            interface = name();
        } else if line.contains("<method ") || line.contains("<property ") {
            found.insert((interface.clone(), name()));
        }
    }
    found
}

/// Has the bus's signals of boxd written to a file.
fn listen(file: &str) {
    let listen = format!(
        "systemd-run --quiet --unit=listen --property=StandardOutput=file:{file} dbus-monitor --system \"type='signal',sender='org.boxd1'\""
    );
    must(&listen);
    wait_for("dbus-monitor listens", || {
        sh(&format!("grep -q NameAcquired {file}")).status == 0
    });
}

/// Who asks, and how a script is run as them.
struct Caller {
    name: &'static str,
    prefix: &'static str,
    may: &'static [Need],
    may_without_polkit: &'static [Need],
}

const CALLERS: &[Caller] = &[
    Caller {
        name: "a process in a box, root of the host",
        prefix: "boxctl exec inner --",
        may: &[],
        may_without_polkit: &[],
    },
    Caller {
        name: "a user",
        prefix: "setpriv --reuid=mallory --regid=mallory --init-groups",
        may: &[Nothing],
        may_without_polkit: &[Nothing],
    },
    Caller {
        name: "a member of the group boxd",
        prefix: "setpriv --reuid=alice --regid=alice --init-groups",
        may: &[Nothing, Look, Manage],
        may_without_polkit: &[Nothing],
    },
    Caller {
        name: "root",
        prefix: "env",
        may: &[Nothing, Look, Manage, Configure],
        may_without_polkit: &[Nothing, Look, Manage, Configure],
    },
];

/// What is introspected is what is in the tables, and what each caller may is what they say, with polkit and without.
#[test]
fn each_caller_may_what_the_table_says() {
    define_script("web-front", RUNS, "[reload]\nsignal = 'SIGHUP'");
    define_script(
        "inner",
        "exec sleep infinity",
        "[[mount]]\nbind = '/run/dbus'\nat = '/run/dbus'\nsensitive = true\n[security]\nusers = 'host'",
    );
    // More starts in a short time than are taken for a mistake.
    write(
        "/etc/systemd/system/box@.service.d/limit.conf",
        "[Unit]\nStartLimitIntervalSec=0\n",
    );
    must("systemctl daemon-reload");
    start("web-front");
    start("inner");
    must("useradd -m alice; useradd -m mallory; usermod -a -G boxd alice");
    agent();
    must("boxctl apply");
    let get = "busctl get-property org.boxd1 /org/boxd1 org.boxd1.Manager Generation";
    let generation = must(&format!("{get} | sed 's/^t //'"));

    for object in [HOST, BOX] {
        let methods = METHODS
            .iter()
            .map(|(of, interface, name, ..)| (of, interface, name));
        let properties = PROPERTY
            .iter()
            .map(|(of, interface, name)| (of, interface, name));
        let rows: BTreeSet<(String, String)> = methods
            .chain(properties)
            .filter(|(of, ..)| **of == object)
            .map(|(_, interface, name)| ((*interface).to_owned(), (*name).to_owned()))
            .collect();
        assert_eq!(
            introspected(object),
            rows,
            "{object} has what the table has"
        );
    }

    let gets = PROPERTY.iter().map(|(object, interface, name)| {
        let arguments = format!("string:{interface} string:{name}");
        (*object, PROPERTIES, "Get", Look, arguments)
    });
    let calls: Vec<(&str, &str, &str, Need, String)> = METHODS
        .iter()
        .map(|(object, interface, name, need, arguments)| {
            (*object, *interface, *name, *need, (*arguments).to_owned())
        })
        .chain(gets)
        .collect();
    let script: String = calls
        .iter()
        .map(|(object, interface, name, _, arguments)| {
            let arguments = arguments.replace("$generation", &generation);
            let call = call(object, interface, name, &arguments);
            format!("r=$({call} 2>&1 >/dev/null); echo \"= $r\"\n")
        })
        .collect();

    let mut wrong = Vec::new();
    for has_polkit in [true, false] {
        must(match has_polkit {
            true => "systemctl start polkit",
            false => "systemctl mask --runtime --now polkit",
        });
        for caller in CALLERS {
            let said = must(&format!("{} sh -c '{script}'", caller.prefix));
            let answers: Vec<&str> = said
                .lines()
                .filter_map(|line| line.strip_prefix("= ").or_else(|| line.strip_prefix('=')))
                .collect();
            assert_eq!(answers.len(), calls.len(), "{}: {said}", caller.name);
            let may = match has_polkit {
                true => caller.may,
                false => caller.may_without_polkit,
            };
            for ((object, interface, name, need, arguments), answer) in calls.iter().zip(answers) {
                let denied = ["AccessDenied", "InteractiveAuthorizationRequired"]
                    .iter()
                    .any(|error| answer.contains(&format!("DBus.Error.{error}:")));
                let read_only = *name == "Set" && *interface == PROPERTIES;
                // Of a process in a box it is told why, so that it is not something else that keeps it out.
                let in_box = answer.contains("a process in a box may ask nothing");
                let right = match (may.contains(need), read_only) {
                    (false, _) => denied && in_box == caller.may.is_empty(),
                    (true, true) => answer.contains("DBus.Error.PropertyReadOnly:"),
                    (true, false) => answer.is_empty(),
                };
                if !right {
                    let polkit = if has_polkit { "with" } else { "without" };
                    wrong.push(format!(
                        "{} {polkit} polkit: {object} {interface}.{name} {arguments}: {answer}",
                        caller.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    boxctl_asks_the_agent();
}

/// boxctl does over the bus what its user may, and says what to do where they may not.
fn boxctl_asks_the_agent() {
    must("systemctl unmask --runtime polkit; systemctl start polkit");
    let ran = |user: &str, command: &str| {
        sh(&format!(
            "cd /; setpriv --reuid={user} --regid={user} --init-groups boxctl {command}"
        ))
    };
    for (command, words) in [
        ("stop web-front", ""),
        ("status", "web-front"),
        ("start web-front inner", ""),
        ("status web-front", "running"),
        ("status --json web-front", "\"running\""),
        ("stats web-front", "web-front"),
        ("pause web-front", ""),
        ("resume web-front", ""),
        ("kill -s URG web-front", ""),
        ("restart web-front", ""),
        ("plan", "Nothing is to be done"),
        ("history", "in force"),
        ("diff 1", ""),
    ] {
        let ran = ran("alice", command);
        let said = format!("{}\n{}", ran.out, ran.err);
        assert_eq!((ran.status, &*ran.err), (0, ""), "{command}: {said}");
        assert!(ran.out.contains(words), "{command}: {said}");
    }
    for (user, command, words) in [
        ("alice", "start none", ["there is no box none", ""]),
        (
            "alice",
            "set web-front description=no",
            ["may not change", "run this as root"],
        ),
        ("alice", "apply", ["may not change", "run this as root"]),
        (
            "mallory",
            "stop web-front",
            ["may not manage boxes", "member of the group boxd"],
        ),
        (
            "mallory",
            "status",
            ["may not look at boxes", "member of the group boxd"],
        ),
    ] {
        let ran = ran(user, command);
        assert_ne!(ran.status, 0, "{user} {command}: {}", ran.out);
        for words in words {
            assert!(ran.err.contains(words), "{user} {command}: {}", ran.err);
        }
    }
    assert_eq!(property(&unit("web-front"), "ActiveState"), "active");

    // What runs without being defined any more is stopped with the rest, though only root sees it.
    write("/etc/boxd.toml", "apply = 'plan'\n");
    must("systemctl restart boxd");
    agent();
    define_script("many", RUNS, "instances = 2");
    must("boxctl start many");
    define_script("many", RUNS, "instances = 1");
    let stopped = ran("alice", "stop many");
    assert_eq!((stopped.status, &*stopped.err), (0, ""), "{}", stopped.out);
    for name in ["many:1", "many:2"] {
        assert_eq!(property(&unit(name), "ActiveState"), "inactive", "{name}");
    }
    must("rm /etc/boxd.toml /etc/boxd/many.toml");
}

/// A change is told without being asked for, whoever made it; and what a box is is told as it is now.
#[test]
fn changes_are_told_and_the_bus_may_come_and_go() {
    define_script("web", RUNS, "");
    agent();
    let state = |name: &str| {
        must(&call(
            &format!("/org/boxd1/box/{name}"),
            PROPERTIES,
            "Get",
            "string:org.boxd1.Box string:State",
        ))
    };
    assert!(state("web").contains("stopped"), "{}", state("web"));
    listen("/run/signals");
    let heard = |words: &[&str]| {
        let file = std::fs::read_to_string("/run/signals").unwrap_or_default();
        file.split("signal time=")
            .any(|signal| words.iter().all(|word| signal.contains(word)))
    };
    start("web");
    wait_for("the start is told", || {
        heard(&["/org/boxd1/box/web;", "PropertiesChanged", "\"running\""])
    });
    must("boxctl pause web");
    assert!(state("web").contains("paused"));
    must(&call("/org/boxd1/box/web", BOXES, "Resume", ""));
    assert!(state("web").contains("running"));
    define_script("db", RUNS, "");
    wait_for("another box is told", || heard(&["BoxNew", "\"db\""]));
    must("rm /etc/boxd/db.toml");
    wait_for("that it is gone is told", || {
        heard(&["BoxRemoved", "\"db\""])
    });
    let none = sh(&call("/org/boxd1/box/db", BOXES, "Start", ""));
    assert!(
        none.err.contains("org.boxd1.Error.NoSuchBox"),
        "{}",
        none.err
    );

    // What boxctl says of what does not work is the answer.
    define_script("bad", RUNS, "hostname = 7");
    wait_for("the bad one has an object", || {
        sh(&call("/org/boxd1/box/bad", PEER, "Ping", "")).status == 0
    });
    let failed = sh(&call("/org/boxd1/box/bad", BOXES, "Start", ""));
    assert!(
        failed.err.contains("org.boxd1.Error.Failed") && failed.err.contains("hostname"),
        "{}",
        failed.err
    );
    // Nothing that is given is an option of boxctl, nor is more taken than is bounded.
    let option = sh(&call(
        "/org/boxd1/box/web",
        BOXES,
        "Set",
        "array:string:--help boolean:false",
    ));
    assert!(option.err.contains("--help"), "{}", option.err);
    let long = format!(
        "r=$(head -c 70000 /dev/zero | tr '\\0' x); {}",
        call(HOST, MANAGER, "GetBox", "\"string:$r\"")
    );
    let long = sh(&long);
    assert!(long.err.contains("LimitsExceeded"), "{}", long.err);

    // A history with names: whoever logged in, as the kernel knows.
    must("rm /etc/boxd/bad.toml");
    let runs = pid("web");
    let agent_is = property("boxd.service", "MainPID");
    must("systemctl restart dbus");
    wait_for("the name again", || {
        sh(&call(HOST, PEER, "Ping", "")).status == 0
    });
    assert_eq!(
        property("boxd.service", "MainPID"),
        agent_is,
        "it has lived on"
    );
    // Nobody's message starts the agent once it is stopped.
    must("systemctl stop boxd");
    wait_for_state("boxd.service", "inactive");
    let none = sh(&call(HOST, PEER, "Ping", ""));
    assert!(none.err.contains("ServiceUnknown"), "{}", none.err);
    let stop = sh("setpriv --reuid=65534 --regid=65534 --clear-groups boxctl stop web");
    assert_ne!(stop.status, 0);
    assert!(
        stop.err.contains("boxd.service, which") && stop.err.contains("does not run"),
        "{}",
        stop.err
    );
    assert_eq!(property("boxd.service", "ActiveState"), "inactive");
    agent();
    assert!(state("web").contains("running"));
    assert_eq!(pid("web"), runs);
    assert_eq!(status("web")["state"], "running");
    assert_eq!(property(&unit("web"), "NRestarts"), "0");
}
