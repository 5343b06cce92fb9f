//! `boxctl exec`, `shell` and `kill`: what is done to a running box from outside it.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Error, names};
use crate::definition::{Layers, Users, parse_user};
use crate::enter::{self, Input, Options, What};
use crate::name::Name;
use crate::running::{self, Running};

/// The options of `boxctl exec`.
#[derive(Debug)]
pub struct Wish {
    pub user: Option<String>,
    pub terminal: bool,
    pub interactive: bool,
    pub working_directory: Option<PathBuf>,
    pub command: Vec<OsString>,
}

/// Runs a command in a box.
pub fn exec(name: &str, wish: Wish) -> Result<ExitCode, Error> {
    let running = running("enter", name)?;
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    // Asked for nothing, a person at a terminal wants to use it.
    let by_hand = on_terminal && !wish.terminal && !wish.interactive;
    let options = Options {
        what: What::Command(text(wish.command)?),
        user: user(&running, wish.user.as_deref())?,
        working_directory: wish.working_directory,
        terminal: wish.terminal || by_hand,
        input: if wish.interactive || by_hand {
            Input::Passed
        } else {
            Input::Empty
        },
    };
    Ok(ExitCode::from(enter::run(&running, &options)?))
}

/// Opens a shell in a box; without a terminal it reads its commands from standard input, as sh(1) does.
pub fn shell(name: &str, wanted: Option<String>) -> Result<ExitCode, Error> {
    let running = running("enter", name)?;
    let options = Options {
        what: What::Shell,
        user: user(&running, wanted.as_deref())?,
        working_directory: None,
        terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
        input: Input::Passed,
    };
    Ok(ExitCode::from(enter::run(&running, &options)?))
}

/// Sends a signal to the first process of each box.
pub fn kill(signal: i32, texts: &[String]) -> Result<ExitCode, Error> {
    let boxes: Vec<Running> = texts
        .iter()
        .map(|text| running("signal", text))
        .collect::<Result<_, _>>()?;
    for running in boxes {
        let failed = |source| Error::Signal {
            name: running.document.name.clone(),
            signal,
            source,
        };
        crate::sys::send_signal(running.process.as_fd(), signal).map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn running(operation: &'static str, text: &str) -> Result<Running, Error> {
    let name: Name = names::parse(text)?;
    if let Some(running) = running::find(&name)? {
        return Ok(running);
    }
    let layers = Layers::system();
    let status = crate::status::collect::one(&name, &layers, &None)?;
    Err(if status.exists() {
        names::Error::NotRunning { operation, name }.into()
    } else {
        names::unknown(name, &layers).into()
    })
}

fn user(running: &Running, text: Option<&str>) -> Result<Option<crate::definition::User>, Error> {
    let users = match running.plan.ids {
        Some(_) => Users::Auto,
        None => Users::Host,
    };
    text.map(|text| {
        parse_user(text, users).map_err(|expected| Error::User {
            text: text.to_owned(),
            expected,
        })
    })
    .transpose()
}

/// Arguments as text: a box's command is text, too.
fn text(command: Vec<OsString>) -> Result<Vec<String>, Error> {
    command
        .into_iter()
        .map(|argument| argument.into_string().map_err(Error::Argument))
        .collect()
}
