//! The text of units: no byte of a definition becomes another setting, and every value is what was meant.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use boxd::definition::{
    Address, Definition, Dependency, OnFailure, Profile, ReadyWhen, SocketKind, SourceText,
    UNHEALTHY, Users, understand,
};
use boxd::generator::{drop_in, socket_unit, target};

use super::input::{quoted, texts};
use super::unit_syntax::{Settings, is_unit_name, read, time, words};

/// The parts of a definition that are free text, with bytes 0xFF between them: they come to the generator through a
/// file, and then as they are, past all that a file is checked for.
pub fn generator(data: &[u8]) {
    let given = texts(data);
    let text = |index: usize| given.get(index).map_or("", String::as_str);
    let file = format!(
        "command = ['/bin/true']\ndescription = {}\nafter = ['db', {}]\nrequires = [{}]\n\
         [[socket]]\nname = {}\nstream = [80, {}, {}]\nuser = {}\ngroup = {}\nbind-to-device = {}\n\
         [[socket]]\nname = 'second'\ndatagram = {}\nmode = '0600'\ntrigger-limit-interval = '1500ms'\n",
        quoted(text(0)),
        quoted(text(1)),
        quoted(text(2)),
        quoted(text(3)),
        quoted(&format!("/{}", text(4))),
        quoted(text(4)),
        quoted(text(5)),
        quoted(text(6)),
        quoted(text(7)),
        quoted(&format!("/run/{}", text(8))),
    );
    let name = "web".parse().expect("a name");
    let source = SourceText {
        path: format!("/etc/boxd/{}", text(9)).into(),
        text: file,
    };
    let (mut definition, _) = understand(&name, &[source]);
    units_say_what_is_meant(&definition);

    definition.description = Some(text(0).to_owned());
    let unchecked = [text(1), text(2)].map(|unit| Dependency::Unit(unit.to_owned()));
    definition.after.extend(unchecked);
    let path = data.split(|byte| *byte == 0xFF).next().unwrap_or_default();
    definition.sources = vec![PathBuf::from(OsStr::from_bytes(path))];
    units_say_what_is_meant(&definition);
}

/// Holds of every definition, be it good or as far as it can be understood.
pub fn units_say_what_is_meant(definition: &Definition) {
    let instance = definition.name.as_str();
    let text = drop_in(&definition.name, Some(definition), &|_| false);
    let found = read(&text, instance);
    assert_same(found, service(definition));

    if definition.is_of_all() {
        assert_same(read(&target(definition), instance), of_all(definition));
    }

    let units = definition.socket_units();
    assert_eq!(units.len(), definition.sockets.len());
    for (index, (unit, socket)) in units.iter().zip(&definition.sockets).enumerate() {
        assert!(is_unit_name(unit) && unit.ends_with(".socket"), "{unit:?}");
        let own = unit.strip_prefix("box@").expect("a unit of boxes");
        assert!(
            own.split_once([':', '.'])
                .is_some_and(|(name, _)| name == instance),
            "{unit:?}"
        );
        // What cannot listen has no unit.
        if !socket.listen.is_empty() {
            let text = socket_unit(definition, index, socket);
            assert_same(read(&text, instance), of_socket(definition, index));
        }
    }
}

/// What a value was meant to be.
enum Meant {
    Text(String),
    Words(Vec<String>),
    Time(Duration),
}

#[derive(Default)]
struct Expected(BTreeMap<(String, String), Vec<Meant>>);

impl Expected {
    fn add(&mut self, section: &str, key: &str, meant: Meant) {
        let key = (section.to_owned(), key.to_owned());
        self.0.entry(key).or_default().push(meant);
    }

    fn text(&mut self, section: &str, key: &str, text: impl ToString) {
        self.add(section, key, Meant::Text(text.to_string()));
    }
}

