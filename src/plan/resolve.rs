//! The decisions, in the order of the plan's parts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::machine_id::{self, MachineId};
use super::problem::{Findings, Problem, Reason};
use super::{
    Health, HealthRules, IdRange, Machine, Namespaces, Notify, Output, Payload, Plan, Rate, Ready,
    Scope, Stop, credentials, devices, limits, mounts, privileges, sockets, walls,
};
use crate::definition::{
    self, Address, Clock, Definition, Group, Probe, Profile, ReadyWhen, RootSource, SocketKind,
    User, Users,
};
use crate::host::Host;

/// The search path for programs; those of systemd.exec(5) for system services, and of every distribution.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a terminal is taken for as long as nobody has attached to it: every system knows it.
const TERM: &str = "xterm";

/// `DefaultTimeoutStartSec=` of systemd-system.conf(5).
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// `DefaultRateLimitIntervalSec=` of journald.conf(5).
const RATE_INTERVAL: Duration = Duration::from_secs(30);
/// Where each running box has a directory that only root can enter.
const RUN: &str = "/run/boxd";

/// Where <https://systemd.io/CONTAINER_INTERFACE> wants it.
const NOTIFY_SOCKET: &str = "/run/host/notify";

/// What is done for this box on this host, or every reason why nothing can be.
pub fn resolve(definition: &Definition, host: &Host) -> Result<Plan, Vec<Problem>> {
    let mut findings = Findings::new(definition.name.clone());
    if let Some(count) = definition.instances.filter(|_| definition.is_of_all()) {
        let name = definition.name.clone();
        findings.refuse("instances", Reason::Several { name, count });
        return Err(findings.problems);
    }
    let ids = ids(definition, host, &mut findings);
    let machine_id = machine_id::of_box(host, &definition.name);
    let hostname = definition
        .hostname
        .clone()
        .unwrap_or_else(|| definition.name.hostname());
    let notify = notify(definition);
    let who = mounts::Identity {
        shifted: definition.security.users == Users::Auto,
        hostname: &hostname,
        machine_id,
        notify: notify.as_ref(),
    };
    let devices = devices::of(definition, host, &who, &mut findings);
    let mounts = mounts::steps(definition, host, &who, devices.steps, &mut findings);
    let limits = limits::of(definition, host, &mut findings);
    let privileges = privileges::of(definition, host, &mut findings);
    let description = definition
        .description
        .clone()
        .unwrap_or_else(|| format!("Box {}", definition.name));
    let plan = Plan {
        name: definition.name.clone(),
        profile: definition.profile,
        payload: Payload {
            command: definition.command.clone(),
            environment: environment(definition, host, machine_id, devices.environment),
            environment_files: definition.environment_files.clone(),
            working_directory: definition
                .working_directory
                .clone()
                .unwrap_or_else(|| PathBuf::from("/")),
            user: definition.user.clone().unwrap_or(User::Id {
                uid: 0,
                gid: Some(0),
            }),
            groups: definition
                .groups
                .iter()
                .cloned()
                .chain(devices.groups.into_iter().map(Group::Id))
                .collect(),
            hostname,
        },
        namespaces: Namespaces {
            user: definition.security.users == Users::Auto,
            time: definition.security.clock == Clock::Private,
        },
        ids,
        mounts,
        sockets: sockets::of(definition, host, &mut findings),
        idle_stop: definition.idle_stop,
        closing: walls::closing(definition, &privileges),
        sysctls: walls::sysctls(definition, &mut findings),
        privileges,
        scope: Scope {
            unit: definition.name.scope(),
            slice: "box.slice".to_owned(),
            description: description.clone(),
            before: Some(definition.name.unit()),
            limits,
            devices: devices.rules,
        },
        machine: definition
            .machine
            .then(|| machine(definition, host, machine_id)),
        description,
        ready: Ready {
            when: definition.ready.when,
            timeout: definition.ready.timeout.unwrap_or(READY_TIMEOUT),
        },
        notify,
        watchdog: definition.watchdog.timeout,
        reload: definition.reload.clone(),
        stop: stop(definition),
        stop_command: definition.stop.command.clone(),
        output: output(&definition.output),
        tty: definition.tty,
        restart: definition.restart.clone(),
        health: health(definition, &mut findings),
        remarks: findings.remarks,
    };
    if findings.problems.is_empty() {
        Ok(plan)
    } else {
        Err(findings.problems)
    }
}

