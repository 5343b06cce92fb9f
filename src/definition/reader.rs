//! TOML to [`Definition`]: every key of the format.

use std::path::PathBuf;
use std::time::Duration;

use super::devices::{credentials, devices};
use super::diagnostics::{Diagnostics, Problem, SourceText};
use super::health::health;
use super::instances::instances;
use super::mounts::{mounts, root};
use super::output::output;
use super::quantity;
use super::section::{Problems, Section};
use super::security::security;
use super::sockets::{idle_stop, sockets};
use super::tree::{self, Table};
use super::values::{
    self, BOX_PATH, cores, dependencies, environment, environment_files, group, hostname, limits,
    memory, signal, time, user,
};
use super::{
    Definition, Profile, Ready, ReadyWhen, Reload, ReloadHow, Resources, Restart, RestartPolicy,
    Stop, Watchdog,
};
use crate::name::Name;

/// Most tasks Linux can have, `PID_MAX_LIMIT`.
const TASKS_MAX: u64 = 4 * 1024 * 1024;

const COMMAND: &str =
    "expected a list of the program and its arguments, as in [\"/usr/bin/sleep\", \"1h\"]";

/// The definition of the box `name` in these texts, the base first and its drop-ins after it, or every
/// problem in them. With the name of all instances, what differs from one to the next is as the last one has it.
///
/// A key of a later text replaces that of an earlier one, tables are merged, and `[[mount]]`s, `[[socket]]`s and
/// `[[device]]`s are appended. A later text that names a root means that one instead of the earlier one's, whether directory or host.
pub fn parse(name: &Name, texts: &[SourceText]) -> Result<Definition, Diagnostics> {
    let (definition, wrong) = understand(name, texts);
    match wrong {
        None => Ok(definition),
        Some(diagnostics) => Err(diagnostics),
    }
}

/// What of these texts can be understood, whatever else is wrong with them: the rest is as if not written.
///
/// Only for deciding how a broken box fails; one whose texts have problems is not run. Its command may be empty.
pub fn understand(name: &Name, texts: &[SourceText]) -> (Definition, Option<Diagnostics>) {
    let mut table = Table::new();
    let mut syntax = Vec::new();
    for (file, source) in texts.iter().enumerate() {
        let parsed = tree::parse(file, &source.text);
        tree::merge(&mut table, parsed.table);
        syntax.extend(parsed.problems);
    }
    let problems = Problems::default();
    let sources = texts.iter().map(|source| source.path.clone()).collect();
    let definition = read(name, sources, Section::whole(table, &problems));
    let mut problems = problems.into_inner();
    if !syntax.is_empty() {
        // It may stand in a line that could not be read.
        problems.retain(|problem| !problem.is_absence());
    }
    problems.extend(syntax);
    let wrong = (!problems.is_empty()).then(|| Diagnostics::new(texts.to_vec(), problems));
    (definition, wrong)
}

fn read(name: &Name, sources: Vec<PathBuf>, mut whole: Section<'_>) -> Definition {
    let instances = instances(&mut whole, name);
    let security = security(whole.section("security", "[security]"));
    let users = security.users;
    let sockets = sockets(&mut whole, &instances);
    let health_section = whole.section("health", "[health]");
    let checked = health_section.place().is_some();
    let health = health(health_section);
    let ready = ready(whole.section("ready", "[ready]"), checked);
    if whole.place_of("hostname").is_none() {
        instances.check_hostnames(whole.problems());
    }
    let definition = Definition {
        name: name.clone(),
        sources,
        instances: instances.count,
        hostname: whole.read("hostname", |item| instances.read(item, hostname)),
        description: whole.read("description", |item| {
            item.line("expected one line of text").map(str::to_owned)
        }),
        command: command(&mut whole),
        user: whole.read("user", |item| user(item, users)),
        groups: whole
            .read("groups", |item| {
                item.list("expected a list of groups, as in [\"audio\", 44]", |item| {
                    group(item, users)
                })
            })
            .unwrap_or_default(),
        working_directory: whole.read("working-directory", |item| item.path(BOX_PATH)),
        environment: whole
            .read("environment", |item| environment(item, &instances))
            .unwrap_or_default(),
        environment_files: whole
            .read("environment-file", environment_files)
            .unwrap_or_default(),
        tty: whole.read("tty", |item| item.boolean()).unwrap_or_default(),
        profile: whole
            .read("profile", |item| {
                item.choice(&[("app", Profile::App), ("system", Profile::System)])
            })
            .unwrap_or_default(),
        after: whole
            .read("after", |item| dependencies(item, name))
            .unwrap_or_default(),
        requires: whole
            .read("requires", |item| dependencies(item, name))
            .unwrap_or_default(),
        start_at_boot: whole
            .read("start-at-boot", |item| item.boolean())
            .unwrap_or_default(),
        machine: whole.read("machine", |item| item.boolean()).unwrap_or(true),
        root: root(whole.section("root", "[root]"), &instances),
        mounts: mounts(&mut whole, &instances),
        idle_stop: idle_stop(&mut whole, &sockets),
        sockets,
        ready,
        watchdog: watchdog(whole.section("watchdog", "[watchdog]")),
        reload: reload(whole.section("reload", "[reload]")),
        stop: stop(whole.section("stop", "[stop]")),
        output: output(whole.section("output", "[output]")),
        restart: restart(whole.section("restart", "[restart]")),
        health,
        resources: resources(whole.section("resources", "[resources]")),
        security,
        devices: devices(&mut whole),
        credentials: credentials(&mut whole),
    };
    whole.finish();
    definition
}

