//! What the operator wrote: TOML text to a typed [`Definition`], through layers and drop-ins, with every
//! problem reported at once.
//!
//! Nothing here reads the machine beyond the definition files themselves, decides a default that depends on
//! the host, or knows how a box is run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::syscall::{Architecture, Syscall};

pub use diagnostics::{Diagnostics, SourceText, Style};
pub use health::{Health, OnFailure, Probe, UNHEALTHY};
pub use layers::{
    BadName, Layers, Listed, LoadError, list, load, load_file, load_file_of_one, of_texts, texts,
    texts_with,
};
pub use output::Output;
pub use reader::{parse, understand};
pub use reload::{Reload, ReloadHow, Watchdog};
pub use schema::{Key, Peers, keys, schema};
pub use settings::{Setting, Unreadable, edited, with_drop_in};
pub use sockets::{Address, BindIpv6Only, Listen, Socket, SocketKind, SocketOptions};
pub use values::parse_user;
pub use written::{Written, written};

pub mod agent;
pub mod changes;
mod devices;
mod diagnostics;
mod health;
mod instances;
mod layers;
mod mounts;
mod output;
mod quantity;
mod reader;
mod reload;
mod schema;
mod section;
mod security;
mod settings;
mod sockets;
mod tree;
mod values;
mod written;

/// One box as its operator described it. Absent means "not written": defaults are the plan's to decide.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Definition {
    /// The box's name: the file's stem, with the number of an instance if it is read for one.
    pub name: Name,
    /// The files this was read from, the base first, then its drop-ins in the order they were merged.
    pub sources: Vec<PathBuf>,
    /// How many boxes there are of it. Absent: one, without a number.
    pub instances: Option<u16>,
    /// One line for people: the unit's `Description=`.
    pub description: Option<String>,
    /// The program and its arguments; never empty; the program is absolute or looked up in the box's `PATH`.
    pub command: Vec<String>,
    /// Whom the command runs as, looked up inside the box. Absent: root of the box.
    pub user: Option<User>,
    /// Supplementary groups, looked up inside the box.
    pub groups: Vec<Group>,
    /// Absolute path inside the box. Absent: `/`.
    pub working_directory: Option<PathBuf>,
    /// Environment set for the command.
    pub environment: BTreeMap<String, String>,
    /// Files of the host, as `EnvironmentFile=` of systemd.exec(5): later ones win, and all over `environment`.
    pub environment_files: Vec<EnvironmentFile>,
    /// Absent: the box's name.
    pub hostname: Option<String>,
    /// Whether the command has a terminal, to which an operator can attach.
    pub tty: bool,
    /// How much a box may do by default.
    pub profile: Profile,
    /// Started after these.
    pub after: Vec<Dependency>,
    /// Not started without these.
    pub requires: Vec<Dependency>,
    /// Whether systemd-machined knows the box.
    pub machine: bool,
    /// Whether the box is started when the host boots; one with sockets, whether they listen then.
    pub start_at_boot: bool,
    /// Where the box's files come from.
    pub root: Root,
    /// What is mounted into the root, in the order written.
    pub mounts: Vec<Mount>,
    /// What starts the box at the first connection, and is passed to it in this order.
    pub sockets: Vec<Socket>,
    /// After so long without a connection of its sockets the box is stopped. Absent: never.
    pub idle_stop: Option<Duration>,
    /// When the box counts as started.
    pub ready: Ready,
    /// Whether it must be heard of now and then.
    pub watchdog: Watchdog,
    /// How it is asked to read its configuration anew. Absent: it cannot be.
    pub reload: Option<Reload>,
    /// How the box is stopped.
    pub stop: Stop,
    /// What becomes of the lines it writes.
    pub output: Output,
    /// Whether systemd starts it again.
    pub restart: Restart,
    /// How the box is asked whether it does what it is there for. Absent: it is not asked.
    pub health: Option<Health>,
    /// Limits and weights.
    pub resources: Resources,
    /// What the box may do, relative to its profile.
    pub security: Security,
    /// Devices of the host that the box has, in the order written.
    pub devices: Vec<Device>,
    /// Secrets that the box finds as files, by name.
    pub credentials: BTreeMap<String, Credential>,
}

