//! Limits and defaults a process of a box begins with; getrlimit(2).

use rustix::fs::Mode;
use rustix::process::{Pid, Rlimit, getrlimit, prlimit};

use crate::plan::{ProcessLimit, Resource, ResourceLimit};
use crate::sys::{self, Called as _};

/// A limit that was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel did not take it.
    #[error("cannot set the limit {name} of the box's processes")]
    Set {
        /// As the definition has it.
        name: &'static str,
        /// Why.
        #[source]
        source: sys::Error,
    },
}

/// Raises hard limits of a process to what the box shall have, which only the host's root may do: this process or
/// a child of it, whose limits are still this one's. What is in force stays.
pub fn raise(process: Option<Pid>, limits: &[ProcessLimit]) -> Result<(), Error> {
    for limit in limits.iter().filter(|limit| !limit.at_most) {
        let there = current(limit.resource);
        if limit.hard.is_some_and(|hard| hard > there.hard) {
            let raised = Pair {
                hard: limit.hard.unwrap_or(there.hard),
                ..there
            };
            set_one(process, limit.resource, raised)?;
        }
    }
    Ok(())
}

/// Sets these limits and the umask. The other limits stay what the unit says. What must still be done may itself
/// be limited by them: so this comes late.
pub fn set(limits: &[ProcessLimit]) -> Result<(), Error> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    limits.iter().try_for_each(|limit| {
        let there = current(limit.resource);
        let hard = limit.hard.unwrap_or(there.hard);
        let hard = if limit.at_most {
            hard.min(there.hard)
        } else {
            hard
        };
        let soft = limit.soft.min(hard);
        set_one(None, limit.resource, Pair { soft, hard })
    })
}

/// Both limits as the plan counts them.
#[derive(Clone, Copy)]
struct Pair {
    soft: u64,
    hard: u64,
}

fn current(resource: Resource) -> Pair {
    let there = getrlimit(of_the_kernel(resource));
    Pair {
        soft: there.current.unwrap_or(ResourceLimit::INFINITY),
        hard: there.maximum.unwrap_or(ResourceLimit::INFINITY),
    }
}

fn set_one(process: Option<Pid>, resource: Resource, pair: Pair) -> Result<(), Error> {
    let value = |value: u64| (value != ResourceLimit::INFINITY).then_some(value);
    let limit = Rlimit {
        current: value(pair.soft),
        maximum: value(pair.hard),
    };
    prlimit(process, of_the_kernel(resource), limit)
        .called(|| format!("prlimit({}, {limit:?})", resource.name()))
        .map(drop)
        .map_err(|source| Error::Set {
            name: resource.name(),
            source,
        })
}

fn of_the_kernel(resource: Resource) -> rustix::process::Resource {
    use rustix::process::Resource as Kernel;
    match resource {
        Resource::As => Kernel::As,
        Resource::Core => Kernel::Core,
        Resource::Cpu => Kernel::Cpu,
        Resource::Data => Kernel::Data,
        Resource::Fsize => Kernel::Fsize,
        Resource::Locks => Kernel::Locks,
        Resource::Memlock => Kernel::Memlock,
        Resource::Msgqueue => Kernel::Msgqueue,
        Resource::Nice => Kernel::Nice,
        Resource::Nofile => Kernel::Nofile,
        Resource::Nproc => Kernel::Nproc,
        Resource::Rss => Kernel::Rss,
        Resource::Rtprio => Kernel::Rtprio,
        Resource::Rttime => Kernel::Rttime,
        Resource::Sigpending => Kernel::Sigpending,
        Resource::Stack => Kernel::Stack,
    }
}
