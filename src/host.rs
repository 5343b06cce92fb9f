//! Facts of this machine, read once before a plan is made, so that planning itself is pure.
//!
//! A fact that cannot be read becomes the cautious one: the plan then refuses what depends on it, with a
//! sentence, rather than hoping.

pub mod accounts;
pub mod cdi;
mod devices;
mod etc;
mod filesystems;
mod idmap;
mod paths;

pub use accounts::Accounts;
pub use devices::{DeviceFacts, Node, NodeKind};
pub use etc::Etc;
pub use idmap::Idmap;
pub use paths::{Access, Disk, Kind, PathFacts, real_path};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use filesystems::MountTable;

use crate::definition::{
    Address, Definition, DeviceSource, MountSource, RootSource, Seccomp, Users, Writes,
};
use crate::identity::{self, IdRange};
use crate::name::Name;

/// Everything on this host that boxes keep lies below.
pub const STATE_DIRECTORY: &str = "/var/lib/boxd";

/// What a plan depends on besides the definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// machine-id(5) of the host, 32 hexadecimal digits.
    pub machine_id: Option<String>,
    /// `ID`, `VERSION_ID`, `VARIANT_ID` and `BUILD_ID` of os-release(5), as far as the host has them.
    pub os_release: BTreeMap<String, String>,
    /// Memory in bytes.
    pub memory: u64,
    /// Indices of the CPUs that are online.
    pub cpus: BTreeSet<u32>,
    /// Where the cgroup2 tree is mounted, and what it can limit.
    pub cgroup: Option<CgroupTree>,
    /// `user.max_user_namespaces`; 0 where the kernel has none.
    pub user_namespaces: u64,
    /// What stands at the top of the host's file system for the programs in `/usr`: `bin -> usr/bin`.
    pub top_level: Vec<(PathBuf, TopLevel)>,
    /// Which files of `/etc` a box on the host's `/usr` gets.
    pub etc: Etc,
    /// The host's system accounts.
    pub accounts: Accounts,
    /// `/sys/devices/system/cpu/cpuN/thermal_throttle`, where there are such.
    pub thermal_throttle: Vec<PathBuf>,
    /// The box's range of ids: reserved, or the one that would be. Why not, if there is none.
    pub ids: Result<IdRange, String>,
    /// Version of the kernel, major and minor; 0.0 if it does not say.
    pub kernel: (u32, u32),
    /// Text of the definition's file of system calls, if it has one; or why it could not be read.
    pub seccomp: Option<Result<String, String>>,
    /// Where the sockets of the definition with a path will be, without links.
    pub sockets: BTreeMap<PathBuf, PathBuf>,
    /// The security modules that give processes labels.
    pub modules: SecurityModules,
    /// What stands at the paths of the definition's devices, and of those the next are made of.
    pub devices: BTreeMap<PathBuf, DeviceFacts>,
    /// What the definition's devices by CDI name are; or why there is no such.
    pub cdi: BTreeMap<String, Result<cdi::Edits, String>>,
    /// What is known of every path on the host that the definition leads to.
    pub paths: BTreeMap<PathBuf, PathFacts>,
}

/// The security modules of the kernel that run; a host mostly has one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecurityModules {
    /// Profiles AppArmor has loaded; empty if it does not say. None where it does not run.
    pub apparmor: Option<BTreeSet<String>>,
    /// SELinux runs.
    pub selinux: bool,
}

/// The cgroup2 tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupTree {
    /// Its mount point.
    pub mount: PathBuf,
    /// `cgroup.controllers` of its root.
    pub controllers: BTreeSet<String>,
}

/// An entry of the host's root directory that belongs to `/usr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopLevel {
    /// A link with this text.
    Link(PathBuf),
    /// A directory of its own, on hosts where `/usr` is not merged.
    Directory,
}

