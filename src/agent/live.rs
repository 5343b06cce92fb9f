//! A box changed while it runs.

use crate::definition::{SourceText, parse};
use crate::generation::broken;
use crate::launch::run_directory::{self, RunDirectory};
use crate::name::Name;
use crate::plan::{Health, Plan};
use crate::run::follow_the_service;
use crate::running::{self, Running};
use crate::systemd::{self, Manager};
use crate::{cgroup, host, plan};

/// Why a box was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The definition has problems.
    #[error("{0}")]
    Definition(String),
    /// This host cannot carry it out.
    #[error("{0}")]
    Plan(String),
    /// What runs cannot be seen.
    #[error(transparent)]
    Running(#[from] running::Error),
    /// systemd does not set the limits.
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    /// A limit does not hold there.
    #[error("a limit does not hold for its cgroup")]
    Limit(#[source] cgroup::Error),
    /// It cannot be written down.
    #[error(transparent)]
    Write(#[from] run_directory::Error),
}

/// Makes a box that runs one of this definition, as far as that is possible while it does. A box that has ended
/// meanwhile starts by it the next time, and is no error.
///
/// # Errors
///
/// It is as it was, as far as is known.
pub fn change(manager: &Manager, name: &Name, texts: &[SourceText]) -> Result<(), Error> {
    let definition =
        parse(name, texts).map_err(|wrong| Error::Definition(broken(&wrong.into())))?;
    let Some(running) = running::find(name)? else {
        return Ok(());
    };
    let mut wanted = plan::resolve(&definition, &host::read(&definition)).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Error::Plan(problems.join("; "))
    })?;
    if let Some(service) = manager.cgroup(&name.unit())? {
        follow_the_service(&mut wanted, &service);
    }
    let scope = running.plan.scope.clone();
    let changed = manager.change_scope(
        &scope.unit,
        &wanted.scope.description,
        &scope.limits,
        &wanted.scope.limits,
    );
    match changed {
        Ok(()) => {}
        Err(systemd::Error::NoSuchUnit { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    // Of limits that cannot be set systemd says nothing.
    manager.await_changes(&scope.unit)?;
    let limits = wanted.scope.limits.clone();
    // What it had is not this change's doing, whatever became of it.
    let mut new = limits.clone();
    new.retain(|limit| !scope.limits.contains(limit));
    let cgroup = &running.document.cgroup;
    let result = match cgroup::limits::check(cgroup, &new) {
        Err(error) if cgroup.exists() => Err(Error::Limit(error)),
        _ => write(name, running, wanted, texts),
    };
    if result.is_err() {
        manager.change_scope(&scope.unit, &scope.description, &limits, &scope.limits)?;
        manager.await_changes(&scope.unit)?;
    }
    result
}

fn write(name: &Name, running: Running, wanted: Plan, texts: &[SourceText]) -> Result<(), Error> {
    let directory = match RunDirectory::claim(name) {
        Ok(directory) => directory,
        // It is being stopped or started: that reads the definition anew.
        Err(run_directory::Error::Busy { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match directory.document()? {
        Some(document) if document == running.document => {
            directory.write_plan(&merged(running.plan.clone(), wanted))?;
            let written = directory.write_definition(&texts);
            if written.is_err() {
                directory.write_plan(&running.plan)?;
            }
            Ok(written?)
        }
        Some(_) => Ok(()),
        None => Ok(directory.remove()?),
    }
}

/// What a box is that was made by one plan, and changed by another as far as that goes.
fn merged(made: Plan, wanted: Plan) -> Plan {
    let health = match (made.health, wanted.health) {
        (Some(made), Some(wanted)) => Some(Health {
            probe: wanted.probe,
            rules: made.rules,
        }),
        (made, _) => made,
    };
    let mut scope = made.scope;
    scope.description = wanted.scope.description;
    scope.limits = wanted.scope.limits;
    Plan {
        description: wanted.description,
        scope,
        ready: wanted.ready,
        reload: wanted.reload,
        restart: wanted.restart,
        stop_command: wanted.stop_command,
        health,
        ..made
    }
}
