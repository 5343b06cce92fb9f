//! What is written to a procfs for a box: settings of its namespaces, and the labels of its first process.
//!
//! A path in `/proc` can be mounted over, and what is written then lands elsewhere (CVE-2025-52881). So the procfs
//! is one of our own that is attached nowhere, and a path in it is followed through no link and no mount.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::file_system;
use crate::plan::{Label, MountFlags, Sysctl};
use crate::sys::{self, Called as _, Errno};

/// Most bytes that are read back.
const READ_MAX: u64 = 4096;

/// The setting that has a call of its own.
const DOMAIN_NAME: &str = "kernel/domainname";

/// What was not set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting.
    #[error("cannot set {path:?} of the box to {value:?}")]
    Set {
        /// Below `/proc/sys`.
        path: String,
        /// What was written.
        value: String,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// This kernel has no such setting, or not for a box.
    #[error(
        "cannot set {path:?} of the box: this kernel has no such setting in the box's namespaces"
    )]
    NoSuch {
        /// Below `/proc/sys`.
        path: String,
    },
    /// A label.
    #[error("cannot run the box under {what} {label:?}")]
    Label {
        /// Of what.
        what: &'static str,
        /// As the definition has it.
        label: String,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// The kernel took the label, and says that it has another.
    #[error(
        "cannot run the box under {what} {label:?}: the kernel says {found:?} when it is asked what it was told"
    )]
    Other {
        /// Of what.
        what: &'static str,
        /// As the definition has it.
        label: String,
        /// What was read back.
        found: String,
    },
}

/// A procfs that is attached nowhere, of the pid namespace this process is in.
pub fn procfs() -> Result<OwnedFd, sys::Error> {
    file_system::make("proc", &[], MountFlags::INERT)
}

/// Writes settings of the namespaces this process is in. `procfs` is a mount that is attached nowhere.
pub fn set(procfs: BorrowedFd<'_>, sysctls: &[Sysctl]) -> Result<(), Error> {
    for sysctl in sysctls {
        let Sysctl {
            path,
            value,
            optional,
        } = sysctl;
        let written = if path == DOMAIN_NAME {
            // The file is the host's root's; the call asks for root of the namespace.
            rustix::system::setdomainname(value.as_bytes())
                .called(|| format!("setdomainname({value:?})"))
        } else {
            open(procfs, &format!("sys/{path}"), OFlags::WRONLY, Links::None)
                .and_then(|file| write(file, value.as_bytes()))
        };
        match written {
            Ok(()) => {}
            Err(_) if *optional => {}
            Err(error) if error.errno() == Errno::ENOENT => {
                return Err(Error::NoSuch { path: path.clone() });
            }
            Err(source) => {
                return Err(Error::Set {
                    path: path.clone(),
                    value: value.clone(),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Has this process get these labels at its next execve(2), and makes sure that the kernel means the same.
pub fn label(procfs: BorrowedFd<'_>, labels: &[Label]) -> Result<(), Error> {
    for label in labels {
        let (what, label, files, text) = match label {
            Label::AppArmor(profile) => (
                "AppArmor profile",
                profile,
                // The second is that of the first security module, on kernels without the first.
                ["attr/apparmor/exec", "attr/exec"].as_slice(),
                format!("exec {profile}"),
            ),
            Label::Selinux(context) => (
                "SELinux label",
                context,
                ["attr/exec"].as_slice(),
                context.clone(),
            ),
        };
        let failed = |source| Error::Label {
            what,
            label: label.clone(),
            source,
        };
        let found = write_label(procfs, files, &text).map_err(failed)?;
        // "profile (mode)" for the one, "label\0" for the other.
        let found = found.trim_end_matches(['\0', '\n']);
        let name = found
            .rsplit_once(" (")
            .filter(|(_, mode)| mode.ends_with(')'))
            .map_or(found, |(name, _)| name);
        if name != label {
            return Err(Error::Other {
                what,
                label: label.clone(),
                found: found.to_owned(),
            });
        }
    }
    Ok(())
}

fn write_label(procfs: BorrowedFd<'_>, files: &[&str], text: &str) -> Result<String, sys::Error> {
    let mut result = Err(sys::Error::new("open(attr)", Errno::ENOENT));
    for file in files {
        // The link's text is the kernel's: nobody else can change anything in this procfs.
        let path = format!("thread-self/{file}");
        result = open(procfs, &path, OFlags::WRONLY, Links::OfProcfs)
            .and_then(|open| write(open, text.as_bytes()))
            .and_then(|()| open(procfs, &path, OFlags::RDONLY, Links::OfProcfs))
            .and_then(|open| read(open, &path));
        if !matches!(&result, Err(error) if error.errno() == Errno::ENOENT) {
            break;
        }
    }
    result
}

/// Which links are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    None,
    /// Those whose text tells of a process, and not those that lead to what it has open.
    OfProcfs,
}

fn open(
    procfs: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
    links: Links,
) -> Result<OwnedFd, sys::Error> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    resolve.set(ResolveFlags::NO_SYMLINKS, links == Links::None);
    let file = rustix::fs::openat2(
        procfs,
        path,
        flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        resolve,
    )
    .called(|| format!("openat2(procfs, {path:?})"))?;
    let file_system = rustix::fs::fstatfs(file.as_fd()).called(|| format!("fstatfs({path:?})"))?;
    if file_system.f_type as u64 != PROC_SUPER_MAGIC {
        return Err(sys::Error::new(
            format!("fstatfs({path:?}) of another file system than procfs"),
            Errno::EXDEV,
        ));
    }
    Ok(file)
}

fn write(file: OwnedFd, text: &[u8]) -> Result<(), sys::Error> {
    // The kernel takes a value whole or not at all.
    File::from(file)
        .write_all(text)
        .called(|| format!("write({:?})", String::from_utf8_lossy(text)))
}

fn read(file: OwnedFd, path: &str) -> Result<String, sys::Error> {
    let mut bytes = Vec::new();
    File::from(file)
        .take(READ_MAX)
        .read_to_end(&mut bytes)
        .called(|| format!("read({path:?})"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
