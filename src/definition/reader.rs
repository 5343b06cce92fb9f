//! TOML to [`Definition`]: every key of the format, and what must hold between keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostics::{Diagnostics, Place, Problem, SourceText};
use super::quantity::{self, RATE, SIZE, TIME};
use super::section::{Item, Problems, Section, path, quoted};
use super::tree::{self, Table, Value};
use super::{
    CapabilityChange, Clock, Definition, Dependency, EnvironmentFile, Group, Mount, MountSource,
    Profile, Ready, ReadyWhen, Resources, Restart, RestartPolicy, Root, RootSource, Security, Stop,
    User, Users, Writes,
};
use crate::capability::{CapabilitySet, NAMES};
use crate::name::Name;

/// Longest host name in bytes, `HOST_NAME_MAX`.
const HOST_NAME_MAX: usize = 64;
/// Longest unit name in bytes, `UNIT_NAME_MAX` of systemd without the NUL.
const UNIT_NAME_MAX: usize = 255;
/// Most tasks Linux can have, `PID_MAX_LIMIT`.
const TASKS_MAX: u64 = 4 * 1024 * 1024;
/// Longest name of a user or group, as useradd(8) has it on most systems.
const LOGIN_NAME_MAX: usize = 256;

const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "target",
    "mount",
    "automount",
    "device",
    "swap",
    "timer",
    "path",
    "slice",
    "scope",
];

const HOST_PATH: &str = "expected an absolute path on the host, as in \"/srv/web\"";
const BOX_PATH: &str = "expected an absolute path inside the box, as in \"/var/www\"";
const COMMAND: &str =
    "expected a list of the program and its arguments, as in [\"/usr/bin/sleep\", \"1h\"]";
const USER: &str = "expected a user's name, \"uid\" or \"uid:gid\"";
const USER_AND_GROUP: &str = "expected numbers on both sides of \":\": a named user has the groups the box's own files give it";
const GROUP: &str = "expected a group's name or gid";
const DEPENDENCY: &str =
    "expected the name of a box or of a unit with its type, as in \"network-online.target\"";
const CAPABILITY: &str =
    "expected \"+\" or \"-\" and a capability of capabilities(7) or ALL, as in \"+NET_RAW\"";

/// The definition of the box `name` in these texts, the base first and its drop-ins after it, or every
/// problem in them.
///
/// A key of a later text replaces that of an earlier one, tables are merged and `[[mount]]`s are appended. A
/// later text that names a root means that one instead of the earlier one's, whether directory or host.
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
    let security = security(whole.section("security", "[security]"));
    let users = security.users;
    let definition = Definition {
        name: name.clone(),
        sources,
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
        environment: whole.read("environment", environment).unwrap_or_default(),
        environment_files: whole
            .read("environment-file", environment_files)
            .unwrap_or_default(),
        hostname: whole.read("hostname", hostname),
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
        root: root(whole.section("root", "[root]")),
        mounts: mounts(&mut whole),
        ready: ready(whole.section("ready", "[ready]")),
        stop: stop(whole.section("stop", "[stop]")),
        restart: restart(whole.section("restart", "[restart]")),
        resources: resources(whole.section("resources", "[resources]")),
        security,
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
        .read("command", |item| {
            let Value::Array(words) = &item.at.value else {
                return item.wrong_type(COMMAND);
            };
            let word = |at| item.element(at);
            let Some((program, arguments)) = words.split_first() else {
                return item.refuse(COMMAND);
            };
            let program = word(program).parsed("expected the program to run", |text| {
                if text.contains('/') {
                    path(
                        text,
                        "expected an absolute path inside the box, or a name to look up in PATH",
                    )?;
                } else if matches!(text, "." | "..") {
                    return Err("expected the program to run".to_owned());
                }
                Ok(text.to_owned())
            });
            let arguments = arguments
                .iter()
                .filter_map(|argument| word(argument).string("expected a string"));
            Some(
                program
                    .into_iter()
                    .chain(arguments.map(str::to_owned))
                    .collect(),
            )
        })
        .unwrap_or_default()
}

fn user(item: Item<'_>, users: Users) -> Option<User> {
    if let Value::Integer(_) = item.at.value {
        let uid = id_number(item, users)?;
        return Some(User::Id { uid, gid: None });
    }
    item.parsed(USER, |text| parse_user(text, users))
}

