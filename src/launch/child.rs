//! The child's side of a launch: it makes the root, waits for `Go`, drops what it must not have and becomes the
//! payload.
//!
//! Its duties: to die with the launcher until `Go`; to look at nothing of the host once the root stands; to say
//! why it stops, over the channel and nowhere else. It logs nothing, forks nothing, and holds nothing open but
//! its standard streams and the channel.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::process::Signal;

use super::channel::{self, ChildEnd};
use super::protocol::{Failure, FromChild, Lifetime, Status, ToChild};
use super::{Sockets, Stdio, environment};
use crate::plan::Plan;
use crate::sandbox::exec::{self, Program};
use crate::sandbox::mounts::{self, Built, Stock};
use crate::sandbox::seccomp::{self, Filter};
use crate::sandbox::{
    host_mounts, identity, kernel_settings, limits, namespaces, paths, privileges, terminal,
    user_namespace,
};
use crate::sys::{self, Called as _};

/// Makes the box around this process, which [`clone3`](crate::sys::clone3) has just made in its new
/// namespaces, and executes the payload in it.
///
/// Never returns: what goes wrong is said over `end`, and the process ends with the status in that message.
/// Every other descriptor of the process is closed.
pub fn become_payload(plan: &Plan, end: ChildEnd, stdio: Stdio, sockets: Sockets) -> ! {
    let (names, sockets): (Vec<String>, Vec<OwnedFd>) = sockets.into_iter().unzip();
    // The sockets get the numbers below.
    let end = match end.moved(sys::FIRST_PASSED + sockets.len() as i32) {
        Ok(end) => Arc::new(end),
        Err((end, error)) => {
            let attempt = "make room for the sockets";
            give_up(&end, Failure::at(attempt, &error, Status::STREAMS))
        }
    };
    report_panics(&end);
    if let Err(failure) = keep_only(&end, stdio, sockets) {
        give_up(&end, failure);
    }
    let Err(failure) = run(plan, &end, &names);
    give_up(&end, failure)
}

fn run(plan: &Plan, end: &ChildEnd, sockets: &[String]) -> Result<Infallible, Failure> {
    die_with_launcher(end)?;
    rustix::process::setsid()
        .called(|| "setsid()".to_owned())
        .map_err(|error| Failure::at("begin a session", &error, Status::SESSION))?;
    rustix::process::umask(Mode::empty());

    // While the host is in sight, and still as the host's root.
    let mut environment = environment::read(&plan.payload)
        .map_err(|error| Failure::of(&error, Status::CONFIGURATION))?;
    let stock = Stock::gather(&plan.mounts).map_err(mount_failure)?;
    if plan.namespaces.time {
        namespaces::start_clocks().map_err(namespace_failure)?;
    }
    namespaces::bring_loopback_up().map_err(|error| Failure::of(&error, Status::NETWORK))?;
    namespaces::set_hostname(&plan.payload.hostname).map_err(namespace_failure)?;

    let from_host = receive_mounts(end, host_mounts::count(&plan.mounts))?;
    if plan.namespaces.user {
        user_namespace::become_root().map_err(|error| Failure::of(&error, Status::USER))?;
        // The kernel forgets that wish when ids change.
        die_with_launcher(end)?;
    }
    let procfs = stock
        .procfs()
        .map(AsFd::as_fd)
        .map(|procfs| procfs.try_clone_to_owned())
        .transpose()
        .called(|| "fcntl(procfs, F_DUPFD_CLOEXEC)".to_owned())
        .map_err(|error| Failure::at("keep a procfs", &error, Status::NAMESPACE))?;
    // Mounts are locked with the help of a user namespace, which a setting may forbid the box to make.
    if let Some(procfs) = procfs.as_ref().filter(|_| !plan.closing.locked) {
        kernel_settings::set(procfs.as_fd(), &plan.sysctls).map_err(settings_failure)?;
    }
    let Built {
        root,
        waiting,
        mut terminal,
    } = mounts::build(&plan.mounts, stock, from_host).map_err(mount_failure)?;
    let identity = identity::look_up(&root, &plan.payload.user, &plan.payload.groups)
        .map_err(identity_failure)?;
    mounts::give_credentials(&root, &plan.mounts, &identity).map_err(mount_failure)?;
    if let Some(terminal) = &terminal {
        terminal.give(identity.uid).map_err(terminal_failure)?;
    }
    environment::add_user(&mut environment, &identity);
    environment::add_sockets(&mut environment, sockets);
    environment::add_notify(&mut environment, plan);
    let filter = plan.privileges.seccomp.as_ref().map(seccomp::compile);
    let filter = filter
        .transpose()
        .map_err(|error| Failure::of(&error, Status::SECCOMP))?;
    // All that needs no cgroup is done before Go: meanwhile the launcher waits for systemd.
    sys::reset_dispositions()
        .map_err(|error| Failure::at("reset signals", &error, Status::SIGNALS))?;

    let master = terminal.as_ref().map(|terminal| terminal.master.as_fd());
    end.send_with(&FromChild::Built, master.as_slice())
        .map_err(|error| channel_failure(&error))?;
    let lifetime = wait_for_go(end)?;
    namespaces::make_own_cgroup_the_root().map_err(namespace_failure)?;
    waiting.finish().map_err(mount_failure)?;
    let root = mounts::close(root, plan.closing).map_err(mount_failure)?;
    if let Some(terminal) = terminal.take() {
        // Only now: a mount that is locked is another one than before.
        terminal.become_stdio().map_err(terminal_failure)?;
    }

    if let Some(procfs) = procfs {
        if plan.closing.locked {
            kernel_settings::set(procfs.as_fd(), &plan.sysctls).map_err(settings_failure)?;
        }
        kernel_settings::label(procfs.as_fd(), &plan.privileges.labels)
            .map_err(settings_failure)?;
    }
    privileges::drop_to(&plan.privileges, &identity).map_err(privileges_failure)?;
    sys::join_new_session_keyring().map_err(|error| {
        Failure::at("leave the host's session keyring", &error, Status::KEYRING)
    })?;
    exec::change_directory(&root, &plan.payload.working_directory)
        .map_err(|error| Failure::of(&error, Status::DIRECTORY))?;
    limits::set(&plan.privileges.resource_limits).map_err(limits_failure)?;
    let program =
        program(plan, &environment, filter).map_err(|error| Failure::of(&error, Status::EXEC))?;
    match lifetime {
        Lifetime::Own => outlive_launcher()?,
        // Said again, for ids have changed.
        Lifetime::Launchers => die_with_launcher(end)?,
    }
    say(end, &FromChild::Executing)?;
    program.execute().map_err(exec_failure)
}