fn ids(definition: &Definition, host: &Host, findings: &mut Findings) -> Option<IdRange> {
    if definition.security.users == Users::Host {
        return None;
    }
    if host.user_namespaces == 0 {
        findings.refuse("security.users", Reason::NoUserNamespaces);
    }
    match &host.ids {
        Ok(range) => Some(*range),
        Err(why) => {
            findings.refuse("security.users", Reason::NoIds { why: why.clone() });
            None
        }
    }
}

fn machine(definition: &Definition, host: &Host, id: MachineId) -> Machine {
    Machine {
        id: id.to_string(),
        root: match &definition.root.source {
            RootSource::Directory(path) => Some(host.path(path).real),
            RootSource::Host => None,
        },
    }
}

/// What every box finds in its environment, <https://systemd.io/CONTAINER_INTERFACE>, under what the definition
/// says. `HOME` and its like depend on the user, who is looked up inside the box.
fn environment(
    definition: &Definition,
    host: &Host,
    machine_id: MachineId,
    of_devices: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("container".to_owned(), "boxd".to_owned()),
        ("container_uuid".to_owned(), machine_id.uuid()),
    ]);
    if definition.profile == Profile::System {
        environment.extend(host.os_release.iter().map(|(key, value)| {
            let key = format!("container_host_{}", key.to_ascii_lowercase());
            (key, value.clone())
        }));
    }
    if definition.tty {
        environment.insert("TERM".to_owned(), TERM.to_owned());
    }
    if !definition.credentials.is_empty() {
        // A path is no secret; and what enters the box later finds them as well.
        environment.insert(
            "CREDENTIALS_DIRECTORY".to_owned(),
            credentials::DIRECTORY.to_owned(),
        );
    }
    environment.extend(of_devices);
    environment.extend(definition.environment.clone());
    environment.into_iter().collect()
}

/// Only where somebody listens for something: what is set in the environment of a program changes what it does.
fn notify(definition: &Definition) -> Option<Notify> {
    let wanted = definition.ready.when == ReadyWhen::Notify
        || definition.watchdog.timeout.is_some()
        || definition
            .reload
            .as_ref()
            .is_some_and(|reload| reload.notify);
    wanted.then(|| Notify {
        host: PathBuf::from(RUN)
            .join(definition.name.as_str())
            .join("notify"),
        socket: PathBuf::from(NOTIFY_SOCKET),
    })
}

fn stop(definition: &Definition) -> Stop {
    let (signal, seconds) = match definition.profile {
        Profile::App => (libc::SIGTERM, 10),
        // "Halt" to systemd as PID 1, and what every container manager sends one; systemd(1), Signals.
        Profile::System => (libc::SIGRTMIN() + 3, 90),
    };
    Stop {
        signal: definition.stop.signal.unwrap_or(signal),
        timeout: definition
            .stop
            .timeout
            .unwrap_or(Duration::from_secs(seconds)),
    }
}

fn output(output: &definition::Output) -> Output {
    let default = Output::default();
    let rate = || Rate {
        interval: output.rate_interval.unwrap_or(RATE_INTERVAL),
        lines: output.rate_lines,
        bytes: output.rate_bytes,
    };
    Output {
        stdout_priority: output.stdout_priority.unwrap_or(default.stdout_priority),
        stderr_priority: output.stderr_priority.unwrap_or(default.stderr_priority),
        priority_prefix: output.priority_prefix.unwrap_or(default.priority_prefix),
        line_max: output.line_max.unwrap_or(default.line_max),
        rate: (output.rate_lines.is_some() || output.rate_bytes.is_some()).then(rate),
    }
}

