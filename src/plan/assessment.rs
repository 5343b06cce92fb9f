//! How far a box is open: its plan and the defaults of others, judged by one rule.
//!
//! Each wall counts as many points as it matters, and all of them together 100; a wall that stands counts none. That
//! is a way to compare, not a measure of safety: a box with a secret and no open wall still has the secret.

use serde::Serialize;

use super::api_filesystems::{MASKED, hides};
use super::privileges::of_profile;
use super::{Label, Limit, Plan, Profile, exposure};
use crate::capability::CapabilitySet;
use crate::definition::{Address, Listen};

/// What is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    /// Its root is nobody on the host.
    own_ids: bool,
    capabilities: CapabilitySet,
    no_new_privileges: bool,
    /// None for all there are.
    system_calls: Option<usize>,
    /// Of the paths an app of boxd does not see.
    hidden: usize,
    /// Devices besides those every container has, and whether one of them gives power over the host.
    devices: usize,
    sensitive_devices: bool,
    /// Paths of the host that give power over it.
    sensitive_paths: usize,
    network: Network,
    tasks: Option<u64>,
    /// A security module of the host confines it, where one runs.
    label: bool,
}

/// What of the host's network its processes reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// Nothing: it has one of its own that leads nowhere.
    Own,
    /// Others through the host, from a network of its own.
    Bridged,
    /// What the host reaches, its own loopback included, through a socket that was opened there.
    BySocket,
    /// All of it: addresses, abstract sockets, settings.
    Host,
}

/// One of the others, by what it does when it is told nothing.
struct Peer {
    name: &'static str,
    own_ids: bool,
    capabilities: &'static [&'static str],
    system_calls: usize,
    /// Of [`MASKED`].
    hidden: usize,
    network: Network,
    tasks: Option<u64>,
    label: bool,
}

/// Docker: `daemon/pkg/oci/caps/defaults.go`, `daemon/pkg/oci/defaults.go` and the seccomp profile of moby.
/// Podman: `common/pkg/config/default.go` and its seccomp profile. systemd-nspawn 257: `nspawn.c`,
/// `nspawn-seccomp.c`, `nspawn-mount.c`; and with what `systemd-nspawn@.service` adds, a network of its own among it. Counts of system calls are those
/// of x86-64. None of them sets `no_new_privs`. What they hide is counted as far as boxd hides it too.
const PEERS: [Peer; 4] = [
    Peer {
        name: "Docker",
        own_ids: false,
        capabilities: &DOCKER,
        system_calls: 309,
        hidden: 12,
        network: Network::Bridged,
        tasks: None,
        label: true,
    },
    Peer {
        name: "Podman",
        own_ids: false,
        capabilities: &PODMAN,
        system_calls: 318,
        hidden: 11,
        network: Network::Bridged,
        tasks: Some(2048),
        label: true,
    },
    Peer {
        name: "nspawn",
        own_ids: false,
        capabilities: &NSPAWN,
        system_calls: 324,
        hidden: 5,
        network: Network::Host,
        tasks: None,
        label: false,
    },
    Peer {
        name: "nspawn@",
        own_ids: true,
        capabilities: &NSPAWN_OWN_NETWORK,
        system_calls: 324,
        hidden: 10,
        network: Network::Bridged,
        tasks: Some(16384),
        label: false,
    },
];

const DOCKER: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

const PODMAN: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
];

use super::privileges::SYSTEM as NSPAWN;

const NSPAWN_OWN_NETWORK: [&str; 27] = {
    let mut names = ["NET_ADMIN"; 27];
    let mut index = 0;
    while index < NSPAWN.len() {
        names[index] = NSPAWN[index];
        index += 1;
    }
    names
};

/// One wall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Wall {
    /// What it is about.
    pub what: &'static str,
    /// How it stands for this box.
    pub state: String,
    /// How far it is open.
    pub points: u32,
    /// How far it could be.
    pub of: u32,
    /// How far it is open for the others, in their order.
    pub peers: Vec<u32>,
}

/// Something this box may that its profile does not give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Relaxation {
    /// The key of the definition.
    pub key: String,
    /// What was given.
    pub value: String,
    /// What that opens.
    pub opens: String,
}

