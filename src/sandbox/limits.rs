//! Limits and defaults a process of a box begins with; getrlimit(2).

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::sys::{self, Called as _};

/// What systemd gives a service: programs that use select(2) see no descriptor beyond its reach, and those that
/// want more can have them.
const OPEN_FILES: Rlimit = Rlimit {
    current: Some(1024),
    maximum: Some(524_288),
};

/// A limit that was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the resource limits of the box's first process")]
pub struct Error(#[source] sys::Error);

/// Sets the limits on open files and core dumps, and the umask. The others stay what the unit says.
///
/// A lower hard limit than the one wanted is kept: only the host's root may raise it.
pub fn set() -> Result<(), Error> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let lower = |wanted: Option<u64>, there: Option<u64>| match (wanted, there) {
        (Some(wanted), Some(there)) => Some(wanted.min(there)),
        (wanted, there) => wanted.or(there),
    };
    let maximum = lower(OPEN_FILES.maximum, getrlimit(Resource::Nofile).maximum);
    let open_files = Rlimit {
        current: lower(OPEN_FILES.current, maximum),
        maximum,
    };
    let no_core_unless_raised = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    set_one(Resource::Nofile, open_files)?;
    set_one(Resource::Core, no_core_unless_raised)
}

fn set_one(resource: Resource, limit: Rlimit) -> Result<(), Error> {
    setrlimit(resource, limit)
        .called(|| format!("setrlimit({resource:?}, {limit:?})"))
        .map_err(Error)
}
