//! What a test can do in its machine, and ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How a command ended.
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// Runs a script and says how it ended, whatever that is.
pub fn sh(script: &str) -> Ran {
    let output = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .expect("sh is there");
    ran(output)
}

fn ran(output: Output) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    let status = output.status;
    Ran {
        status: status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        out: String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned(),
        err: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
    }
}

/// Runs a script that must succeed; its output.
#[track_caller]
pub fn must(script: &str) -> String {
    let ran = sh(script);
    assert_eq!(
        ran.status, 0,
        "{script}\nout: {}\nerr: {}",
        ran.out, ran.err
    );
    ran.out
}

/// Runs a script that must fail; all it said.
#[track_caller]
pub fn refused(script: &str) -> String {
    let ran = sh(script);
    assert_ne!(ran.status, 0, "{script} succeeded: {}", ran.out);
    format!("{}\n{}", ran.out, ran.err)
}

/// Writes a definition into the operator's layer.
pub fn define(name: &str, text: &str) {
    write(&format!("/etc/boxd/{name}.toml"), text);
}

/// Defines a box that runs a shell script on the host's `/usr`; `more` is TOML that follows the command.
pub fn define_script(name: &str, script: &str, more: &str) {
    assert!(!script.contains("'''"));
    define(
        name,
        &format!("command = ['/bin/sh', '-c', '''\n{script}''']\n{more}\n"),
    );
}

/// Writes a file and the folders above it.
pub fn write(path: &str, text: &str) {
    let path = Path::new(path);
    fs::create_dir_all(path.parent().expect("a file's path")).expect("a folder can be made");
    fs::write(path, text).expect("a file can be written");
}

/// Makes a small root file system around a static busybox, owned by root of the host; its folder.
pub fn small_root(name: &str) -> PathBuf {
    let root = PathBuf::from(format!("/srv/{name}"));
    for folder in [
        "bin", "etc", "usr/bin", "proc", "sys", "dev", "run", "tmp", "root", "var",
    ] {
        fs::create_dir_all(root.join(folder)).expect("a folder can be made");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox is there");
    for applet in must("busybox --list")
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).expect("a link can be made");
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/:/bin/sh\n",
    )
    .expect("a file can be written");
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nweb:x:33:\nextra:x:44:web\n",
    )
    .expect("a file can be written");
    root
}

/// Starts a box; that must succeed.
#[track_caller]
pub fn start(name: &str) {
    let ran = sh(&format!("systemctl start box@{name}"));
    assert_eq!(
        ran.status,
        0,
        "systemctl start box@{name}: {}\n{}",
        ran.err,
        must(&format!(
            "systemctl status --no-pager --lines=30 box@{name} || true"
        ))
    );
}

/// Starts a box whose start must fail; what the journal of its unit says then.
#[track_caller]
pub fn start_refused(name: &str) -> String {
    refused(&format!("systemctl start box@{name}"));
    assert_eq!(property(&unit(name), "ActiveState"), "failed");
    journal(name)
}

/// Stops a box; that must succeed.
#[track_caller]
pub fn stop(name: &str) {
    must(&format!("systemctl stop box@{name}"));
    // A call that its filter refuses a supervisor, and that it makes all the same, is a bug, though it lives on. Call
    // -1 is one that the sweep has let fail.
    let refused = sh("dmesg | grep 'type=1326.*comm=\"box-supervisor\"' | grep -v 'syscall=-1 '");
    assert_eq!(refused.out, "", "after box {name}");
}

/// The unit of a box.
pub fn unit(name: &str) -> String {
    format!("box@{name}.service")
}

/// A property of a unit, as `systemctl show` prints it.
pub fn property(unit: &str, property: &str) -> String {
    must(&format!("systemctl show --value -p {property} '{unit}'"))
}

/// What `journalctl -u box@NAME` shows, messages only.
pub fn journal(name: &str) -> String {
    must(&format!(
        "journalctl --sync; journalctl --no-pager -o cat -u box@{name}"
    ))
}

/// What the box itself printed, in order.
pub fn printed(name: &str) -> Vec<String> {
    must(&format!(
        "journalctl --sync; journalctl --no-pager -o cat -u box@{name} BOX_STREAM=stdout BOX_STREAM=stderr BOX_STREAM=tty"
    ))
    .lines()
    .map(str::to_owned)
    .collect()
}

/// Waits until something holds; a test that waits in vain fails with these words.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until a unit is in a state.
#[track_caller]
pub fn wait_for_state(unit: &str, state: &str) {
    wait_for(&format!("{unit} is {state}"), || {
        property(unit, "ActiveState") == state
    });
}

/// Waits until the box has printed a line.
#[track_caller]
pub fn wait_for_line(name: &str, line: &str) {
    wait_for(&format!("{name} prints {line:?}"), || {
        journal(name).lines().any(|printed| printed == line)
    });
}

/// What `boxctl status --json` says of one box.
#[track_caller]
pub fn status(name: &str) -> serde_json::Value {
    let report: serde_json::Value =
        serde_json::from_str(&must("boxctl status --json")).expect("status is JSON");
    report["boxes"]
        .as_array()
        .expect("boxes are a list")
        .iter()
        .find(|status| status["name"] == name)
        .unwrap_or_else(|| panic!("{name} is in {report}"))
        .clone()
}

