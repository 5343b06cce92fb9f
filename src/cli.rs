//! What `boxctl` says and does; one file per group of commands.
//!
//! A command returns an [`ExitCode`] or an [`Error`], whose chain is printed once, here at the edge. Standard
//! output holds what was asked for and nothing else.

mod agent;
mod apply;
mod arguments;
mod attach;
mod boot;
mod complete;
mod definitions;
mod doctor;
mod edit;
mod events;
mod explain;
mod files;
#[cfg(test)]
mod golden;
mod inside;
mod inspect;
mod journal;
mod look;
mod names;
mod new;
mod security;
mod set;
pub mod show;
mod stats;
mod table;
pub mod terminal;
mod text;
mod top;
mod units;
mod wait;

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::definition::{LoadError, Style};
use crate::plan;
use crate::systemd::manager::Operation;
use arguments::{Arguments, Command};
use terminal::{Look, Paint, complain, harmless};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A box is not touched, since it could not be started.
    #[error("cannot {operation} box {name}{keeps}")]
    Change {
        /// What was to be done.
        operation: &'static str,
        /// The box.
        name: crate::name::Name,
        /// That it goes on, if it does.
        keeps: &'static str,
        /// Why.
        source: Box<Error>,
    },
    /// A definition cannot be carried out on this host.
    #[error("{}", problems(.0))]
    Plan(Vec<plan::Problem>),
    /// A box is not known, or not by this name.
    #[error(transparent)]
    Name(#[from] names::Error),
    /// No definition is in force.
    #[error(transparent)]
    NotInForce(crate::generation::NotInForce),
    /// The agent does not do it for this user.
    #[error("{reason}; {remedy}")]
    Denied {
        /// A sentence of the agent's.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The agent has not done it.
    #[error(transparent)]
    Bus(#[from] crate::bus::client::Error),
    /// Definitions are not applied.
    #[error(transparent)]
    Agent(#[from] crate::agent::Error),
    /// Generations are not read.
    #[error(transparent)]
    Generation(#[from] crate::generation::Error),
    /// There is none to go back to.
    #[error(
        "there is no generation before the one in force to roll back to; `boxctl history` lists those that are kept"
    )]
    NoEarlier,
    /// What there is cannot be seen.
    #[error(transparent)]
    Status(#[from] crate::status::collect::Error),
    /// What runs cannot be seen.
    #[error(transparent)]
    Running(#[from] crate::running::Error),
    /// A box cannot be run in the foreground.
    #[error(transparent)]
    Run(#[from] crate::foreground::Error),
    /// Nothing is attached to a box.
    #[error(transparent)]
    Attach(#[from] crate::attach::Error),
    /// A box cannot be entered.
    #[error(transparent)]
    Enter(#[from] crate::enter::Error),
    /// The output of a box in the foreground is kept nowhere.
    #[error(
        "box {name} has no log: it runs in the foreground (its first process is {pid}), and its output goes to the terminal of that `boxctl run`"
    )]
    NoLogs {
        /// The box.
        name: crate::name::Name,
        /// On the host.
        pid: i32,
    },
    /// The unit of a box cannot be changed where there are no units.
    #[error(
        "cannot {operation} box {name}: systemd does not run this host; `boxctl run {name}` runs it in the foreground"
    )]
    NoSystemd {
        /// What was to be done.
        operation: &'static str,
        /// The box.
        name: crate::name::Name,
    },
    /// systemd does not do what it is asked.
    #[error(transparent)]
    Systemd(#[from] crate::systemd::Error),
    /// A signal was not taken.
    #[error("cannot send signal {signal} to box {name}")]
    Signal {
        /// The box.
        name: crate::name::Name,
        /// Its number.
        signal: i32,
        /// Why.
        source: crate::sys::Error,
    },
    /// Processes of a box were not reached.
    #[error("cannot see the processes of box {name}")]
    Processes {
        /// The box.
        name: crate::name::Name,
        /// Why.
        source: crate::cgroup::Error,
    },
    /// A box cannot be paused; it runs on.
    #[error(
        "cannot pause box {name}, which runs on; a process that waits for a device cannot be paused"
    )]
    Pause {
        /// The box.
        name: crate::name::Name,
        /// Why.
        source: crate::cgroup::Error,
    },
    /// A box cannot be resumed.
    #[error("cannot resume box {name}")]
    Resume {
        /// The box.
        name: crate::name::Name,
        /// Why.
        source: crate::cgroup::Error,
    },
    /// Nobody can enter a box that stands still.
    #[error("cannot enter box {0}: it is paused; let it go on first: boxctl resume {0}")]
    Paused(crate::name::Name),
    /// A box cannot be waited for.
    #[error("cannot wait for box {name}")]
    Wait {
        /// The box.
        name: crate::name::Name,
        /// Why.
        source: io::Error,
    },
    /// A box has ended, and nobody knows how.
    #[error(
        "box {0} has ended, and how is not known: the journal has no entry of its end; see `systemctl status systemd-journald`"
    )]
    Forgotten(crate::name::Name),
    /// `--user` is none.
    #[error("{text:?} is no user of a box: {expected}")]
    User {
        /// What was given.
        text: String,
        /// What it should be.
        expected: String,
    },
    /// An argument is no text.
    #[error("the argument {0:?} is not UTF-8 text, as a command in a box has to be")]
    Argument(std::ffi::OsString),
    /// Another program cannot be executed.
    #[error("cannot execute {program}; is it installed?")]
    Execute {
        /// Its name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file of a definition cannot be read or written.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// A definition was not edited.
    #[error(transparent)]
    Edit(#[from] edit::EditError),
    /// Nothing of a box was set.
    #[error(transparent)]
    Set(#[from] set::SetError),
    /// Another drop-in comes after ours, and says otherwise.
    #[error(
        "cannot change start-at-boot of box {name} by {}: a drop-in after it says otherwise, see `boxctl explain start-at-boot {name}`",
        path.display()
    )]
    Overridden {
        /// The box.
        name: crate::name::Name,
        /// The drop-in of ours.
        path: std::path::PathBuf,
    },
    /// There is no such key.
    #[error(
        "there is no key {text:?}{}",
        match similar {
            Some(similar) => format!("; did you mean {similar}?"),
            None => "; `boxctl explain` lists all".to_owned(),
        }
    )]
    Key {
        /// What was asked for.
        text: String,
        /// One that is like it.
        similar: Option<String>,
    },
    /// A screen needs one.
    #[error("cannot show a screen: this is no terminal; `boxctl stats` prints the same once")]
    NoTerminal,
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Write(#[from] io::Error),
    /// A value has no JSON form.
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
}

