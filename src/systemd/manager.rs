//! systemd's manager object, as far as boxd uses it; org.freedesktop.systemd1(5).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Error;
use super::bus::{Bus, JobCall, Jobs, Properties, unit_path};
use super::scope::{Dialect, Request, changes, properties};
use crate::plan::Limit;

/// A scope is made in milliseconds; only a manager that hangs takes longer than this.
const SCOPE: Duration = Duration::from_secs(30);

/// systemd answers once it has run all generators and read all units: on a busy host that takes its time. It is as long
/// as systemctl(1) waits for it.
const RELOAD: Duration = Duration::from_secs(180);

/// How long a scope whose processes are gone may still be known to systemd.
const COLLECTION: Duration = Duration::from_secs(2);

/// A connection to systemd.
pub struct Manager {
    pub(super) bus: Bus,
}

/// A unit as systemd sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitStatus {
    /// Full name.
    pub unit: String,
    /// `Description=`.
    pub description: String,
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load_state: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub active_state: String,
    /// Finer: `running`, `start`, `stop-sigterm`, `auto-restart` …
    pub sub_state: String,
    /// Whether it is started at boot: `enabled`, `disabled`, `static`, `generated`, `masked` …; empty without a file.
    pub unit_file_state: String,
    /// Where the unit is written; empty when it is not.
    pub fragment_path: String,
    /// Drop-ins in their order.
    pub drop_in_paths: Vec<String>,
    /// The unit's files changed since they were read.
    pub need_daemon_reload: bool,
    /// How the last run ended: `success`, `exit-code`, `signal`, `timeout`, `oom-kill`, `start-limit-hit` …
    pub result: String,
    /// What the service said of itself last.
    pub status_text: String,
    /// Pid of the main process, 0 without one.
    pub main_pid: u32,
    /// How the last main process ended: `CLD_EXITED` 1, `CLD_KILLED` 2, `CLD_DUMPED` 3; 0 while it runs.
    pub exec_main_code: i32,
    /// Its exit status, or the signal that ended it.
    pub exec_main_status: i32,
    /// Automatic restarts since the last start by hand.
    pub restarts: u32,
    /// When it became active last; microseconds since the epoch, 0 for never.
    pub active_enter: u64,
    /// When it stopped being active last; microseconds since the epoch, 0 for never.
    pub active_exit: u64,
    /// When it became inactive or failed last; microseconds since the epoch, 0 for never.
    pub inactive_enter: u64,
    /// When its state changed last; microseconds since the epoch, 0 for never.
    pub state_change: u64,
    /// A job of this unit waits or runs.
    pub job: Option<u32>,
    /// Its cgroup as systemd writes it: from the top of the tree, empty without one.
    pub control_group: String,
    /// Descriptors that systemd keeps for it.
    pub stored_descriptors: u32,
    /// Identifies one run, 32 hexadecimal digits; empty for a unit that never ran.
    pub invocation_id: String,
    /// Units that start this one: sockets, timers, paths.
    pub triggered_by: Vec<String>,
}

/// How often and how a service started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Starts {
    /// When it stopped being inactive or failed last: its start began; microseconds since the epoch, 0 for never.
    pub inactive_exit: u64,
    /// When it became active last; microseconds since the epoch, 0 for never.
    pub active_enter: u64,
    /// Automatic restarts since the last start by hand.
    pub restarts: u32,
    /// Pid of the main process, 0 without one.
    pub main_pid: u32,
}

/// A line of a list of units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUnit {
    /// Full name.
    pub unit: String,
    /// `Description=`.
    pub description: String,
    /// As [`UnitStatus::load_state`].
    pub load_state: String,
    /// As [`UnitStatus::active_state`].
    pub active_state: String,
    /// As [`UnitStatus::sub_state`].
    pub sub_state: String,
}

/// A socket unit as systemd sees it; systemd.socket(5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketStatus {
    /// As [`UnitStatus::active_state`].
    pub active_state: String,
    /// Finer: `listening`, `running`, `failed`, `dead` …
    pub sub_state: String,
    /// Why it failed: `trigger-limit-hit`, `service-start-limit-hit`, `resources` …; `success` else.
    pub result: String,
    /// Where it listens: type and address of each socket.
    pub listen: Vec<(String, String)>,
}

