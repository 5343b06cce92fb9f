//! The text of a drop-in. Everything from a definition passes through an escape of this file, so that a value
//! can neither become another line nor be expanded; systemd.syntax(7), systemd.unit(5), Specifiers.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use crate::definition::{
    Address, Definition, Dependency, OnFailure, Profile, ReadyWhen, Socket, SocketKind, UNHEALTHY,
    Users,
};
use crate::name::Name;

/// How long a start may take where the definition does not say, and how long a stop: what the plan decides too.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT_APP: Duration = Duration::from_secs(10);
const STOP_TIMEOUT_SYSTEM: Duration = Duration::from_secs(90);

/// Beyond its own timeouts a box gets this long before systemd steps in, so that boxd's own message, which
/// says what was waited for, is the one that stands in the journal.
const MARGIN: Duration = Duration::from_secs(15);

/// The exit status by which a supervisor asks for its box to be started again.
const REBOOT_STATUS: u8 = 133;

/// Longest description that is passed on, in characters: the rest of a line nobody reads.
const DESCRIPTION_MAX: usize = 200;

/// Most units in one line: systemd refuses a whole file for a line of more than a megabyte.
const UNITS_MAX: usize = 256;

/// The drop-in for a box's service, from what is known of its definition.
///
/// Who depends on a box that has instances depends on what starts all of them.
pub fn drop_in(
    name: &Name,
    definition: Option<&Definition>,
    has_instances: &dyn Fn(&Name) -> bool,
) -> String {
    let mut text = String::from("# Made by boxd-generator; edit the definition instead.\n");
    let mut put = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line)
            .and_then(|()| text.write_char('\n'))
            .expect("writing to a string does not fail");
    };
    put(format_args!("[Unit]"));
    let description = definition
        .and_then(|definition| definition.description.as_deref())
        .map(one_line)
        .filter(|description| !description.is_empty())
        .unwrap_or_else(|| format!("Box {name}"));
    put(format_args!("Description={description}"));
    let Some(definition) = definition else {
        return text;
    };
    if let Some(path) = source_path(definition) {
        put(format_args!("SourcePath={path}"));
    }
    if name.instance().is_some() {
        // What stops all stops each.
        put(format_args!("PartOf={}", name.target()));
    }
    // "Not started without these" needs their start to be over: a requirement is an ordering too.
    let after = units(
        definition.after.iter().chain(&definition.requires),
        has_instances,
    );
    for some in after.chunks(UNITS_MAX) {
        put(format_args!("After={}", value(&some.join(" "))));
    }
    let requires = units(&definition.requires, has_instances);
    for some in requires.chunks(UNITS_MAX) {
        put(format_args!("Requires={}", value(&some.join(" "))));
    }
    let restart = &definition.restart;
    if let Some(burst) = restart.limit_burst {
        put(format_args!("StartLimitBurst={burst}"));
    }
    if let Some(interval) = restart.limit_interval {
        put(format_args!("StartLimitIntervalSec={}", time(interval)));
    }

    put(format_args!("[Service]"));
    // With these a box that is started by hand has its sockets too, and after them.
    for (socket, unit) in definition.sockets.iter().zip(definition.socket_units()) {
        if !socket.listen.is_empty() {
            put(format_args!("Sockets={}", value(&unit)));
        }
    }
    for line in hardening(definition) {
        put(format_args!("{line}"));
    }
    put(format_args!("Restart={}", restart.policy.as_str()));
    // Both are about the one exit status that says the box was stopped for its health.
    match definition.health.as_ref().map(|health| health.on_failure) {
        Some(OnFailure::Restart) => put(format_args!("RestartForceExitStatus={UNHEALTHY}")),
        Some(OnFailure::Stop) => put(format_args!("RestartPreventExitStatus={UNHEALTHY}")),
        Some(OnFailure::Report) | None => {}
    }
    if let Some(delay) = restart.delay {
        put(format_args!("RestartSec={}", time(delay)));
    }
    if definition.profile == Profile::System {
        // The supervisor's words for "the init inside has called for a reboot", as systemd-nspawn@.service has them.
        put(format_args!("RestartForceExitStatus={REBOOT_STATUS}"));
        put(format_args!("SuccessExitStatus={REBOOT_STATUS}"));
    }
    let start = definition.ready.timeout.unwrap_or(READY_TIMEOUT);
    put(format_args!(
        "TimeoutStartSec={}",
        time(match definition.ready.when {
            ReadyWhen::Started => start.saturating_add(MARGIN),
            // The supervisor says what was waited for and has this end just after it: so the unit's result is
            // `timeout`, which only systemd can make it.
            ReadyWhen::Notify | ReadyWhen::Healthy => start,
        })
    ));
    if definition.reload.is_some() {
        put(format_args!("ExecReload=/usr/bin/boxd reload %i"));
    }
    let stop = definition.stop.timeout.unwrap_or(match definition.profile {
        Profile::App => STOP_TIMEOUT_APP,
        Profile::System => STOP_TIMEOUT_SYSTEM,
    });
    if !definition.stop.command.is_empty() {
        // That it failed has been said, and is no failure of the stop.
        put(format_args!("ExecStop=-/usr/bin/boxd stop {name}"));
    }
    put(format_args!(
        "TimeoutStopSec={}",
        time(stop.saturating_add(MARGIN))
    ));
    text
}