/// The whole judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Assessment {
    /// The box.
    pub name: crate::name::Name,
    /// Its profile.
    pub profile: Profile,
    /// How far it is open, of 100.
    pub score: u32,
    /// The others, with their scores.
    pub peers: Vec<PeerScore>,
    /// Wall by wall.
    pub walls: Vec<Wall>,
    /// What the definition gives beyond the profile.
    pub relaxations: Vec<Relaxation>,
    /// What the plan remarks on.
    pub remarks: Vec<String>,
}

/// One of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PeerScore {
    /// Its name.
    pub name: &'static str,
    /// How far it is open, of 100.
    pub score: u32,
}

/// Judges a plan.
pub fn assess(plan: &Plan) -> Assessment {
    let facts = facts(plan);
    let points = points(&facts);
    let peers: Vec<[u32; 10]> = PEERS
        .iter()
        .map(|peer| self::points(&peer.facts()))
        .collect();
    let states = states(plan, &facts);
    let walls = WALLS
        .iter()
        .zip(states)
        .enumerate()
        .map(|(index, ((what, of), state))| Wall {
            what,
            state,
            points: points[index],
            of: *of,
            peers: peers.iter().map(|points| points[index]).collect(),
        })
        .collect();
    Assessment {
        name: plan.name.clone(),
        profile: plan.profile,
        score: points.iter().sum(),
        peers: PEERS
            .iter()
            .zip(&peers)
            .map(|(peer, points)| PeerScore {
                name: peer.name,
                score: points.iter().sum(),
            })
            .collect(),
        walls,
        relaxations: relaxations(plan, &facts),
        remarks: plan.remarks.clone(),
    }
}

/// The walls and what each counts when it is wide open.
const WALLS: [(&str, u32); 10] = [
    ("ids", 25),
    ("capabilities", 20),
    ("new privileges", 5),
    ("system calls", 20),
    ("kernel files", 6),
    ("devices", 5),
    ("paths of the host", 8),
    ("network", 5),
    ("tasks", 3),
    ("security module", 3),
];

/// Capabilities that reach furthest; the others count a fifth of one of these.
const FAR: [&str; 20] = [
    "AUDIT_CONTROL",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "IPC_OWNER",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_RAW",
    "PERFMON",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYSLOG",
];

/// So few system calls make a program, and so many there are.
const FEWEST: usize = 200;
const ALL_CALLS: usize = 369;

fn points(facts: &Facts) -> [u32; 10] {
    let far = facts
        .capabilities
        .names()
        .filter(|name| FAR.contains(name))
        .count();
    let near = facts.capabilities.names().count() - far;
    // Of a process with ids of its own they hold over its own namespaces only.
    let weight = if facts.own_ids { 1 } else { 2 };
    let capabilities = share((far * 5 + near) * weight, FAR.len() * 5, 20);
    let calls = facts.system_calls.unwrap_or(ALL_CALLS).max(FEWEST);
    [
        if facts.own_ids { 0 } else { 25 },
        capabilities,
        if facts.no_new_privileges { 0 } else { 5 },
        share(calls - FEWEST, ALL_CALLS - FEWEST, 20),
        share(MASKED.len().saturating_sub(facts.hidden), MASKED.len(), 6),
        match (facts.sensitive_devices, facts.devices) {
            (true, _) => 5,
            (false, 0) => 0,
            (false, _) => 2,
        },
        if facts.sensitive_paths > 0 { 8 } else { 0 },
        match facts.network {
            Network::Own => 0,
            Network::Bridged => 2,
            Network::BySocket => 3,
            Network::Host => 5,
        },
        if facts.tasks.is_some() { 0 } else { 3 },
        if facts.label { 0 } else { 3 },
    ]
}

/// `part` of `whole` in points, at most all of them.
fn share(part: usize, whole: usize, points: u32) -> u32 {
    let exact = part * points as usize;
    u32::try_from(exact.div_ceil(whole)).map_or(points, |share| share.min(points))
}

