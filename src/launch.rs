//! From a plan to a running box: one sequence for the service and for a box in the foreground.
//!
//! ```text
//! launcher                                     child
//! begin    clone3, map ids ──────────────────► waits for its mounts
//! settle   asks for the scope
//!          clones the host's mounts ─ Mounts ► makes the root         ┐ at the
//! stand    waits for the scope, its limits   ◄ Built                  ┘ same time
//! go       Go ───────────────────────────────► cgroup namespace, identity, privileges
//!          the payload runs                  ◄ Executing, then the end of the socket by execve
//! ```
//!
//! Each step consumes the one before, so none can be forgotten, and dropping any of them undoes the launch:
//! the child and all it made die, and the cgroup goes. The launcher has one thread until the child exists, and
//! the child dies with the launcher until it is told to go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::cgroup::{self, plain::Plain};
use crate::name::Name;
use crate::plan::Plan;
use crate::plan::Profile;
use crate::sandbox::{host_mounts, limits, namespaces, user_namespace};
use crate::sys::{self, Fork};
use crate::systemd::manager::PendingScope;
use crate::systemd::scope::{Process, Request};
use crate::systemd::{self, Manager};

pub mod channel;
pub mod child;
pub mod credentials;
pub mod environment;
mod error;
pub mod protocol;
pub mod registration;
pub mod run_directory;
pub mod stdio;
mod unfinished;

pub use error::Error;
pub use registration::Registration;
pub use run_directory::RunDirectory;
pub use stdio::{Output, Sockets, Stdio};

pub use protocol::Lifetime;
use protocol::{FromChild, ToChild};
use unfinished::Unfinished;

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// systemd makes a transient scope.
    Scope,
    /// We do, on a host without systemd.
    Plain,
}

/// A child with its ids.
pub struct Begun<'a> {
    plan: &'a Plan,
    child: Unfinished<'a>,
    user_namespace: Option<OwnedFd>,
    place: Place,
}

/// A child that makes its root while its cgroup is on its way.
pub struct Settling<'a> {
    plan: &'a Plan,
    child: Unfinished<'a>,
    scope: Option<AskedFor>,
}

/// A box that is complete and waits for the word.
pub struct Standing<'a> {
    child: Unfinished<'a>,
    cgroup: PathBuf,
    terminal: Option<OwnedFd>,
    /// Where systemd made the scope.
    manager: Option<Manager>,
}

/// A box that runs.
#[derive(Debug)]
pub struct Launched {
    /// Its first process, a child of this one.
    pub pid: Pid,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// Absolute path of its cgroup, mount point included.
    pub cgroup: PathBuf,
}

/// A scope that systemd is making.
struct AskedFor {
    manager: Manager,
    pending: PendingScope,
}

/// Clones the child and gives it its ids.
///
/// Whoever waits for the child also looks at `interrupt`: when that can be read, the launch is given up.
///
/// # Errors
///
/// What the kernel refused; nothing is left behind then. So with every step below.
pub fn begin<'a>(
    plan: &'a Plan,
    place: Place,
    stdio: Stdio,
    sockets: Sockets,
    interrupt: Option<BorrowedFd<'a>>,
) -> Result<Begun<'a>, Error> {
    let (end, child_end) = channel::pair().map_err(Error::Channel)?;
    let cgroup = match place {
        Place::Plain => Some(plain_cgroup(plan)?),
        Place::Scope => None,
    };
    let mut child = match clone_child(plan, cgroup.as_ref())? {
        Fork::Child => {
            drop(end);
            child::become_payload(plan, child_end, stdio, sockets)
        }
        Fork::Parent { pid, pidfd } => {
            Unfinished::new(pid, pidfd, end, interrupt, &plan.scope.unit)
        }
    };
    if let Some(cgroup) = cgroup {
        child.owns(place, cgroup.path());
    }
    // The payload's ends are the child's alone: with ours open its output would never end.
    drop((child_end, stdio, sockets));
    let (pid, _) = child.process();
    limits::raise(
        rustix::process::Pid::from_raw(pid.as_raw()),
        &plan.privileges.resource_limits,
    )
    .map_err(Error::Limits)?;
    let user_namespace = plan
        .ids
        .map(|range| user_namespace::map(pid, range))
        .transpose()
        .map_err(Error::Ids)?;
    Ok(Begun {
        plan,
        child,
        user_namespace,
        place,
    })
}