/// Reads what planning this definition needs. Changes nothing but what is remembered of mounts: who means to run the box calls
/// [`identity::claim`] first, so that the range found here is the box's own.
pub fn read(definition: &Definition) -> Host {
    let host_root = definition.root.source == RootSource::Host;
    let etc = if host_root {
        Etc::read()
    } else {
        Etc::default()
    };
    let mut paths = paths_of(definition);
    paths.extend(etc.trees.iter().cloned());
    let top_level = if host_root { top_level() } else { Vec::new() };
    paths.extend(
        top_level
            .iter()
            .filter(|(_, what)| *what == TopLevel::Directory)
            .map(|(at, _)| at.clone()),
    );
    let cdi = cdi::read(cdi_names(definition));
    paths.extend(cdi::mounted(&cdi));
    let mounts = MountTable::read();
    let kernel = kernel();
    Host {
        machine_id: first_line("/etc/machine-id").filter(|id| is_machine_id(id)),
        os_release: os_release(),
        memory: memory(),
        cpus: first_line("/sys/devices/system/cpu/online")
            .map(|line| cpu_list(&line))
            .unwrap_or_default(),
        cgroup: CgroupTree::read(&mounts),
        user_namespaces: first_line("/proc/sys/user/max_user_namespaces")
            .and_then(|line| line.parse().ok())
            .unwrap_or(0),
        top_level,
        etc,
        accounts: if host_root {
            Accounts::read(definition)
        } else {
            Accounts::default()
        },
        thermal_throttle: thermal_throttle(),
        ids: match definition.security.users {
            Users::Auto => identity::look_up(&definition.name)
                .and_then(|range| match range {
                    Some(range) => Ok(range),
                    None => identity::propose(&definition.name),
                })
                .map_err(|error| error.to_string()),
            Users::Host => Err("not asked for".to_owned()),
        },
        kernel,
        seccomp: match &definition.security.seccomp {
            Seccomp::File(path) => Some(seccomp_file(path)),
            _ => None,
        },
        sockets: socket_paths(definition)
            .map(|path| (path.to_owned(), real_path(path)))
            .collect(),
        modules: SecurityModules::read(),
        devices: device_paths(definition)
            .chain(cdi::nodes(&cdi))
            .map(|path| (path.clone(), DeviceFacts::read(&path)))
            .collect(),
        cdi,
        paths: paths::read(paths, &mounts, kernel),
    }
}

impl Host {
    /// What is known of a path the definition leads to.
    pub fn path(&self, path: &Path) -> PathFacts {
        self.paths.get(path).cloned().unwrap_or(PathFacts {
            real: path.to_owned(),
            kind: Kind::Unreadable("nobody looked".to_owned()),
            access: None,
            disk: Disk::Unknown,
            idmap: Idmap::No("an unknown file system".to_owned()),
            idmap_recursive: Idmap::No("an unknown file system".to_owned()),
            mounts_below: Vec::new(),
        })
    }

    /// Whether the cgroup2 tree has this controller.
    pub fn has_controller(&self, controller: &str) -> bool {
        self.cgroup
            .as_ref()
            .is_some_and(|tree| tree.controllers.contains(controller))
    }

