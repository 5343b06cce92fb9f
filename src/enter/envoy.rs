//! The two processes on the way into a box: the envoy, which goes there, and the command, which stays.
//!
//! Their duties, in order: stand in the box's cgroup, be in its namespaces, be its root, make the command; be
//! the user, have what the box's first process has and no more, make the streams, execute. They neither log nor
//! panic: what goes wrong is said to boxctl, and the process ends.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::DumpableBehavior;
use rustix::termios::Winsize;

use super::{Errand, FromInside, Go, Input, NOT_EXECUTABLE, NOT_FOUND, Options, TROUBLE, What};
use crate::health::CGROUP;
use crate::launch::channel::Socket;
use crate::launch::environment;
use crate::launch::protocol::Failure;
use crate::plan::{Limit, Plan};
use crate::running::Running;
use crate::sandbox::exec::{self, Program};
use crate::sandbox::identity::{self, Identity};
use crate::sandbox::paths::{self, Root};
use crate::sandbox::seccomp::{self, Filter};
use crate::sandbox::terminal::{self, Terminal};
use crate::sandbox::{kernel_settings, limits, namespaces, privileges, user_namespace};
use crate::sys::{self, Called as _, Fork};

/// The cgroup for those who enter a box that has sorted itself into groups: its own top may hold no process
/// then, cgroup-v2.rst, "No Internal Process Constraint".
const LEAF: &str = "boxctl-exec";

