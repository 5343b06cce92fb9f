//! Who the probe is: namespaces, ids, capabilities, limits, keys, and what it was given open.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use boxd::capability;
use nix::sched::CloneFlags;

use crate::kernel;
use crate::machine::CANARY_KEY;
use crate::report::Gaps;

/// The first argument of the process that makes a namespace; the second is its kind.
pub const CHILD: &str = "unshare";

/// Must be called first: what is opened later is the probe's own.
pub fn descriptors() -> BTreeMap<u32, String> {
    let numbers: Vec<u32> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // That of the folder itself is closed by now.
    numbers
        .into_iter()
        .filter_map(|number| {
            let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect()
}

const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

pub fn namespaces(gaps: &mut Gaps) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in KINDS {
        match fs::read_link(format!("/proc/self/ns/{kind}")) {
            Ok(link) => {
                let link = link.to_string_lossy().into_owned();
                found.insert(kind.to_owned(), link);
            }
            Err(error) => gaps.note(&format!("namespace {kind}"), error),
        }
    }
    found
}

pub fn ids(gaps: &mut Gaps) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, path) in [
        ("user map", "/proc/self/uid_map"),
        ("group map", "/proc/self/gid_map"),
        ("setgroups", "/proc/self/setgroups"),
    ] {
        let text = gaps.read(path);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        found.insert(name.to_owned(), lines.join(", "));
    }
    for key in ["Uid", "Gid", "Groups"] {
        let value = status(key, gaps);
        found.insert(key.to_lowercase(), value);
    }
    found
}

/// A line of proc_pid_status(5), its white space made single blanks.
fn status(key: &str, gaps: &mut Gaps) -> String {
    let text = gaps.read("/proc/self/status");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    match line {
        Some(value) => value.split_whitespace().collect::<Vec<_>>().join(" "),
        None => {
            gaps.note("/proc/self/status", format!("no line {key}"));
            String::new()
        }
    }
}

pub fn capabilities(gaps: &mut Gaps) -> BTreeMap<String, Vec<String>> {
    let mut sets = BTreeMap::new();
    for (set, key) in [
        ("inheritable", "CapInh"),
        ("permitted", "CapPrm"),
        ("effective", "CapEff"),
        ("bounding", "CapBnd"),
        ("ambient", "CapAmb"),
    ] {
        let text = status(key, gaps);
        let Ok(bits) = u64::from_str_radix(&text, 16) else {
            gaps.note(key, format!("{text:?} is no set"));
            continue;
        };
        let names = (0..64)
            .filter(|number| bits >> number & 1 == 1)
            .map(|number| match capability::NAMES.get(number) {
                Some(name) => (*name).to_owned(),
                None => format!("number {number}"),
            });
        sets.insert(set.to_owned(), names.collect());
    }
    sets
}

pub fn privileges(gaps: &mut Gaps) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, key) in [
        ("no new privileges", "NoNewPrivs"),
        ("seccomp mode", "Seccomp"),
        ("seccomp filters", "Seccomp_filters"),
    ] {
        let value = status(key, gaps);
        found.insert(name.to_owned(), value);
    }
    // Absent where no security module of the kernel has labels.
    let label = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let label = label.trim_end_matches(['\n', '\0']).to_owned();
    found.insert("label".to_owned(), label);
    for (name, path) in [
        ("coredump filter", "/proc/self/coredump_filter"),
        ("oom score adjustment", "/proc/self/oom_score_adj"),
    ] {
        let value = gaps.read(path).trim_end().to_owned();
        found.insert(name.to_owned(), value);
    }
    found
}

/// proc_pid_limits(5): soft and hard.
pub fn limits(gaps: &mut Gaps) -> BTreeMap<String, (String, String)> {
    let text = gaps.read("/proc/self/limits");
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let (name, values) = line.split_at_checked(26)?;
            let mut values = values.split_whitespace().map(str::to_owned);
            Some((name.trim_end().to_owned(), (values.next()?, values.next()?)))
        })
        .collect()
}

/// Whether new namespaces can really be made. A new one of users gives every capability over what is made in it.
pub fn new_namespaces(gaps: &mut Gaps) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in KINDS {
        let ran = Command::new("/proc/self/exe")
            .args([CHILD, kind])
            .stdin(Stdio::null())
            .output();
        match ran {
            Ok(output) if output.status.success() => {
                let said = String::from_utf8_lossy(&output.stdout)
                    .trim_end()
                    .to_owned();
                found.insert(kind.to_owned(), said);
            }
            Ok(output) => gaps.note(&format!("new namespace {kind}"), output.status),
            Err(error) => gaps.note(&format!("new namespace {kind}"), error),
        }
    }
    found
}

#[expect(clippy::print_stdout, reason = "read by its parent")]
pub fn child(kind: &str) -> ExitCode {
    let flag = match kind {
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "mnt" => CloneFlags::CLONE_NEWNS,
        "net" => CloneFlags::CLONE_NEWNET,
        "pid" => CloneFlags::CLONE_NEWPID,
        "time" => CloneFlags::from_bits_retain(0x80),
        "user" => CloneFlags::CLONE_NEWUSER,
        "uts" => CloneFlags::CLONE_NEWUTS,
        _ => return ExitCode::FAILURE,
    };
    match nix::sched::unshare(flag) {
        Ok(()) => println!("made"),
        Err(errno) => println!("{errno:?}"),
    }
    ExitCode::SUCCESS
}

/// keyctl(2) and what it reaches. A key of that name lies in the host's keyrings.
pub fn keyrings() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut note = |what: &str, answer: Result<i64, nix::errno::Errno>| {
        let answer = match answer {
            Ok(_) => "reached".to_owned(),
            Err(errno) => format!("{errno:?}"),
        };
        found.insert(what.to_owned(), answer);
    };
    for (name, keyring) in [
        ("session keyring", libc::KEY_SPEC_SESSION_KEYRING),
        ("user keyring", libc::KEY_SPEC_USER_KEYRING),
        ("user session keyring", libc::KEY_SPEC_USER_SESSION_KEYRING),
    ] {
        let keyring = i64::from(keyring);
        note(
            name,
            kernel::keyctl(libc::KEYCTL_GET_KEYRING_ID, keyring, 0),
        );
        note(
            &format!("key of the host in the {name}"),
            kernel::search_key(keyring, CANARY_KEY),
        );
    }
    note(
        "key of the host on request",
        kernel::request_key(CANARY_KEY),
    );
    for path in ["/proc/keys", "/proc/key-users"] {
        let seen = match fs::read_to_string(path) {
            Ok(text) if text.is_empty() => "empty".to_owned(),
            Ok(_) => "read".to_owned(),
            Err(error) => error.kind().to_string(),
        };
        found.insert(path.to_owned(), seen);
    }
    found
}
