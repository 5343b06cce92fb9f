//! `boxctl attach`.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use super::Error;
use super::inside;
use super::terminal::{Look, Paint, complain};
use crate::attach::{self, Keys, Outcome};

/// Connects the operator's terminal to that of a box.
pub fn attach(name: &str, keys: &Keys, look: Look) -> Result<ExitCode, Error> {
    let running = inside::running("attach to", name)?;
    let name = &running.document.name;
    let notice = |text: &str| {
        if io::stdin().is_terminal() {
            complain(&format!("{} {text}\n", look.paint(Paint::Faint, "boxctl:")));
        }
    };
    let begun = || match keys.is_none() {
        true => notice(&format!("attached to box {name}")),
        false => notice(&format!(
            "attached to box {name}; {keys} within a second detaches"
        )),
    };
    let outcome = attach::attach(&running, keys, &begun)?;
    Ok(match outcome {
        Outcome::Detached => {
            notice(&format!("detached from box {name}, which runs on"));
            ExitCode::SUCCESS
        }
        Outcome::Told(signal) => ExitCode::from(128 | signal as u8),
        Outcome::Ended(Some(status)) => {
            notice(&format!("box {name} has ended, with status {status}"));
            ExitCode::from(status)
        }
        Outcome::Ended(None) => {
            notice(&format!(
                "box {name} has ended; how, says: boxctl status {name}"
            ));
            ExitCode::from(u8::MAX)
        }
    })
}
