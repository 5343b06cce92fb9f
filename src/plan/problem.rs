//! Why a definition cannot be carried out on this host.

use std::path::PathBuf;

use super::exposure::Exposure;
use super::seccomp::OciError;
use crate::name::Name;
use crate::syscall::Architecture;

/// One reason, and the key it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("box {name}: {key}: {reason}")]
pub struct Problem {
    /// The box.
    pub name: Name,
    /// The key of the definition: `root.directory`, `mount[2].bind`.
    pub key: String,
    /// What is wrong and what to do.
    pub reason: Reason,
}

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is not one box.
    #[error(
        "there are {count} boxes of this definition, from {} to {}, and each is planned and started for itself",
        name.with_instance(1), name.with_instance(*count)
    )]
    Several {
        /// Of all.
        name: Name,
        /// How many.
        count: u16,
    },
    /// A path of the host that is needed is not there.
    #[error("{path} does not exist; make it or correct the path", path = path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A path of the host could not be looked at.
    #[error("cannot look at {path}: {why}", path = path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The error.
        why: String,
    },
    /// The root is no directory.
    #[error("{path} is not a directory; a root is a directory with a root file system in it", path = path.display())]
    RootNotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The root has no programs.
    #[error(
        "{path} has no directory usr in it, so it is not a root file system; unpack one there or correct the path",
        path = path.display()
    )]
    RootWithoutUsr {
        /// The path.
        path: PathBuf,
    },
    /// `root.host` on a host that keeps its programs elsewhere.
    #[error("this host has no directory /usr to run programs from; give the box a root.directory")]
    HostWithoutUsr,
    /// Owners cannot be shifted where they have to be.
    #[error(
        "{path} lies on {filesystem}, which cannot be mounted with shifted owners (no idmapped mounts), so its \
         files would be nobody's in the box; {advice}, or write security.users = \"host\"",
        path = path.display()
    )]
    NoIdmap {
        /// The path.
        path: PathBuf,
        /// Type of its file system.
        filesystem: String,
        /// What else can be done.
        advice: &'static str,
    },
    /// A device was to be bound.
    #[error("{path} is a device, and devices of the host cannot be bound into a box", path = path.display())]
    Device {
        /// The path.
        path: PathBuf,
    },
    /// There is no such device.
    #[error("there is no device {path} on this host; correct the path, load its driver, or add optional = true", path = path.display())]
    NoDevice {
        /// The path.
        path: PathBuf,
    },
    /// Something else than a device.
    #[error("{path} is no device, nor a directory of devices; bind it with a [[mount]]", path = path.display())]
    NotADevice {
        /// The path.
        path: PathBuf,
    },
    /// A directory that has no device.
    #[error("there is no device in {path}; correct the path, load the driver, or add optional = true", path = path.display())]
    DirectoryWithoutDevices {
        /// The path.
        path: PathBuf,
    },
    /// In the box, it would have power over the host.
    #[error("{path} is {what}; add sensitive = true to give that to the box", path = path.display())]
    SensitiveDevice {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A name of the Container Device Interface that leads to nothing.
    #[error("there is no usable device {name}: {why}")]
    NoCdiDevice {
        /// Its name.
        name: String,
        /// What there is instead, or what is wrong with it.
        why: String,
    },
    /// A specification wants a program run.
    #[error(
        "{name} wants {hook} to be run on the host during each start, and boxd runs no programs of others; have the \
         specification made without hooks, as by nvidia-ctk cdi generate --disable-hook=all"
    )]
    CdiHook {
        /// The device.
        name: String,
        /// The program.
        hook: String,
    },
    /// A specification wants something boxd does not know.
    #[error(
        "{name} needs what this version of boxd does not do: {keys}; take that out of its specification"
    )]
    CdiUnknown {
        /// The device.
        name: String,
        /// The keys.
        keys: String,
    },
    /// A secret is to come from something else than a file.
    #[error("{path} is not a regular file; a credential is one", path = path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// Something was to be mounted where the box's own file systems are.
    #[error("{at} belongs to {whose}, which every box has of its own; mount it at another place", at = at.display())]
    Reserved {
        /// Where.
        at: PathBuf,
        /// The path that rules it out.
        whose: &'static str,
    },
    /// Bound, it would give the box power over the host.
    #[error(
        "{path} {exposure}; bind something narrower, or add sensitive = true to give that to the box",
        path = path.display()
    )]
    Sensitive {
        /// The path.
        path: PathBuf,
        /// What it is.
        exposure: Exposure,
    },
    /// A box was to listen there.
    #[error(
        "{path} {exposure}; listen at another path, or add sensitive = true for the box to listen there",
        path = path.display()
    )]
    SensitiveSocket {
        /// The path.
        path: PathBuf,
        /// What it is.
        exposure: Exposure,
    },
    /// A file of system calls that cannot be used.
    #[error("{path} cannot be used: {source}", path = path.display())]
    Seccomp {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: OciError,
    },
    /// A filter under which nothing can be started.
    #[error(
        "{title} does not allow the system call execve, without which nothing can be started; allow it"
    )]
    NoExecution {
        /// The filter.
        title: String,
    },
    /// Programs that this machine cannot run.
    #[error("this host has {native} and cannot run programs of {architecture}; take it out", native = Architecture::NATIVE)]
    NoArchitecture {
        /// What was asked for.
        architecture: Architecture,
    },
    /// A kernel setting that is not the box's alone.
    #[error("{key} {why}")]
    NotTheBoxs {
        /// The setting as sysctl(8) writes it.
        key: String,
        /// What it is instead and what to do.
        why: &'static str,
    },
    /// A path to be shown that nothing hides.
    #[error("{path} is not hidden; hidden are {hidden}", path = path.display())]
    NotHidden {
        /// The path.
        path: PathBuf,
        /// Those that are.
        hidden: String,
    },
    /// The host does not use this security module.
    #[error(
        "this host does not run {module}; take the key out, or enable it with the kernel's parameter lsm="
    )]
    NoModule {
        /// Its name.
        module: &'static str,
    },
    /// A profile AppArmor does not have.
    #[error("AppArmor of this host has no profile \"{profile}\"; load it with apparmor_parser(8)")]
    NoProfile {
        /// Its name.
        profile: String,
    },
    /// The kernel makes no user namespace.
    #[error(
        "user namespaces are switched off on this host (sysctl user.max_user_namespaces is 0); set it to a number \
         such as 10000, or write security.users = \"host\" to run the box with the host's ids"
    )]
    NoUserNamespaces,
    /// There is no range of ids.
    #[error("{why}")]
    NoIds {
        /// The error, a sentence.
        why: String,
    },
    /// A limit needs a controller the host does not have.
    #[error(
        "{limit} needs the cgroup2 controller \"{controller}\", which this host does not offer ({offered}); \
         enable it in the kernel, or take the limit out"
    )]
    NoController {
        /// The limit as systemd calls it.
        limit: &'static str,
        /// The controller.
        controller: &'static str,
        /// What there is instead, a phrase.
        offered: String,
    },
    /// A limit of a disk where there is none.
    #[error(
        "{limit} limits a disk, and {path} lies on no block device; name a disk or a path on one, or take the limit \
         out",
        path = path.display()
    )]
    NoDisk {
        /// The limit as systemd calls it.
        limit: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A CPU the host does not have.
    #[error("CPU {cpu} is not online on this host; it has {online}")]
    NoCpu {
        /// Its index.
        cpu: u32,
        /// Those it has, a list of ranges.
        online: String,
    },
}

/// What is found while a plan is made: problems, which rule it out, and remarks, which do not.
#[derive(Debug)]
pub(super) struct Findings {
    name: Name,
    pub(super) problems: Vec<Problem>,
    pub(super) remarks: Vec<String>,
}

impl Findings {
    pub(super) fn new(name: Name) -> Self {
        Findings {
            name,
            problems: Vec::new(),
            remarks: Vec::new(),
        }
    }

    pub(super) fn refuse(&mut self, key: impl Into<String>, reason: Reason) {
        self.problems.push(Problem {
            name: self.name.clone(),
            key: key.into(),
            reason,
        });
    }

    pub(super) fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }
}