fn program(
    plan: &Plan,
    environment: &[(String, String)],
    filter: Option<Filter>,
) -> Result<Program, exec::Error> {
    let command = &plan.payload.command;
    let search = environment::get(environment, "PATH").unwrap_or(exec::DEFAULT_PATH);
    let path = exec::find(command.first().map_or("", String::as_str), search)?;
    Program::new(path, command, environment, filter)
}

/// The standard streams become 0, 1 and 2, the sockets follow, and nothing but the channel stays open beside them:
/// neither what the launcher has nor its end of the channel, which would keep the child from seeing it close.
fn keep_only(end: &ChildEnd, stdio: Stdio, sockets: Vec<OwnedFd>) -> Result<(), Failure> {
    let attempt = || {
        // Above the places first, so that putting one there does not close another.
        let stdin = elsewhere(&stdio.stdin)?;
        let stdout = elsewhere(&stdio.stdout)?;
        let stderr = elsewhere(&stdio.stderr)?;
        for stream in [&stdin, &stdout, &stderr] {
            let_anyone_reopen(stream)?;
        }
        nix::unistd::dup2_stdin(&stdin).called(|| "dup2(0)".to_owned())?;
        nix::unistd::dup2_stdout(&stdout).called(|| "dup2(1)".to_owned())?;
        nix::unistd::dup2_stderr(&stderr).called(|| "dup2(2)".to_owned())?;
        let after = sys::place_descriptors(sockets)?;
        sys::close_from_but(after, &[end.as_fd()])?;
        std::mem::forget((stdin, stdout, stderr));
        Ok(())
    };
    let result = attempt();
    // Their numbers are other files by now.
    std::mem::forget(stdio);
    result.map_err(|error: sys::Error| {
        Failure::at("set up standard streams", &error, Status::STREAMS)
    })
}

fn elsewhere(stream: &OwnedFd) -> Result<OwnedFd, sys::Error> {
    rustix::io::fcntl_dupfd_cloexec(stream, libc::STDERR_FILENO + 1)
        .called(|| "fcntl(F_DUPFD_CLOEXEC)".to_owned())
}

/// `/dev/stdout` of the box opens the stream anew, which for a pipe means its permission bits, and the pipe is
/// the launcher's. A pipe without a name can be reached by nobody but those who may look into a process that
/// has it.
fn let_anyone_reopen(stream: &OwnedFd) -> Result<(), sys::Error> {
    const PIPEFS_MAGIC: rustix::fs::FsWord = 0x5049_5045;
    let file_system = rustix::fs::fstatfs(stream).called(|| "fstatfs(stream)".to_owned())?;
    if file_system.f_type != PIPEFS_MAGIC {
        return Ok(());
    }
    rustix::fs::fchmod(stream, Mode::from_raw_mode(0o666)).called(|| "fchmod(pipe, 666)".to_owned())
}