    /// A host of 8 GiB and eight CPUs where everything works, the same on every machine: what the golden plans
    /// are made on. A path whose last part ends in `.cred` is a file; one whose last part is `missing`, `file`, `socket`, `device`, `empty` or `overlay` is that, an overlay without
    /// a disk; every other is a directory with a root file system on ext4.
    pub fn fixed(definition: &Definition) -> Host {
        let mut host = Host {
            machine_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
            os_release: [("ID", "debian"), ("VERSION_ID", "13")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            memory: 8 << 30,
            cpus: (0..8).collect(),
            cgroup: Some(CgroupTree {
                mount: "/sys/fs/cgroup".into(),
                controllers: ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"]
                    .map(str::to_owned)
                    .into(),
            }),
            user_namespaces: 63_000,
            top_level: ["bin", "lib", "lib64", "sbin"]
                .map(|name| {
                    let link = Path::new("usr").join(name);
                    (Path::new("/").join(name), TopLevel::Link(link))
                })
                .into(),
            etc: Etc::fixed(),
            accounts: Accounts::fixed(),
            thermal_throttle: Vec::new(),
            ids: Ok(IdRange { base: 1_048_576 }),
            kernel: (6, 12),
            seccomp: match definition.security.seccomp {
                Seccomp::File(_) => Some(Ok(FIXED_SECCOMP.to_owned())),
                _ => None,
            },
            sockets: socket_paths(definition)
                .map(|path| (path.to_owned(), path.to_owned()))
                .collect(),
            modules: SecurityModules {
                apparmor: Some(["unconfined", "web"].map(str::to_owned).into()),
                selinux: false,
            },
            devices: BTreeMap::new(),
            cdi: cdi::fixed(cdi_names(definition)),
            paths: BTreeMap::new(),
        };
        host.devices = device_paths(definition)
            .chain(cdi::nodes(&host.cdi))
            .map(|path| (path.clone(), DeviceFacts::fixed(&path)))
            .collect();
        let mut paths = paths_of(definition);
        paths.extend(cdi::mounted(&host.cdi));
        for path in paths.into_iter().chain(host.etc.trees.iter().cloned()) {
            let facts = PathFacts::fixed(&path);
            host.paths.insert(path, facts);
        }
        host
    }
}

/// See [`Host::fixed`].
const FIXED_SECCOMP: &str = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
    {"names": ["execve", "exit_group", "read", "write", "strange"], "action": "SCMP_ACT_ALLOW"}]}"#;

/// Where a box keeps what it wrote, under [`STATE_DIRECTORY`].
pub fn kept_directory(name: &Name) -> PathBuf {
    Path::new(STATE_DIRECTORY).join("boxes").join(name.as_str())
}

/// The paths of the host that planning this definition asks about.
fn paths_of(definition: &Definition) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    match &definition.root.source {
        RootSource::Host => paths.insert("/usr".into()),
        RootSource::Directory(path) => paths.insert(path.clone()),
    };
    if definition.root.writes == Writes::Keep {
        paths.insert(STATE_DIRECTORY.into());
    }
    for mount in &definition.mounts {
        if let MountSource::Bind { path, .. } = &mount.source {
            paths.insert(path.clone());
        }
    }
    paths.extend(
        definition
            .credentials
            .values()
            .map(|credential| credential.path().to_owned()),
    );
    let resources = &definition.resources;
    for devices in [
        &resources.io_read,
        &resources.io_write,
        &resources.io_read_operations,
        &resources.io_write_operations,
    ] {
        paths.extend(devices.keys().cloned());
    }
    paths
}

fn device_paths(definition: &Definition) -> impl Iterator<Item = PathBuf> {
    definition
        .devices
        .iter()
        .filter_map(|device| match &device.source {
            DeviceSource::Path { path, .. } => Some(path.clone()),
            DeviceSource::Cdi(_) => None,
        })
}

fn cdi_names(definition: &Definition) -> Vec<&str> {
    definition
        .devices
        .iter()
        .filter_map(|device| match &device.source {
            DeviceSource::Path { .. } => None,
            DeviceSource::Cdi(name) => Some(name.as_str()),
        })
        .collect()
}

/// Where the definition has sockets with a path.
fn socket_paths(definition: &Definition) -> impl Iterator<Item = &Path> {
    let listen = definition.sockets.iter().flat_map(|socket| &socket.listen);
    listen.filter_map(|listen| match &listen.address {
        Address::Unix(path) => Some(path.as_path()),
        Address::Port(_) | Address::Inet(_) => None,
    })
}

