//! What of a report is open, and where one box is wider than another.
//!
//! What a box has over its own things only is not held against it where the other can have the same:
//!
//! - capabilities in a user namespace of its own, and the files of its own processes they open, are in reach of all
//!   who can make user namespaces;
//! - so are settings of a network of its own, `/proc/sys/net`, of all who can make network namespaces;
//! - memory that came with the box may be written to, its root among it, which is what `[root] writes` decides.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{Mount, RESTRICTIONS};
use crate::machine::Host;
use crate::report::Report;

/// By respect, everything that is open in it.
pub struct Openings {
    pub columns: BTreeMap<&'static str, BTreeSet<String>>,
    mounts: BTreeMap<String, Mount>,
    limits: BTreeMap<String, String>,
    own_users: bool,
    own_network: bool,
    /// Namespaces it can make.
    makes: BTreeSet<String>,
}

/// In the order of the table.
pub const COLUMNS: [&str; 18] = [
    "namespaces of the host",
    "ids of the host",
    CAPABILITIES,
    "privileges to be had",
    "system calls",
    "arguments of calls",
    "new namespaces",
    MOUNTS,
    "kernel files read",
    "kernel files written",
    "sysctls written",
    "devices",
    "nodes to be made",
    "keyrings",
    "descriptors",
    LIMITS,
    "sockets",
    "interfaces",
];

const NETWORK_SETTINGS: &str = "/proc/sys/net";
const CAPABILITIES: &str = "capabilities";
const MOUNTS: &str = "unrestricted mounts";
const LIMITS: &str = "limits not set";

impl Openings {
    pub fn of(report: &Report, host: &Host) -> Self {
        let own = |kind| report.namespaces.get(kind) != host.namespaces.get(kind);
        let mut openings = Openings {
            columns: COLUMNS.map(|column| (column, BTreeSet::new())).into(),
            mounts: report.mounts.clone(),
            limits: report
                .limits
                .iter()
                .map(|(name, (_, hard))| (name.clone(), hard.clone()))
                .collect(),
            own_users: own("user"),
            own_network: own("net"),
            makes: BTreeSet::new(),
        };
        openings.identity(report, host);
        openings.kernel(report);
        openings.things(report);
        openings
    }

    fn add(&mut self, column: &'static str, items: impl IntoIterator<Item = String>) {
        self.columns
            .get_mut(column)
            .expect("one of the columns")
            .extend(items);
    }

    fn identity(&mut self, report: &Report, host: &Host) {
        let shared = report
            .namespaces
            .iter()
            .filter(|(kind, link)| host.namespaces.get(*kind) == Some(link));
        self.add(
            "namespaces of the host",
            shared.map(|(kind, _)| kind.clone()),
        );
        for name in ["user map", "group map"] {
            let map = report.ids.get(name).map_or("", String::as_str);
            for line in map.split(", ") {
                let numbers: Vec<u64> = line
                    .split(' ')
                    .filter_map(|word| word.parse().ok())
                    .collect();
                if let [_, outside, count] = numbers[..] {
                    let of_host = (outside == 0).then(|| format!("{name}: root of the host"));
                    let many = (count > 65536).then(|| format!("{name}: more than 65536"));
                    self.add("ids of the host", of_host.into_iter().chain(many));
                } else {
                    self.add("ids of the host", [format!("{name}: {line:?}")]);
                }
            }
        }
        for (set, names) in &report.capabilities {
            self.add(
                CAPABILITIES,
                names.iter().map(|name| format!("{set} {name}")),
            );
        }
        for (name, bad, what) in [
            ("no new privileges", "0", "set-user-ID programs"),
            ("seccomp mode", "0", "no filter"),
        ] {
            if report.privileges.get(name).is_none_or(|value| value == bad) {
                self.add("privileges to be had", [what.to_owned()]);
            }
        }
    }

    fn kernel(&mut self, report: &Report) {
        for (column, verdicts, open) in [
            ("system calls", &report.calls, "allow"),
            ("arguments of calls", &report.arguments, "allow"),
            ("new namespaces", &report.unshare, "made"),
        ] {
            let items = verdicts.iter().filter(|(_, verdict)| *verdict == open);
            self.add(column, items.map(|(name, _)| name.clone()));
        }
        self.add(
            "kernel files read",
            report.readable.iter().map(|path| own(path)),
        );
        for path in &report.writable {
            let column = if path.starts_with("/proc/sys/") {
                "sysctls written"
            } else {
                "kernel files written"
            };
            self.add(column, [own(path)]);
        }
        self.makes = self.columns["new namespaces"].clone();
        let mounts: Vec<String> = report
            .mounts
            .iter()
            .filter(|(_, mount)| !mount.masks)
            .flat_map(|(at, mount)| {
                let lacks = RESTRICTIONS
                    .iter()
                    .filter(|flag| !mount.flags.iter().any(|has| has == *flag));
                lacks.map(move |flag| format!("{at} not {flag}"))
            })
            .collect();
        self.add(MOUNTS, mounts);
        let unlimited: Vec<String> = self
            .limits
            .iter()
            .filter(|(_, hard)| *hard == "unlimited")
            .map(|(name, _)| name.clone())
            .collect();
        self.add(LIMITS, unlimited);
    }

