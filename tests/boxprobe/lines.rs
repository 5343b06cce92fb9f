//! A report as lines, for goldens and for people: without what differs from one start to the next.

use std::collections::BTreeSet;

use crate::machine::Host;
use crate::report::Report;

pub fn lines(report: &Report, host: &Host) -> Vec<String> {
    let mut lines = BTreeSet::new();
    let mut add = |line: String| {
        lines.insert(line);
    };
    for (kind, link) in &report.namespaces {
        let whose = if host.namespaces.get(kind) == Some(link) {
            "the host's"
        } else {
            "own"
        };
        add(format!("namespace {kind}: {whose}"));
    }
    for (name, value) in &report.ids {
        add(format!("ids {name}: {}", or_none(value)));
    }
    for (set, names) in &report.capabilities {
        if names.is_empty() {
            add(format!("capability {set}: none"));
        }
        for name in names {
            add(format!("capability {set}: {name}"));
        }
    }
    for (name, value) in &report.privileges {
        add(format!("privilege {name}: {}", or_none(value)));
    }
    for (title, verdicts) in [
        ("call", &report.calls),
        ("argument", &report.arguments),
        ("new namespace", &report.unshare),
        ("device", &report.devices),
        ("device number", &report.device_numbers),
        ("keyring", &report.keyrings),
        ("socket", &report.sockets),
    ] {
        for (name, verdict) in verdicts {
            add(format!("{title} {name}: {verdict}"));
        }
    }
    for (at, mount) in &report.mounts {
        add(format!(
            "mount {at}: {} {} {} {}",
            mount.kind,
            mount.root,
            list(&mount.flags),
            list(&mount.propagation)
        ));
    }
    for path in &report.readable {
        add(format!("read {}", class(path)));
    }
    for path in &report.writable {
        let title = if path.starts_with("/proc/sys/") {
            "sysctl"
        } else {
            "write"
        };
        add(format!("{title} {}", class(path)));
    }
    for (number, target) in &report.descriptors {
        add(format!("descriptor {number}: {}", without_numbers(target)));
    }
    for (name, (soft, hard)) in &report.limits {
        add(format!("limit {name}: {soft} {hard}"));
    }
    for gap in &report.unlearnt {
        add(format!("cannot be learnt: {gap}"));
    }
    lines.into_iter().collect()
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

fn list(words: &[String]) -> String {
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(",")
    }
}

/// Files of the kernel that stand for each other: by the first six names of their path, with every number as `N`.
fn class(path: &str) -> String {
    const NAMES: usize = 6;
    let plain = without_numbers(path);
    let mut parts = plain.splitn(NAMES + 2, '/');
    let kept: Vec<&str> = parts.by_ref().take(NAMES + 1).collect();
    let rest = if parts.next().is_some() { "/**" } else { "" };
    kept.join("/") + rest
}

fn without_numbers(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if !letter.is_ascii_digit() {
            plain.push(letter);
        } else if !plain.ends_with('N') {
            plain.push('N');
        }
    }
    plain
}