/// What launching and cleaning up take of the capabilities, where the box has users of its own: it has all of them
/// over its own namespaces, whatever stands here.
const CAPABILITIES: &str = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD \
                            CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SYS_PTRACE \
                            CAP_SYS_RESOURCE";

/// What the service can do without for this box. The box begins as a child of the service and inherits what holds for
/// it, so most of systemd's restrictions would be the box's: those that are given as a filter of system calls or as a
/// view of the file system. These are not, or say what holds for the box anyhow.
fn hardening(definition: &Definition) -> impl Iterator<Item = String> {
    let security = &definition.security;
    let own_users = security.users == Users::Auto;
    let no_new_privileges = security.gains_none(definition.profile);
    // A node is made for each device, and a credential may be sealed by a TPM.
    let no_devices = definition.devices.is_empty() && definition.credentials.is_empty();
    let lines = [
        own_users.then(|| format!("CapabilityBoundingSet={CAPABILITIES}")),
        no_new_privileges.then(|| "NoNewPrivileges=yes".to_owned()),
        no_devices.then(|| "DevicePolicy=closed".to_owned()),
    ];
    lines.into_iter().flatten()
}

/// The unit of a socket of the box, the one at `index` of its definition.
pub fn socket_unit(definition: &Definition, index: usize, socket: &Socket) -> String {
    let name = &definition.name;
    let mut text = String::from("# Made by boxd-generator; edit the definition instead.\n");
    let mut put = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{key}={value}").expect("writing to a string does not fail");
    };
    put(
        "[Unit]\nDescription",
        &match &socket.name {
            Some(socket) => format!("Socket {socket} of box {name}"),
            None => format!("Socket of box {name}"),
        },
    );
    put("Documentation", &"man:box.toml(5)");
    if let Some(path) = source_path(definition) {
        put("SourcePath", &path);
    }
    if name.instance().is_some() {
        put("PartOf", &name.target());
    }
    // The first is the handle for all.
    if index > 0 {
        put("PartOf", &name.socket());
    } else {
        for unit in &definition.socket_units()[1..] {
            put("Wants", &value(unit));
        }
    }
    put("[Socket]\nService", &name.unit());
    put("FileDescriptorName", &value(&socket.descriptor_name(name)));
    for listen in &socket.listen {
        let key = match listen.kind {
            SocketKind::Stream => "ListenStream",
            SocketKind::Datagram => "ListenDatagram",
            SocketKind::SequentialPacket => "ListenSequentialPacket",
        };
        put(key, &value(&listen.address.to_string()));
    }
    if socket
        .listen
        .iter()
        .any(|listen| matches!(listen.address, Address::Unix(_)))
    {
        // Nothing of a box stays.
        put("RemoveOnStop", &"yes");
    }
    for (key, setting) in socket.options.written() {
        put(key, &value(&setting));
    }
    text
}

/// The unit that starts and stops all instances of a definition. It stays when one of them ends, and the others with
/// it; what depends on it waits until each has been started.
pub fn target(all: &Definition) -> String {
    let mut text = String::from("# Made by boxd-generator; edit the definition instead.\n");
    let mut put = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{key}={value}").expect("writing to a string does not fail");
    };
    put(
        "[Unit]\nDescription",
        &format!("All instances of box {}", all.name),
    );
    put("Documentation", &"man:box.toml(5)");
    if let Some(path) = source_path(all) {
        put("SourcePath", &path);
    }
    let units: Vec<String> = all
        .boxes()
        .iter()
        .map(|name| match all.sockets.is_empty() {
            true => name.unit(),
            // The first connection starts the box, here too.
            false => name.socket(),
        })
        .collect();
    for some in units.chunks(UNITS_MAX) {
        put("Wants", &some.join(" "));
    }
    text
}

