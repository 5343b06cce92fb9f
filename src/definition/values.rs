//! What stands at a key: one reader for each kind of value, and what it says when something else does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::instances::Instances;
use super::quantity::{self, RATE, SIZE, TIME};
use super::section::{Item, path};
use super::tree::Value;
use super::{CapabilityChange, Dependency, EnvironmentFile, Group, User, Users};
use crate::capability::{CapabilitySet, NAMES};
use crate::name::Name;

/// What a path of the host looks like.
pub(super) const HOST_PATH: &str = "expected an absolute path on the host, as in \"/srv/web\"";
/// What a path inside the box looks like.
pub(super) const BOX_PATH: &str = "expected an absolute path inside the box, as in \"/var/www\"";

/// Longest host name in bytes, `HOST_NAME_MAX`.
const HOST_NAME_MAX: usize = 64;

/// Longest unit name in bytes, `UNIT_NAME_MAX` of systemd without the NUL.
const UNIT_NAME_MAX: usize = 255;

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

const USER: &str = "expected a user's name, \"uid\" or \"uid:gid\"";

const USER_AND_GROUP: &str = "expected numbers on both sides of \":\": a named user has the groups the box's own files give it";

const GROUP: &str = "expected a group's name or gid";

const DEPENDENCY: &str =
    "expected the name of a box or of a unit with its type, as in \"network-online.target\"";

const CAPABILITY: &str =
    "expected \"+\" or \"-\" and a capability of capabilities(7) or ALL, as in \"+NET_RAW\"";

/// A program of the box and its arguments.
pub(super) fn command(item: Item<'_>, expected: &str) -> Option<Vec<String>> {
    let Value::Array(words) = &item.at.value else {
        return item.wrong_type(expected);
    };
    let word = |at| item.element(at);
    let Some((program, arguments)) = words.split_first() else {
        return item.refuse(expected);
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
}

pub(super) fn user(item: Item<'_>, users: Users) -> Option<User> {
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

pub(super) fn group(item: Item<'_>, users: Users) -> Option<Group> {
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

pub(super) fn login_name(text: &str, expected: &str) -> Result<String, String> {
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

pub(super) fn environment(
    item: Item<'_>,
    instances: &Instances,
) -> Option<BTreeMap<String, String>> {
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
            instances.read(value, |value| {
                value
                    .string("expected a string: write the value in quotes")
                    .map(str::to_owned)
            })
        },
    )
}

pub(super) fn environment_files(item: Item<'_>) -> Option<Vec<EnvironmentFile>> {
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

pub(super) fn hostname(item: Item<'_>) -> Option<String> {
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

pub(super) fn dependencies(item: Item<'_>, name: &Name) -> Option<Vec<Dependency>> {
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
                let base = name.base();
                let is_own = match &dependency {
                    Dependency::Box(other) => other.base() == base,
                    Dependency::Unit(unit) => {
                        [name.unit(), name.scope(), name.target()].contains(unit)
                    }
                };
                if is_own {
                    return Err(format!("this is the box {base} itself"));
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

pub(super) fn capability(item: Item<'_>) -> Option<CapabilityChange> {
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

pub(super) fn mode(item: Item<'_>) -> Option<u32> {
    const EXPECTED: &str = "expected permission bits in octal, as in \"0755\"";
    item.parsed(EXPECTED, |text| {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        octal
            .then(|| u32::from_str_radix(text, 8).ok())
            .flatten()
            .ok_or(EXPECTED.to_owned())
    })
}

/// Bytes, or `infinity` as systemd writes it: as if the key were not written, so that a drop-in can lift a
/// limit.
pub(super) fn memory(item: Item<'_>, least: u64) -> Option<u64> {
    match &item.at.value {
        Value::String(text) if text == "infinity" => None,
        _ => size(item, least),
    }
}

pub(super) fn limits(item: Item<'_>) -> Option<BTreeMap<PathBuf, u64>> {
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

pub(super) fn cores(item: Item<'_>) -> Option<f64> {
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

pub(super) fn size(item: Item<'_>, least: u64) -> Option<u64> {
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

pub(super) fn time(item: Item<'_>, least: Duration) -> Option<Duration> {
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

pub(super) fn signal(item: Item<'_>) -> Option<i32> {
    match item.at.value {
        Value::Integer(number) => match quantity::signal_number(number) {
            Ok(signal) => Some(signal),
            Err(expected) => item.refuse(expected),
        },
        _ => item.parsed(quantity::SIGNAL, quantity::signal),
    }
}
