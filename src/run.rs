//! `boxd run NAME`: the service's main process until the supervisor takes its place.
//!
//! Started with a box's descriptors from systemd's store, it is the supervisor's next life and launches
//! nothing.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use crate::definition::{Definition, Layers, RootSource, SourceText, Users};
use crate::enter::seal;
use crate::generation::{self, InForce, NotInForce};
use crate::generator;
use crate::handover::{self, Document, Idle, Listener};
use crate::host;
use crate::identity;
use crate::launch::run_directory::{self, RunDirectory};
use crate::launch::{self, Lifetime, Place, Registration, Settling, Sockets, Stdio};
use crate::name::Name;
use crate::plan::{self, Limit, Plan, Problem};
use crate::sys::Fork;
use crate::systemd::Manager;
use crate::systemd::notify::{self, Barrier};
use crate::{cgroup, clean, programs, sys};

/// Where the package puts the supervisor.
const SUPERVISOR: &CStr = c"/usr/lib/boxd/box-supervisor";

/// `TasksMax=` of box@.service: the service's own, and nobody's wish for the box.
const TASKS_OF_THE_SERVICE: u64 = 32;

/// How long systemd may take to store the descriptors.
const STORE: Duration = Duration::from_secs(30);

/// `SD_LISTEN_FDS_START` of sd_listen_fds(3).
const LISTEN_FDS_START: usize = 3;

/// Why a box was not started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not started by systemd.
    #[error(
        "`boxd run` is what box@{name}.service calls, and needs systemd's notification socket; run the box by hand with: boxctl run {name}"
    )]
    NoService {
        /// The box.
        name: Name,
    },
    /// There is no definition, or none that can be read.
    #[error(transparent)]
    Load(#[from] NotInForce),
    /// The definition cannot be carried out here.
    #[error(transparent)]
    Undecided(#[from] Undecided),
    /// What systemd passed cannot be taken.
    #[error("cannot take the descriptors that systemd passes to box {name}")]
    Passed {
        /// The box.
        name: Name,
        /// Why.
        source: sys::Error,
    },
    /// systemd does not have a socket of the definition, or has others of its unit.
    #[error(
        "box {name}: systemd passed {passed} of the {wanted} sockets of {unit}; if the definition has changed: systemctl daemon-reload; systemctl stop box@{name}; systemctl restart {unit}; else see why: systemctl status {unit}"
    )]
    Socket {
        /// The box.
        name: Name,
        /// The socket's unit.
        unit: String,
        /// How many it has by the definition.
        wanted: usize,
        /// How many came.
        passed: usize,
    },
    /// Another process has this box.
    #[error(transparent)]
    RunDirectory(#[from] run_directory::Error),
    /// What an earlier life left does not go.
    #[error(transparent)]
    Clean(#[from] clean::Error),
    /// No pipes for the payload's output.
    #[error("cannot make pipes for the output of box {name}")]
    Pipes {
        /// The box.
        name: Name,
        /// Why.
        source: io::Error,
    },
    /// The launch failed.
    #[error("box {name}")]
    Launch {
        /// The box.
        name: Name,
        /// Why.
        source: launch::Error,
    },
    /// What the supervisor needs was not handed over.
    #[error("cannot hand box {name} over to its supervisor")]
    Handover {
        /// The box.
        name: Name,
        /// Why.
        source: handover::Error,
    },
    /// systemd did not take the descriptors.
    #[error("cannot hand the descriptors of box {name} to systemd")]
    Store {
        /// The box.
        name: Name,
        /// Why.
        source: notify::Error,
    },
    /// What an earlier supervisor left cannot be read for now.
    #[error("cannot take over box {name}, which runs on")]
    Adopt {
        /// The box.
        name: Name,
        /// Why.
        source: handover::Error,
    },
    /// The next supervisor of a box that runs is not there, or cannot be executed.
    #[error("cannot execute the next supervisor of box {name}, which runs on")]
    Heir {
        /// The box.
        name: Name,
        /// Why.
        source: sys::Error,
    },
    /// The supervisor is not there, or cannot be executed.
    #[error("cannot execute the supervisor of box {name}")]
    Supervisor {
        /// The box.
        name: Name,
        /// Why.
        source: sys::Error,
    },
}

/// Why there is no plan for a definition.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// The box has no ids.
    #[error("cannot reserve the ids of box {name}")]
    Ids {
        /// The box.
        name: Name,
        /// Why.
        source: identity::Error,
    },
    /// This program cannot be made safe from a box that has the host's ids.
    #[error("cannot show a box that has the host's ids this program read-only")]
    Seal(#[source] seal::Error),
    /// It is not one box.
    #[error(
        "box {name} has instances: {} starts all, box@{}.service the first", name.target(), name.with_instance(1)
    )]
    Several {
        /// The name of all.
        name: Name,
    },
    /// Everything that does not fit this host.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