impl SecurityModules {
    fn read() -> SecurityModules {
        let apparmor = first_line("/sys/module/apparmor/parameters/enabled")
            .is_some_and(|enabled| enabled == "Y");
        SecurityModules {
            apparmor: apparmor.then(|| {
                // "name (mode)", each on a line.
                fs::read_to_string("/sys/kernel/security/apparmor/profiles")
                    .unwrap_or_default()
                    .lines()
                    .filter_map(|line| line.rsplit_once(" ("))
                    .map(|(name, _)| name.to_owned())
                    .collect()
            }),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

impl CgroupTree {
    fn read(mounts: &MountTable) -> Option<CgroupTree> {
        let mount = mounts.first_of_type("cgroup2")?;
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).ok()?;
        Some(CgroupTree {
            mount,
            controllers: controllers.split_whitespace().map(str::to_owned).collect(),
        })
    }
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn kernel() -> (u32, u32) {
    let release = first_line("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A profile has some tens of kilobytes.
const SECCOMP_FILE_MAX: u64 = 4 << 20;

fn seccomp_file(path: &Path) -> Result<String, String> {
    let read = || {
        let file = fs::File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(Err("it is not a regular file".to_owned()));
        }
        let mut text = String::new();
        file.take(SECCOMP_FILE_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > SECCOMP_FILE_MAX {
            return Ok(Err(format!("it is larger than {SECCOMP_FILE_MAX} bytes")));
        }
        Ok(Ok(text))
    };
    read().unwrap_or_else(|error: std::io::Error| Err(error.to_string()))
}

fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// A list as the kernel writes it: `0-3,8`.
fn cpu_list(text: &str) -> BTreeSet<u32> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?)
        })
        .flatten()
        .collect()
}

/// Links at the top of the file system that lead into `/usr`, and the directories that stand in their place
/// where `/usr` is not merged.
fn top_level() -> Vec<(PathBuf, TopLevel)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir("/") else {
        return found;
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let Ok(file_type) = entry.file_type() else {
            continue;
        };
        if file_type.is_symlink() {
            if let Ok(target) = fs::read_link(&path)
                && (target.starts_with("usr") || target.starts_with("/usr"))
            {
                found.push((path, TopLevel::Link(target)));
            }
        } else if file_type.is_dir()
            && ["bin", "sbin", "lib", "lib32", "lib64", "libx32"]
                .iter()
                .any(|name| entry.file_name() == *name)
        {
            found.push((path, TopLevel::Directory));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn os_release() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| ["ID", "VERSION_ID", "VARIANT_ID", "BUILD_ID"].contains(key))
        .map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .filter(|(_, value)| !value.is_empty() && !value.contains(char::is_control))
        .collect()
}

fn thermal_throttle() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu") else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix("cpu")?;
            number.parse::<u32>().ok()?;
            Some(entry.path().join("thermal_throttle"))
        })
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

/// A definition with nothing but a command, for tests.
#[cfg(test)]
pub(crate) fn example() -> Definition {
    Definition {
        instances: None,
        name: "web".parse().expect("a name"),
        sources: Vec::new(),
        description: None,
        command: vec!["/usr/bin/true".to_owned()],
        user: None,
        groups: Vec::new(),
        working_directory: None,
        environment: BTreeMap::new(),
        environment_files: Vec::new(),
        hostname: None,
        tty: false,
        profile: crate::definition::Profile::App,
        after: Vec::new(),
        requires: Vec::new(),
        machine: true,
        start_at_boot: false,
        root: crate::definition::Root::default(),
        mounts: Vec::new(),
        sockets: Vec::new(),
        idle_stop: None,
        ready: crate::definition::Ready::default(),
        watchdog: Default::default(),
        reload: None,
        stop: crate::definition::Stop::default(),
        output: crate::definition::Output::default(),
        restart: crate::definition::Restart::default(),
        health: None,
        resources: crate::definition::Resources::default(),
        security: crate::definition::Security::default(),
        devices: Vec::new(),
        credentials: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_list("0-2,5"), [0, 1, 2, 5].into());
        assert_eq!(cpu_list("0"), [0].into());
        assert_eq!(cpu_list(""), BTreeSet::new());
    }

    #[test]
    fn machine_ids_are_32_hexadecimal_digits() {
        assert!(is_machine_id("0123456789abcdef0123456789abcdef"));
        assert!(!is_machine_id("uninitialized"));
    }
}
