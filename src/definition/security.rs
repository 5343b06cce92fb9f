//! `[security]`: what the box may do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diagnostics::{Place, Problem};
use super::quantity::{self, nearest};
use super::section::{Item, Section};
use super::tree::{Located, Value};
use super::values::{BOX_PATH, HOST_PATH, capability};
use super::{Clock, Profile, Resource, ResourceLimit, Seccomp, Security, Users};
use crate::syscall::{Architecture, Syscall};

const SECCOMP: &str = "expected \"profile\", \"unconfined\", or a table, as in { allow = [\"keyctl\"] } or { file = \"/etc/boxd/web.json\" }";

const SYSCALL: &str = "expected the name of a system call, as in \"keyctl\"";

impl Profile {
    /// As the definition has it.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::App => "app",
            Profile::System => "system",
        }
    }
}

impl Security {
    /// Whether no program of the box gains privileges by being executed; what its profile says where nothing else is.
    pub fn gains_none(&self, profile: Profile) -> bool {
        self.no_new_privileges.unwrap_or(profile == Profile::App)
    }
}

pub(super) fn security(mut section: Section<'_>) -> Security {
    let seccomp = section.read_placed("seccomp", seccomp);
    let architectures = section.read_placed("syscall-archs", architectures);
    check_architectures(&section, seccomp.as_ref(), architectures.as_ref());
    let keyring = section.read_placed("keyring", |item| item.boolean());
    if let (Some((Seccomp::File(_), seccomp_at)), Some((true, place))) = (&seccomp, &keyring) {
        section.problems().report(
            Problem::at(
                place,
                "`security.keyring` does not go with this `seccomp`",
                "the file says whether keyctl, add_key and request_key are allowed",
            )
            .related(seccomp_at, "given here"),
        );
    }
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
        seccomp: seccomp.map(|(seccomp, _)| seccomp).unwrap_or_default(),
        syscall_architectures: architectures
            .map(|(architectures, _)| architectures)
            .unwrap_or_default(),
        sysctls: section.read("sysctls", sysctls).unwrap_or_default(),
        resource_limits: section.read("rlimits", limits).unwrap_or_default(),
        mask: paths(&mut section, "mask"),
        unmask: paths(&mut section, "unmask"),
        read_only_paths: paths(&mut section, "read-only-paths"),
        keyring: keyring.is_some_and(|(keyring, _)| keyring),
        apparmor: section.read("apparmor", |item| label(item, APPARMOR)),
        selinux: section.read("selinux", |item| label(item, SELINUX)),
    };
    section.finish();
    security
}

const SYSCTLS: &str = "expected a table, as in { \"net.ipv4.ip_forward\" = 1 }";

const SYSCTL: &str = "expected the name of a kernel setting, as in \"net.ipv4.ip_forward\"";

/// Longest value that the kernel takes of a setting: a page.
const SYSCTL_MAX: usize = 4095;

const LIMITS: &str = "expected a table, as in { nofile = 65536, core = \"0:infinity\" }";

const LIMIT: &str =
    "expected a number, \"infinity\", or a soft and a hard limit, as in \"1024:65536\"";

const APPARMOR: &str =
    "expected the name of a profile that is loaded on the host, or \"unconfined\"";

const SELINUX: &str = "expected a label, as in \"system_u:system_r:container_t:s0:c1,c2\"";

/// Longest label, as much as the kernel reads.
const LABEL_MAX: usize = 4095;

fn sysctls(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    item.map(SYSCTLS, sysctl_path, |item| match &item.at.value {
        Value::Integer(number) => Some(number.to_string()),
        _ => {
            let value = item.line("expected a number or one line of text")?;
            if value.len() > SYSCTL_MAX {
                return item.refuse(format!("expected at most {SYSCTL_MAX} bytes"));
            }
            Some(value.to_owned())
        }
    })
}

/// A name as sysctl(8) takes it: parts separated by "." or by "/", whichever comes first.
fn sysctl_path(item: Item<'_>) -> Option<String> {
    item.parsed(SYSCTL, |text| {
        let path: String = match text.find(['.', '/']) {
            Some(at) if text[at..].starts_with('.') => text
                .chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect(),
            Some(_) => text.to_owned(),
            None => return Err(SYSCTL.to_owned()),
        };
        let good = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.:@+".contains(c))
        };
        if path.split('/').all(good) && path.len() < 256 {
            Ok(path)
        } else {
            Err(SYSCTL.to_owned())
        }
    })
}

fn limits(item: Item<'_>) -> Option<BTreeMap<Resource, ResourceLimit>> {
    // What kind of value a limit has is the key's to say, and both are read apart.
    let Value::Table(table) = &item.at.value else {
        return item.wrong_type(LIMITS);
    };
    let choices = Resource::ALL.map(|resource| (resource.name(), resource));
    let mut limits = BTreeMap::new();
    for (key, entry) in table {
        let at = Located {
            place: entry.key.clone(),
            value: Value::String(key.clone()),
        };
        let resource = Item {
            at: &at,
            element: true,
            ..item
        }
        .choice(&choices);
        let name = format!("{}.{key}", item.key);
        if let Some(resource) = resource
            && let Some(limit) = limit(
                Item {
                    key: &name,
                    at: &entry.value,
                    element: false,
                    problems: item.problems,
                },
                resource,
            )
        {
            limits.insert(resource, limit);
        }
    }
    Some(limits)
}