/// What is written as a user: a name, an id, or two ids; the error says what was expected. Which ids there are
/// depends on whose the box's are.
pub fn parse_user(text: &str, users: Users) -> Result<User, String> {
    match text.split_once(':') {
        Some((uid, gid)) => Ok(User::Id {
            uid: id(uid, users)?.ok_or(USER_AND_GROUP)?,
            gid: Some(id(gid, users)?.ok_or(USER_AND_GROUP)?),
        }),
        None => Ok(match id(text, users)? {
            Some(uid) => User::Id { uid, gid: None },
            None => User::Name(login_name(text, USER)?),
        }),
    }
}

fn group(item: Item<'_>, users: Users) -> Option<Group> {
    if let Value::Integer(_) = item.at.value {
        return id_number(item, users).map(Group::Id);
    }
    item.parsed(GROUP, |text| {
        Ok(match id(text, users)? {
            Some(gid) => Group::Id(gid),
            None => Group::Name(login_name(text, GROUP)?),
        })
    })
}

fn id_number(item: Item<'_>, users: Users) -> Option<u32> {
    let id = item.integer(0..=id_max(users))?;
    match valid_id(id, users) {
        Ok(id) => Some(id),
        Err(expected) => item.refuse(expected),
    }
}

/// An id if the text is all digits.
fn id(text: &str, users: Users) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    valid_id(text.parse().unwrap_or(u64::MAX), users).map(Some)
}

fn valid_id(id: u64, users: Users) -> Result<u32, String> {
    // 65535 is -1 in the 16 bits of old system calls: no user or group has it, see uid(7) of systemd.
    match u32::try_from(id) {
        Ok(id) if u64::from(id) <= id_max(users) && id != 65535 => Ok(id),
        _ => Err(match users {
            Users::Auto => "expected an id from 0 to 65534, those a box has".to_owned(),
            Users::Host => "expected an id from 0 to 4294967294, but not 65535".to_owned(),
        }),
    }
}

fn id_max(users: Users) -> u64 {
    match users {
        Users::Auto => 65534,
        Users::Host => u64::from(u32::MAX) - 1,
    }
}

fn login_name(text: &str, expected: &str) -> Result<String, String> {
    let strange = |c: char| c.is_whitespace() || matches!(c, ':' | '/' | ',');
    if text.is_empty()
        || text.contains(strange)
        || text.starts_with(['-', '+', '~'])
        || text.len() > LOGIN_NAME_MAX
    {
        return Err(expected.to_owned());
    }
    Ok(text.to_owned())
}

fn environment(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    const VARIABLE: &str =
        "expected a name of letters, digits and \"_\" that does not begin with a digit";
    item.map(
        "expected a table of names and values, as in { TZ = \"UTC\" }",
        |key| {
            key.parsed(VARIABLE, |text| {
                let valid = text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                    && !text.starts_with(|c: char| c.is_ascii_digit());
                valid.then(|| text.to_owned()).ok_or(VARIABLE.to_owned())
            })
        },
        |value| {
            value
                .string("expected a string: write the value in quotes")
                .map(str::to_owned)
        },
    )
}

fn environment_files(item: Item<'_>) -> Option<Vec<EnvironmentFile>> {
    const EXPECTED: &str = "expected an absolute path on the host, as in \"/etc/web.env\", or \"-/etc/web.env\" for one that may be missing";
    let file = |item: Item<'_>| {
        item.parsed(EXPECTED, |text| {
            let bare = text.strip_prefix('-');
            Ok(EnvironmentFile {
                path: path(bare.unwrap_or(text), EXPECTED)?,
                optional: bare.is_some(),
            })
        })
    };
    match &item.at.value {
        Value::Array(_) => item.list(EXPECTED, file),
        _ => file(item).map(|file| vec![file]),
    }
}

fn hostname(item: Item<'_>) -> Option<String> {
    const EXPECTED: &str = "expected labels of letters, digits and inner \"-\" with dots between them, at most 64 characters";
    item.parsed(EXPECTED, |text| {
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if text.len() <= HOST_NAME_MAX && text.split('.').all(label) {
            Ok(text.to_owned())
        } else {
            Err(EXPECTED.to_owned())
        }
    })
}