impl From<crate::generation::NotInForce> for Error {
    fn from(error: crate::generation::NotInForce) -> Error {
        match error {
            // Its diagnostics are shown as pictures.
            crate::generation::NotInForce::Load(error) => Error::Load(error),
            error => Error::NotInForce(error),
        }
    }
}

/// Everything `boxctl` does, from the arguments of this process to its exit status.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let color = arguments.color;
    let out = Look::of_stdout(color);
    // What goes wrong before a command runs in a box must not look like the command's own status.
    let failure = match arguments.command {
        Command::Exec { .. }
        | Command::Shell { .. }
        | Command::Attach { .. }
        | Command::Wait(_) => ExitCode::from(crate::enter::TROUBLE.0),
        _ => ExitCode::FAILURE,
    };
    let (by_agent, is_absent) =
        match agent::instead(&arguments.command, out, Look::of_stderr(color)) {
            agent::Instead::Agent(result) => (Some(result), false),
            agent::Instead::Absent => (None, true),
            agent::Instead::Boxctl => (None, false),
        };
    let result = match arguments.command {
        _ if by_agent.is_some() => by_agent.unwrap_or(Ok(failure)),
        Command::Check { files } => definitions::check(&files, out, Look::of_stderr(color)),
        Command::Plan {
            source: Some(source),
            json,
        } => definitions::plan(&source, json),
        Command::Plan { source: None, json } => apply::plan(json, out),
        Command::Apply { dry_run: true } => apply::plan(false, out),
        Command::Apply { dry_run: false } => apply::apply(out, Look::of_stderr(color)),
        Command::History { json } => apply::history(json, out),
        Command::Diff { from, to } => apply::diff(from, to, out),
        Command::Rollback { generation } => {
            apply::rollback(generation, out, Look::of_stderr(color))
        }
        Command::Security { source, json } => security::security(&source, json, out),
        Command::List { json } => definitions::list(json, out),
        Command::Schema => definitions::schema(),
        Command::New {
            name,
            root,
            description,
            command,
        } => new::new(
            &name,
            &new::Wish {
                command,
                root,
                description,
            },
            Look::of_stderr(color),
        ),
        Command::Edit { drop_in, name } => {
            edit::edit(&name, drop_in.as_deref(), Look::of_stderr(color))
        }
        Command::Set {
            runtime,
            name,
            settings,
        } => set::set(&name, &settings, runtime, Look::of_stderr(color)),
        Command::Enable { now, names } => boot::change(&names, true, now, Look::of_stderr(color)),
        Command::Disable { now, names } => boot::change(&names, false, now, Look::of_stderr(color)),
        Command::Complete { words } => complete::complete(&words),
        Command::Events {
            json,
            since,
            no_follow,
            names,
        } => events::events(
            &events::Wish {
                names,
                since,
                no_follow,
                json,
            },
            out,
        ),
        Command::Explain { key, name, json } => {
            explain::explain(key.as_deref(), name.as_deref(), json, out)
        }
        Command::Inspect { name, json } => inspect::inspect(&name, json, out),
        Command::Top { interval } => top::top(interval, color),
        Command::Stats { names, json } => stats::stats(&names, json, out),
        Command::Doctor { all, json } => doctor::doctor(all, json, out),
        Command::Status { names, json, lines } => look::status(&names, json, lines, out),
        Command::Logs {
            follow,
            lines,
            since,
            name,
        } => journal::logs(&name, follow, lines, since.as_deref()),
        Command::Start(names) => {
            units::change(Operation::Start, &names.names, Look::of_stderr(color))
        }
        Command::Stop(names) => {
            units::change(Operation::Stop, &names.names, Look::of_stderr(color))
        }
        Command::Restart(names) => {
            units::change(Operation::Restart, &names.names, Look::of_stderr(color))
        }
        Command::Reload(names) => {
            units::change(Operation::Reload, &names.names, Look::of_stderr(color))
        }
        Command::Pause(names) => inside::pause(&names.names),
        Command::Resume(names) => inside::resume(&names.names),
        Command::Wait(names) => wait::wait(&names.names),
        Command::Kill { all, signal, names } => inside::kill(signal, all, &names),
        Command::Exec {
            user,
            terminal,
            interactive,
            working_directory,
            name,
            command,
        } => inside::exec(
            &name,
            inside::Wish {
                user,
                terminal,
                interactive,
                working_directory,
                command,
            },
        ),
        Command::Shell { user, name } => inside::shell(&name, user),
        Command::Attach { detach_keys, name } => {
            attach::attach(&name, &detach_keys, Look::of_stderr(color))
        }
        Command::Run { source } => definitions::run(&source, Look::of_stderr(color)),
    };
    let status = result.unwrap_or_else(|error| {
        let look = Look::of_stderr(color);
        complain(&describe(&error, look));
        match &error {
            Error::Enter(error) => ExitCode::from(error.exit_status()),
            Error::Run(error) => ExitCode::from(error.status()),
            _ => failure,
        }
    });
    if is_absent && status != ExitCode::SUCCESS {
        agent::absence(Look::of_stderr(color));
    }
    status
}