/// `[[device]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Which.
    pub source: DeviceSource,
    /// One that is not there is left out.
    pub optional: bool,
    /// It may be one that gives the box power over the host.
    pub sensitive: bool,
}

/// What a `[[device]]` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSource {
    /// A device, or a directory of devices.
    Path {
        /// On the host.
        path: PathBuf,
        /// In the box. Absent: the same.
        at: Option<PathBuf>,
        /// What may be done with it.
        access: DeviceAccess,
        /// Permission bits of its node in the box.
        mode: u32,
    },
    /// A device by its name in the Container Device Interface: `vendor.com/class=name`.
    Cdi(String),
}

/// What may be done with a device; `DeviceAllow=` of systemd.resource-control(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// `r`
    pub read: bool,
    /// `w`
    pub write: bool,
    /// `m`: mknod(2).
    pub mknod: bool,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// A file of the host.
    File(PathBuf),
    /// A file of the host that systemd-creds(1) has encrypted.
    Encrypted(PathBuf),
}

impl Credential {
    /// The file.
    pub fn path(&self) -> &std::path::Path {
        match self {
            Credential::File(path) | Credential::Encrypted(path) => path,
        }
    }
}

/// `user = "name"`, `"uid"` or `"uid:gid"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum User {
    /// Looked up in the box's `/etc/passwd`.
    Name(String),
    /// As it stands. Without a group: the one `/etc/passwd` of the box gives that uid, else the gid of the same number.
    Id {
        /// User id inside the box.
        uid: u32,
        /// Group id inside the box.
        gid: Option<u32>,
    },
}

/// An entry of `groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Looked up in the box's `/etc/group`.
    Name(String),
    /// Group id inside the box.
    Id(u32),
}

/// An entry of `environment-file`; written with a leading `-`, the file may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentFile {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// A missing file is no error.
    pub optional: bool,
}

/// `profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A program.
    #[default]
    App,
    /// A box that boots its own init.
    System,
}

/// An entry of `after` or `requires`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependency {
    /// Another box, by name.
    Box(Name),
    /// Any unit, by its full name with a type suffix.
    Unit(String),
}

impl Definition {
    /// Whether it describes several boxes, and is read for none of them.
    pub fn is_of_all(&self) -> bool {
        self.instances.is_some() && self.name.instance().is_none()
    }

    /// The boxes it is read for: the one, or all instances.
    pub fn boxes(&self) -> Vec<Name> {
        match self.instances.filter(|_| self.is_of_all()) {
            Some(count) => (1..=count)
                .map(|index| self.name.with_instance(index))
                .collect(),
            None => vec![self.name.clone()],
        }
    }

    /// The socket units of the box, in the order of its sockets: the first is `box@NAME.socket`, which the
    /// others start and stop with.
    pub fn socket_units(&self) -> Vec<String> {
        let unit = |(index, socket): (usize, &Socket)| match (index, &socket.name) {
            (0, _) => self.name.socket(),
            (_, Some(name)) => self.name.socket_of(name),
            // Only where names have problems.
            (_, None) => self.name.socket_of(&(index + 1).to_string()),
        };
        self.sockets.iter().enumerate().map(unit).collect()
    }
}

impl Dependency {
    /// The unit this stands for: of a box that has instances the one that starts all.
    pub fn unit(&self, has_instances: &dyn Fn(&Name) -> bool) -> String {
        match self {
            Dependency::Box(name) if name.instance().is_none() && has_instances(name) => {
                name.target()
            }
            Dependency::Box(name) => name.unit(),
            Dependency::Unit(unit) => unit.clone(),
        }
    }
}

/// `[root]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Root {
    /// Where the files come from.
    pub source: RootSource,
    /// What becomes of writes. Absent: `discard`.
    pub writes: Writes,
    /// The directory may be one that gives the box power over the host.
    pub sensitive: bool,
}

/// `[root] directory = …` or `host = true`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootSource {
    /// The host's `/usr`, read-only, with everything else private and empty: a box without an image.
    #[default]
    Host,
    /// A directory of the host that holds a root file system.
    Directory(PathBuf),
}