impl Error {
    /// The exit status of the service.
    pub fn status(&self) -> u8 {
        match self {
            Error::Launch { source, .. } => source.status(),
            _ => 1,
        }
    }

    /// Whether the launch failed for a stop of the service, or a restart: systemd ends the scope at the same time.
    pub fn is_called_off(&self) -> bool {
        use crate::systemd::Error as Systemd;
        let Error::Launch { name, source } = self else {
            return false;
        };
        // Nobody would answer now.
        if let launch::Error::Scope(
            Systemd::Connect(_) | Systemd::Lost { .. } | Systemd::Timeout { .. },
        ) = source
        {
            return false;
        }
        Manager::connect()
            .and_then(|manager| manager.is_to_end(&name.unit()))
            .unwrap_or(false)
    }

    /// Whether the box runs on, for another attempt to take it over.
    pub fn leaves_the_box(&self) -> bool {
        matches!(self, Error::Adopt { .. } | Error::Heir { .. })
    }
}

/// Starts the box and becomes its supervisor; returns only when that fails, and then nothing is left of it.
///
/// # Errors
///
/// Everything that can be wrong with a definition, a host or a program.
pub fn run(name: &Name) -> Result<Infallible, Error> {
    if !notify::is_listening() {
        return Err(Error::NoService { name: name.clone() });
    }
    // The word of an upgrade is for the supervisor, and waits for it.
    hold(&[Signal::SIGUSR1]);
    let kept = kept_descriptors();
    if is_whole(name, &kept)? {
        return supervise_again(name);
    }
    // A launch was killed in the middle: its box died with it, what systemd keeps of it is worth nothing.
    forget(kept.iter().map(String::as_str));

    let InForce {
        definition,
        texts,
        notice,
        unasked,
    } = generation::in_force(name, &Layers::system())?;
    // Before the descriptors are taken: if this program is executed once more, they must come along.
    seal(definition.security.users)?;
    let passed = sys::take_passed(kept.len()).map_err(|source| Error::Passed {
        name: name.clone(),
        source,
    })?;
    let mut plan = decide(&definition)?;
    if let Some(notice) = notice {
        let sentence = format!("box {name} {}", notice.sentence());
        plan.remarks.push(sentence);
    }
    if let Some(error) = unasked {
        plan.remarks.push(format!(
            "box {name} starts by what its files say, whatever was put back or rolled back: {}",
            error.in_full()
        ));
    }
    follow_the_operator(&mut plan);
    let sockets = sockets_of(&plan, kept.into_iter().zip(passed).collect())?;
    for remark in &plan.remarks {
        tracing::warn!("{remark}");
    }
    if !generator::is_known(&definition) {
        tracing::warn!(
            "box {name} starts as it is defined now, but systemd has not read what its definition says of ordering, \
             restarts, timeouts and restrictions: systemctl daemon-reload"
        );
    }
    let supervisor = programs::beside_or(SUPERVISOR);
    // Sooner than with a box that runs already.
    nix::unistd::access(supervisor.as_c_str(), nix::unistd::AccessFlags::X_OK).map_err(
        |errno| Error::Supervisor {
            name: name.clone(),
            source: sys::Error::new(format!("access({supervisor:?}, X_OK)"), errno),
        },
    )?;
    let directory = clean::claim_for_start(name)?;
    if clean::clear(name, &directory)? {
        tracing::warn!("ended what was left of an earlier life of box {name}");
    }
    let Started {
        descriptors,
        registration,
    } = match start(&definition, &texts, &plan, sockets, &directory) {
        Ok(started) => started,
        Err(error) => {
            forget(handover::NAMES.into_iter());
            if let Err(error) = directory.remove() {
                tracing::warn!("{}", crate::journal::chain(&error));
            }
            return Err(error);
        }
    };
    let unanswered = registration.and_then(Registration::finish_if_answered);
    let descriptors = match unanswered {
        None => descriptors,
        Some(registration) => leave_waiting(registration, descriptors, directory),
    };
    let failed = supervise(&supervisor, name, descriptors);
    // The box runs, and nobody looks after it: `boxd clean` ends it, for this service has failed.
    forget(handover::NAMES.into_iter());
    failed
}

