//! What will be done: a [`Definition`](crate::definition::Definition) and the facts of a
//! [`Host`](crate::host::Host) become a [`Plan`], in which every default, id, path and flag is decided.
//!
//! Planning is pure: it opens nothing and changes nothing. The printed plan is what `boxctl plan` shows and
//! what the golden folders under `tests/plans` hold. Nothing below the plan knows where it came from.

mod api_filesystems;
pub mod assessment;
mod credentials;
mod devices;
mod etc;
pub mod exposure;
mod limits;
mod machine_id;
mod mounts;
mod print;
mod privileges;
mod problem;
mod resolve;
mod root;
pub mod seccomp;
mod sockets;
mod walls;

pub use print::print;
pub use privileges::system_calls_of;
pub use problem::{Problem, Reason};
pub use resolve::resolve;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capability::CapabilitySet;
pub use crate::definition::{
    Address, BindIpv6Only, Credential, DeviceAccess, EnvironmentFile, Group, Listen, OnFailure,
    Probe, Profile, ReadyWhen, Reload, ReloadHow, Resource, ResourceLimit, Restart, SocketKind,
    SocketOptions, UNHEALTHY, User,
};
pub use crate::host::{Node, NodeKind};
pub use crate::identity::IdRange;
use crate::name::Name;

/// Everything that is done for one box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The box.
    pub name: Name,
    /// For people.
    pub description: String,
    /// The profile everything below was decided by.
    pub profile: Profile,
    /// What runs inside.
    pub payload: Payload,
    /// What the payload is separated from.
    pub namespaces: Namespaces,
    /// The box's ids on the host; none with `users = "host"`.
    pub ids: Option<IdRange>,
    /// How the root comes to be. Executed in order; the first step is the root itself, at `/`.
    pub mounts: Vec<MountStep>,
    /// What is done to all these mounts in the end.
    #[serde(default)]
    pub closing: Closing,
    /// Kernel settings of the box's namespaces.
    #[serde(default)]
    pub sysctls: Vec<Sysctl>,
    /// Which privileges the payload keeps.
    pub privileges: Privileges,
    /// What it finds open, and is started by; sd_listen_fds(3).
    #[serde(default)]
    pub sockets: Vec<Socket>,
    /// After so long without a connection of the sockets the box is stopped; none for never.
    #[serde(default)]
    pub idle_stop: Option<Duration>,
    /// The scope the payload lives in.
    pub scope: Scope,
    /// What systemd-machined is told of the box; none if it is told nothing.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// When it counts as started.
    pub ready: Ready,
    /// The socket through which it says how it does; none if nobody asks.
    pub notify: Option<Notify>,
    /// It has failed when it is not heard of for so long.
    pub watchdog: Option<Duration>,
    /// How it is asked to read its configuration anew; none if it cannot be.
    pub reload: Option<Reload>,
    /// How it is stopped.
    pub stop: Stop,
    /// Run in the box before the stop signal; empty for none.
    #[serde(default)]
    pub stop_command: Vec<String>,
    /// What becomes of the lines it writes.
    #[serde(default)]
    pub output: Output,
    /// Its standard streams are a terminal of its own: the one of the step [`What::Console`].
    #[serde(default)]
    pub tty: bool,
    /// Whether systemd starts it again; carried out by systemd through the generator's drop-in.
    pub restart: Restart,
    /// How it is asked whether it does what it is there for.
    #[serde(default)]
    pub health: Option<Health>,
    /// Things the operator should know: what differs on this host from what was asked for.
    pub remarks: Vec<String>,
}

impl Plan {
    /// The same box run by hand: no service stands before its scope, and no supervisor beside it.
    #[must_use]
    pub fn by_hand(mut self) -> Plan {
        self.scope.before = None;
        // Nor does anybody listen, and a message nobody takes would hold its sender.
        if let Some(notify) = self.notify.take() {
            self.mounts.retain(|step| step.at != notify.socket);
        }
        self.watchdog = None;
        self.machine = None;
        self
    }
}

/// The program and its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whole environment, sorted by name, without what `environment_files` add.
    pub environment: Vec<(String, String)>,
    /// Read on the host at start and laid over `environment`, in order.
    pub environment_files: Vec<EnvironmentFile>,
    /// Absolute path inside the box.
    pub working_directory: PathBuf,
    /// Looked up inside the box once its root stands.
    pub user: User,
    /// Supplementary groups, looked up inside the box.
    pub groups: Vec<Group>,
    /// The box's hostname.
    pub hostname: String,
}

/// Which namespaces are made; namespaces(7). Mount, pid, uts, ipc, cgroup and network ones always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// A user namespace of its own, mapped to [`Plan::ids`].
    pub user: bool,
    /// A time namespace of its own whose clocks start at zero.
    pub time: bool,
}