    fn things(&mut self, report: &Report) {
        for text in report.devices.values() {
            self.device(text);
        }
        for (number, answer) in &report.device_numbers {
            let Some(opened) = answer.strip_prefix("made, ") else {
                continue;
            };
            let number = number.split(" in ").next().unwrap_or(number);
            self.add("nodes to be made", [number.to_owned()]);
            self.device(&format!("{number} {opened}"));
        }
        // The list of users with keys is of those of the reader's namespace.
        let own_users = self.own_users;
        let keys = report
            .keyrings
            .iter()
            .filter(|(_, answer)| ["reached", "read"].contains(&answer.as_str()))
            .filter(|(name, _)| !(own_users && *name == "/proc/key-users"));
        self.add("keyrings", keys.map(|(name, _)| name.clone()));
        let beyond = report.descriptors.iter().filter(|(number, _)| **number > 2);
        self.add(
            "descriptors",
            beyond.map(|(number, target)| format!("{number} {target}")),
        );
        for (name, answer) in &report.sockets {
            if let Some(interface) = name.strip_prefix("interface ") {
                self.add("interfaces", [interface.to_owned()]);
            } else if answer == "connected" {
                self.add("sockets", [name.clone()]);
            }
        }
    }

    /// `c 1:3 rw`: by number, for a node may have any name. Of terminals made for the box one is like the other.
    fn device(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        if let [kind, number, opened] = words[..] {
            let number = match number.split_once(':') {
                Some(("136", _)) => "136:*",
                _ => number,
            };
            for letter in ['r', 'w'] {
                if opened.contains(letter) && opened.chars().all(|letter| "rw".contains(letter)) {
                    self.add("devices", [format!("{kind} {number} {letter}")]);
                }
            }
        }
    }

    /// Where this box is open and the other is not.
    pub fn wider_than(&self, other: &Openings) -> Vec<String> {
        let mut wider = Vec::new();
        for column in COLUMNS {
            let found: Vec<String> = match column {
                MOUNTS => self.less_restricted(other),
                LIMITS => self.less_limited(other),
                CAPABILITIES if self.own_users && other.makes.contains("user") => vec![],
                _ => self.columns[column]
                    .difference(&other.columns[column])
                    .filter(|item| !self.is_its_own(item, other))
                    .cloned()
                    .collect(),
            };
            wider.extend(found.into_iter().map(|item| format!("{column}: {item}")));
        }
        wider
    }

    /// A file of the kernel over which the other can have the same power, in namespaces it makes.
    fn is_its_own(&self, path: &str, other: &Openings) -> bool {
        let overrides = other.columns[CAPABILITIES].contains("effective DAC_OVERRIDE");
        let of_process = path.starts_with("/proc/self/") && !overrides;
        let of_network = path == NETWORK_SETTINGS || path.starts_with("/proc/sys/net/");
        of_process && self.own_users && other.makes.contains("user")
            || of_network && self.own_network && other.makes.contains("net")
    }

    /// At every place where one of the two mounts something: what restricts the other there and not this one.
    fn less_restricted(&self, other: &Openings) -> Vec<String> {
        let places: BTreeSet<&String> = self.mounts.keys().chain(other.mounts.keys()).collect();
        let mut found = Vec::new();
        for place in places {
            let (Some(ours), Some(theirs)) = (
                covering(&self.mounts, place),
                covering(&other.mounts, place),
            ) else {
                continue;
            };
            let nothing_there = !self.mounts.contains_key(place) && ours.is_the_box_s_own();
            if ours.masks || nothing_there || self.is_its_own(place, other) {
                continue;
            }
            for flag in &theirs.flags {
                let scratch = flag == "ro" && ours.is_the_box_s_own();
                if !ours.flags.contains(flag) && !scratch {
                    found.push(format!("{place} is {flag} there"));
                }
            }
            let from_host = |mount: &Mount| mount.propagation.iter().any(|kind| kind == "slave");
            if from_host(ours) && !from_host(theirs) {
                found.push(format!("{place} takes mounts of the host"));
            }
        }
        found
    }

    fn less_limited(&self, other: &Openings) -> Vec<String> {
        let number = |text: &str| text.parse().unwrap_or(u64::MAX);
        self.limits
            .iter()
            .filter_map(|(name, ours)| {
                let theirs = other.limits.get(name)?;
                (number(ours) > number(theirs)).then(|| format!("{name} is {ours}, there {theirs}"))
            })
            .collect()
    }
}

/// The mount in which a place lies.
fn covering<'a>(mounts: &'a BTreeMap<String, Mount>, place: &str) -> Option<&'a Mount> {
    let mut place = place;
    loop {
        if let Some(mount) = mounts.get(place) {
            return Some(mount);
        }
        place = match place.rsplit_once('/')? {
            ("", "") => return None,
            ("", _) => "/",
            (above, _) => above,
        };
    }
}

/// A box's own cgroup has the files of those controllers that its limits need.
fn own(path: &str) -> String {
    const CGROUP: &str = "/sys/fs/cgroup";
    match path.strip_prefix(CGROUP) {
        Some(below) => {
            let depth = below.matches('/').count();
            format!("{CGROUP}{}", "/*".repeat(depth.min(1)))
        }
        None => path.to_owned(),
    }
}