impl Peer {
    fn facts(&self) -> Facts {
        Facts {
            own_ids: self.own_ids,
            capabilities: CapabilitySet::of(self.capabilities.iter().copied())
                .unwrap_or(CapabilitySet::ALL),
            no_new_privileges: false,
            system_calls: Some(self.system_calls),
            hidden: self.hidden,
            devices: 0,
            sensitive_devices: false,
            sensitive_paths: 0,
            network: self.network,
            tasks: self.tasks,
            label: self.label,
        }
    }
}

fn facts(plan: &Plan) -> Facts {
    let hidden = |path: &&&str| plan.mounts.iter().any(|step| hides(step, path));
    let hidden = MASKED.iter().filter(hidden).count();
    let devices = &plan.scope.devices;
    Facts {
        own_ids: plan.ids.is_some(),
        capabilities: plan.privileges.capabilities,
        no_new_privileges: plan.privileges.no_new_privileges,
        system_calls: plan
            .privileges
            .seccomp
            .as_ref()
            .map(|policy| policy.allowed().len()),
        hidden,
        devices: devices.len(),
        sensitive_devices: devices
            .iter()
            .any(|rule| exposure::device(rule.node).is_some()),
        sensitive_paths: sensitive_paths(plan).count(),
        network: match listeners(plan).next() {
            Some(_) => Network::BySocket,
            None => Network::Own,
        },
        tasks: plan.scope.limits.iter().find_map(|limit| match limit {
            Limit::TasksMax(tasks) => Some(*tasks),
            _ => None,
        }),
        label: plan.privileges.labels.iter().any(confines),
    }
}

fn confines(label: &Label) -> bool {
    !matches!(label, Label::AppArmor(profile) if profile == "unconfined")
}

/// Paths of the host the plan itself calls sensitive: those it remarks on.
fn sensitive_paths(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.remarks
        .iter()
        .filter_map(|remark| remark.strip_suffix(": the box has it"))
}

/// Sockets of the host's network that the box is given. One that listens can be made to connect instead, connect(2)
/// with `AF_UNSPEC`, and one for datagrams sends them anywhere.
fn listeners(plan: &Plan) -> impl Iterator<Item = &Listen> {
    plan.sockets
        .iter()
        .flat_map(|socket| &socket.listen)
        .filter(|listen| !matches!(listen.address, Address::Unix(_)))
}

fn states(plan: &Plan, facts: &Facts) -> [String; 10] {
    [
        match plan.ids {
            Some(ids) => format!("its own, {}-{} of the host", ids.base, ids.last()),
            None => "the host's".to_owned(),
        },
        format!(
            "{}: {}",
            facts.capabilities.names().count(),
            facts.capabilities
        ),
        if facts.no_new_privileges {
            "cannot be gained".to_owned()
        } else {
            "can be gained by set-user-ID programs".to_owned()
        },
        match &plan.privileges.seccomp {
            Some(policy) => policy.to_string(),
            None => "all".to_owned(),
        },
        format!("{} of {} are hidden", facts.hidden, MASKED.len()),
        match facts.devices {
            0 => "those every box has".to_owned(),
            more => format!("{more} more than every box has"),
        },
        match facts.sensitive_paths {
            0 => "none that gives power over the host".to_owned(),
            some => format!("{some} that give power over the host"),
        },
        match listeners(plan).count() {
            0 => "its own, which leads nowhere".to_owned(),
            1 => "its own, and a socket of the host's".to_owned(),
            more => format!("its own, and {more} sockets of the host's"),
        },
        facts.tasks.map_or_else(
            || "unlimited".to_owned(),
            |tasks| format!("at most {tasks}"),
        ),
        match plan.privileges.labels.first() {
            Some(Label::AppArmor(name)) => format!("AppArmor profile {name}"),
            Some(Label::Selinux(name)) => format!("SELinux label {name}"),
            None => "none of its own".to_owned(),
        },
    ]
}