/// Where the definition is, as a value: systemctl status then tells when the file is newer than what was read of
/// it.
fn source_path(definition: &Definition) -> Option<String> {
    let path = definition.sources.first()?.to_str()?;
    let plain = !path.contains(char::is_control) && path.starts_with('/') && path.trim() == path;
    plain.then(|| value(path))
}

/// Text of one line, as long as anybody reads.
fn one_line(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(DESCRIPTION_MAX)
        .collect();
    value(plain.trim())
}

/// A text without control characters as the rest of a line: no specifier, and no continuation.
fn value(text: &str) -> String {
    let mut value = text.replace('%', "%%");
    // A backslash before the line break would join the next line to this one. A space between the two does not
    // become part of the value.
    if value.ends_with('\\') {
        value.push(' ');
    }
    value
}

/// Names of units, each once, in the order given; what could not be one is left out, and is among the problems
/// of the definition.
fn units<'a>(
    dependencies: impl IntoIterator<Item = &'a Dependency>,
    has_instances: &dyn Fn(&Name) -> bool,
) -> Vec<String> {
    let mut units = Vec::new();
    let mut known = BTreeSet::new();
    let unit = |dependency: &Dependency| dependency.unit(has_instances);
    for unit in dependencies.into_iter().map(unit) {
        let valid = unit
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c));
        if valid && !unit.is_empty() && known.insert(unit.clone()) {
            units.push(unit);
        }
    }
    units
}