/// Makes this program safe from a box with these ids, see [`crate::enter::seal`]: it may be executed once more,
/// from its beginning.
///
/// # Errors
///
/// [`Undecided::Seal`].
pub fn seal(users: Users) -> Result<(), Undecided> {
    match users {
        Users::Auto => Ok(()),
        Users::Host => seal::this_program().map_err(Undecided::Seal),
    }
}

/// Decides what is done for a definition on this host, with ids that are the box's own from now on.
///
/// # Errors
///
/// Every reason at once, where there are several.
pub fn decide(definition: &Definition) -> Result<Plan, Undecided> {
    if definition.is_of_all() {
        let name = definition.name.clone();
        return Err(Undecided::Several { name });
    }
    if definition.security.users == Users::Auto {
        identity::claim(&definition.name).map_err(|source| Undecided::Ids {
            name: definition.name.clone(),
            source,
        })?;
    }
    plan::resolve(definition, &host::read(definition)).map_err(Undecided::Problems)
}

/// Limits an operator has put on the service are meant for the box: systemd.resource-control(5). They stand where
/// systemd has put them in force, on the cgroup of this process, and count more than the definition's.
fn follow_the_operator(plan: &mut Plan) {
    let unit = plan.name.unit();
    if let Some(own) = cgroup::of_self().ok().filter(|own| own.ends_with(&unit)) {
        follow_the_service(plan, &own);
    }
}

/// Lays the limits of the service of a box, which has this cgroup, over those of its plan.
pub fn follow_the_service(plan: &mut Plan, service: &Path) {
    let mut wanted = cgroup::limits::set_on(service);
    wanted.retain(|limit| *limit != Limit::TasksMax(TASKS_OF_THE_SERVICE));
    if wanted.is_empty() {
        return;
    }
    let mut words: Vec<&str> = wanted
        .iter()
        .map(|limit| limit.property().trim_end_matches('='))
        .collect();
    words.dedup();
    plan.remarks.push(format!(
        "{} has limits of its own, which count for the box: {}",
        plan.name.unit(),
        words.join(", ")
    ));
    let limits = &mut plan.scope.limits;
    limits.retain(|limit| !wanted.iter().any(|wanted| wanted.replaces(limit)));
    limits.append(&mut wanted);
}

/// What a supervisor must know of a box about to run.
pub fn document(
    definition: &Definition,
    plan: &Plan,
    pid: Pid,
    cgroup: &Path,
    idle: Option<Idle>,
) -> Document {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Document {
        version: handover::VERSION,
        boxd: env!("CARGO_PKG_VERSION").to_owned(),
        name: plan.name.clone(),
        description: plan.description.clone(),
        pid: pid.as_raw(),
        started: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        cgroup: cgroup.to_owned(),
        scope: plan.scope.unit.clone(),
        ids: plan.ids,
        root: match &definition.root.source {
            RootSource::Host => "host".to_owned(),
            RootSource::Directory(path) => path.display().to_string(),
        },
        ready: plan.ready.when,
        ready_by: u64::try_from((handover::now() + plan.ready.timeout).as_micros())
            .unwrap_or(u64::MAX),
        output: plan.output,
        watchdog: plan.watchdog,
        health: plan.health.as_ref().map(|health| health.rules),
        stop_signal: plan.stop.signal,
        stop_timeout: plan.stop.timeout,
        idle,
    }
}