/// `[root] writes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writes {
    /// To an overlay in memory, thrown away at stop.
    #[default]
    Discard,
    /// To an overlay under `/var/lib/boxd/NAME` that the next start finds again.
    Keep,
    /// The root is read-only.
    Refuse,
}

/// `[[mount]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Absolute, normal path inside the box.
    pub at: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Writes are refused.
    pub read_only: bool,
    /// What is bound may be something that gives the box power over the host.
    pub sensitive: bool,
}

/// What a `[[mount]]` brings into the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountSource {
    /// A directory, file or socket of the host.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// Whether mounts below it come along. Default: true, as `Bind=` of systemd.nspawn(5).
        recursive: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Most bytes it holds.
        size: u64,
        /// Permission bits of its root; default `0755`.
        mode: u32,
    },
}

/// `[ready]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Ready {
    /// What makes the box ready.
    pub when: ReadyWhen,
    /// How long a start may take. Absent: 90 s, systemd's own default.
    pub timeout: Option<Duration>,
}

/// `[ready] when`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyWhen {
    /// The command has been executed.
    #[default]
    Started,
    /// The payload says so itself, by sd_notify(3).
    Notify,
    /// A probe of `[health]` has succeeded.
    Healthy,
}

/// `[stop]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Stop {
    /// Run in the box before the signal; empty for none.
    pub command: Vec<String>,
    /// Sent to the box's first process: a signal number. Absent: the profile's (SIGTERM; SIGRTMIN+3 for `system`).
    pub signal: Option<i32>,
    /// Time between the signal and the end of all processes. Absent: 10 s (90 s for `system`).
    pub timeout: Option<Duration>,
}

/// `[restart]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restart {
    /// Absent: `no`.
    pub policy: RestartPolicy,
    /// `RestartSec=`. Absent: systemd's 100 ms.
    pub delay: Option<Duration>,
    /// `StartLimitBurst=`: starts allowed within `limit_interval`.
    pub limit_burst: Option<u32>,
    /// `StartLimitIntervalSec=`.
    pub limit_interval: Option<Duration>,
}

/// `[restart] policy`: the values of `Restart=` in systemd.service(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "systemd.service(5) has them")]
pub enum RestartPolicy {
    #[default]
    No,
    OnSuccess,
    OnFailure,
    OnAbnormal,
    OnWatchdog,
    OnAbort,
    Always,
}

impl RestartPolicy {
    /// The value of `Restart=`.
    pub fn as_str(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnSuccess => "on-success",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::OnAbnormal => "on-abnormal",
            RestartPolicy::OnWatchdog => "on-watchdog",
            RestartPolicy::OnAbort => "on-abort",
            RestartPolicy::Always => "always",
        }
    }
}

/// `[resources]`: systemd.resource-control(5) by other names.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Resources {
    /// `MemoryMax=`, bytes. `"infinity"` is as if it were not written, here and in the next two.
    pub memory: Option<u64>,
    /// `MemoryHigh=`, bytes.
    pub memory_high: Option<u64>,
    /// `MemorySwapMax=`, bytes.
    pub memory_swap: Option<u64>,
    /// `CPUQuota=` in cores: 1.5 is 150 %.
    pub cpu: Option<f64>,
    /// `CPUWeight=`, 1 to 10000.
    pub cpu_weight: Option<u64>,
    /// `AllowedCPUs=`: indices, ascending, without repetition.
    pub cpus: Option<Vec<u32>>,
    /// `TasksMax=`.
    pub tasks: Option<u64>,
    /// `IOWeight=`, 1 to 10000.
    pub io_weight: Option<u64>,
    /// `IOReadBandwidthMax=`: device or path on the host, bytes per second.
    pub io_read: BTreeMap<PathBuf, u64>,
    /// `IOWriteBandwidthMax=`.
    pub io_write: BTreeMap<PathBuf, u64>,
    /// `IOReadIOPSMax=`: device or path on the host, operations per second.
    pub io_read_operations: BTreeMap<PathBuf, u64>,
    /// `IOWriteIOPSMax=`.
    pub io_write_operations: BTreeMap<PathBuf, u64>,
}