fn assert_same(found: Settings, expected: Expected) {
    let keys = |settings: &mut dyn Iterator<Item = (String, String)>| -> BTreeSet<_> {
        settings.collect()
    };
    assert_eq!(
        keys(&mut found.keys().cloned()),
        keys(&mut expected.0.keys().cloned())
    );
    for (key, meant) in expected.0 {
        let found = &found[&key];
        // A list of units adds up over lines.
        if let [Meant::Words(meant)] = &*meant {
            let found: Vec<&str> = found.iter().flat_map(|line| words(line)).collect();
            assert_eq!(found, *meant, "{key:?}");
            continue;
        }
        assert_eq!(found.len(), meant.len(), "{key:?}: {found:?}");
        for (found, meant) in found.iter().zip(meant) {
            match meant {
                Meant::Text(text) => assert_eq!(*found, text, "{key:?}"),
                Meant::Words(_) => panic!("{key:?} twice"),
                Meant::Time(meant) => match time(found) {
                    Some(found) => assert_eq!(found.as_micros(), meant.as_micros(), "{key:?}"),
                    None => assert!(meant > Duration::from_secs(1 << 33), "{key:?}: {meant:?}"),
                },
            }
        }
    }
}

fn source(definition: &Definition, expected: &mut Expected) {
    let path = definition.sources.first().and_then(|path| path.to_str());
    let told = |path: &&str| {
        path.starts_with('/') && !path.contains(char::is_control) && path.trim() == *path
    };
    if let Some(path) = path.filter(told) {
        expected.text("Unit", "SourcePath", path);
    }
}

fn service(definition: &Definition) -> Expected {
    let mut expected = Expected::default();
    let name = &definition.name;

    let described = definition.description.as_deref().unwrap_or_default();
    let line: String = described.chars().take(200).collect();
    let line = line.replace(char::is_control, " ");
    let line = line.trim();
    let description = match line {
        "" => format!("Box {name}"),
        line => line.to_owned(),
    };
    expected.text("Unit", "Description", description);
    source(definition, &mut expected);
    let after = definition.after.iter().chain(&definition.requires);
    for (key, units) in [
        ("After", units(after)),
        ("Requires", units(&definition.requires)),
    ] {
        if !units.is_empty() {
            expected.add("Unit", key, Meant::Words(units));
        }
    }
    let restart = &definition.restart;
    if let Some(burst) = restart.limit_burst {
        expected.text("Unit", "StartLimitBurst", burst);
    }
    if let Some(interval) = restart.limit_interval {
        expected.add("Unit", "StartLimitIntervalSec", Meant::Time(interval));
    }

    for (socket, unit) in definition.sockets.iter().zip(definition.socket_units()) {
        if !socket.listen.is_empty() {
            expected.text("Service", "Sockets", unit);
        }
    }
    let security = &definition.security;
    if security.users == Users::Auto {
        expected.text(
            "Service",
            "CapabilityBoundingSet",
            "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD CAP_SETFCAP \
             CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_RESOURCE",
        );
    }
    let is_app = definition.profile == Profile::App;
    if security.no_new_privileges.unwrap_or(is_app) {
        expected.text("Service", "NoNewPrivileges", "yes");
    }
    if definition.devices.is_empty() && definition.credentials.is_empty() {
        expected.text("Service", "DevicePolicy", "closed");
    }
    expected.text("Service", "Restart", restart.policy.as_str());
    match definition.health.as_ref().map(|health| health.on_failure) {
        Some(OnFailure::Restart) => {
            expected.text("Service", "RestartForceExitStatus", UNHEALTHY);
        }
        Some(OnFailure::Stop) => {
            expected.text("Service", "RestartPreventExitStatus", UNHEALTHY);
        }
        Some(OnFailure::Report) | None => {}
    }
    if let Some(delay) = restart.delay {
        expected.add("Service", "RestartSec", Meant::Time(delay));
    }
    let (stop, is_system) = match definition.profile {
        Profile::App => (10, false),
        Profile::System => (90, true),
    };
    if is_system {
        expected.text("Service", "RestartForceExitStatus", 133);
        expected.text("Service", "SuccessExitStatus", 133);
    }
    const MARGIN: Duration = Duration::from_secs(15);
    let margin = match definition.ready.when {
        ReadyWhen::Started => MARGIN,
        ReadyWhen::Notify | ReadyWhen::Healthy => Duration::ZERO,
    };
    let start = definition.ready.timeout.unwrap_or(Duration::from_secs(90));
    expected.add("Service", "TimeoutStartSec", Meant::Time(start + margin));
    if definition.reload.is_some() {
        let reload = format!("/usr/bin/boxd reload {name}");
        expected.text("Service", "ExecReload", reload);
    }
    if !definition.stop.command.is_empty() {
        let stop = format!("-/usr/bin/boxd stop {name}");
        expected.text("Service", "ExecStop", stop);
    }
    let stop = definition.stop.timeout.unwrap_or(Duration::from_secs(stop));
    expected.add("Service", "TimeoutStopSec", Meant::Time(stop + MARGIN));
    expected
}

