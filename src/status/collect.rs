//! Where a [`Report`] comes from: definitions, systemd, `/run/boxd` and cgroups, each asked once.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::newer::is_newer;
use super::{
    Definition, DefinitionState, Ids, Limits, Payload, Report, Runner, Socket, State, Status, Unit,
    Usage, VERSION, state,
};
use crate::cgroup;
use crate::definition::{self, Layers, LoadError};
use crate::generation::{Found, NotInForce, Store};
use crate::generator::{DROP_IN, is_known};
use crate::handover;
use crate::name::Name;
use crate::running::{self, Running};
use crate::systemd::{self, Manager, UnitStatus};

/// What could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The definitions cannot be listed.
    #[error("cannot list the definitions")]
    List(#[source] LoadError),
    /// What runs cannot be listed or read.
    #[error("cannot see what runs")]
    Running(#[source] running::Error),
    /// systemd does not answer.
    #[error("cannot see the units of the boxes")]
    Systemd(#[source] systemd::Error),
}

/// What systemd says of the boxes; none where it does not run.
pub type Units = Option<BTreeMap<Name, Seen>>;

/// What systemd says of one box.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Its service.
    pub unit: Unit,
    /// The units of its sockets, by name: the first one is before the others.
    pub sockets: Vec<Socket>,
}

/// What systemd says of every box it has loaded.
///
/// # Errors
///
/// [`Error::Systemd`].
pub fn loaded_units(manager: &Manager) -> Result<BTreeMap<Name, Seen>, Error> {
    let listed = manager
        .list_units(&["box@*.service"])
        .map_err(Error::Systemd)?;
    let names = listed.iter().filter_map(|listed| {
        let name = listed.unit.strip_prefix("box@")?.strip_suffix(".service")?;
        name.parse().ok()
    });
    let names: Vec<Name> = names.collect();
    let units: Vec<String> = names.iter().map(Name::unit).collect();
    let units = manager.units(&units).map_err(Error::Systemd)?;
    names
        .into_iter()
        .zip(units)
        .map(|(name, unit)| Ok((name, seen(manager, unit)?)))
        .collect()
}

/// What systemd says of one box.
///
/// # Errors
///
/// [`Error::Systemd`].
pub fn unit(manager: &Manager, name: &Name) -> Result<Seen, Error> {
    let unit = manager.unit(&name.unit()).map_err(Error::Systemd)?;
    seen(manager, unit)
}

fn is_at_rest(unit: &UnitStatus) -> bool {
    matches!(unit.active_state.as_str(), "inactive" | "failed")
}

fn seen(manager: &Manager, unit: UnitStatus) -> Result<Seen, Error> {
    let waits_for = match unit.job {
        Some(job) if is_at_rest(&unit) => manager.blockers(job).map_err(Error::Systemd)?,
        _ => Vec::new(),
    };
    let mut sockets = unit
        .triggered_by
        .iter()
        .filter(|unit| unit.ends_with(".socket"))
        .map(|unit| socket(manager, unit))
        .collect::<Result<Vec<_>, Error>>()?;
    sockets.sort_by(|a, b| a.unit.cmp(&b.unit));
    Ok(Seen {
        sockets,
        unit: Unit {
            waits_for,
            ..Unit::from(unit)
        },
    })
}

fn socket(manager: &Manager, unit: &str) -> Result<Socket, Error> {
    let status = manager.socket(unit).map_err(Error::Systemd)?;
    Ok(Socket {
        unit: unit.to_owned(),
        is_open: status.active_state == "active",
        listen: status
            .listen
            .into_iter()
            .map(|(_, address)| address)
            .collect(),
        sub_state: status.sub_state,
        result: status.result,
    })
}

impl From<UnitStatus> for Unit {
    fn from(unit: UnitStatus) -> Unit {
        Unit {
            name: unit.unit,
            active_state: unit.active_state,
            sub_state: unit.sub_state,
            result: unit.result,
            since: Some(unit.state_change).filter(|since| *since > 0),
            supervisor: Some(unit.main_pid).filter(|pid| *pid > 0),
            supervisor_version: handover::signed_by(unit.main_pid),
            status_text: Some(unit.status_text).filter(|text| !text.is_empty()),
            exit_code: unit.exec_main_code,
            exit_status: unit.exec_main_status,
            restarts: unit.restarts,
            needs_reload: unit.need_daemon_reload
                || !unit
                    .drop_in_paths
                    .iter()
                    .any(|path| path.ends_with(DROP_IN)),
            waits_for: Vec::new(),
            invocation: Some(unit.invocation_id).filter(|id| !id.is_empty()),
        }
    }
}

/// Every box there is.
///
/// # Errors
///
/// Only what keeps it from saying anything: a definition that cannot be read is that box's state.
pub fn all(layers: &Layers, units: &Units) -> Result<Report, Error> {
    let mut boxes = BTreeMap::new();
    for listed in definition::list(layers).map_err(Error::List)? {
        match listed.name {
            Ok(name) => {
                let (status, instances) = box_or_instances(&name, layers, units)?;
                // The name of all is no box, unless one runs by it still.
                if instances.is_empty() || status.is_at_work() {
                    boxes.insert((name.to_string(), 0), status);
                }
                for (index, status) in instances {
                    boxes.insert((name.to_string(), index), status);
                }
            }
            Err(error) => {
                let name = listed
                    .path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                boxes.insert(
                    (name.clone(), 0),
                    misnamed(name, listed.path, &error.to_string()),
                );
            }
        }
    }
    let running = running::names().map_err(Error::Running)?;
    let loaded = units.iter().flat_map(|units| units.keys().cloned());
    for name in running.into_iter().chain(loaded) {
        let key = (name.base().to_string(), name.instance().unwrap_or(0));
        if boxes.contains_key(&key) {
            continue;
        }
        let status = one(&name, layers, units)?;
        if status.is_at_work() || name.instance().is_none() && status.exists() {
            boxes.insert(key, status);
        }
    }
    Ok(Report {
        version: VERSION,
        systemd: units.is_some(),
        boxes: boxes.into_values().collect(),
    })
}

/// A box, and if it is the name of several each of them, by its number.
fn box_or_instances(
    name: &Name,
    layers: &Layers,
    units: &Units,
) -> Result<(Status, Vec<(u16, Status)>), Error> {
    let running = running::find(name).map_err(Error::Running)?;
    let seen = units.as_ref().and_then(|units| units.get(name)).cloned();
    let defined = defined(name, layers, running.as_ref());
    let count = defined.instances.unwrap_or(0);
    let status = assemble(name, defined, seen, running);
    let instances = (1..=count)
        .map(|index| Ok((index, one(&name.with_instance(index), layers, units)?)))
        .collect::<Result<_, Error>>()?;
    Ok((status, instances))
}

/// One box; [`Status::exists`] tells whether there is one of that name.
///
/// # Errors
///
/// As [`all`].
pub fn one(name: &Name, layers: &Layers, units: &Units) -> Result<Status, Error> {
    let running = running::find(name).map_err(Error::Running)?;
    let seen = units.as_ref().and_then(|units| units.get(name)).cloned();
    let defined = defined(name, layers, running.as_ref());
    Ok(assemble(name, defined, seen, running))
}

impl Status {
    /// Whether something runs by this name, or has failed.
    pub fn is_at_work(&self) -> bool {
        let unit = self.unit.as_ref();
        self.payload.is_some() || unit.is_some_and(|unit| unit.active_state != "inactive")
    }

    /// Whether anything of the box is there: a definition, a unit that is not at rest, a process.
    pub fn exists(&self) -> bool {
        self.definition.state != DefinitionState::Missing || self.is_at_work()
    }
}

/// A definition as far as it could be read.
struct Defined {
    definition: Definition,
    description: Option<String>,
    /// How many boxes there are of it, if it is not one's.
    instances: Option<u16>,
    /// systemd has not read what it says to systemd.
    unread: bool,
}

fn assemble(name: &Name, defined: Defined, seen: Option<Seen>, running: Option<Running>) -> Status {
    let Defined {
        definition,
        description,
        unread,
        ..
    } = defined;
    let (mut unit, sockets) = match seen {
        Some(seen) => (Some(seen.unit), seen.sockets),
        None => (None, Vec::new()),
    };
    if let Some(unit) = &mut unit {
        unit.needs_reload |= unread;
    }
    let payload = running.as_ref().map(payload);
    let at_work = unit
        .as_ref()
        .is_some_and(|unit| !matches!(unit.active_state.as_str(), "inactive" | "failed"));
    let runner = match &running {
        Some(running) if running.plan.scope.before.is_none() => Some(Runner::Foreground),
        Some(_) => Some(Runner::Unit),
        None => at_work.then_some(Runner::Unit),
    };
    let mut state = state(definition.state, unit.as_ref(), payload.as_ref(), runner);
    let frozen = |running: &Running| cgroup::is_frozen(&running.document.cgroup).unwrap_or(false);
    if state == State::Running && running.as_ref().is_some_and(frozen) {
        state = State::Paused;
    }
    let since = match runner {
        Some(Runner::Foreground) => payload.as_ref().map(|payload| payload.started),
        _ => unit.as_ref().and_then(|unit| unit.since),
    };
    let usage = running
        .as_ref()
        .and_then(|running| cgroup::usage(&running.document.cgroup).ok())
        .map(|usage| Usage {
            memory: usage.memory,
            memory_peak: usage.memory_peak,
            cpu: usage.cpu_usec,
            tasks: usage.tasks,
        });
    // As the kernel has them, for an operator may have changed them since the box was planned.
    let limits = running
        .as_ref()
        .map(|running| Limits::of(&cgroup::limits::set_on(&running.document.cgroup)))
        .unwrap_or_default();
    let description =
        description.or_else(|| running.as_ref().map(|it| it.document.description.clone()));
    let health = running.as_ref().and_then(Running::health);
    let remarks = running
        .map(|running| running.plan.remarks)
        .unwrap_or_default();
    Status {
        name: name.to_string(),
        description,
        state,
        since,
        runner,
        definition,
        unit,
        sockets,
        payload,
        usage,
        limits,
        health,
        remarks,
        last_end: None,
    }
}

fn payload(running: &Running) -> Payload {
    let document = &running.document;
    Payload {
        pid: document.pid,
        command: fs::read(format!("/proc/{}/comm", document.pid))
            .ok()
            .map(|comm| {
                String::from_utf8_lossy(&comm)
                    .trim_end_matches('\n')
                    .to_owned()
            }),
        started: document.started,
        started_by: document.boxd.clone(),
        scope: document.scope.clone(),
        cgroup: document.cgroup.clone(),
        root: document.root.clone(),
        tty: running.plan.tty,
        ids: document.ids.map(Ids::from),
    }
}

fn defined(name: &Name, layers: &Layers, running: Option<&Running>) -> Defined {
    let found = Found::read(name, layers);
    let is_of_another = |definition: &definition::Definition| match name.instance() {
        Some(index) => definition.instances.is_none_or(|count| index > count),
        None => false,
    };
    let (state, mut files, problem) = match &found {
        Found::Good(_, definition) if is_of_another(definition) => {
            (DefinitionState::Missing, Vec::new(), None)
        }
        Found::Good(_, definition) => (DefinitionState::Loaded, definition.sources.clone(), None),
        Found::Nothing(LoadError::Masked { path, .. }) => {
            (DefinitionState::Masked, vec![path.clone()], None)
        }
        Found::Nothing(_) => (DefinitionState::Missing, Vec::new(), None),
        Found::Broken(error) => (DefinitionState::Broken, Vec::new(), Some(error.to_string())),
    };
    if state == DefinitionState::Broken {
        let mut candidates = layers
            .directories()
            .iter()
            .map(|directory| directory.join(format!("{}.toml", name.base())));
        files.extend(candidates.find(|path| path.symlink_metadata().is_ok()));
    }
    let (entry, unasked) = match Store::system().entry(name) {
        Ok(entry) => (entry, None),
        // Who is not root cannot know.
        Err(error) if error.is_denied() => (None, None),
        Err(error) => (None, Some(error)),
    };
    let entry = entry.as_ref().map(|(counts, entry)| (*counts, entry));
    let in_force = found.in_force(name, entry);
    let held = match &in_force {
        Ok(in_force) => in_force.notice.as_ref().map(|notice| notice.sentence()),
        Err(NotInForce::Hidden { generation, .. }) => Some(format!(
            "is not part of generation {generation}, which is in force"
        )),
        Err(NotInForce::Load(_)) => None,
    };
    let held = held.or_else(|| {
        let error = unasked?.in_full();
        Some(format!(
            "starts by what its files say, whatever was put back or rolled back: {error}"
        ))
    });
    let in_force = in_force.ok();
    let in_force = in_force.map(|in_force| in_force.definition);
    Defined {
        instances: in_force
            .as_ref()
            .filter(|definition| definition.is_of_all())
            .and_then(|definition| definition.instances),
        unread: in_force
            .as_ref()
            .is_some_and(|definition| !is_known(definition)),
        definition: Definition {
            state,
            files,
            problem,
            start_at_boot: in_force
                .as_ref()
                .is_some_and(|definition| definition.start_at_boot),
            held,
            newer: in_force
                .as_ref()
                .zip(running)
                .is_some_and(|(definition, running)| is_newer(definition, running)),
        },
        description: in_force.and_then(|definition| definition.description),
    }
}

fn misnamed(name: String, path: PathBuf, problem: &str) -> Status {
    let definition = Definition {
        state: DefinitionState::Broken,
        files: vec![path],
        problem: Some(problem.to_owned()),
        start_at_boot: false,
        newer: false,
        held: None,
    };
    Status {
        name,
        description: None,
        state: state(definition.state, None, None, None),
        since: None,
        runner: None,
        definition,
        unit: None,
        sockets: Vec::new(),
        payload: None,
        usage: None,
        limits: Limits::default(),
        health: None,
        remarks: Vec::new(),
        last_end: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_file_is_a_box_of_some_state() {
        let root = tempfile::tempdir().expect("a directory");
        let etc = root.path().join("etc/boxd");
        fs::create_dir_all(&etc).expect("made");
        for (file, text) in [
            (
                "good.toml",
                "description = \"Good\"\ncommand = [\"/bin/true\"]\n",
            ),
            ("broken.toml", "comand = [\"/bin/true\"]\n"),
            ("masked.toml", ""),
            ("Bad_Name.toml", "command = [\"/bin/true\"]\n"),
        ] {
            fs::write(etc.join(file), text).expect("written");
        }
        let report = all(&Layers::under(root.path()), &None).expect("a report");
        let found: Vec<(&str, State)> = report
            .boxes
            .iter()
            .filter(|status| status.payload.is_none())
            .map(|status| (status.name.as_str(), status.state))
            .collect();
        assert_eq!(
            found,
            [
                ("Bad_Name", State::Broken),
                ("broken", State::Broken),
                ("good", State::Stopped),
                ("masked", State::Masked),
            ]
        );
        let named = |name: &str| {
            let found = report.boxes.iter().find(|status| status.name == name);
            found.expect("it is listed")
        };
        let good = named("good");
        assert_eq!(good.description.as_deref(), Some("Good"));
        assert_eq!(good.definition.files, [etc.join("good.toml")]);
        assert!(named("broken").definition.problem.is_some());
    }

    #[test]
    fn a_failed_unit_outlives_its_definition() {
        let root = tempfile::tempdir().expect("a directory");
        let layers = Layers::under(root.path());
        let name: Name = "gone".parse().expect("a name");
        let unit = |active: &str| Seen {
            unit: Unit {
                active_state: active.to_owned(),
                ..Unit::default()
            },
            sockets: Vec::new(),
        };
        for (active, there) in [("failed", true), ("inactive", false)] {
            let units = Some(BTreeMap::from([(name.clone(), unit(active))]));
            assert_eq!(
                one(&name, &layers, &units).expect("a status").exists(),
                there
            );
        }
    }
}