fn health(definition: &Definition, findings: &mut Findings) -> Option<Health> {
    let health = definition.health.as_ref()?;
    if let Some(address) = asked_at_a_socket(definition, &health.probe) {
        findings.remark(format!(
            "[health] asks at {address} in the network of the box, and what the [[socket]] of that port listens at is \
             the host's: unless the box listens there itself too, ask it by `command`"
        ));
    }
    // A box that is ready once healthy may take its time to become so: the start's own.
    let start_period = match definition.ready.when {
        ReadyWhen::Healthy => definition.ready.timeout.unwrap_or(READY_TIMEOUT),
        _ => Duration::from_secs(30),
    };
    Some(Health {
        probe: health.probe.clone(),
        rules: HealthRules {
            interval: health.interval.unwrap_or(Duration::from_secs(30)),
            timeout: health.timeout.unwrap_or(Duration::from_secs(10)),
            retries: health.retries.unwrap_or(3),
            start_period: health.start_period.unwrap_or(start_period),
            start_interval: health.start_interval.unwrap_or(Duration::from_secs(1)),
            on_failure: health.on_failure,
        },
    })
}

/// Where a probe would look in vain for a socket that systemd holds.
fn asked_at_a_socket<'a>(definition: &Definition, probe: &'a Probe) -> Option<&'a SocketAddr> {
    let (Probe::Tcp(addresses) | Probe::Http { addresses, .. }) = probe else {
        return None;
    };
    let listen = definition.sockets.iter().flat_map(|socket| &socket.listen);
    let ports: Vec<u16> = listen
        .filter(|listen| listen.kind == SocketKind::Stream)
        .filter_map(|listen| match &listen.address {
            Address::Port(port) => Some(*port),
            Address::Inet(address) => Some(address.port()),
            Address::Unix(_) => None,
        })
        .collect();
    addresses
        .iter()
        .find(|address| ports.contains(&address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::example;

    fn problems(definition: &Definition, host: &Host) -> Vec<String> {
        resolve(definition, host)
            .expect_err("problems")
            .iter()
            .map(Problem::to_string)
            .collect()
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut definition = example();
        definition.root.source = crate::definition::RootSource::Directory("/srv/missing".into());
        definition.resources.memory = Some(1 << 20);
        let mut host = Host::fixed(&definition);
        host.user_namespaces = 0;
        host.cgroup = None;
        let problems = problems(&definition, &host);
        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert!(problems[0].starts_with("box web: security.users: user namespaces are"));
        assert!(problems[1].starts_with("box web: root.directory: /srv/missing does not exist"));
        assert!(problems[2].contains("resources.memory") && problems[2].contains("\"memory\""));
    }

    #[test]
    fn host_ids_need_neither_namespaces_nor_a_range() {
        let mut definition = example();
        definition.security.users = Users::Host;
        let mut host = Host::fixed(&definition);
        host.user_namespaces = 0;
        host.ids = Err("not asked for".to_owned());
        let plan = resolve(&definition, &host).expect("a plan");
        assert_eq!(plan.ids, None);
        assert!(!plan.namespaces.user);
    }

    #[test]
    fn what_the_definition_sets_wins_over_what_every_box_has() {
        let mut definition = example();
        definition.environment = [("PATH", "/opt/bin"), ("TZ", "UTC")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let plan = resolve(&definition, &Host::fixed(&definition)).expect("a plan");
        let value = |key: &str| {
            plan.payload
                .environment
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("PATH"), Some("/opt/bin"));
        assert_eq!(value("container"), Some("boxd"));
        assert!(plan.payload.environment.is_sorted());
    }
}