/// Names in a list of units: those that could be one, each once.
fn units<'a>(dependencies: impl IntoIterator<Item = &'a Dependency>) -> Vec<String> {
    let mut units: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for dependency in dependencies {
        let unit = match dependency {
            Dependency::Box(name) => format!("box@{name}.service"),
            Dependency::Unit(unit) => unit.clone(),
        };
        let can_be = |character: char| {
            character.is_ascii_alphanumeric()
                || [':', '-', '_', '.', '\\', '@'].contains(&character)
        };
        if !unit.is_empty() && unit.chars().all(can_be) && known.insert(unit.clone()) {
            units.push(unit);
        }
    }
    units
}

fn of_all(definition: &Definition) -> Expected {
    let mut expected = Expected::default();
    let name = &definition.name;
    let description = format!("All instances of box {name}");
    expected.text("Unit", "Description", description);
    expected.text("Unit", "Documentation", "man:box.toml(5)");
    source(definition, &mut expected);
    let kind = match definition.sockets.is_empty() {
        true => "service",
        false => "socket",
    };
    let count = definition.instances.expect("a number");
    let units = (1..=count).map(|index| format!("box@{name}:{index}.{kind}"));
    expected.add("Unit", "Wants", Meant::Words(units.collect()));
    expected
}

fn of_socket(definition: &Definition, index: usize) -> Expected {
    let mut expected = Expected::default();
    let name = &definition.name;
    let socket = &definition.sockets[index];
    let of = socket.name.as_ref().map(|socket| format!(" {socket}"));
    let description = format!("Socket{} of box {name}", of.unwrap_or_default());
    expected.text("Unit", "Description", description);
    expected.text("Unit", "Documentation", "man:box.toml(5)");
    source(definition, &mut expected);
    let first = format!("box@{name}.socket");
    if index > 0 {
        expected.text("Unit", "PartOf", &first);
    } else {
        for unit in definition.socket_units().into_iter().skip(1) {
            expected.text("Unit", "Wants", unit);
        }
    }
    expected.text("Socket", "Service", format!("box@{name}.service"));
    let descriptor = socket.name.as_ref().unwrap_or(&first);
    expected.text("Socket", "FileDescriptorName", descriptor);
    let mut has_path = false;
    for listen in &socket.listen {
        let key = match listen.kind {
            SocketKind::Stream => "ListenStream",
            SocketKind::Datagram => "ListenDatagram",
            SocketKind::SequentialPacket => "ListenSequentialPacket",
        };
        let address = match &listen.address {
            Address::Port(port) => port.to_string(),
            Address::Inet(address) => address.to_string(),
            Address::Unix(path) => {
                has_path = true;
                path.to_str().expect("UTF-8").to_owned()
            }
        };
        expected.text("Socket", key, address);
    }
    if has_path {
        expected.text("Socket", "RemoveOnStop", "yes");
    }
    for (key, value) in socket.options.written() {
        expected.text("Socket", key, value);
    }
    expected
}