/// The sockets of the plan, in its order; systemd's is another. What it keeps for the supervisor, and sockets the
/// definition does not have any more, are closed.
fn sockets_of(plan: &Plan, mut passed: Sockets) -> Result<Sockets, Error> {
    let mut sockets = Sockets::new();
    for socket in &plan.sockets {
        let (these, others): (Sockets, Sockets) = passed
            .into_iter()
            .partition(|(name, _)| *name == socket.name);
        passed = others;
        if these.len() != socket.listen.len() {
            return Err(Error::Socket {
                name: plan.name.clone(),
                unit: socket.unit.clone(),
                wanted: socket.listen.len(),
                passed: these.len(),
            });
        }
        sockets.extend(these);
    }
    Ok(sockets)
}

/// Where a socket listens: systemd knows more of the host's addresses than the plan.
fn listener(socket: &OwnedFd) -> Option<Listener> {
    use rustix::net::{SocketAddrUnix, getsockname};
    let address = getsockname(socket).ok()?;
    if let Ok(unix) = SocketAddrUnix::try_from(address.clone()) {
        let path = OsString::from_vec(unix.path_bytes()?.to_vec()).into();
        return Some(Listener::Unix { path });
    }
    let address = SocketAddr::try_from(address).ok()?;
    Some(Listener::Inet {
        address: address.ip(),
        port: address.port(),
    })
}