fn relaxations(plan: &Plan, facts: &Facts) -> Vec<Relaxation> {
    let mut all = Vec::new();
    let mut add = |key: &str, value: String, opens: &str| {
        all.push(Relaxation {
            key: key.to_owned(),
            value,
            opens: opens.to_owned(),
        });
    };
    if !facts.own_ids {
        add(
            "security.users",
            "host".to_owned(),
            "root of the box is root of the host wherever another wall fails, and files it shares are the host's users'",
        );
    }
    let of_profile = of_profile(plan.profile, facts.own_ids);
    for name in facts.capabilities.without(of_profile).names() {
        add("security.capabilities", format!("+{name}"), opens(name));
    }
    if plan.profile == Profile::App && !facts.no_new_privileges {
        add(
            "security.no-new-privileges",
            "false".to_owned(),
            "a set-user-ID program in the box makes any of its users root of the box",
        );
    }
    match &plan.privileges.seccomp {
        None => add(
            "security.seccomp",
            "unconfined".to_owned(),
            "every system call of the kernel, those with a history of faults included",
        ),
        Some(policy) if policy.title.contains(" + ") || policy.title.starts_with('/') => add(
            "security.seccomp",
            policy.title.clone(),
            "system calls that the profile has closed",
        ),
        Some(_) => {}
    }
    let hidden = |path: &str| plan.mounts.iter().any(|step| hides(step, path));
    for path in MASKED.iter().filter(|path| !hidden(path)) {
        add(
            "security.unmask",
            (*path).to_owned(),
            "what the kernel tells there of the host, or of others on it",
        );
    }
    for rule in &plan.scope.devices {
        let what = exposure::device(rule.node)
            .unwrap_or("what its driver does for whoever opens it, faults of the driver included");
        add(
            "device",
            format!("{} {}", rule.property(), rule.access),
            what,
        );
    }
    for listen in listeners(plan) {
        add(
            "socket",
            format!("{} {}", listen.kind.key(), listen.address),
            "what the host reaches, its own loopback included: a program can connect such a socket elsewhere, or send \
             from it",
        );
    }
    let unconfined = |label: &&Label| !confines(label);
    if let Some(Label::AppArmor(name)) = plan.privileges.labels.iter().find(unconfined) {
        add(
            "security.apparmor",
            name.clone(),
            "what the host's AppArmor keeps from boxes",
        );
    }
    for path in sensitive_paths(plan) {
        add(
            "sensitive",
            path.to_owned(),
            "power over the host: who has this can become its root or read its secrets",
        );
    }
    all
}