fn dependencies(item: Item<'_>, name: &Name) -> Option<Vec<Dependency>> {
    item.list(
        "expected a list of boxes and units, as in [\"db\"]",
        |item| {
            item.parsed(DEPENDENCY, |text| {
                let dependency = if text.contains('.') {
                    unit(text)?
                } else {
                    let name = text.parse::<Name>();
                    Dependency::Box(
                        name.map_err(|error| format!("{DEPENDENCY}; {}", error.reason()))?,
                    )
                };
                if dependency.unit() == name.unit() || dependency.unit() == name.scope() {
                    return Err(format!("this is the box {name} itself"));
                }
                Ok(dependency)
            })
        },
    )
}

/// A name systemd.unit(5) allows, of a unit that can be started: no bare template.
fn unit(text: &str) -> Result<Dependency, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let (stem, kind) = text.rsplit_once('.').unwrap_or((text, ""));
    if !UNIT_TYPES.contains(&kind) {
        return Err(match quantity::nearest(kind, UNIT_TYPES) {
            Some(near) => format!("did you mean \"{stem}.{near}\"? {DEPENDENCY}"),
            None => format!("{DEPENDENCY}; a unit ends in .{}", UNIT_TYPES.join(", .")),
        });
    }
    if stem.is_empty() || !stem.chars().all(allowed) || text.len() > UNIT_NAME_MAX {
        return Err("expected a unit's name of letters, digits and \":-_.\\@\"".to_owned());
    }
    if stem.starts_with('@') {
        return Err(DEPENDENCY.to_owned());
    }
    if stem.ends_with('@') {
        return Err(format!(
            "expected an instance, as in \"{stem}NAME.{kind}\": this is a template"
        ));
    }
    Ok(Dependency::Unit(text.to_owned()))
}

fn root(mut section: Section<'_>) -> Root {
    let directory_at = section.place_of("directory");
    let directory = section.read("directory", |item| item.path(HOST_PATH));
    let host = section.read_placed("host", |item| item.boolean());
    let writes = section.read("writes", |item| {
        item.choice(&[
            ("discard", Writes::Discard),
            ("keep", Writes::Keep),
            ("refuse", Writes::Refuse),
        ])
    });
    match (&directory_at, &host) {
        (Some(directory), Some((true, host))) => section.problems().report(
            Problem::at(
                host,
                "the root is given twice",
                "expected either host or directory",
            )
            .related(directory, "given here already"),
        ),
        (None, Some((false, host))) => section.problems().report(Problem::at(
            host,
            "the box has no root",
            "expected `directory = …` beside this, or true",
        )),
        _ => {}
    }
    section.finish();
    Root {
        source: directory.map_or(RootSource::Host, RootSource::Directory),
        writes: writes.unwrap_or_default(),
    }
}

fn mounts(whole: &mut Section<'_>) -> Vec<Mount> {
    let mounts = whole.read("mount", |item| {
        let expected = "expected tables, each written below a line [[mount]]";
        item.list(expected, |item| {
            let section = Section::element("mount", "[[mount]]", item.at, item.problems)?;
            mount(section)
        })
        .inspect(|mounts| check_mount_points(mounts, item.problems))
    });
    let mounts = mounts.unwrap_or_default();
    mounts.into_iter().filter_map(|(mount, _)| mount).collect()
}

/// The mount, if all of it is right, and its mount point, if that is.
type ReadMount = (Option<Mount>, Option<(PathBuf, Place)>);