impl<'a> Begun<'a> {
    /// Asks for the child's scope, and while systemd makes it gives the child the host's mounts. From then on
    /// the child works on its own.
    ///
    /// # Errors
    ///
    /// systemd cannot be reached, or something of the host cannot be mounted.
    pub fn settle(self) -> Result<Settling<'a>, Error> {
        let Begun {
            plan,
            mut child,
            user_namespace,
            place,
        } = self;
        let scope = match place {
            Place::Plain => None,
            Place::Scope => {
                let manager = Manager::connect().map_err(Error::Scope)?;
                let pending = manager
                    .begin_scope(&request(plan, &child))
                    .map_err(Error::Scope)?;
                child.owns(place, &scope_cgroup(plan)?);
                Some(AskedFor { manager, pending })
            }
        };
        match furnish(plan, &child, user_namespace.as_ref()) {
            Ok(()) => Ok(Settling { plan, child, scope }),
            Err(error) => {
                // What systemd is at work on cannot be undone before it is done.
                let _ = scope.map(|scope| scope.finish(plan, &child));
                Err(error)
            }
        }
    }
}

impl<'a> Settling<'a> {
    /// What is to be the box's first process.
    pub fn process(&self) -> (Pid, BorrowedFd<'_>) {
        self.child.process()
    }

    /// Waits until the child is in its cgroup, all limits are in force, and its root stands.
    ///
    /// # Errors
    ///
    /// systemd refused the scope, a limit does not hold, or the child failed.
    pub fn stand(self) -> Result<Standing<'a>, Error> {
        let Settling {
            plan,
            mut child,
            scope,
        } = self;
        let manager = match scope.map(|scope| scope.finish(plan, &child)).transpose() {
            Ok(manager) => manager,
            Err(error) => {
                if let systemd::Error::Exists { .. } = error {
                    child.disowns();
                }
                // A child that failed has no place any more; then its reason is the reason.
                return Err(child.failure().unwrap_or(Error::Scope(error)));
            }
        };
        let (pid, _) = child.process();
        let cgroup = cgroup::of_process(pid.as_raw()).map_err(Error::Cgroup)?;
        if !cgroup.ends_with(&plan.scope.unit) && !cgroup.ends_with(plain_name(&plan.name)) {
            return Err(child.failure().unwrap_or(Error::Elsewhere(cgroup)));
        }
        cgroup::limits::check(&cgroup, &plan.scope.limits).map_err(Error::Cgroup)?;
        hand_over(&cgroup, plan)?;
        match child.hear_all()? {
            (FromChild::Built, mut descriptors) => Ok(Standing {
                child,
                cgroup,
                terminal: descriptors.pop(),
                manager,
            }),
            (other, _) => Err(Error::Unexpected(other)),
        }
    }
}

impl Standing<'_> {
    /// The box's first process.
    pub fn process(&self) -> (Pid, BorrowedFd<'_>) {
        self.child.process()
    }

    /// Absolute path of its cgroup, mount point included.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The master of the box's terminal, for the first who asks; none if it has none. It does not block.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Asks systemd-machined to register the box, if its plan says so, while there is other work to do.
    pub fn register(&mut self, plan: &Plan) -> Option<Registration> {
        let machine = plan.machine.as_ref()?;
        let manager = self.manager.take()?;
        Registration::begin(manager, &plan.name, machine, process(&self.child))
    }

    /// Says the word, and returns when the payload has been executed.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] when the child could not become the payload.
    pub fn go(self, lifetime: Lifetime) -> Result<Launched, Error> {
        let Standing { child, cgroup, .. } = self;
        child.say(&ToChild::Go(lifetime), &[])?;
        match child.hear()? {
            FromChild::Executing => {}
            other => return Err(Error::Unexpected(other)),
        }
        child.hear_the_end()?;
        let (pid, pidfd) = child.finish();
        Ok(Launched { pid, pidfd, cgroup })
    }
}

