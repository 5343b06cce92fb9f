//! The box's ids and how they are the host's; user_namespaces(7).

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::unistd::Pid;
use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::identity::IdRange;
use crate::sys::{self, Called as _};

/// What could not be done about the box's ids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A map was refused.
    #[error("cannot map the box's ids to the host's {first} to {last}")]
    Map {
        /// First host id.
        first: u32,
        /// Last host id.
        last: u32,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// The namespace is not there to be opened.
    #[error("cannot open the box's user namespace")]
    Open(#[source] sys::Error),
    /// The process did not become root of its user namespace.
    #[error("cannot become root of the box")]
    BecomeRoot(#[source] sys::Error),
}

/// Maps the ids of the user namespace `pid` was born in, and opens that namespace: for idmapped mounts.
///
/// The box's ids 0 to 65535 become the range's; every other id of the host appears in the box as nobody.
pub fn map(pid: Pid, range: IdRange) -> Result<OwnedFd, Error> {
    let line = format!("0 {} {}", range.base, IdRange::SIZE);
    for file in ["uid_map", "gid_map"] {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        // The kernel wants the whole map in one write(2).
        File::options()
            .write(true)
            .open(&path)
            .and_then(|mut map| map.write_all(line.as_bytes()))
            .called(|| format!("write({:?}, {line:?})", path))
            .map_err(|source| Error::Map {
                first: range.base,
                last: range.base + (IdRange::SIZE - 1),
                source,
            })?;
    }
    let path = format!("/proc/{pid}/ns/user");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .called(|| format!("open({path:?})"))
        .map_err(Error::Open)
}

/// Makes this process root of the user namespace it is in, whose ids are mapped. Without it the process keeps
/// the host id it came with, which is nobody in the box.
pub fn become_root() -> Result<(), Error> {
    let attempt = || {
        rustix::thread::set_thread_groups(&[]).called(|| "setgroups([])".to_owned())?;
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
            .called(|| "setresgid(0, 0, 0)".to_owned())?;
        rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
            .called(|| "setresuid(0, 0, 0)".to_owned())
    };
    attempt().map_err(Error::BecomeRoot)
}