fn mount(mut section: Section<'_>) -> Option<ReadMount> {
    let written = |section: &Section<'_>, key| section.place_of(key);
    let (bind_at, tmpfs_at) = (written(&section, "bind"), written(&section, "tmpfs"));
    let only_bind = written(&section, "recursive");
    let only_tmpfs = written(&section, "mode");
    if section.place_of("at").is_none() {
        section.problems().report(Problem::absent(
            section.place(),
            "a mount without `at`",
            "say where in the box it appears, as in `at = \"/srv\"`",
        ));
    }
    let at = section.read_placed("at", |item| {
        let at = item.path(BOX_PATH)?;
        if at == Path::new("/") {
            return item.refuse("expected a path below \"/\": what is at \"/\" stands in [root]");
        }
        Some(at)
    });
    let bind = section.read("bind", |item| item.path(HOST_PATH));
    let tmpfs = section.read("tmpfs", |item| size(item, 1));
    let read_only = section.read("read-only", |item| item.boolean());
    let recursive = section.read("recursive", |item| item.boolean());
    let mode = section.read("mode", mode);
    let problems = section.problems();
    match (&bind_at, &tmpfs_at) {
        (None, None) => problems.report(Problem::absent(
            section.place(),
            "a mount of nothing",
            "say what is mounted: `bind = \"/path/on/the/host\"` or `tmpfs = \"64M\"`",
        )),
        (Some(bind), Some(tmpfs)) => problems.report(
            Problem::at(
                tmpfs,
                "a mount of two things",
                "expected either bind or tmpfs",
            )
            .related(bind, "given here already"),
        ),
        (Some(_), None) => {
            if let Some(place) = only_tmpfs {
                let title = "`mount.mode` does not go with `bind`";
                problems.report(Problem::at(
                    &place,
                    title,
                    "what is bound keeps the mode it has on the host",
                ));
            }
        }
        (None, Some(_)) => {
            if let Some(place) = only_bind {
                let title = "`mount.recursive` does not go with `tmpfs`";
                problems.report(Problem::at(
                    &place,
                    title,
                    "nothing is mounted below a new tmpfs",
                ));
            }
        }
    }
    section.finish();
    let source = match (bind, tmpfs) {
        (Some(path), _) => Some(MountSource::Bind {
            path,
            recursive: recursive.unwrap_or(true),
        }),
        (None, Some(size)) => Some(MountSource::Tmpfs {
            size,
            mode: mode.unwrap_or(0o755),
        }),
        (None, None) => None,
    };
    let mount = at.as_ref().zip(source).map(|((at, _), source)| Mount {
        at: at.clone(),
        source,
        read_only: read_only.unwrap_or_default(),
    });
    Some((mount, at))
}

/// Every mount must be seen in the box: none at the point of an earlier one, none over an earlier one.
fn check_mount_points(mounts: &[ReadMount], problems: &Problems) {
    let mut points: BTreeMap<&Path, &Place> = BTreeMap::new();
    for (at, place) in mounts.iter().filter_map(|(_, at)| at.as_ref()) {
        if let Some(earlier) = points.get(&**at) {
            problems.report(
                Problem::at(
                    place,
                    format!("two mounts at {}", quoted(&at.to_string_lossy())),
                    "expected another path",
                )
                .related(earlier, "mounted here already"),
            );
            continue;
        }
        // Paths below `at` follow it directly: PathBuf compares by components.
        let below = points.range(&**at..).next();
        if let Some((hidden, earlier)) = below.filter(|(point, _)| point.starts_with(at)) {
            let hidden = quoted(&hidden.to_string_lossy());
            problems.report(
                Problem::at(
                    place,
                    format!("this mount hides the one at {hidden}"),
                    "expected before the mounts below it",
                )
                .related(earlier, "hidden by the later one"),
            );
        }
        points.insert(at, place);
    }
}

fn mode(item: Item<'_>) -> Option<u32> {
    const EXPECTED: &str = "expected permission bits in octal, as in \"0755\"";
    item.parsed(EXPECTED, |text| {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        octal
            .then(|| u32::from_str_radix(text, 8).ok())
            .flatten()
            .ok_or(EXPECTED.to_owned())
    })
}

fn ready(mut section: Section<'_>) -> Ready {
    let ready = Ready {
        when: section
            .read("when", |item| {
                item.choice(&[("started", ReadyWhen::Started)])
            })
            .unwrap_or_default(),
        // Zero would mean "for ever" to systemd.
        timeout: section.read("timeout", |item| time(item, Duration::from_millis(1))),
    };
    section.finish();
    ready
}