fn limit(item: Item<'_>, resource: Resource) -> Option<ResourceLimit> {
    if let Value::Integer(_) = item.at.value {
        let value = item.integer(0..=i64::MAX as u64)?;
        return Some(ResourceLimit {
            soft: value,
            hard: value,
        });
    }
    item.parsed(LIMIT, |text| {
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        let one = |text: &str| match text {
            "infinity" => Ok(ResourceLimit::INFINITY),
            _ if resource.is_size() => quantity::size(text),
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| LIMIT.to_owned())
            }
            _ => Err(LIMIT.to_owned()),
        };
        let (soft, hard) = (one(soft)?, one(hard)?);
        if soft > hard {
            return Err("expected a soft limit that is not above the hard one".to_owned());
        }
        Ok(ResourceLimit { soft, hard })
    })
}

fn paths(section: &mut Section<'_>, key: &'static str) -> Vec<PathBuf> {
    section
        .read(key, |item| {
            item.list(
                "expected a list of paths inside the box, as in [\"/proc/uptime\"]",
                |item| match item.path(BOX_PATH)? {
                    path if path == Path::new("/") => item.refuse("expected a path below \"/\""),
                    path => Some(path),
                },
            )
        })
        .unwrap_or_default()
}

fn label(item: Item<'_>, expected: &str) -> Option<String> {
    item.parsed(expected, |text| {
        if text.len() <= LABEL_MAX && !text.starts_with(' ') && !text.ends_with(' ') {
            Ok(text.to_owned())
        } else {
            Err(expected.to_owned())
        }
    })
}

fn seccomp(item: Item<'_>) -> Option<Seccomp> {
    match &item.at.value {
        Value::String(_) => item
            .choice(&[
                ("profile", Choice::Profile),
                ("unconfined", Choice::Unconfined),
            ])
            .map(|choice| match choice {
                Choice::Profile => Seccomp::Profile,
                Choice::Unconfined => Seccomp::Unconfined,
            }),
        Value::Table(_) => changes_or_file(item),
        _ => item.wrong_type(SECCOMP),
    }
}

#[derive(Clone, Copy)]
enum Choice {
    Profile,
    Unconfined,
}

fn changes_or_file(item: Item<'_>) -> Option<Seccomp> {
    let mut table = Section::element(
        "security.seccomp",
        "security.seccomp",
        item.at,
        item.problems,
    )?;
    let change_at = table.place_of("allow").or_else(|| table.place_of("deny"));
    let file = table.read_placed("file", |item| item.path(HOST_PATH));
    let mut calls = |key| {
        table
            .read(key, |item| {
                item.list(
                    "expected a list of system calls, as in [\"keyctl\"]",
                    syscall,
                )
            })
            .unwrap_or_default()
    };
    let (allow, deny) = (calls("allow"), calls("deny"));
    if let (Some((_, file)), Some(change)) = (&file, &change_at) {
        item.problems.report(
            Problem::at(
                file,
                "the system calls are given twice",
                "expected either a file, or changes to the profile by allow and deny",
            )
            .related(change, "changed here"),
        );
    }
    table.finish();
    Some(match file {
        Some((file, _)) => Seccomp::File(file),
        None => Seccomp::Changes { allow, deny },
    })
}

fn syscall(item: Item<'_>) -> Option<Syscall> {
    let near = |text: &str| match item.problems.are_many() {
        // Comparing with all of them takes its time.
        true => None,
        false => nearest(text, Syscall::all().map(Syscall::name)),
    };
    item.parsed(SYSCALL, |text| {
        Syscall::of(text).ok_or_else(|| match near(text) {
            Some(near) => format!("did you mean \"{near}\"? {SYSCALL}"),
            None => SYSCALL.to_owned(),
        })
    })
}

fn architectures(item: Item<'_>) -> Option<Vec<Architecture>> {
    let choices = Architecture::ALL.map(|architecture| (architecture.name(), architecture));
    item.list(
        "expected a list of architectures, as in [\"x86\"]",
        |item| item.choice(&choices),
    )
}

/// A file has architectures of its own, and where nothing is filtered there is nothing to add to.
fn check_architectures(
    section: &Section<'_>,
    seccomp: Option<&(Seccomp, Place)>,
    architectures: Option<&(Vec<Architecture>, Place)>,
) {
    let (Some((seccomp, seccomp_at)), Some((_, place))) = (seccomp, architectures) else {
        return;
    };
    let reason = match seccomp {
        Seccomp::Profile | Seccomp::Changes { .. } => return,
        Seccomp::File(_) => "the file says which in its own `architectures`",
        Seccomp::Unconfined => "without a filter, programs of all architectures run",
    };
    let title = "`security.syscall-archs` does not go with this `seccomp`";
    section
        .problems()
        .report(Problem::at(place, title, reason).related(seccomp_at, "given here"));
}
