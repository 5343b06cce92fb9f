//! `boxctl status`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::show::{self, Clock};
use super::terminal::{Look, complain, say};
use super::{Error, journal, names};
use crate::definition::Layers;
use crate::name::Name;
use crate::status::collect::{self, Units};
use crate::status::ends;
use crate::status::{Report, State, VERSION};
use crate::systemd::{self, Manager};

/// The exit status of `boxctl status NAME` for a box that does not run: "program is not running" of the LSB,
/// which systemctl(1) has too.
const NOT_RUNNING: u8 = 3;

/// Shows all boxes as a table, or the given ones in full.
pub fn status(names: &[String], json: bool, lines: u32, look: Look) -> Result<ExitCode, Error> {
    let layers = Layers::system();
    let manager = manager()?;
    if names.is_empty() {
        let units = manager.as_ref().map(collect::loaded_units).transpose()?;
        let mut report = collect::all(&layers, &units)?;
        if json {
            for status in &mut report.boxes {
                if matches!(status.state, State::Failed | State::Restarting) {
                    look_up_end(status);
                }
            }
        }
        let shown = shown(&report, false, json, lines, look)?;
        if !rustix::process::geteuid().is_root() {
            complain("boxctl: only root sees which boxes run; run this as root\n");
        }
        return Ok(shown);
    }
    let report = Report {
        version: VERSION,
        systemd: manager.is_some(),
        boxes: names::each(names, &layers, names::there)?
            .iter()
            .map(|name| one(name, &layers, manager.as_ref()))
            .collect::<Result<_, Error>>()?,
    };
    shown(&report, true, json, lines, look)
}

/// Shows what is known: of all boxes, or of those that were named, each in full.
pub fn shown(
    report: &Report,
    named: bool,
    json: bool,
    lines: u32,
    look: Look,
) -> Result<ExitCode, Error> {
    if json {
        say(&format!("{}\n", serde_json::to_string_pretty(report)?))?;
    } else if named {
        let clock = Clock::system();
        let pages: Vec<String> = report
            .boxes
            .iter()
            .map(|status| {
                let unit = status
                    .unit
                    .as_ref()
                    .filter(|unit| unit.invocation.is_some());
                let output = unit.map_or_else(Vec::new, |unit| {
                    journal::last_lines(&unit.name, unit.invocation.as_deref(), lines)
                });
                show::page(status, &output, &clock, look)
            })
            .collect();
        say(&pages.join("\n"))?;
    } else {
        say(&show::boxes(report, &Clock::system(), look))?;
    }
    let all_run = report
        .boxes
        .iter()
        .all(|status| matches!(status.state, State::Running | State::Paused));
    Ok(if all_run || !named {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_RUNNING)
    })
}

/// A connection to systemd, where it runs the host.
pub fn manager() -> Result<Option<Manager>, Error> {
    Ok(match systemd::is_running() {
        true => Some(Manager::connect()?),
        false => None,
    })
}

fn look_up_end(status: &mut crate::status::Status) {
    if let Ok(name) = status.name.parse() {
        status.last_end = ends::last(&name, ends::Which::Last);
    }
}

/// What is known of one box, which must be there.
pub fn one(
    name: &Name,
    layers: &Layers,
    manager: Option<&Manager>,
) -> Result<crate::status::Status, Error> {
    let units: Units = match manager {
        Some(manager) => Some(BTreeMap::from([(
            name.clone(),
            collect::unit(manager, name)?,
        )])),
        None => None,
    };
    let mut status = collect::one(name, layers, &units)?;
    if status.exists() {
        look_up_end(&mut status);
        Ok(status)
    } else {
        Err(names::unknown(name.clone(), layers).into())
    }
}