fn stop(mut section: Section<'_>) -> Stop {
    let stop = Stop {
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

/// Bytes, or `infinity` as systemd writes it: as if the key were not written, so that a drop-in can lift a
/// limit.
fn memory(item: Item<'_>, least: u64) -> Option<u64> {
    match &item.at.value {
        Value::String(text) if text == "infinity" => None,
        _ => size(item, least),
    }
}

fn limits(item: Item<'_>) -> Option<BTreeMap<PathBuf, u64>> {
    item.map(
        "expected a table of devices and rates, as in { \"/dev/vda\" = \"10M\" }",
        |key| {
            key.path(
                "expected an absolute path of a device, or of a file on one, as in \"/dev/vda\"",
            )
        },
        |value| number(value, RATE, quantity::rate, 1),
    )
}

fn cores(item: Item<'_>) -> Option<f64> {
    // The kernel's quota is at least 1 ms in each period of 100 ms.
    const EXPECTED: &str = "expected a number of cores from 0.01 to 8192, as in 1.5";
    let cores = match item.at.value {
        Value::Integer(cores) => cores as f64,
        Value::Float(cores) => cores,
        _ => return item.wrong_type(EXPECTED),
    };
    if (0.01..=8192.0).contains(&cores) {
        Some(cores)
    } else {
        item.refuse(EXPECTED)
    }
}

fn security(mut section: Section<'_>) -> Security {
    let security = Security {
        users: section
            .read("users", |item| {
                item.choice(&[("auto", Users::Auto), ("host", Users::Host)])
            })
            .unwrap_or_default(),
        capabilities: section
            .read("capabilities", |item| {
                item.list("expected a list, as in [\"+NET_RAW\"]", capability)
            })
            .unwrap_or_default(),
        no_new_privileges: section.read("no-new-privileges", |item| item.boolean()),
        clock: section
            .read("clock", |item| {
                item.choice(&[("host", Clock::Host), ("private", Clock::Private)])
            })
            .unwrap_or_default(),
    };
    section.finish();
    security
}

fn capability(item: Item<'_>) -> Option<CapabilityChange> {
    item.parsed(CAPABILITY, |text| {
        let (sign, name) = text.split_at_checked(1).unwrap_or(("", text));
        let change: fn(CapabilitySet) -> CapabilityChange = match sign {
            "+" => CapabilityChange::Add,
            "-" => CapabilityChange::Drop,
            _ => {
                return Err(match named("+", text) {
                    Ok(_) => format!("did you mean \"+{text}\"? {CAPABILITY}"),
                    Err(_) => CAPABILITY.to_owned(),
                });
            }
        };
        named(sign, name).map(change)
    })
}

fn named(sign: &str, name: &str) -> Result<CapabilitySet, String> {
    if name.eq_ignore_ascii_case("ALL") {
        return Ok(CapabilitySet::ALL);
    }
    CapabilitySet::of([name]).map_err(|name| {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match quantity::nearest(bare, NAMES) {
            Some(near) => format!("did you mean \"{sign}{near}\"? {CAPABILITY}"),
            None => CAPABILITY.to_owned(),
        }
    })
}

fn size(item: Item<'_>, least: u64) -> Option<u64> {
    number(item, SIZE, quantity::size, least)
}

/// An integer, or a string with a suffix.
fn number(
    item: Item<'_>,
    expected: &str,
    parse: fn(&str) -> Result<u64, String>,
    least: u64,
) -> Option<u64> {
    let number = match &item.at.value {
        Value::Integer(number) => match u64::try_from(*number) {
            Ok(number) if number < u64::MAX => number,
            _ => return item.refuse(expected),
        },
        _ => item.parsed(expected, parse)?,
    };
    if number < least {
        return item.refuse("expected more than 0");
    }
    Some(number)
}

fn time(item: Item<'_>, least: Duration) -> Option<Duration> {
    let time = match item.at.value {
        Value::Integer(seconds) => match u64::try_from(seconds) {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => return item.refuse(TIME),
        },
        Value::Float(seconds) => match Duration::try_from_secs_f64(seconds) {
            Ok(time) => time,
            Err(_) => return item.refuse(TIME),
        },
        _ => item.parsed(TIME, quantity::time)?,
    };
    if time < least {
        return item.refuse("expected more than 0");
    }
    if time > quantity::TIME_MAX {
        return item.refuse("expected a time of at most 10 years");
    }
    Some(time)
}

fn signal(item: Item<'_>) -> Option<i32> {
    match item.at.value {
        Value::Integer(number) => match quantity::signal_number(number) {
            Ok(signal) => Some(signal),
            Err(expected) => item.refuse(expected),
        },
        _ => item.parsed(quantity::SIGNAL, quantity::signal),
    }
}