/// A time span of systemd.time(7); what is too long for one is without end.
fn time(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 && duration.as_secs() < u64::from(u32::MAX) {
        return format!("{}s", duration.as_secs());
    }
    match u64::try_from(duration.as_micros()) {
        Ok(microseconds) if microseconds < u64::MAX / 2 => format!("{microseconds}us"),
        _ => "infinity".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::definition::{SourceText, understand};

    fn name() -> Name {
        "web".parse().expect("a name")
    }

    fn definition(text: &str) -> Definition {
        let text = SourceText {
            path: "/etc/boxd/web.toml".into(),
            text: text.to_owned(),
        };
        understand(&name(), &[text]).0
    }

    /// A unit file as systemd reads it: continuation lines joined, comments dropped, values stripped, specifiers
    /// expanded. Every section and key there is.
    fn read_as_systemd(text: &str) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        let mut section = String::new();
        let mut joined = String::new();
        for line in text.split('\n') {
            let trimmed = line.trim_start();
            if joined.is_empty() && (trimmed.is_empty() || trimmed.starts_with(['#', ';'])) {
                continue;
            }
            let escaped = line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
            if escaped {
                joined += &line[..line.len() - 1];
                joined.push(' ');
                continue;
            }
            joined += line;
            let whole = std::mem::take(&mut joined);
            let whole = whole.trim();
            match whole
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                Some(name) => section = name.to_owned(),
                None => {
                    let (key, value) = whole.split_once('=').expect("a setting");
                    let value = value.trim().replace("%%", "\0");
                    assert!(!value.contains('%'), "a specifier: {whole}");
                    found.push((section.clone(), key.to_owned(), value.replace('\0', "%")));
                }
            }
        }
        assert_eq!(joined, "", "the last line is continued");
        found
    }

    fn keys(text: &str) -> BTreeMap<String, usize> {
        let mut keys = BTreeMap::new();
        for (section, key, _) in read_as_systemd(text) {
            *keys.entry(format!("{section}.{key}")).or_default() += 1;
        }
        keys
    }

    #[test]
    fn a_whole_definition_becomes_its_settings() {
        let text = drop_in(
            &name(),
            Some(&definition(
                "command = ['/bin/true']\ndescription = 'Shop 100%'\nafter = ['db']\n\
                 requires = ['db', 'cache', 'data.mount']\n\
                 [restart]\npolicy = 'on-failure'\ndelay = '1500ms'\nlimit-burst = 3\nlimit-interval = '1min'\n\
                 [ready]\ntimeout = '30s'\n[reload]\nnotify = true\n[stop]\ntimeout = '5s'\n",
            )),
            &|_| false,
        );
        assert_eq!(
            text,
            "# Made by boxd-generator; edit the definition instead.\n\
             [Unit]\n\
             Description=Shop 100%%\n\
             SourcePath=/etc/boxd/web.toml\n\
             After=box@db.service box@cache.service data.mount\n\
             Requires=box@db.service box@cache.service data.mount\n\
             StartLimitBurst=3\n\
             StartLimitIntervalSec=60s\n\
             [Service]\n\
             CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL \
             CAP_MKNOD CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SYS_PTRACE \
             CAP_SYS_RESOURCE\n\
             NoNewPrivileges=yes\n\
             DevicePolicy=closed\n\
             Restart=on-failure\n\
             RestartSec=1500000us\n\
             TimeoutStartSec=45s\n\
             ExecReload=/usr/bin/boxd reload %i\n\
             TimeoutStopSec=20s\n"
        );
    }

    /// What a definition gives its box must not be kept from it by its service.
    #[test]
    fn the_service_keeps_what_its_box_needs() {
        let harder = |text: &str| -> Vec<String> {
            let definition = definition(&format!("command = ['/bin/true']\n{text}"));
            hardening(&definition)
                .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
                .collect()
        };
        let [capabilities, privileges, devices] =
            ["CapabilityBoundingSet", "NoNewPrivileges", "DevicePolicy"];
        for (text, expected) in [
            ("", vec![capabilities, privileges, devices]),
            ("[security]\nusers = 'host'\n", vec![privileges, devices]),
            ("profile = 'system'\n", vec![capabilities, devices]),
            (
                "[security]\nno-new-privileges = false\n",
                vec![capabilities, devices],
            ),
            (
                "[[device]]\npath = '/dev/fuse'\n",
                vec![capabilities, privileges],
            ),
            (
                "[credentials]\nkey = { encrypted = '/etc/key' }\n",
                vec![capabilities, privileges],
            ),
        ] {
            assert_eq!(harder(text), expected, "{text}");
        }
    }

    #[test]
    fn timeouts_are_the_plans_with_a_margin() {
        for (profile, when, margin) in [
            ("app", "started", MARGIN),
            ("system", "started", MARGIN),
            ("app", "notify", Duration::ZERO),
        ] {
            let text = format!(
                "command = ['/bin/true']\nprofile = '{profile}'\n[ready]\nwhen = '{when}'\n"
            );
            let definition = definition(&text);
            let host = crate::host::Host::fixed(&definition);
            let plan = crate::plan::resolve(&definition, &host).expect("a plan");
            let text = drop_in(&name(), Some(&definition), &|_| false);
            for (key, timeout) in [
                ("TimeoutStartSec", plan.ready.timeout + margin),
                ("TimeoutStopSec", plan.stop.timeout + MARGIN),
            ] {
                let line = format!("\n{key}={}\n", time(timeout));
                assert!(text.contains(&line), "{line}{text}");
            }
        }
    }

    #[test]
    fn no_line_is_longer_than_systemd_takes() {
        let units: Vec<String> = (0..300)
            .map(|number| format!("'u{number}.service'"))
            .collect();
        let text = drop_in(
            &name(),
            Some(&definition(&format!(
                "command = ['/bin/true']\nrequires = [{}]\n",
                units.join(", ")
            ))),
            &|_| false,
        );
        let keys = keys(&text);
        assert_eq!((keys["Unit.After"], keys["Unit.Requires"]), (2, 2));
        assert!(text.contains("\nRequires=u256.service u257.service "));
    }

    #[test]
    fn a_socket_becomes_its_settings() {
        let definition = definition(
            "command = ['/bin/true']\n[[socket]]\nstream = [80, '[::1]:81', '/run/100% \\']\n\
             mode = '0660'\ngroup = 'www-data'\nno-delay = true\nreceive-buffer = '64K'\n\
             trigger-limit-interval = '1min'\n",
        );
        assert_eq!(
            socket_unit(&definition, 0, &definition.sockets[0]),
            "# Made by boxd-generator; edit the definition instead.\n\
             [Unit]\n\
             Description=Socket of box web\n\
             Documentation=man:box.toml(5)\n\
             SourcePath=/etc/boxd/web.toml\n\
             [Socket]\n\
             Service=box@web.service\n\
             FileDescriptorName=box@web.socket\n\
             ListenStream=80\n\
             ListenStream=[::1]:81\n\
             ListenStream=/run/100%% \\ \n\
             RemoveOnStop=yes\n\
             SocketMode=0660\n\
             SocketGroup=www-data\n\
             NoDelay=yes\n\
             ReceiveBuffer=65536\n\
             TriggerLimitIntervalSec=60000000us\n"
        );
    }

    #[test]
    fn all_instances_are_one_unit_for_those_who_depend_on_them() {
        let text = SourceText {
            path: "/etc/boxd/web.toml".into(),
            text: "command = ['/bin/true']\ninstances = 2\nafter = ['db', 'pool', 'pool:2']\n\
                   [[socket]]\nstream = { port = 80, plus = 'index' }\n"
                .to_owned(),
        };
        let texts = [text];
        let (all, problems) = understand(&name(), &texts);
        assert!(problems.is_none());
        assert_eq!(
            target(&all),
            "# Made by boxd-generator; edit the definition instead.\n\
             [Unit]\n\
             Description=All instances of box web\n\
             Documentation=man:box.toml(5)\n\
             SourcePath=/etc/boxd/web.toml\n\
             Wants=box@web:1.socket box@web:2.socket\n"
        );
        let (one, _) = understand(&name().with_instance(2), &texts);
        let text = drop_in(&one.name, Some(&one), &|name| name.as_str() == "pool");
        assert!(text.contains("\nDescription=Box web:2\n"), "{text}");
        assert!(text.contains("\nPartOf=box-web.target\n"), "{text}");
        let after = "\nAfter=box@db.service box-pool.target box@pool:2.service\n";
        assert!(text.contains(after), "{text}");
        let text = socket_unit(&one, 0, &one.sockets[0]);
        for line in [
            "PartOf=box-web.target",
            "Service=box@web:2.service",
            "FileDescriptorName=box@web.socket",
            "ListenStream=82",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{text}");
        }
    }

    #[test]
    fn times_are_exact_or_without_end() {
        assert_eq!(time(Duration::from_millis(100)), "100000us");
        assert_eq!(time(Duration::from_secs(90)), "90s");
        assert_eq!(time(Duration::MAX), "infinity");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The same of a socket.
        #[test]
        fn no_path_of_a_socket_becomes_a_setting(path in "/[\\PC%\\\\\"'=;#\\[\\] ]{0,40}[!-~]") {
            let definition = definition(&format!(
                "command = ['/bin/true']\n[[socket]]\nstream = {}\n",
                serde_json::to_string(&path).expect("a string"),
            ));
            if let [Socket { listen, .. }] = &*definition.sockets && !listen.is_empty() {
                let text = socket_unit(&definition, 0, &definition.sockets[0]);
                let found = read_as_systemd(&text);
                prop_assert_eq!(found.len(), 7);
                prop_assert_eq!(&found[5].1, "ListenStream");
                prop_assert_eq!(&found[5].2, &listen[0].address.to_string());
            }
        }

        /// Whatever stands in the strings of a definition, the settings are the same ones, and their values what
        /// was meant.
        #[test]
        fn no_string_becomes_a_setting(
            description in "[\\PC\\n\\r\\t\u{0}%\\\\\"'=;#\\[\\] ]{0,60}",
            tail in r"[\\% ]{0,6}",
            unit in "[\\PC\\n%\\\\\"' ]{0,20}",
            path in "/[\\PC\\n%\\\\\"' ]{0,20}",
        ) {
            let usual = drop_in(
                &name(),
                Some(&definition("command = ['/bin/true']\nafter = ['db']\n")),
                &|_| false,
            );
            let mut definition = definition("command = ['/bin/true']\nafter = ['db']\n");
            let description = description + &tail;
            definition.description = Some(description.clone());
            definition.after.push(Dependency::Unit(unit.clone()));
            definition.sources = vec![path.clone().into()];
            let text = drop_in(&name(), Some(&definition), &|_| false);
            let mut expected = keys(&usual);
            if path.contains(char::is_control) || path.trim() != path {
                expected.remove("Unit.SourcePath");
            }
            prop_assert_eq!(keys(&text), expected);
            for (_, key, value) in read_as_systemd(&text) {
                match key.as_str() {
                    "Description" => {
                        let plain: String = description
                            .chars()
                            .map(|c| if c.is_control() { ' ' } else { c })
                            .collect();
                        let plain = plain.trim();
                        prop_assert_eq!(value, if plain.is_empty() { "Box web" } else { plain });
                    }
                    "SourcePath" => prop_assert_eq!(value, path.as_str()),
                    "After" => {
                        let units: Vec<&str> = value.split(' ').collect();
                        prop_assert!(units == ["box@db.service"]
                            || units == ["box@db.service", unit.as_str()], "{:?}", units);
                    }
                    _ => {}
                }
            }
        }
    }
}