/// The host's pid of a box's first process.
#[track_caller]
pub fn pid(name: &str) -> i64 {
    status(name)["payload"]["pid"]
        .as_i64()
        .unwrap_or_else(|| panic!("{name} runs"))
}

/// Runs a command in a running box; its output.
#[track_caller]
pub fn inside(name: &str, command: &str) -> String {
    must(&format!("boxctl exec {name} -- {command}"))
}

/// Asks the lab for a reboot, after which the same test begins again with one more in [`boots`].
pub fn reboot() -> ! {
    std::process::exit(75)
}

/// How often this test has rebooted its machine.
pub fn boots() -> u32 {
    std::env::var("BOXD_LAB_BOOTS")
        .expect("the lab says so")
        .parse()
        .expect("a number")
}

/// Everything a box could leave behind, each thing as a line, once it has stayed the same for a while: systemd
/// closes what it stored for a unit some time after the unit's end.
pub fn everything() -> BTreeSet<String> {
    let mut seen = snapshot();
    for _ in 0..30 {
        std::thread::sleep(Duration::from_secs(2));
        let now = snapshot();
        if now == seen {
            break;
        }
        seen = now;
    }
    seen
}

/// Mounts, cgroups, units, namespaces, keys, files, and what long-lived processes hold open.
pub fn snapshot() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for line in read("/proc/self/mountinfo").lines() {
        let fields: Vec<_> = line.split(' ').collect();
        all.insert(format!("mount {} {}", fields[3], fields[4]));
    }
    walk(Path::new("/sys/fs/cgroup"), &mut |path, metadata| {
        if metadata.is_dir() {
            all.insert(format!("cgroup {}", path.display()));
        }
    });
    for line in must("systemctl list-units --all --plain --no-legend 'box*'").lines() {
        let fields: Vec<_> = line.split_whitespace().take(4).collect();
        all.insert(format!("unit {}", fields.join(" ")));
    }
    for line in read("/proc/keys").lines() {
        let fields: Vec<_> = line.split_whitespace().skip(4).collect();
        all.insert(format!("key {}", fields.join(" ")));
    }
    // Keys of a box's ids, which no key of ours lists: `UID: keys in all, …`.
    for line in read("/proc/key-users").lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let uid = fields[0].trim_end_matches(':');
        if uid.parse::<u32>().is_ok_and(|uid| uid >= FIRST_OF_BOXES) {
            all.insert(format!("keys of user {uid}: {}", fields[2]));
        }
    }
    for process in fs::read_dir("/proc")
        .expect("processes can be listed")
        .flatten()
    {
        if !process
            .file_name()
            .to_string_lossy()
            .starts_with(|first: char| first.is_ascii_digit())
        {
            continue;
        }
        // A process may end while it is looked at.
        for namespace in fs::read_dir(process.path().join("ns"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(link) = fs::read_link(namespace.path()) {
                all.insert(format!("namespace {}", link.display()));
            }
        }
        let Ok(command) = fs::read_to_string(process.path().join("comm")) else {
            continue;
        };
        let command = command.trim_end();
        if [
            "systemd",
            "dbus-daemon",
            "systemd-journal",
            "systemd-logind",
        ]
        .contains(&command)
        {
            let mut open = BTreeMap::new();
            for descriptor in fs::read_dir(process.path().join("fd"))
                .into_iter()
                .flatten()
                .flatten()
            {
                if let Ok(link) = fs::read_link(descriptor.path()) {
                    let kind = link
                        .to_string_lossy()
                        .replace(|c: char| c.is_ascii_digit(), "");
                    *open.entry(kind).or_insert(0) += 1;
                }
            }
            for (kind, number) in open {
                all.insert(format!("open in {command}: {number} {kind}"));
            }
        }
    }
    for top in ["/etc", "/run", "/var", "/srv", "/tmp", "/dev", "/mnt"] {
        walk(Path::new(top), &mut |path, metadata| {
            let path = path.display().to_string();
            if !NOT_OURS.iter().any(|not_ours| path.starts_with(not_ours)) {
                let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
                all.insert(format!("file {path} {uid}:{gid} {mode:o}"));
            }
        });
    }
    all
}

/// The first id of systemd's container range, from which boxes have theirs.
const FIRST_OF_BOXES: u32 = 0x0008_0000;

/// Files that come and go without any box, and the id ranges, which are a box's for good.
const NOT_OURS: [&str; 10] = [
    "/var/lib/boxd/ids/",
    "/run/log/",
    "/run/lab-script",
    "/run/systemd/journal/",
    "/run/systemd/units/",
    "/run/systemd/transient/",
    "/run/systemd/generator",
    "/run/udev/",
    "/var/log/",
    "/var/lib/systemd/",
];

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Visits everything below a folder, on other file systems too; what vanishes meanwhile is left out.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        visit(&path, &metadata);
        if metadata.is_dir() {
            walk(&path, visit);
        }
    }
}

/// Asserts that nothing came and nothing went between two looks at [`everything`]. What is still going away gets
/// a moment: the kernel takes namespaces down, and systemd collects units, after the fact.
#[track_caller]
pub fn nothing_left(before: &BTreeSet<String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let after = snapshot();
        let came: Vec<_> = after.difference(before).collect();
        let went: Vec<_> = before.difference(&after).collect();
        if came.is_empty() && went.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "came: {came:#?}\nwent: {went:#?}"
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}
