//! `boxctl wait`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::terminal::say;
use super::{Error, names};
use crate::definition::Layers;
use crate::handover::Document;
use crate::name::Name;
use crate::running::{self, Running};
use crate::status::collect;
use crate::status::ends::{self, Which};
use crate::sys;

/// From the end of a box to the entry that says how: its last output comes before, and is waited for so long.
const ENTRY: Duration = Duration::from_secs(90);

/// Pause between two looks into the journal.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is said of a box in the foreground whose end the kernel keeps no record of.
const UNKNOWN: u8 = 255;

/// Waits until each box has ended; prints the exit statuses in their order, and returns the first that is not 0.
pub fn wait(texts: &[String]) -> Result<ExitCode, Error> {
    let boxes = names::each(texts, &Layers::system(), names::running)?
        .into_iter()
        .map(|name| {
            let running = running::find(&name)?;
            Ok((name, running))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let mut first = 0;
    for (name, running) in boxes {
        let status = match running {
            Some(running) => of_running(&running)?,
            None => match running::document(&name) {
                Some(document) => of_entry(&document)?,
                None => of_ended(&name)?,
            },
        };
        say(&format!("{status}\n"))?;
        if first == 0 {
            first = status;
        }
    }
    Ok(ExitCode::from(first))
}

fn of_running(running: &Running) -> Result<u8, Error> {
    let name = &running.document.name;
    loop {
        match poll(&mut [PollFd::new(&running.process, PollFlags::IN)], None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::Wait {
                    name: name.clone(),
                    source: errno.into(),
                });
            }
        }
    }
    if running.plan.scope.before.is_none() {
        use std::os::fd::AsFd as _;
        // It has no journal; its `boxctl run` may still be about to wait for it.
        return Ok(match sys::exit_of(running.process.as_fd()) {
            Ok(Some(sys::Exit::Status(status))) => status,
            Ok(Some(sys::Exit::Signal(signal))) => 128 + signal as u8,
            _ => UNKNOWN,
        });
    }
    of_entry(&running.document)
}

/// The first process has ended; its supervisor is about to say how.
fn of_entry(document: &Document) -> Result<u8, Error> {
    let begin = Instant::now();
    let which = Which::Of {
        pid: document.pid,
        started: document.started,
    };
    loop {
        if let Some(end) = ends::last(&document.name, which) {
            return Ok(end.exit_status);
        }
        if begin.elapsed() > ENTRY {
            return Err(Error::Forgotten(document.name.clone()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A box that does not run has ended before.
fn of_ended(name: &Name) -> Result<u8, Error> {
    ends::settle();
    if let Some(end) = ends::last(name, Which::LastOfBoot) {
        return Ok(end.exit_status);
    }
    let layers = Layers::system();
    let status = collect::one(name, &layers, &None)?;
    Err(match status.exists() {
        true => names::Error::NotRunning {
            operation: "wait for",
            name: name.clone(),
        }
        .into(),
        false => names::unknown(name.clone(), &layers).into(),
    })
}