/// A launcher that was killed leaves no half-made box behind.
fn die_with_launcher(end: &ChildEnd) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .called(|| "prctl(PR_SET_PDEATHSIG, SIGKILL)".to_owned())
        .map_err(|error| Failure::at("die with the launcher", &error, Status::SESSION))?;
    // It may have been killed before the kernel was told.
    if end.is_abandoned() {
        sys::exit_now(Status::SESSION.0);
    }
    Ok(())
}

/// From here on the box lives without the process that launched it.
fn outlive_launcher() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(None)
        .called(|| "prctl(PR_SET_PDEATHSIG, 0)".to_owned())
        .map_err(|error| Failure::at("outlive the launcher", &error, Status::SESSION))
}

fn receive_mounts(end: &ChildEnd, wanted: usize) -> Result<Vec<OwnedFd>, Failure> {
    let mut mounts = Vec::with_capacity(wanted);
    loop {
        match end.receive().map_err(|error| channel_failure(&error))? {
            (ToChild::Mounts, some) => mounts.extend(some),
            (ToChild::Go(_), _) => return Err(out_of_order("Go", "the mounts")),
        }
        if mounts.len() >= wanted {
            return Ok(mounts);
        }
    }
}

fn wait_for_go(end: &ChildEnd) -> Result<Lifetime, Failure> {
    match end.receive().map_err(|error| channel_failure(&error))? {
        (ToChild::Go(lifetime), _) => Ok(lifetime),
        (ToChild::Mounts, _) => Err(out_of_order("mounts", "Go")),
    }
}

fn say(end: &ChildEnd, message: &FromChild) -> Result<(), Failure> {
    end.send(message).map_err(|error| channel_failure(&error))
}

fn out_of_order(said: &str, wanted: &str) -> Failure {
    Failure {
        attempt: format!("go on: the launcher said {said:?} when the child waited for {wanted:?}"),
        causes: Vec::new(),
        path: None,
        status: Status::NAMESPACE.0,
    }
}

/// Of a launcher that is gone nobody is left to be told; the message is sent to nowhere and the child ends.
fn channel_failure(error: &channel::Error) -> Failure {
    Failure::at("go on without the launcher", error, Status::NAMESPACE)
}

fn mount_failure(error: mounts::Error) -> Failure {
    Failure {
        path: error.path().map(std::path::Path::to_owned),
        ..Failure::of(&error, Status::NAMESPACE)
    }
}

fn terminal_failure(error: terminal::Error) -> Failure {
    Failure::at("give the box a terminal", &error, Status::STREAMS)
}

fn namespace_failure(error: namespaces::Error) -> Failure {
    Failure::of(&error, Status::NAMESPACE)
}

fn limits_failure(error: limits::Error) -> Failure {
    Failure::of(&error, Status::LIMITS)
}

fn settings_failure(error: kernel_settings::Error) -> Failure {
    let status = match error {
        kernel_settings::Error::Label { .. } | kernel_settings::Error::Other { .. } => {
            Status::LABEL
        }
        _ => Status::NAMESPACE,
    };
    Failure::of(&error, status)
}

fn identity_failure(error: identity::Error) -> Failure {
    let status = match error {
        identity::Error::Group { .. } => Status::GROUP,
        identity::Error::User { .. } | identity::Error::Read(_) => Status::USER,
    };
    let path = match &error {
        identity::Error::Read(error) => Some(paths::Error::path(error).to_owned()),
        _ => None,
    };
    Failure {
        path,
        ..Failure::of(&error, status)
    }
}

fn privileges_failure(error: privileges::Error) -> Failure {
    let status = match error {
        privileges::Error::Become { .. } => Status::USER,
        privileges::Error::Capabilities(_) => Status::CAPABILITIES,
        privileges::Error::NoNewPrivileges(_) => Status::NO_NEW_PRIVILEGES,
    };
    Failure::of(&error, status)
}

fn exec_failure(error: exec::Error) -> Failure {
    let status = match error {
        exec::Error::Filter(_) => Status::SECCOMP,
        _ => Status::EXEC,
    };
    Failure::of(&error, status)
}

/// A panic is a bug of ours; the message must still not go to the payload's standard error, and what a release
/// build does then, to abort, would say nothing.
fn report_panics(end: &Arc<ChildEnd>) {
    let end = Arc::clone(end);
    std::panic::set_hook(Box::new(move |panic| {
        give_up(
            &end,
            Failure {
                attempt: "go on: boxd has a bug".to_owned(),
                causes: vec![panic.to_string()],
                path: None,
                status: Status::NAMESPACE.0,
            },
        )
    }));
}

fn give_up(end: &ChildEnd, failure: Failure) -> ! {
    let status = failure.status;
    // A launcher that does not hear it sees the child end with the status.
    let _ = end.send(&FromChild::Failed(failure));
    sys::exit_now(status)
}