/// One step in making the root: something appears at a path inside it.
///
/// Paths are resolved inside the root, never outside, and through no symbolic link that leads out of it.
/// Missing mount points are made (with their parent directories) where the root can be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStep {
    /// Absolute path inside the box; `/` only for the first step.
    pub at: PathBuf,
    /// What appears there.
    pub what: What,
    /// Restrictions of the mount; empty for what is no mount.
    pub flags: MountFlags,
}

/// What a step makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A directory, file or device of the host, cloned by open_tree(2).
    Tree {
        /// Absolute path on the host, without symbolic links.
        path: PathBuf,
        /// Mounts below it come along.
        recursive: bool,
        /// Owners are shifted into the box's range by an idmapped mount, mount_setattr(2).
        idmap: bool,
    },
    /// An overlay of a writable layer over a directory of the host.
    Overlay {
        /// Absolute path on the host of what lies below, without symbolic links.
        lower: PathBuf,
        /// The lower layer is idmapped.
        idmap: bool,
        /// What takes the writes.
        upper: Upper,
    },
    /// tmpfs(5), owned by the box's root.
    Tmpfs {
        /// Most bytes.
        size: u64,
        /// Most files.
        inodes: u64,
        /// Permission bits of its root.
        mode: u32,
    },
    /// proc(5) of the box's pid namespace.
    Proc,
    /// sysfs(5) of the box's network namespace.
    Sysfs,
    /// devpts of its own, `newinstance`, mode 620, gid 5, ptmxmode 666.
    Devpts,
    /// mqueue of the box's ipc namespace.
    Mqueue,
    /// A terminal of the box's devpts, made for this and given to the payload's user; pty(7).
    Console,
    /// cgroup2, mounted once the payload stands in its own cgroup.
    Cgroup,
    /// A directory, made if missing.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A file with this content, owned by the box's root, written anew in the place of any file or symbolic
    /// link of that name.
    File {
        /// Permission bits.
        mode: u32,
        /// What it holds.
        content: Content,
    },
    /// A symbolic link, unless something of that name is there.
    Symlink {
        /// Its text.
        target: PathBuf,
    },
    /// The mount already at this place gets these flags: used to close what had to be open while mount points
    /// were made in it.
    Remount,
    /// What is already at this place is mounted over itself, so that it has flags of its own; nothing where
    /// nothing is.
    Rebind,
    /// What is already at this place is hidden: a directory under an empty read-only one, anything else under
    /// the host's `/dev/null`; nothing where nothing is.
    Mask,
    /// A device of the host: a node of the box's own, which its root owns.
    Device {
        /// Which.
        node: Node,
        /// Permission bits.
        mode: u32,
    },
    /// Secrets as files of the payload's user, in a file system in memory that is never swapped out.
    Credentials {
        /// Which, by name.
        secrets: Vec<Secret>,
    },
    /// A directory of the host that is the box's own, made empty at the first start and found again by later
    /// ones; idmapped when the plan has ids, so that the ids on disk begin at 0.
    Store {
        /// Absolute path on the host.
        path: PathBuf,
    },
}

/// A secret by name: what it is stands nowhere in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Name of its file.
    pub name: String,
    /// Where it comes from at each start.
    pub source: Credential,
}

/// Content of a file made in the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// This text.
    Text(String),
    /// A copy of a file of the host, read at start; empty if the host has none.
    CopyOf(PathBuf),
}

/// Where an overlay's writes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upper {
    /// A tmpfs that ends with the box.
    Memory {
        /// Most bytes.
        size: u64,
        /// Most files.
        inodes: u64,
    },
    /// A directory of the host holding `upper` and `work`, made at the first start; idmapped when the plan has
    /// ids.
    Directory {
        /// Absolute path on the host.
        path: PathBuf,
    },
}

/// Restrictions of one mount; mount_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MountFlags {
    /// `MOUNT_ATTR_RDONLY`.
    pub read_only: bool,
    /// `MOUNT_ATTR_NOSUID`.
    pub nosuid: bool,
    /// `MOUNT_ATTR_NODEV`.
    pub nodev: bool,
    /// `MOUNT_ATTR_NOEXEC`.
    pub noexec: bool,
    /// Whether mounts below get the flags too, `AT_RECURSIVE`.
    pub recursive: bool,
}

/// What is done to the mounts when all of them are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Closing {
    /// The box cannot unmount any of them, nor take a flag from one, whatever it may do to mounts of its own;
    /// mount_namespaces(7).
    pub locked: bool,
    /// Mounts made later appear in the mount namespaces made from the box's, as an init expects.
    pub shared: bool,
}

/// A kernel setting of one of the box's own namespaces; sysctl(8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Below `/proc/sys`, as in `net/ipv4/ip_forward`.
    pub path: String,
    /// What is written.
    pub value: String,
    /// A kernel that does not have it is no error.
    pub optional: bool,
}