/// All of them, a line each: the first stands behind "boxctl:", the others under it.
fn problems(problems: &[plan::Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\nboxctl: ")
}

/// An error and its causes as one sentence, and diagnostics as their own pictures.
fn describe(error: &Error, look: Look) -> String {
    if let Error::Change { source, .. } = error {
        let refused = look.paint(Paint::Bad, "boxctl:");
        return format!("{refused} {error}:\n{}", describe(source, look));
    }
    if let Error::Load(LoadError::Invalid(diagnostics)) = error {
        return with_newline(diagnostics.render(style(look)));
    }
    let mut sentence = error.to_string();
    let mut cause = error.source();
    let mut denied = false;
    while let Some(source) = cause {
        denied |= source
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let text = source.to_string();
        // A transparent error repeats its source.
        if !sentence.ends_with(&text) {
            sentence.push_str(": ");
            sentence.push_str(&text);
        }
        cause = source.source();
    }
    if denied && !rustix::process::geteuid().is_root() {
        sentence.push_str("; run this as root");
    }
    // What is wrong with a file may be what stands in it.
    let lines: Vec<String> = sentence.lines().map(harmless).collect();
    let refused = look.paint(Paint::Bad, "boxctl:");
    format!("{refused} {}\n", lines.join("\n"))
}

fn style(look: Look) -> Style {
    match look.width {
        Some(width) => Style {
            color: look.color,
            width,
        },
        None => Style {
            color: look.color,
            ..Style::PLAIN
        },
    }
}

fn with_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