/// Descriptors with the names they are stored under.
type Named = Vec<(&'static str, OwnedFd)>;

/// A box that runs.
struct Started {
    /// What its supervisor needs.
    descriptors: Named,
    /// What systemd-machined was asked.
    registration: Option<Registration>,
}

/// From the clone to the payload, with everything in systemd's store before the payload begins.
fn start(
    definition: &Definition,
    texts: &[SourceText],
    plan: &Plan,
    sockets: Sockets,
    directory: &RunDirectory,
) -> Result<Started, Error> {
    let name = &plan.name;
    let launch_failed = |source| Error::Launch {
        name: name.clone(),
        source,
    };
    let (stdio, mut descriptors) = streams(plan).map_err(|source| Error::Pipes {
        name: name.clone(),
        source,
    })?;
    let idle = plan.idle_stop.map(|after| Idle {
        after,
        listeners: sockets.iter().filter_map(|(_, fd)| listener(fd)).collect(),
    });
    if let Some(notify) = &plan.notify {
        descriptors.push((handover::FD_NOTIFY, directory.notify_socket(&notify.host)?));
    }
    if plan.tty {
        descriptors.push((handover::FD_ATTACH, directory.attach_socket()?));
    }
    let settling = launch::begin(plan, Place::Scope, stdio, sockets, None)
        .and_then(launch::Begun::settle)
        .map_err(launch_failed)?;
    // While the child and systemd are at work. If it fails, that is no reason to leave them in the middle of it.
    let written = directory
        .write_definition(&texts)
        .and_then(|()| directory.write_plan(plan));
    let handed_over = hand_over(definition, plan, &settling, &descriptors, idle, directory);
    let mut standing = settling.stand().map_err(launch_failed)?;
    written?;
    let (cgroup, sealed, barrier) = handed_over?;
    if cgroup != standing.cgroup() {
        return Err(launch_failed(launch::Error::Elsewhere(
            standing.cgroup().to_owned(),
        )));
    }
    // Its first process is in its scope, and does not leave it for a group of its own before the word.
    let registration = standing.register(plan);

    let terminal = standing.take_terminal();
    let terminal = terminal.map(|master| (handover::FD_TERMINAL, master));
    let taken = terminal
        .iter()
        .try_for_each(|(name, master)| notify::store(name, master.as_fd()))
        .and_then(|()| match terminal {
            // What was sent before the terminal is taken before it.
            Some(_) => notify::barrier(STORE),
            None => barrier.map_or(Ok(()), |barrier| barrier.wait(STORE)),
        });
    taken.map_err(|source| Error::Store {
        name: name.clone(),
        source,
    })?;
    descriptors.extend(terminal);

    let launched = standing.go(Lifetime::Own).map_err(launch_failed)?;
    if let Err(error) = directory.confirm() {
        let _ = launched.kill();
        return Err(error.into());
    }
    descriptors.push((handover::FD_DOCUMENT, sealed));
    descriptors.push((handover::FD_PROCESS, launched.pidfd));
    Ok(Started {
        descriptors,
        registration,
    })
}

/// Waits for systemd-machined in a process of its own, so that the supervisor does not: it may have to be started first.
/// That process ends with the answer, and with the service at the latest.
fn leave_waiting(registration: Registration, descriptors: Named, directory: RunDirectory) -> Named {
    // A sibling: systemd waits for it, the supervisor does not know it.
    match sys::clone3(CloneFlags::CLONE_PARENT) {
        Ok(Fork::Child) => {
            // The lock and the streams of the box are not for it.
            drop((descriptors, directory));
            registration.finish();
            sys::exit_now(0)
        }
        Ok(Fork::Parent { .. }) => {}
        Err(error) => tracing::warn!(
            "cannot wait for the answer of systemd-machined, which may not know the box: {error}"
        ),
    }
    // Not closed in order: the connection is the other's now. execve(2) lets go of this end.
    std::mem::forget(registration);
    descriptors
}

/// Has systemd keep what the next supervisor needs, in case this one is killed. systemd comes to it when it has made the
/// scope, and ends the barrier.
fn hand_over(
    definition: &Definition,
    plan: &Plan,
    settling: &Settling<'_>,
    descriptors: &Named,
    idle: Option<Idle>,
    directory: &RunDirectory,
) -> Result<(PathBuf, OwnedFd, Option<Barrier>), Error> {
    let name = &plan.name;
    let (pid, process) = settling.process();
    let cgroup = launch::scope_cgroup(plan).map_err(|source| Error::Launch {
        name: name.clone(),
        source,
    })?;
    let document = document(definition, plan, pid, &cgroup, idle);
    let sealed = handover::seal(&document).map_err(|source| Error::Handover {
        name: name.clone(),
        source,
    })?;
    directory.write(&document)?;
    let send = || -> Result<Option<Barrier>, notify::Error> {
        for (name, descriptor) in descriptors {
            notify::store(name, descriptor.as_fd())?;
        }
        notify::store(handover::FD_PROCESS, process)?;
        notify::store(handover::FD_DOCUMENT, sealed.as_fd())?;
        notify::begin_barrier()
    };
    let barrier = send().map_err(|source| Error::Store {
        name: name.clone(),
        source,
    })?;
    Ok((cgroup, sealed, barrier))
}

/// The payload's standard streams, and what the supervisor has of them.
fn streams(plan: &Plan) -> io::Result<(Stdio, Named)> {
    if plan.tty {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let of_terminal = vec![
            (handover::FD_STDOUT, read),
            (handover::FD_TERMINAL_PIPE, write),
        ];
        return Ok((Stdio::nothing()?, of_terminal));
    }
    let (stdio, output) = Stdio::piped()?;
    let of_pipes = vec![
        (handover::FD_STDOUT, output.stdout),
        (handover::FD_STDERR, output.stderr),
    ];
    Ok((stdio, of_pipes))
}

/// Names of the descriptors systemd gave to this process, from number 3 on; sd_listen_fds(3).
fn kept_descriptors() -> Vec<String> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID") != std::process::id().to_string() {
        return Vec::new();
    }
    let names = variable("LISTEN_FDNAMES");
    if names.is_empty() {
        return Vec::new();
    }
    names.split(':').map(str::to_owned).collect()
}