/// One limit of getrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimit {
    /// Of what.
    pub resource: Resource,
    /// In force.
    pub soft: u64,
    /// To which a process may raise it; none for what the launcher has.
    pub hard: Option<u64>,
    /// A launcher that has less gives what it has: nobody asked for so much.
    pub at_most: bool,
}

/// A label of a Linux security module that the payload gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// An AppArmor profile.
    AppArmor(String),
    /// An SELinux context.
    Selinux(String),
}

/// What the payload may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Bounding set, and for root of the box also permitted and effective; inheritable and ambient are empty.
    pub capabilities: CapabilitySet,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// Which system calls may be made; none for all.
    pub seccomp: Option<seccomp::Policy>,
    /// Limits of the first process and all that come of it.
    #[serde(default)]
    pub resource_limits: Vec<ProcessLimit>,
    /// What the host's security modules call it; at most one of each.
    #[serde(default)]
    pub labels: Vec<Label>,
}

/// Sockets of one unit, opened before the box is; systemd.socket(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The unit that has them.
    pub unit: String,
    /// Their name in `LISTEN_FDNAMES`.
    pub name: String,
    /// Where they listen, in the order of the descriptors.
    pub listen: Vec<Listen>,
    /// How.
    pub options: SocketOptions,
}

/// The transient scope; systemd.scope(5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// `box-NAME.scope`.
    pub unit: String,
    /// `box.slice`.
    pub slice: String,
    /// `Description=`.
    pub description: String,
    /// Stopped before this unit is: `box@NAME.service`. None for boxes run by hand.
    pub before: Option<String>,
    /// Limits and weights.
    pub limits: Vec<Limit>,
    /// Devices besides those every box has.
    #[serde(default)]
    pub devices: Vec<DeviceRule>,
}

/// The box for systemd-machined; its name is the box's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its machine-id(5): 32 hexadecimal digits.
    pub id: String,
    /// Where its files lie on the host, as far as they lie in one place; for people.
    pub root: Option<PathBuf>,
}

/// What may be done with a device; `DeviceAllow=` of systemd.resource-control(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Which.
    pub node: Node,
    /// What.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// The device by its number, as systemd takes one: no path of the host can come to mean another.
    pub fn property(&self) -> String {
        let Node { kind, major, minor } = self.node;
        let kind = match kind {
            NodeKind::Character => "char",
            NodeKind::Block => "block",
        };
        format!("/dev/{kind}/{major}:{minor}")
    }
}

/// One limit, typed as systemd's D-Bus property of the same meaning is; org.freedesktop.systemd1(5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "named after their properties, in these units")]
pub enum Limit {
    /// Bytes.
    MemoryMax(u64),
    /// Bytes.
    MemoryHigh(u64),
    /// Bytes.
    MemorySwapMax(u64),
    /// Microseconds of CPU per second: `CPUQuotaPerSecUSec`.
    CpuQuotaPerSec(u64),
    CpuWeight(u64),
    /// Indices, ascending.
    AllowedCpus(Vec<u32>),
    TasksMax(u64),
    IoWeight(u64),
    /// Bytes per second.
    IoReadBandwidthMax(PathBuf, u64),
    /// Bytes per second.
    IoWriteBandwidthMax(PathBuf, u64),
    IoReadIopsMax(PathBuf, u64),
    IoWriteIopsMax(PathBuf, u64),
}

impl MountFlags {
    /// No restriction.
    pub const NONE: MountFlags = MountFlags {
        read_only: false,
        nosuid: false,
        nodev: false,
        noexec: false,
        recursive: false,
    };
    /// Device nodes are dead.
    pub const NODEV: MountFlags = MountFlags {
        nodev: true,
        ..MountFlags::NONE
    };
    /// Neither devices nor a change of user by executing something.
    pub const DATA: MountFlags = MountFlags {
        nosuid: true,
        ..MountFlags::NODEV
    };
    /// Nothing can be executed from it either.
    pub const INERT: MountFlags = MountFlags {
        noexec: true,
        ..MountFlags::DATA
    };

    /// The same, read-only.
    #[must_use]
    pub const fn read_only(self) -> MountFlags {
        MountFlags {
            read_only: true,
            ..self
        }
    }

    /// The same, for mounts below too.
    #[must_use]
    pub const fn recursive(self, recursive: bool) -> MountFlags {
        MountFlags { recursive, ..self }
    }
}

impl Limit {
    /// Ascending indices of CPUs as the kernel writes them, cpuset(7): `0-3,8`.
    pub fn cpu_list(cpus: impl IntoIterator<Item = u32>) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for cpu in cpus {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        let words: Vec<String> = ranges
            .into_iter()
            .map(|(first, last)| {
                if first == last {
                    first.to_string()
                } else {
                    format!("{first}-{last}")
                }
            })
            .collect();
        words.join(",")
    }