/// Shells that are tried when the user has none.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// What went wrong, as a phrase that begins with "cannot", where there is nothing to say but the call.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot keep the box from tracing this process")]
    Hide(#[source] sys::Error),
    #[error("cannot leave the host's descriptors behind")]
    Leave(#[source] sys::Error),
    #[error("cannot join the box's cgroup {}", path.display())]
    Cgroup {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Join(#[from] namespaces::Error),
    #[error("cannot make a process in the box: its limit of {0} tasks is reached")]
    Tasks(u64),
    #[error("cannot make a process in the box")]
    Clone(#[source] sys::Error),
    #[error(transparent)]
    Root(#[from] user_namespace::Error),
    #[error(transparent)]
    Path(#[from] paths::Error),
    #[error(transparent)]
    User(#[from] identity::Error),
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    #[error(transparent)]
    Limits(#[from] limits::Error),
    #[error(transparent)]
    Label(#[from] kernel_settings::Error),
    #[error(transparent)]
    Filter(#[from] seccomp::TooLong),
    #[error(transparent)]
    Execute(#[from] exec::Error),
    #[error("cannot find a shell in the box: it has neither {} nor {}", SHELLS[0], SHELLS[1])]
    NoShell,
    #[error(transparent)]
    Terminal(#[from] terminal::Error),
    #[error("cannot connect the command's standard streams")]
    Streams(#[source] sys::Error),
    #[error("cannot take what it inherited from this process")]
    Inherited(#[source] sys::Error),
    #[error("cannot hand over the command's standard streams")]
    HandOver(#[source] crate::launch::channel::Error),
}

/// The envoy's whole life.
pub fn go(
    running: &Running,
    options: &Options,
    environment: Vec<(String, String)>,
    size: Option<Winsize>,
    socket: &Socket,
) -> ! {
    match travel(running, options.errand, socket) {
        Ok((Fork::Parent { pidfd, .. }, _)) => {
            let _ = socket.send(&FromInside::Made, &[pidfd.as_fd()]);
            sys::exit_now(0)
        }
        Ok((Fork::Child, procfs)) => {
            let plan = &running.plan;
            let Err(error) = become_command(plan, options, environment, size, socket, procfs);
            fail(socket, &error)
        }
        Err(error) => fail(socket, &error),
    }
}

/// The command's process, and what it writes its labels to if it has some.
fn travel(
    running: &Running,
    errand: Errand,
    socket: &Socket,
) -> Result<(Fork, Option<OwnedFd>), Error> {
    hide()?;
    let nowhere = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .called(|| r#"open("/dev/null")"#.to_owned())
        .map_err(Error::Leave)?;
    rustix::stdio::dup2_stdin(&nowhere)
        .and_then(|()| rustix::stdio::dup2_stdout(&nowhere))
        .and_then(|()| rustix::stdio::dup2_stderr(&nowhere))
        .called(|| "dup2(/dev/null, 0 to 2)".to_owned())
        .map_err(Error::Leave)?;
    drop(nowhere);
    limits::raise(None, &running.plan.privileges.resource_limits)?;
    let process = running.process.as_fd();
    let procfs = (!running.plan.privileges.labels.is_empty())
        .then(kernel_settings::procfs)
        .transpose()
        .map_err(Error::Leave)?;
    let procfs_fd = procfs.as_ref().map(AsFd::as_fd);
    let kept: Vec<BorrowedFd<'_>> = [Some(socket.as_fd()), Some(process), procfs_fd]
        .into_iter()
        .flatten()
        .collect();
    sys::close_all_but(&kept).map_err(Error::Leave)?;
    let cgroup = &running.document.cgroup;
    match errand {
        Errand::Operator => join_cgroup(cgroup)?,
        Errand::Probe => join_leaf(cgroup, CGROUP)?,
    }
    namespaces::join(process, running.plan.namespaces)?;
    if running.plan.namespaces.user {
        user_namespace::become_root()?;
        // Another user than before, which makes a process open to that user again.
        hide()?;
    }
    let fork = sys::clone3(CloneFlags::CLONE_PARENT).map_err(|error| match error.errno() {
        sys::Errno::EAGAIN => tasks_limit(&running.plan).map_or(Error::Clone(error), Error::Tasks),
        _ => Error::Clone(error),
    })?;
    Ok((fork, procfs))
}

/// Keeps every process of the box from tracing this one, and from looking into its memory and descriptors
/// through `/proc`.
fn hide() -> Result<(), Error> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .called(|| "prctl(PR_SET_DUMPABLE, 0)".to_owned())
        .map_err(Error::Hide)
}

fn tasks_limit(plan: &Plan) -> Option<u64> {
    plan.scope.limits.iter().find_map(|limit| match limit {
        Limit::TasksMax(tasks) => Some(*tasks),
        _ => None,
    })
}

fn join_cgroup(cgroup: &Path) -> Result<(), Error> {
    match join(cgroup) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => join_leaf(cgroup, LEAF),
        other => other.map_err(|source| Error::Cgroup {
            path: cgroup.to_owned(),
            source,
        }),
    }
}

fn join(cgroup: &Path) -> io::Result<()> {
    const OWN: &str = "0";
    fs::write(cgroup.join("cgroup.procs"), OWN)
}

/// Joins a cgroup below the box's, which is made if it is not there.
fn join_leaf(cgroup: &Path, leaf: &str) -> Result<(), Error> {
    let leaf = cgroup.join(leaf);
    let failed = |source| Error::Cgroup {
        path: leaf.clone(),
        source,
    };
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(failed)?,
    }
    join(&leaf).map_err(failed)
}

/// Removes the cgroup that was made for those who enter, if nobody is in it any more.
pub fn remove_leaf(cgroup: &Path) {
    let _ = fs::remove_dir(cgroup.join(LEAF));
}

fn become_command(
    plan: &Plan,
    options: &Options,
    mut environment: Vec<(String, String)>,
    size: Option<Winsize>,
    socket: &Socket,
    procfs: Option<OwnedFd>,
) -> Result<Infallible, Error> {
    if let Some(procfs) = procfs {
        kernel_settings::label(procfs.as_fd(), &plan.privileges.labels)?;
    }
    sys::close_all_but(&[socket.as_fd()]).map_err(Error::Leave)?;
    let root = Root::of_this_process()?;
    let identity = match &options.user {
        None => identity::look_up(&root, &plan.payload.user, &plan.payload.groups)?,
        Some(user) => identity::look_up(&root, user, &[])?,
    };
    sys::join_new_session_keyring().map_err(Error::Inherited)?;
    rustix::process::setsid()
        .called(|| "setsid()".to_owned())
        .map_err(Error::Inherited)?;
    let filter = plan.privileges.seccomp.as_ref().map(seccomp::compile);
    let filter = filter.transpose()?;
    privileges::drop_to(&plan.privileges, &identity)?;
    hide()?;
    let directory = options.working_directory.as_ref();
    exec::change_directory(&root, directory.unwrap_or(&plan.payload.working_directory))?;
    limits::set(&plan.privileges.resource_limits)?;
    if options.errand == Errand::Probe {
        // Before it says that it is ready: a caller that is gone by then is noticed there.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .called(|| "prctl(PR_SET_PDEATHSIG, SIGKILL)".to_owned())
            .map_err(Error::Inherited)?;
    }
    complete(&mut environment, options, &identity);
    let program = program(&environment, options, &identity, filter)?;
    if options.terminal {
        let master = terminal(size)?;
        hand_over(socket, &[master])?;
    } else {
        hand_over(socket, &pipes(options.input)?)?;
    }
    sys::close_on_exec_from(3).map_err(Error::Leave)?;
    sys::reset_dispositions().map_err(Error::Inherited)?;
    Ok(program.execute()?)
}

/// Gives boxctl the other ends of the command's streams, and waits until it knows its process.
fn hand_over(socket: &Socket, ends: &[OwnedFd]) -> Result<(), Error> {
    let ends: Vec<BorrowedFd<'_>> = ends.iter().map(|end| end.as_fd()).collect();
    socket
        .send(&FromInside::Ready, &ends)
        .map_err(Error::HandOver)?;
    let (Go, _) = socket.receive().map_err(Error::HandOver)?;
    Ok(())
}

/// What is executed, with its arguments and environment.
fn program(
    environment: &[(String, String)],
    options: &Options,
    identity: &Identity,
    filter: Option<Filter>,
) -> Result<Program, Error> {
    let search = environment::get(environment, "PATH").unwrap_or(exec::DEFAULT_PATH);
    let (path, command) = match &options.what {
        What::Command(command) => {
            let name = command.first().map_or("", String::as_str);
            (exec::find(name, search)?, command.clone())
        }
        What::Shell => {
            let shell = shell(identity)?;
            let name = shell.file_name().unwrap_or(shell.as_os_str());
            let command = vec![name.to_string_lossy().into_owned()];
            (shell, command)
        }
    };
    Ok(Program::new(path, &command, environment, filter)?)
}

fn shell(identity: &Identity) -> Result<PathBuf, Error> {
    // An account nobody shall log in to has one of these, which would only say so.
    let refuses = |shell: &Path| {
        matches!(
            shell.file_name().and_then(|name| name.to_str()),
            Some("nologin" | "false")
        )
    };
    identity
        .shell
        .iter()
        .filter(|shell| !refuses(shell))
        .cloned()
        .chain(SHELLS.map(PathBuf::from))
        .find(|shell| shell.is_file())
        .ok_or(Error::NoShell)
}

/// What belongs to the user and to the terminal, over the environment of the box.
fn complete(environment: &mut Vec<(String, String)>, options: &Options, identity: &Identity) {
    let mut set = |name: &str, value: &str| {
        environment.retain(|(there, _)| there != name);
        environment.push((name.to_owned(), value.to_owned()));
    };
    if options.terminal {
        // The caller's, since its terminal is what is written to in the end.
        let terminal = super::terminal::callers();
        set("TERM", terminal.as_deref().unwrap_or("dumb"));
    }
    if options.user.is_some() {
        // What the definition says of these was meant for the user of the box.
        environment.retain(|(name, _)| !matches!(&**name, "HOME" | "USER" | "LOGNAME" | "SHELL"));
    }
    environment::add_user(environment, identity);
}

/// Makes a terminal of the box's devpts this process's controlling terminal and standard streams, and returns
/// its master, which does not block.
fn terminal(size: Option<Winsize>) -> Result<OwnedFd, Error> {
    let Terminal { master, peer } = Terminal::open(size)?;
    terminal::become_stdio(&peer).map_err(terminal::Error::from)?;
    Ok(master)
}

/// Makes pipes this process's standard streams, and returns their other ends, which do not block: of output, of
/// error, and of input if there is any.
fn pipes(input: Input) -> Result<Vec<OwnedFd>, Error> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).called(|| "pipe2(O_CLOEXEC)".to_owned());
    let unblocked = |fd: OwnedFd| {
        rustix::io::ioctl_fionbio(&fd, true).called(|| "ioctl(FIONBIO)".to_owned())?;
        Ok::<OwnedFd, sys::Error>(fd)
    };
    let made = || {
        let (stdin, input_end) = pipe()?;
        let (output_end, stdout) = pipe()?;
        let (error_end, stderr) = pipe()?;
        become_stdio(&stdin, &stdout, &stderr)?;
        let mut ends = vec![unblocked(output_end)?, unblocked(error_end)?];
        // Closed at once, it is an input that has ended, and needs no /dev/null of the box.
        if input == Input::Passed {
            ends.push(unblocked(input_end)?);
        }
        Ok(ends)
    };
    made().map_err(Error::Streams)
}

fn become_stdio(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), sys::Error> {
    rustix::stdio::dup2_stdin(stdin)
        .and_then(|()| rustix::stdio::dup2_stdout(stdout))
        .and_then(|()| rustix::stdio::dup2_stderr(stderr))
        .called(|| "dup2(streams, 0 to 2)".to_owned())
}

/// Says what went wrong, and ends.
fn fail(socket: &Socket, error: &Error) -> ! {
    let status = match error {
        Error::Execute(exec::Error::NotInPath { .. } | exec::Error::Missing(_))
        | Error::NoShell => NOT_FOUND,
        Error::Execute(exec::Error::WorkingDirectory { .. } | exec::Error::Filter(_)) => TROUBLE,
        Error::Execute(_) => NOT_EXECUTABLE,
        _ => TROUBLE,
    };
    let _ = socket.send(&FromInside::Failed(Failure::of(error, status)), &[]);
    sys::exit_now(status.0)
}