/// Whether a whole box is in the store: its document, and the run directory that says the same. `boxd clean`
/// removes the latter when it ends the box.
fn is_whole(name: &Name, kept: &[String]) -> Result<bool, Error> {
    let Some(index) = kept.iter().position(|kept| kept == handover::FD_DOCUMENT) else {
        return Ok(false);
    };
    let failed = |attempt| {
        let name = name.clone();
        move |source| Error::Adopt {
            name,
            source: handover::Error::Memfd {
                attempt,
                name: handover::FD_DOCUMENT,
                source,
            },
        }
    };
    let memfd = File::open(format!("/proc/self/fd/{}", LISTEN_FDS_START + index))
        .map_err(failed("open"))?;
    match handover::read(memfd.as_fd()) {
        Ok(document) if document.name == *name => {
            run_directory::holds(&document).map_err(failed("read the file that says the same as"))
        }
        // Another boxd's box: its supervisor says what is to be done, and the box is left alone.
        Err(handover::Error::Version { .. }) => Ok(true),
        // The host is short of something: that is no reason to end a box.
        Err(source @ handover::Error::Memfd { .. }) => Err(Error::Adopt {
            name: name.clone(),
            source,
        }),
        Ok(_) | Err(_) => Ok(false),
    }
}

fn forget<'a>(names: impl Iterator<Item = &'a str>) {
    for name in names.filter(|name| handover::NAMES.contains(name)) {
        if let Err(error) = notify::remove(name) {
            tracing::warn!("{}", crate::journal::chain(&error));
        }
    }
}

/// What a supervisor answers to: these wait from here to its first look at them.
const FOR_THE_SUPERVISOR: &[Signal] = &[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Lets these signals wait; execve(2) keeps the mask and what waits.
fn hold(signals: &[Signal]) {
    // It fails for an unknown way of setting alone, and without it a signal only ends this service sooner.
    if let Err(errno) = SigSet::from_iter(signals.iter().copied()).thread_block() {
        tracing::warn!("cannot let signals wait: {errno}");
    }
}

/// Becomes the supervisor with what systemd kept, where it lies.
fn supervise_again(name: &Name) -> Result<Infallible, Error> {
    hold(FOR_THE_SUPERVISOR);
    let program = programs::beside_or(SUPERVISOR);
    nix::unistd::execve(&program, &arguments(name), &environment(None)).map_err(|errno| {
        Error::Heir {
            name: name.clone(),
            source: sys::Error::new(format!("execve({program:?})"), errno),
        }
    })
}

/// Becomes the supervisor with the descriptors of the launch.
fn supervise(supervisor: &CString, name: &Name, descriptors: Named) -> Result<Infallible, Error> {
    hold(FOR_THE_SUPERVISOR);
    let names: Vec<&str> = descriptors.iter().map(|(name, _)| *name).collect();
    let environment = environment(Some(&names));
    let descriptors = descriptors.into_iter().map(|(_, fd)| fd).collect();
    sys::exec_with_descriptors(supervisor, &arguments(name), &environment, descriptors).map_err(
        |source| Error::Supervisor {
            name: name.clone(),
            source,
        },
    )
}

/// The name is for whoever reads ps(1).
fn arguments(name: &Name) -> [CString; 2] {
    let name = CString::new(name.as_str()).unwrap_or_default();
    [c"box-supervisor".to_owned(), name]
}

/// This process's environment, with the variables of sd_listen_fds(3) for these descriptors.
fn environment(descriptors: Option<&[&str]>) -> Vec<CString> {
    let listen = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
    let mut variables: Vec<(Vec<u8>, Vec<u8>)> = std::env::vars_os()
        .filter(|(name, _)| descriptors.is_none() || !listen.iter().any(|listen| name == listen))
        .map(|(name, value)| (name.into_vec(), value.into_vec()))
        .collect();
    if let Some(names) = descriptors {
        let values = [
            std::process::id().to_string(),
            names.len().to_string(),
            names.join(":"),
        ];
        variables.extend(
            listen
                .iter()
                .zip(values)
                .map(|(name, value)| (name.as_bytes().to_vec(), value.into_bytes())),
        );
    }
    variables
        .into_iter()
        .filter_map(|(name, value)| CString::new([name, value].join(&b'=')).ok())
        .collect()
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_the_service_are_those_its_unit_says() {
        let unit = include_str!("../units/box@.service");
        let line = format!("\nTasksMax={TASKS_OF_THE_SERVICE}\n");
        assert!(unit.contains(&line));
    }
}