/// What is done to units by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Start what does not run.
    Start,
    /// Stop what runs.
    Stop,
    /// Stop and start; start what does not run.
    Restart,
    /// Read the configuration again.
    Reload,
}

impl Operation {
    /// As in `start box@web.service`.
    pub fn verb(self) -> &'static str {
        match self {
            Operation::Start => "start",
            Operation::Stop => "stop",
            Operation::Restart => "restart",
            Operation::Reload => "reload",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Operation::Start => "StartUnit",
            Operation::Stop => "StopUnit",
            Operation::Restart => "RestartUnit",
            Operation::Reload => "ReloadUnit",
        }
    }
}

/// A scope that systemd is asked to make.
pub struct PendingScope(Jobs);

impl Manager {
    /// Connects to systemd. To be called once no more children are cloned.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] when nobody answers.
    pub fn connect() -> Result<Self, Error> {
        Ok(Manager {
            bus: Bus::connect()?,
        })
    }

    /// Has a scope made, in two steps: this one only asks.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub fn begin_scope(&self, request: &Request<'_>) -> Result<PendingScope, Error> {
        self.ask_for_scope(request, Dialect::Current)
            .map(PendingScope)
    }

    /// Returns when the scope that was asked for stands and holds its process.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when a scope of that name still has processes, [`Error::Refused`] with systemd's words,
    /// [`Error::Job`].
    pub fn finish_scope(&self, pending: PendingScope, request: &Request<'_>) -> Result<(), Error> {
        let mut outcome = self.outcome(pending.0, Some(SCOPE));
        let mut dialect = Dialect::Current;
        let begin = Instant::now();
        loop {
            match outcome {
                Err(Error::Refused { ref name, .. })
                    if dialect == Dialect::Current && is_unknown_property(name) =>
                {
                    dialect = Dialect::Old;
                }
                Err(Error::Exists { .. })
                    if begin.elapsed() < COLLECTION && self.is_spent(&request.scope.unit)? =>
                {
                    self.forget_scope(&request.scope.unit)?;
                }
                outcome => return outcome,
            }
            let jobs = self.ask_for_scope(request, dialect)?;
            outcome = self.outcome(jobs, Some(SCOPE));
        }
    }

    /// Has systemd let go of a scope that has no process any more.
    ///
    /// Mostly it does so by itself. But a process that dies while it is being attached never makes the cgroup
    /// populated, so systemd never hears of its being empty, and the scope counts as running for ever.
    ///
    /// # Errors
    ///
    /// As [`Manager::stop_unit`]; a scope that is not there is none.
    pub fn forget_scope(&self, scope: &str) -> Result<(), Error> {
        match self.stop_unit(scope) {
            Ok(()) | Err(Error::NoSuchUnit { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Starts a unit and waits until its job has ended.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchUnit`], [`Error::Denied`], [`Error::Job`] …
    pub fn start_unit(&self, unit: &str) -> Result<(), Error> {
        self.change_unit(Operation::Start, unit)
    }

    /// Stops a unit and waits until its job has ended.
    ///
    /// # Errors
    ///
    /// As [`Manager::start_unit`].
    pub fn stop_unit(&self, unit: &str) -> Result<(), Error> {
        self.change_unit(Operation::Stop, unit)
    }

    /// Asks systemd to start a unit, and does not wait for it.
    ///
    /// # Errors
    ///
    /// As [`Manager::start_unit`], but for what becomes of the job.
    pub fn call_unit(&self, unit: &str) -> Result<(), Error> {
        let _job: zbus::wire::OwnedObjectPath =
            self.bus
                .call(&format!("start {unit}"), "StartUnit", &(unit, "replace"))?;
        Ok(())
    }

    /// Restarts a unit and waits until its job has ended.
    ///
    /// # Errors
    ///
    /// As [`Manager::start_unit`].
    pub fn restart_unit(&self, unit: &str) -> Result<(), Error> {
        self.change_unit(Operation::Restart, unit)
    }

    /// Reloads a unit and waits until its job has ended.
    ///
    /// # Errors
    ///
    /// As [`Manager::start_unit`].
    pub fn reload_unit(&self, unit: &str) -> Result<(), Error> {
        self.change_unit(Operation::Reload, unit)
    }

    /// Does the same to several units at once; one result for each, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the calls could not be sent.
    pub fn change_units(
        &self,
        operation: Operation,
        units: &[String],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let calls = units
            .iter()
            .map(|unit| {
                let attempt = format!("{} {unit}", operation.verb());
                // "replace": the operator's word counts more than a job that happens to wait.
                let message =
                    self.bus
                        .message(&attempt, operation.method(), &(unit.as_str(), "replace"))?;
                Ok(JobCall {
                    attempt,
                    unit: unit.clone(),
                    message,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let jobs = self.bus.begin(calls)?;
        Ok(self.bus.finish(jobs, None))
    }

    /// Changes a scope that runs, until it ends: its description, and its limits from those of `before` to those of
    /// `now`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchUnit`] when it has ended, [`Error::Refused`].
    pub fn change_scope(
        &self,
        scope: &str,
        description: &str,
        before: &[Limit],
        now: &[Limit],
    ) -> Result<(), Error> {
        self.bus.call(
            &format!("change {scope}"),
            "SetUnitProperties",
            &(scope, true, changes(description, before, now)),
        )
    }

    /// Forgets that a unit failed, and its restarts.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchUnit`] when it is not loaded.
    pub fn reset_failed(&self, unit: &str) -> Result<(), Error> {
        self.bus
            .call(&format!("reset {unit}"), "ResetFailedUnit", &(unit,))
    }

    /// Has a service whose `ExecStopPost=` runs start again as soon as that ends. `RestartSec=` and the start limit
    /// are not asked, and the units that require it do not notice. Whether the job that waits for it is one of type `start`,
    /// which becomes another if somebody wants something else; one of a busy systemd is of type `restart`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] above all: at shutdown nothing is started.
    pub fn revive(&self, unit: &str) -> Result<bool, Error> {
        let attempt = format!("revive {unit}");
        // It also forgets the failure, so that no `OnFailure=` is set off.
        self.reset_failed(unit)?;
        // A service at rest must not be found waiting for its automatic restart, which restarts what requires it: a
        // restart by hand forbids that as soon as systemd has begun with it. But its job could not be told from that of
        // somebody who wants the service restarted, since systemd makes one of the two; that of a start can.
        let job: zbus::wire::OwnedObjectPath =
            self.bus
                .call(&attempt, "RestartUnit", &(unit, "ignore-requirements"))?;
        if !self.has_begun(&attempt, &job)? {
            return Ok(false);
        }
        let id = job
            .rsplit_once('/')
            .and_then(|(_, id)| id.parse::<u32>().ok());
        if let Some(id) = id {
            let cancelled: Result<(), Error> = self.bus.call(&attempt, "CancelJob", &(id,));
            match cancelled {
                // It has ended meanwhile.
                Ok(()) | Err(Error::Refused { .. } | Error::NoSuchUnit { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let _job: zbus::wire::OwnedObjectPath =
            self.bus
                .call(&attempt, "StartUnit", &(unit, "ignore-requirements"))?;
        Ok(id.is_some())
    }

    /// Waits until systemd has begun with a job; false if it has not for a second. It comes to it when nobody asks
    /// anything.
    fn has_begun(&self, attempt: &str, job: &str) -> Result<bool, Error> {
        for _ in 0..REVIVAL_LOOKS {
            match self.bus.properties(attempt, job) {
                Ok(job) if job.get::<String>("State") == "waiting" => {}
                Ok(_) | Err(Error::Refused { .. }) => return Ok(true),
                Err(error) => return Err(error),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(false)
    }

    /// Runs the generators and reads all units again.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`].
    pub fn daemon_reload(&self) -> Result<(), Error> {
        self.bus
            .call_within(RELOAD, "reload systemd", "Reload", &())
    }

    /// Which systemd this is, as `systemctl --version` has it in brackets: `257.13-1~deb13u1`.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub fn version(&self) -> Result<String, Error> {
        let all = self
            .bus
            .properties("look at systemd", "/org/freedesktop/systemd1")?;
        Ok(all.get("Version"))
    }

    /// What systemd knows of a unit. A unit that does not exist has `load_state` `not-found`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for what is no unit name.
    pub fn unit(&self, unit: &str) -> Result<UnitStatus, Error> {
        let all = self
            .bus
            .properties(&format!("look at {unit}"), &unit_path(unit))?;
        Ok(UnitStatus::of(unit, &all))
    }

    /// The same for several units, in their order: systemd is asked for the next ones while it answers.
    ///
    /// # Errors
    ///
    /// As [`Manager::unit`].
    pub fn units(&self, units: &[String]) -> Result<Vec<UnitStatus>, Error> {
        let paths: Vec<String> = units.iter().map(|unit| unit_path(unit)).collect();
        let all = self.bus.properties_of("look at the units", &paths)?;
        let units = units.iter().zip(&all);
        Ok(units.map(|(unit, all)| UnitStatus::of(unit, all)).collect())
    }

    /// The type of the job that waits or runs for a unit: `start`, `stop`, `restart` …; none without one.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn pending_job(&self, unit: &str) -> Result<Option<String>, Error> {
        let attempt = format!("look at the job of {unit}");
        let all = self.bus.properties(&attempt, &unit_path(unit))?;
        let Some((_, path)) = all.job() else {
            return Ok(None);
        };
        match self.bus.properties(&attempt, path.as_str()) {
            Ok(job) => Ok(Some(job.get("JobType"))),
            // It has ended meanwhile.
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether somebody wants the unit stopped, or stopped and started anew.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn is_to_end(&self, unit: &str) -> Result<bool, Error> {
        let job = self.pending_job(unit)?;
        Ok(job.is_some_and(|job| job == "stop" || job.contains("restart")))
    }

    /// The units whose jobs have to end before a job that starts something can begin, by name; none if it waits for
    /// nothing, or is none of that kind, or has ended meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub fn blockers(&self, job: u32) -> Result<Vec<String>, Error> {
        type Row = (
            u32,
            String,
            String,
            String,
            zbus::wire::OwnedObjectPath,
            zbus::wire::OwnedObjectPath,
        );
        let answer: Result<Vec<Row>, Error> =
            self.bus
                .call("see what a job waits for", "GetJobBefore", &(job,));
        match answer {
            Ok(rows) => {
                let mut units: Vec<String> = rows.into_iter().map(|row| row.1).collect();
                units.sort();
                Ok(units)
            }
            Err(Error::Refused { .. } | Error::NoSuchUnit { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The loaded units whose names match one of these patterns, by name; glob(7).
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn list_units(&self, patterns: &[&str]) -> Result<Vec<ListedUnit>, Error> {
        type Row = (
            String,
            String,
            String,
            String,
            String,
            String,
            zbus::wire::OwnedObjectPath,
            u32,
            String,
            zbus::wire::OwnedObjectPath,
        );
        let states: [&str; 0] = [];
        let rows: Vec<Row> = self.bus.call(
            "list the units",
            "ListUnitsByPatterns",
            &(&states[..], patterns),
        )?;
        let mut units: Vec<ListedUnit> = rows
            .into_iter()
            .map(|row| ListedUnit {
                unit: row.0,
                description: row.1,
                load_state: row.2,
                active_state: row.3,
                sub_state: row.4,
            })
            .collect();
        units.sort_by(|a, b| a.unit.cmp(&b.unit));
        Ok(units)
    }

    /// How often and how these services started, in their order: less is asked for it than for [`Manager::units`].
    ///
    /// # Errors
    ///
    /// As [`Manager::unit`].
    pub fn starts(&self, services: &[String]) -> Result<Vec<Starts>, Error> {
        let two_of_each = |interface: &'static str, names: [&'static str; 2]| -> Vec<_> {
            let paths = services.iter().map(|service| unit_path(service));
            paths
                .flat_map(|path| names.map(|name| (path.clone(), interface, name)))
                .collect()
        };
        let attempt = "look at the starts of units";
        let times = ["InactiveExitTimestamp", "ActiveEnterTimestamp"];
        let times = two_of_each("org.freedesktop.systemd1.Unit", times);
        let times: Vec<u64> = self.bus.each(attempt, &times)?;
        let numbers = ["NRestarts", "MainPID"];
        let numbers = two_of_each("org.freedesktop.systemd1.Service", numbers);
        let numbers: Vec<u32> = self.bus.each(attempt, &numbers)?;
        let all = times.as_chunks().0.iter().zip(numbers.as_chunks().0);
        Ok(all
            .map(
                |(&[inactive_exit, active_enter], &[restarts, main_pid])| Starts {
                    inactive_exit,
                    active_enter,
                    restarts,
                    main_pid,
                },
            )
            .collect())
    }

    /// Returns when systemd has done what it was asked to change of a scope: it sets limits after it has answered, but
    /// before it answers anything else.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn await_changes(&self, scope: &str) -> Result<(), Error> {
        self.bus
            .properties(&format!("look at {scope}"), &unit_path(scope))?;
        Ok(())
    }

    /// What systemd knows of a socket unit.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn socket(&self, socket: &str) -> Result<SocketStatus, Error> {
        let all = self
            .bus
            .properties(&format!("look at {socket}"), &unit_path(socket))?;
        Ok(SocketStatus {
            active_state: all.get("ActiveState"),
            sub_state: all.get("SubState"),
            result: all.get("Result"),
            listen: all.get("Listen"),
        })
    }

    /// The cgroup of a unit's processes, as an absolute path; none when it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn cgroup(&self, unit: &str) -> Result<Option<PathBuf>, Error> {
        let group = self.unit(unit)?.control_group;
        if group.is_empty() {
            return Ok(None);
        }
        Ok(crate::cgroup::mount_point()
            .ok()
            .map(|top| top.join(group.trim_start_matches('/'))))
    }

    fn change_unit(&self, operation: Operation, unit: &str) -> Result<(), Error> {
        self.change_units(operation, &[unit.to_owned()])?
            .into_iter()
            .collect()
    }

    fn ask_for_scope(&self, request: &Request<'_>, dialect: Dialect) -> Result<Jobs, Error> {
        let unit = &request.scope.unit;
        let attempt = format!("make {unit}");
        let auxiliary: [(&str, Vec<(&str, zbus::wire::Variant<'_>)>); 0] = [];
        let message = self.bus.message(
            &attempt,
            "StartTransientUnit",
            &(
                unit.as_str(),
                "fail",
                properties(request, dialect),
                &auxiliary[..],
            ),
        )?;
        self.bus.begin(vec![JobCall {
            attempt,
            unit: unit.clone(),
            message,
        }])
    }

    fn outcome(&self, jobs: Jobs, timeout: Option<Duration>) -> Result<(), Error> {
        self.bus.finish(jobs, timeout).into_iter().collect()
    }

    /// Whether a scope is there in name only: no process of it is left.
    fn is_spent(&self, scope: &str) -> Result<bool, Error> {
        Ok(match self.cgroup(scope)? {
            None => true,
            Some(path) => !crate::cgroup::is_populated(&path).unwrap_or(true),
        })
    }
}

impl UnitStatus {
    fn of(unit: &str, all: &Properties) -> UnitStatus {
        UnitStatus {
            unit: unit.to_owned(),
            description: all.get("Description"),
            load_state: all.get("LoadState"),
            active_state: all.get("ActiveState"),
            sub_state: all.get("SubState"),
            unit_file_state: all.get("UnitFileState"),
            fragment_path: all.get("FragmentPath"),
            drop_in_paths: all.get("DropInPaths"),
            need_daemon_reload: all.get("NeedDaemonReload"),
            result: all.get("Result"),
            status_text: all.get("StatusText"),
            main_pid: all.get("MainPID"),
            exec_main_code: all.get("ExecMainCode"),
            exec_main_status: all.get("ExecMainStatus"),
            restarts: all.get("NRestarts"),
            active_enter: all.get("ActiveEnterTimestamp"),
            active_exit: all.get("ActiveExitTimestamp"),
            inactive_enter: all.get("InactiveEnterTimestamp"),
            state_change: all.get("StateChangeTimestamp"),
            job: all.job().map(|(id, _)| id),
            control_group: all.get("ControlGroup"),
            stored_descriptors: all.get("NFileDescriptorStore"),
            triggered_by: all.get("TriggeredBy"),
            invocation_id: all
                .get::<Vec<u8>>("InvocationID")
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }
    }
}

/// How often it is looked whether systemd has begun with a job, each a little after the other.
const REVIVAL_LOOKS: u32 = 500;

/// What systemd answers when a property of a transient unit is not known to it or not settable.
fn is_unknown_property(name: &str) -> bool {
    name == "org.freedesktop.DBus.Error.PropertyReadOnly"
        || name == "org.freedesktop.DBus.Error.UnknownProperty"
}