fn command(whole: &mut Section<'_>) -> Vec<String> {
    if whole.place_of("command").is_none() {
        whole.problems().report(Problem::absent(
            None,
            "no command: the definition does not say what runs in the box",
            "add a line such as `command = [\"/usr/bin/sleep\", \"1h\"]`",
        ));
    }
    whole
        .read("command", |item| values::command(item, COMMAND))
        .unwrap_or_default()
}

/// `checked`: there is a `[health]`, right or wrong.
fn ready(mut section: Section<'_>, checked: bool) -> Ready {
    let when = section.read_placed("when", |item| {
        item.choice(&[
            ("started", ReadyWhen::Started),
            ("notify", ReadyWhen::Notify),
            ("healthy", ReadyWhen::Healthy),
        ])
    });
    if let Some((ReadyWhen::Healthy, place)) = &when
        && !checked
    {
        section.problems().report(Problem::at(
            place,
            "nothing says when the box is healthy",
            "expected a [health] that does, or another value",
        ));
    }
    let ready = Ready {
        when: when.map(|(when, _)| when).unwrap_or_default(),
        // Zero would mean "for ever" to systemd.
        timeout: section.read("timeout", |item| time(item, Duration::from_millis(1))),
    };
    section.finish();
    ready
}

fn watchdog(mut section: Section<'_>) -> Watchdog {
    let watchdog = Watchdog {
        timeout: section.read("timeout", |item| time(item, Duration::from_millis(1))),
    };
    section.finish();
    watchdog
}

fn reload(mut section: Section<'_>) -> Option<Reload> {
    let place = section.place().cloned();
    let signal = section.read_placed("signal", signal);
    let command = section.read_placed("command", |item| values::command(item, COMMAND));
    let notify = section.read_placed("notify", |item| item.boolean());
    let problems = section.problems();
    section.finish();
    let place = place?;
    let by_notify = notify.as_ref().is_some_and(|(notify, _)| *notify);
    let how = match (signal, command, notify) {
        (Some(_), Some((_, place)), _) => {
            problems.report(Problem::at(
                &place,
                "`reload.command` is written beside `reload.signal`",
                "a box is asked in one way: take one of the two out",
            ));
            return None;
        }
        (None, Some(_), Some((true, place))) => {
            problems.report(Problem::at(
                &place,
                "`reload.notify` is written beside `reload.command`",
                "a command says by its end that the box is done: take one of the two out",
            ));
            return None;
        }
        (Some((signal, _)), None, _) => ReloadHow::Signal(signal),
        (None, Some((command, _)), _) => ReloadHow::Command(command),
        // The default of `ReloadSignal=` in systemd.service(5).
        (None, None, Some((true, _))) => ReloadHow::Signal(libc::SIGHUP),
        (None, None, _) => {
            problems.report(Problem::absent(
                Some(&place),
                "[reload] does not say how the box is asked to read its configuration anew",
                "add a line such as `signal = \"SIGHUP\"`, `command = [\"/usr/sbin/nginx\", \"-s\", \"reload\"]` or `notify = true`",
            ));
            return None;
        }
    };
    Some(Reload {
        how,
        notify: by_notify,
    })
}

fn stop(mut section: Section<'_>) -> Stop {
    let stop = Stop {
        command: section
            .read("command", |item| values::command(item, COMMAND))
            .unwrap_or_default(),
        signal: section.read("signal", signal),
        timeout: section.read("timeout", |item| time(item, Duration::ZERO)),
    };
    section.finish();
    stop
}

fn restart(mut section: Section<'_>) -> Restart {
    let restart = Restart {
        policy: section
            .read("policy", |item| {
                item.choice(&[
                    ("no", RestartPolicy::No),
                    ("on-success", RestartPolicy::OnSuccess),
                    ("on-failure", RestartPolicy::OnFailure),
                    ("on-abnormal", RestartPolicy::OnAbnormal),
                    ("on-watchdog", RestartPolicy::OnWatchdog),
                    ("on-abort", RestartPolicy::OnAbort),
                    ("always", RestartPolicy::Always),
                ])
            })
            .unwrap_or_default(),
        delay: section.read("delay", |item| time(item, Duration::ZERO)),
        limit_burst: section.read("limit-burst", |item| {
            let burst = item.integer(1..=u64::from(u32::MAX))?;
            u32::try_from(burst).ok()
        }),
        limit_interval: section.read("limit-interval", |item| time(item, Duration::ZERO)),
    };
    section.finish();
    restart
}

fn resources(mut section: Section<'_>) -> Resources {
    let resources = Resources {
        memory: section.read("memory", |item| memory(item, 1)),
        memory_high: section.read("memory-high", |item| memory(item, 1)),
        memory_swap: section.read("memory-swap", |item| memory(item, 0)),
        cpu: section.read("cpu", cores),
        cpu_weight: section.read("cpu-weight", |item| item.integer(1..=10_000)),
        cpus: section.read("cpus", |item| {
            item.parsed(quantity::PROCESSORS, quantity::processors)
        }),
        tasks: section.read("tasks", |item| item.integer(1..=TASKS_MAX)),
        io_weight: section.read("io-weight", |item| item.integer(1..=10_000)),
        io_read: section.read("io-read", limits).unwrap_or_default(),
        io_write: section.read("io-write", limits).unwrap_or_default(),
        io_read_operations: section
            .read("io-read-operations", limits)
            .unwrap_or_default(),
        io_write_operations: section
            .read("io-write-operations", limits)
            .unwrap_or_default(),
    };
    section.finish();
    resources
}