    /// Whether only one of the two can be in force: both are the same limit, of the same device where it has one.
    pub fn replaces(&self, other: &Limit) -> bool {
        let device = |limit: &Limit| match limit {
            Limit::IoReadBandwidthMax(path, _)
            | Limit::IoWriteBandwidthMax(path, _)
            | Limit::IoReadIopsMax(path, _)
            | Limit::IoWriteIopsMax(path, _) => Some(path.clone()),
            _ => None,
        };
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && device(self) == device(other)
    }

    /// The path that stands for the device it is a limit of, if it is one of a device.
    pub fn device_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Limit::IoReadBandwidthMax(path, _)
            | Limit::IoWriteBandwidthMax(path, _)
            | Limit::IoReadIopsMax(path, _)
            | Limit::IoWriteIopsMax(path, _) => Some(path),
            _ => None,
        }
    }

    /// The cgroup v2 controller that enforces it.
    pub fn controller(&self) -> &'static str {
        match self {
            Limit::MemoryMax(_) | Limit::MemoryHigh(_) | Limit::MemorySwapMax(_) => "memory",
            Limit::CpuQuotaPerSec(_) | Limit::CpuWeight(_) => "cpu",
            Limit::AllowedCpus(_) => "cpuset",
            Limit::TasksMax(_) => "pids",
            Limit::IoWeight(_)
            | Limit::IoReadBandwidthMax(..)
            | Limit::IoWriteBandwidthMax(..)
            | Limit::IoReadIopsMax(..)
            | Limit::IoWriteIopsMax(..) => "io",
        }
    }
}

impl Limit {
    /// The setting of systemd.resource-control(5) it is.
    pub fn property(&self) -> &'static str {
        match self {
            Limit::MemoryMax(_) => "MemoryMax=",
            Limit::MemoryHigh(_) => "MemoryHigh=",
            Limit::MemorySwapMax(_) => "MemorySwapMax=",
            Limit::CpuQuotaPerSec(_) => "CPUQuota=",
            Limit::CpuWeight(_) => "CPUWeight=",
            Limit::AllowedCpus(_) => "AllowedCPUs=",
            Limit::TasksMax(_) => "TasksMax=",
            Limit::IoWeight(_) => "IOWeight=",
            Limit::IoReadBandwidthMax(..) => "IOReadBandwidthMax=",
            Limit::IoWriteBandwidthMax(..) => "IOWriteBandwidthMax=",
            Limit::IoReadIopsMax(..) => "IOReadIOPSMax=",
            Limit::IoWriteIopsMax(..) => "IOWriteIOPSMax=",
        }
    }
}

/// When the box counts as started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// What makes it ready.
    pub when: ReadyWhen,
    /// How long that may take.
    pub timeout: Duration,
}

/// What becomes of the lines a box writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Priority of lines on standard output that name none; syslog(3).
    pub stdout_priority: u8,
    /// The same for standard error.
    pub stderr_priority: u8,
    /// Whether a line names its priority by beginning with `<n>`; sd-daemon(3).
    pub priority_prefix: bool,
    /// Most bytes of a line that stay in one entry.
    pub line_max: u64,
    /// How much of it is passed on; none for all.
    pub rate: Option<Rate>,
}

impl Default for Output {
    fn default() -> Self {
        Output {
            stdout_priority: libc::LOG_INFO as u8,
            stderr_priority: libc::LOG_INFO as u8,
            priority_prefix: true,
            line_max: 256 * 1024,
            rate: None,
        }
    }
}

/// How much output is passed on in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The time.
    pub interval: Duration,
    /// Most lines in it.
    pub lines: Option<u64>,
    /// Most bytes in it: the line that reaches them is passed on whole.
    pub bytes: Option<u64>,
}

/// The socket of sd_notify(3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Absolute path on the host; the launcher makes it.
    pub host: PathBuf,
    /// Absolute path inside the box: `NOTIFY_SOCKET` of its first process.
    pub socket: PathBuf,
}

/// How the box is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Signal number.
    pub signal: i32,
    /// From the signal to the kill of all.
    pub timeout: Duration,
}

/// How a box is asked whether it does what it is there for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// When, and what follows.
    pub rules: HealthRules,
}

/// When a box is asked, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRules {
    /// From the end of a probe to the next.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Failures in a row that make the box unhealthy; at least 1.
    pub retries: u32,
    /// For how long after the start of the box failures do not count, until a probe has succeeded.
    pub start_period: Duration,
    /// From the end of a probe to the next during that time.
    pub start_interval: Duration,
    /// What becomes of an unhealthy box.
    pub on_failure: OnFailure,
}