impl Launched {
    /// Ends the box at once, as far as the kernel lets us.
    pub fn kill(&self) -> Result<(), cgroup::Error> {
        // The first process takes its whole pid namespace with it; the cgroup holds what entered it since.
        let _ = sys::send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        cgroup::kill(&self.cgroup)
    }
}

impl AskedFor {
    fn finish(self, plan: &Plan, child: &Unfinished<'_>) -> Result<Manager, systemd::Error> {
        self.manager
            .finish_scope(self.pending, &request(plan, child))?;
        Ok(self.manager)
    }
}

fn clone_child(plan: &Plan, cgroup: Option<&Plain>) -> Result<Fork, Error> {
    let namespaces = namespaces::at_birth(plan.namespaces);
    let Some(cgroup) = cgroup else {
        return sys::clone3(namespaces).map_err(Error::Clone);
    };
    let forked = cgroup.open().map_err(Error::Cgroup).and_then(|directory| {
        sys::clone3_into(namespaces, directory.as_fd()).map_err(Error::Clone)
    });
    if forked.is_err() {
        // Nobody was born in it; what stays of it is found by the next start.
        let _ = cgroup::remove_empty(cgroup.path());
    }
    forked
}

fn furnish(
    plan: &Plan,
    child: &Unfinished<'_>,
    user_namespace: Option<&OwnedFd>,
) -> Result<(), Error> {
    let secrets = credentials::read(&plan.mounts).map_err(Error::Credentials)?;
    let prepared = host_mounts::prepare(plan, user_namespace.map(AsFd::as_fd), &secrets)
        .map_err(Error::HostMounts)?;
    let mounts: Vec<BorrowedFd<'_>> = prepared.mounts.iter().map(AsFd::as_fd).collect();
    child.say(&ToChild::Mounts, &mounts)
}

fn plain_cgroup(plan: &Plan) -> Result<Plain, Error> {
    Plain::create(&plain_name(&plan.name), &plan.scope.limits).map_err(Error::Cgroup)
}

/// Where systemd makes the cgroup of the scope.
///
/// # Errors
///
/// [`Error::Cgroup`]: this host has no cgroup2.
pub fn scope_cgroup(plan: &Plan) -> Result<PathBuf, Error> {
    let top = cgroup::mount_point().map_err(Error::Cgroup)?;
    Ok(top.join(&plan.scope.slice).join(&plan.scope.unit))
}

fn request<'a>(plan: &'a Plan, child: &'a Unfinished<'_>) -> Request<'a> {
    Request {
        scope: &plan.scope,
        stop: &plan.stop,
        process: process(child),
    }
}

fn process<'a>(child: &'a Unfinished<'_>) -> Process<'a> {
    let (pid, pidfd) = child.process();
    Process {
        pid: pid.as_raw(),
        pidfd,
    }
}

/// The name of the cgroup of a box without systemd.
pub fn plain_name(name: &Name) -> String {
    format!("boxd-{name}")
}

/// A box with an init of its own makes groups below its own one, which therefore must be its root's.
fn hand_over(cgroup: &Path, plan: &Plan) -> Result<(), Error> {
    match (plan.profile, plan.ids) {
        (Profile::System, Some(range)) => {
            cgroup::delegate(cgroup, range.base).map_err(Error::Cgroup)
        }
        _ => Ok(()),
    }
}