/// `[security]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Security {
    /// Whose ids the box has.
    pub users: Users,
    /// Changes to the profile's capability set, in the order written.
    pub capabilities: Vec<CapabilityChange>,
    /// Absent: true for `app`, false for `system`.
    pub no_new_privileges: Option<bool>,
    /// Which clock the box sees.
    pub clock: Clock,
    /// Which system calls the box may make.
    pub seccomp: Seccomp,
    /// Architectures besides the host's whose programs may run, named as in `SystemCallArchitectures=`.
    pub syscall_architectures: Vec<Architecture>,
    /// Kernel settings of the box's own namespaces, as paths below `/proc/sys` (`net/ipv4/ip_forward`).
    pub sysctls: BTreeMap<String, String>,
    /// Limits of the first process and all that come of it.
    pub resource_limits: BTreeMap<Resource, ResourceLimit>,
    /// Paths inside the box that are hidden besides those the profile hides.
    pub mask: Vec<PathBuf>,
    /// Paths the profile hides that are shown.
    pub unmask: Vec<PathBuf>,
    /// Paths inside the box that are mounted over themselves, read-only.
    pub read_only_paths: Vec<PathBuf>,
    /// Whether programs may use keyrings(7). Absent: false.
    pub keyring: bool,
    /// The AppArmor profile it runs under.
    pub apparmor: Option<String>,
    /// The SELinux label it runs under.
    pub selinux: Option<String>,
}

/// What getrlimit(2) limits, by the names of `Limit…=` in systemd.exec(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "getrlimit(2) has them")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 16] = [
        Resource::As,
        Resource::Core,
        Resource::Cpu,
        Resource::Data,
        Resource::Fsize,
        Resource::Locks,
        Resource::Memlock,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Nofile,
        Resource::Nproc,
        Resource::Rss,
        Resource::Rtprio,
        Resource::Rttime,
        Resource::Sigpending,
        Resource::Stack,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Resource::As => "as",
            Resource::Core => "core",
            Resource::Cpu => "cpu",
            Resource::Data => "data",
            Resource::Fsize => "fsize",
            Resource::Locks => "locks",
            Resource::Memlock => "memlock",
            Resource::Msgqueue => "msgqueue",
            Resource::Nice => "nice",
            Resource::Nofile => "nofile",
            Resource::Nproc => "nproc",
            Resource::Rss => "rss",
            Resource::Rtprio => "rtprio",
            Resource::Rttime => "rttime",
            Resource::Sigpending => "sigpending",
            Resource::Stack => "stack",
        }
    }

    /// Whether it counts bytes.
    pub fn is_size(self) -> bool {
        matches!(
            self,
            Resource::As
                | Resource::Core
                | Resource::Data
                | Resource::Fsize
                | Resource::Memlock
                | Resource::Msgqueue
                | Resource::Rss
                | Resource::Stack
        )
    }
}

/// A soft and a hard limit; [`ResourceLimit::INFINITY`] is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// In force.
    pub soft: u64,
    /// To which the process itself may raise the former.
    pub hard: u64,
}

impl ResourceLimit {
    /// No limit.
    pub const INFINITY: u64 = u64::MAX;
}

/// `[security] seccomp`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// Those the profile and the capabilities allow.
    #[default]
    Profile,
    /// The same, changed by name.
    Changes {
        /// Allowed too, with any argument.
        allow: Vec<Syscall>,
        /// Refused; wins over `allow`.
        deny: Vec<Syscall>,
    },
    /// Those a file of the host allows, in the form of the OCI runtime specification.
    File(PathBuf),
    /// All.
    Unconfined,
}

/// `[security] users`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Users {
    /// An own range of 65536 ids.
    #[default]
    Auto,
    /// The host's ids: no user namespace.
    Host,
}

/// `[security] clock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` of the host.
    #[default]
    Host,
    /// An own time namespace whose clocks begin at zero when the box starts; see time_namespaces(7).
    Private,
}

/// `"+NET_RAW"`, `"-KILL"`, `"+ALL"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapabilityChange {
    /// Given beyond the profile.
    Add(crate::capability::CapabilitySet),
    /// Taken from the profile.
    Drop(crate::capability::CapabilitySet),
}
