//! `boxctl start`, `stop`, `restart` and `reload`: as systemctl(1) does it, with the reason when it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use super::show::ended;
use super::terminal::{Look, Paint, complain, cut, harmless};
use super::{Error, definitions, describe, journal, names};
use crate::definition::{self, Definition, Layers};
use crate::generation::{self, Why};
use crate::name::Name;
use crate::status::collect::{self, Seen};
use crate::status::{Runner, Socket, State, Unit};
use crate::systemd::manager::Operation;
use crate::systemd::{self, Manager};

/// How many lines of the journal a failure is shown with.
const LINES: u32 = 10;

/// What systemd answers when a unit has nothing to do for a kind of job.
const NOT_APPLICABLE: &str = "org.freedesktop.systemd1.JobTypeNotApplicable";

/// Does it to all boxes at once and waits for each; instances are restarted one after the other, each when the one
/// before it is ready. Boxes for which it cannot work are left alone and named; the others go on.
pub fn change(operation: Operation, texts: &[String], look: Look) -> Result<ExitCode, Error> {
    let layers = Layers::system();
    let wanted = names::each(
        texts,
        &layers,
        match operation {
            Operation::Start | Operation::Restart => names::defined,
            Operation::Stop => names::there,
            Operation::Reload => names::running,
        },
    )?;
    if !systemd::is_running()
        && let Some(name) = wanted.first()
    {
        return Err(Error::NoSystemd {
            operation: operation.verb(),
            name: name.clone(),
        });
    }
    let manager = Manager::connect()?;
    let mut failed = BTreeSet::new();
    let mut stale = false;
    let mut ready = Vec::new();
    for name in wanted {
        match check(operation, &name, &layers, &manager) {
            Ok(changed) => {
                stale |= changed;
                ready.push(name);
            }
            Err(error) => {
                failed.insert(name);
                complain(&describe(&error, look));
            }
        }
    }
    // What the definitions say of ordering, restarts and timeouts is systemd's to know beforehand.
    if stale {
        manager.daemon_reload()?;
    }
    let mut all: BTreeSet<Name> = ready.iter().map(Name::base).collect();
    for round in rounds(operation, ready) {
        let (held_up, round): (Vec<Name>, Vec<Name>) = round
            .into_iter()
            .partition(|name| operation == Operation::Restart && follows(name, &failed));
        for name in held_up {
            complain(&format!(
                "{} box {name} is left as it is, since another instance did not restart\n",
                look.paint(Paint::Warning, "boxctl:")
            ));
        }
        let units: Vec<String> = round.iter().map(Name::unit).collect();
        let results = manager.change_units(operation, &units)?;
        for (name, result) in round.iter().zip(results) {
            if operation == Operation::Stop && result.is_ok() {
                let sockets = collect::unit(&manager, name).map(|seen| seen.sockets);
                if let Some(text) = still_open(name, &sockets.unwrap_or_default(), look) {
                    // With the target they would be closed.
                    all.remove(&name.base());
                    complain(&text);
                }
            }
            if let Err(error) = result {
                failed.insert(name.clone());
                let seen = collect::unit(&manager, name).ok();
                complain(&explain(operation, name, &error, seen.as_ref(), look));
            }
        }
    }
    for name in all.iter().filter(|name| is_of_all(name, texts)) {
        settle(operation, name, &failed, &manager);
    }
    Ok(match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What is done at the same time: of the instances of a definition one at a time, if they are restarted.
fn rounds(operation: Operation, names: Vec<Name>) -> Vec<Vec<Name>> {
    if operation != Operation::Restart {
        return vec![names];
    }
    let mut rounds: Vec<Vec<Name>> = Vec::new();
    let mut reached: BTreeMap<Name, usize> = BTreeMap::new();
    for name in names {
        let round = reached.entry(name.base()).or_default();
        match rounds.get_mut(*round) {
            Some(round) => round.push(name),
            None => rounds.push(vec![name]),
        }
        *round += 1;
    }
    rounds
}

/// Whether this is an instance of a definition of which another one has failed.
fn follows(name: &Name, failed: &BTreeSet<Name>) -> bool {
    name.instance().is_some() && failed.iter().any(|failed| failed.base() == name.base())
}

/// Whether these words mean all boxes of a definition.
fn is_of_all(name: &Name, texts: &[String]) -> bool {
    texts
        .iter()
        .any(|text| names::parse(text).is_ok_and(|it| it == *name))
}

/// Has the target of all instances say what they do; a box without instances has none.
fn settle(operation: Operation, name: &Name, failed: &BTreeSet<Name>, manager: &Manager) {
    let target = name.target();
    let is_there = manager
        .unit(&target)
        .is_ok_and(|unit| unit.load_state == "loaded");
    if !is_there || failed.iter().any(|failed| failed.base() == *name) {
        return;
    }
    // They do it already, so nothing comes of it but that.
    let _ = match operation {
        Operation::Start | Operation::Restart => manager.start_unit(&target),
        Operation::Stop => manager.stop_unit(&target),
        Operation::Reload => Ok(()),
    };
}

/// What systemctl(1) says too after a stop: the box is stopped, and not for long.
fn still_open(name: &Name, sockets: &[Socket], look: Look) -> Option<String> {
    let open: Vec<&str> = sockets
        .iter()
        .filter(|socket| socket.is_open)
        .map(|socket| &*socket.unit)
        .collect();
    if open.is_empty() {
        return None;
    }
    let units = open.join(" ");
    Some(format!(
        "{} box {name} is stopped, and the next connection starts it again; close its sockets with: systemctl stop {units}\n",
        look.paint(Paint::Warning, "boxctl:"),
    ))
}

/// Whether it can work at all; and if so, whether systemd has to read the definition anew first. A definition is
/// read before anything is stopped, so that a slip in it does not end the box it describes.
fn check(
    operation: Operation,
    name: &Name,
    layers: &Layers,
    manager: &Manager,
) -> Result<bool, Error> {
    let seen = collect::unit(manager, name)?;
    let status = collect::one(name, layers, &Some([(name.clone(), seen)].into()))?;
    let stale = status.unit.as_ref().is_some_and(|unit| unit.needs_reload);
    if !status.exists() {
        return Err(names::unknown(name.clone(), layers).into());
    }
    if let (Some(Runner::Foreground), Some(payload)) = (status.runner, &status.payload) {
        return Err(names::Error::Foreground {
            operation: operation.verb(),
            name: name.clone(),
            pid: payload.pid,
        }
        .into());
    }
    match operation {
        Operation::Start | Operation::Restart => {
            let planned = in_force(operation, name, layers)
                .and_then(|definition| definitions::planned(&definition));
            match planned {
                Ok(_) => Ok(stale),
                Err(source) => Err(Error::Change {
                    operation: operation.verb(),
                    name: name.clone(),
                    keeps: match status.state {
                        State::Running => "; it keeps running as it is",
                        _ => "",
                    },
                    source: Box::new(source),
                }),
            }
        }
        Operation::Reload if status.runner.is_none() => Err(names::Error::NotRunning {
            operation: operation.verb(),
            name: name.clone(),
        }
        .into()),
        Operation::Reload | Operation::Stop => Ok(false),
    }
}

/// By which definition it is done. Whoever restarts a box wants what its file says now; whoever starts one wants it
/// to run, if need be by its last good definition.
fn in_force(operation: Operation, name: &Name, layers: &Layers) -> Result<Definition, Error> {
    let in_force = generation::in_force(name, layers)?;
    if let Some(error) = &in_force.unasked {
        complain(&format!(
            "boxctl: box {name} has the definition of its files, whatever was put back or rolled back: {}\n",
            harmless(&error.in_full())
        ));
    }
    if let Some(notice) = in_force.notice {
        if operation == Operation::Restart && notice.why == Why::Broken {
            return Ok(definition::load(name, layers)?);
        }
        complain(&format!(
            "boxctl: box {name} {}\n",
            harmless(&notice.sentence())
        ));
    }
    Ok(in_force.definition)
}

/// Why it did not work: what systemd says, what the supervisor said, the last lines, and what to do.
fn explain(
    operation: Operation,
    name: &Name,
    error: &systemd::Error,
    seen: Option<&Seen>,
    look: Look,
) -> String {
    if let systemd::Error::Refused { name: refusal, .. } = error
        && refusal == NOT_APPLICABLE
    {
        return format!(
            "{} box {name} has no [reload] in its definition, which says how it is asked to read its configuration anew; a program that does so at a signal gets it with `boxctl kill -s HUP {name}`\n",
            look.paint(Paint::Bad, "boxctl:"),
        );
    }
    let job_failed = matches!(error, systemd::Error::Job { .. });
    if operation == Operation::Reload
        && job_failed
        && let Some(seen) = seen
    {
        let mut text = format!(
            "{} box {name} did not reload\n",
            look.paint(Paint::Bad, "boxctl:")
        );
        add_lines(&mut text, &lines_of(&seen.unit), look);
        return text;
    }
    let unit = match seen {
        Some(seen) if job_failed && seen.unit.result != "success" => &seen.unit,
        _ => {
            let mut chain = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(source) = cause {
                chain.push_str(&format!(": {source}"));
                cause = source.source();
            }
            return format!(
                "{} box {name}: {chain}\n",
                look.paint(Paint::Bad, "boxctl:")
            );
        }
    };
    explanation(operation, name, unit, &lines_of(unit), look)
}

fn lines_of(unit: &Unit) -> Vec<String> {
    unit.invocation
        .as_deref()
        .map_or_else(Vec::new, |invocation| {
            journal::last_lines(&unit.name, Some(invocation), LINES)
        })
}

fn explanation(
    operation: Operation,
    name: &Name,
    unit: &Unit,
    lines: &[String],
    look: Look,
) -> String {
    let mut text = format!(
        "{} box {name} did not {}: {}\n",
        look.paint(Paint::Bad, "boxctl:"),
        operation.verb(),
        ended(&unit.result, unit.exit_code, unit.exit_status)
    );
    if let Some(said) = &unit.status_text {
        text.push_str(&format!("  It said: {}\n", harmless(said)));
    }
    add_lines(&mut text, lines, look);
    text.push_str(&format!("  {}\n", remedy(name, unit)));
    text
}

fn add_lines(text: &mut String, lines: &[String], look: Look) {
    if lines.is_empty() {
        return;
    }
    text.push_str("  Its last lines in the journal:\n");
    for line in lines {
        let line = format!("    {}", harmless(line));
        text.push_str(
            &look
                .width
                .map_or_else(|| line.clone(), |width| cut(&line, width)),
        );
        text.push('\n');
    }
}

/// What to do about a unit that ended so.
fn remedy(name: &Name, unit: &Unit) -> String {
    match unit.result.as_str() {
        "oom-kill" => {
            format!("Give box {name} more with `memory` in [resources], or find out what grows.")
        }
        "start-limit-hit" => format!(
            "Find out why with `boxctl logs {name}`; then `systemctl reset-failed {}` lets it start again.",
            name.unit()
        ),
        "timeout" => format!(
            "See what it waits for with `boxctl logs {name}`; `timeout` in [ready] or [stop] gives it more time."
        ),
        "exit-code" if unit.exit_status == 203 => format!(
            "Correct `command` in its definition, or put the program into its root: `boxctl plan {name}` shows both."
        ),
        "exit-code" if unit.exit_status == 217 => format!(
            "Correct `user` and `groups` in its definition: they are looked up in the box's own /etc/passwd and /etc/group, which `boxctl plan {name}` shows the root of."
        ),
        _ => format!("See more with `boxctl logs {name}` and `boxctl status {name}`."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        color: false,
        width: Some(60),
    };

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let name: Name = "web".parse().expect("a name");
        let unit = Unit {
            name: name.unit(),
            result: "exit-code".to_owned(),
            exit_code: libc::CLD_EXITED,
            exit_status: 203,
            status_text: Some("cannot execute \"/usr/sbin/ngin\": ENOENT".to_owned()),
            ..Unit::default()
        };
        let lines = [
            "Nov 29 23:43:01 host boxd[1]: a line that is far longer than the terminal is wide"
                .to_owned(),
        ];
        assert_eq!(
            explanation(Operation::Start, &name, &unit, &lines, PLAIN),
            "boxctl: box web did not start: exit-code: the command could not be executed (status 203)\n  \
             It said: cannot execute \"/usr/sbin/ngin\": ENOENT\n  \
             Its last lines in the journal:\n    \
             Nov 29 23:43:01 host boxd[1]: a line that is far longer…\n  \
             Correct `command` in its definition, or put the program into its root: `boxctl plan web` shows both.\n"
        );
    }

    #[test]
    fn instances_are_restarted_one_at_a_time() {
        let names = |names: &[&str]| -> Vec<Name> {
            let name = |name: &&str| name.parse().expect("a name");
            names.iter().map(name).collect()
        };
        let wanted = ["web:1", "web:2", "web:3", "db", "app:1", "app:2"];
        assert_eq!(
            rounds(Operation::Restart, names(&wanted)),
            [
                names(&["web:1", "db", "app:1"]),
                names(&["web:2", "app:2"]),
                names(&["web:3"]),
            ]
        );
        assert_eq!(rounds(Operation::Stop, names(&wanted)), [names(&wanted)]);
        let failed = names(&["web:2", "db"]).into_iter().collect();
        let [third, other, db] = ["web:3", "app:2", "db"].map(|name| name.parse().expect("a name"));
        assert!(follows(&third, &failed) && !follows(&other, &failed) && !follows(&db, &failed));
    }

    #[test]
    fn every_result_has_a_remedy() {
        let name: Name = "web".parse().expect("a name");
        for result in [
            "oom-kill",
            "start-limit-hit",
            "timeout",
            "exit-code",
            "signal",
            "new",
        ] {
            let unit = Unit {
                result: result.to_owned(),
                ..Unit::default()
            };
            assert!(remedy(&name, &unit).contains("web"), "{result}");
        }
    }
}