/// What a capability lets root of a box do, over its own namespaces, or over the host without ids of its own.
fn opens(capability: &str) -> &'static str {
    match capability {
        "AUDIT_CONTROL" => "rules and state of the kernel's audit",
        "AUDIT_READ" => "the kernel's audit log",
        "AUDIT_WRITE" => "forged entries in the kernel's audit log",
        "BLOCK_SUSPEND" => "the host is kept from sleeping",
        "BPF" => "programs in the kernel",
        "CHECKPOINT_RESTORE" => "files and memory of other processes of the box",
        "DAC_OVERRIDE" => "all files of the box, past their permissions",
        "DAC_READ_SEARCH" => {
            "files by their handles, past directories: with the host's ids, of the whole file system"
        }
        "IPC_LOCK" => "memory that cannot be swapped, as much as it likes",
        "IPC_OWNER" => "shared memory and queues of every user of the box",
        "LEASE" => "other processes are held up when they open a file",
        "LINUX_IMMUTABLE" => "files that even root does not change",
        "MAC_ADMIN" | "MAC_OVERRIDE" => "the rules of the host's security module",
        "MKNOD" => "device nodes; what they may do the scope still holds",
        "NET_ADMIN" => {
            "addresses, routes and filters of the box's network, and a lot of rarely tried code of the kernel"
        }
        "NET_BROADCAST" => "broadcasts and multicasts",
        "NET_RAW" => "forged packets, and listening to those of the box's network",
        "PERFMON" => "the processors' counters, which tell of the neighbours",
        "SETFCAP" => "programs that give capabilities to who runs them",
        "SETPCAP" => "capabilities are handed on",
        "SYS_ADMIN" => {
            "mounts, namespaces and most of what the kernel offers to root: the widest of all"
        }
        "SYS_BOOT" => "reboot(2), of the box alone",
        "SYS_CHROOT" => "other roots within the box's",
        "SYS_MODULE" => "code in the kernel",
        "SYS_NICE" => "processor time before others",
        "SYS_PACCT" => "records of processes",
        "SYS_PTRACE" => "memory of every process of the box",
        "SYS_RAWIO" => "ports and memory of the hardware",
        "SYS_RESOURCE" => "limits are raised",
        "SYS_TIME" => "the host's clock",
        "SYS_TTY_CONFIG" => "settings of terminals",
        "SYSLOG" => "the kernel's log and addresses",
        "WAKE_ALARM" => "the host is woken up",
        _ => "more than its profile needs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Definition, SourceText, parse};
    use crate::host::Host;
    use crate::plan::resolve;

    fn assessed(text: &str) -> Assessment {
        let text = SourceText {
            path: "web.toml".into(),
            text: format!("command = ['/bin/true']\n{text}"),
        };
        let definition: Definition =
            parse(&"web".parse().expect("a name"), &[text]).expect("a good definition");
        assess(&resolve(&definition, &Host::fixed(&definition)).expect("a plan"))
    }

    #[test]
    fn the_walls_are_a_hundred_points_and_the_rule_reaches_both_ends() {
        assert_eq!(WALLS.iter().map(|(_, of)| of).sum::<u32>(), 100);
        let open = Facts {
            own_ids: false,
            capabilities: CapabilitySet::ALL,
            no_new_privileges: false,
            system_calls: None,
            hidden: 0,
            devices: 1,
            sensitive_devices: true,
            sensitive_paths: 1,
            network: Network::Host,
            tasks: None,
            label: false,
        };
        assert_eq!(points(&open), WALLS.map(|(_, of)| of));
        let closed = Facts {
            own_ids: true,
            capabilities: CapabilitySet::EMPTY,
            no_new_privileges: true,
            system_calls: Some(100),
            hidden: MASKED.len(),
            devices: 0,
            sensitive_devices: false,
            sensitive_paths: 0,
            network: Network::Own,
            tasks: Some(1),
            label: true,
        };
        assert_eq!(points(&closed), [0; 10]);
    }

    #[test]
    fn a_box_on_defaults_is_closed_further_than_every_other() {
        let assessment = assessed("");
        assert!(assessment.relaxations.is_empty(), "{assessment:?}");
        for peer in &assessment.peers {
            assert!(assessment.score < peer.score, "{assessment:?}");
        }
        for wall in assessment
            .walls
            .iter()
            .filter(|wall| wall.what != "security module")
        {
            assert!(
                wall.peers.iter().all(|peer| wall.points <= *peer),
                "{wall:?}"
            );
        }
        let system = assessed("profile = 'system'");
        assert!(system.relaxations.is_empty(), "{system:?}");
        let unit = &system.peers[3];
        assert!(system.score < unit.score, "{system:?}");
    }

    #[test]
    fn each_relaxation_is_named_and_counts() {
        let tight = assessed("").score;
        for (text, key) in [
            ("[security]\nusers = 'host'", "security.users"),
            (
                "[security]\ncapabilities = ['+SYS_ADMIN']",
                "security.capabilities",
            ),
            (
                "[security]\nno-new-privileges = false",
                "security.no-new-privileges",
            ),
            ("[security]\nseccomp = 'unconfined'", "security.seccomp"),
            ("[security]\nkeyring = true", "security.seccomp"),
            (
                "[security]\nunmask = ['/proc/kcore', '/proc/keys', '/sys/firmware']",
                "security.unmask",
            ),
            ("[[device]]\npath = '/dev/disk'\nsensitive = true", "device"),
            (
                "[[mount]]\nbind = '/etc'\nat = '/x'\nsensitive = true",
                "sensitive",
            ),
            ("[[socket]]\nstream = '127.0.0.1:8080'", "socket"),
            ("[[socket]]\ndatagram = 53", "socket"),
            ("[security]\napparmor = 'unconfined'", "security.apparmor"),
        ] {
            let assessment = assessed(text);
            assert!(assessment.score >= tight, "{text}: {assessment:?}");
            assert!(
                assessment.relaxations.iter().any(|one| one.key == key),
                "{text}: {assessment:?}"
            );
        }
        let path = assessed("[[socket]]\nstream = '/run/web/socket'");
        assert!(path.relaxations.is_empty(), "{path:?}");
    }
}
