//! Which system calls a box may make: seccomp(2), as a value.
//!
//! A [`Policy`] is a list of rules; a call falls under the first that names it, and its arguments decide
//! within that rule. What no rule names gets `ENOSYS`, so that a program made for a newer kernel falls back as
//! it would on an older one; what is known and refused gets `EPERM`. Calls of another architecture than those
//! listed end the process; x32 calls, which share theirs with x86-64, get `ENOSYS` unless x32 is listed.
//!
//! The profiles' filter is decided by the box's capabilities alone (`profile.rs` has the lists), so a
//! capability added to `app` opens the calls it is good for, and one taken from `system` closes them.

mod oci;
mod profile;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::capability::CapabilitySet;
pub use crate::syscall::{Architecture, Syscall};

pub use oci::{Error as OciError, Read, read as read_oci};

/// The filter of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Where it comes from, for people: `app`, `app + keyctl`, a path.
    pub title: String,
    /// Whose calls are looked at. A call of any other ends the process.
    pub architectures: Vec<Architecture>,
    /// A call falls under the first rule that names it.
    pub rules: Vec<Rule>,
    /// For calls of the table that no rule names.
    pub otherwise: Action,
    /// For numbers that the table does not have.
    pub unknown: Action,
    /// `SECCOMP_FILTER_FLAG_LOG`: what is not allowed is logged by the kernel, seccomp(2).
    pub log: bool,
    /// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no mitigation of speculative store bypass, seccomp(2).
    pub allow_speculation: bool,
}

/// What becomes of some system calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The calls.
    pub calls: Vec<Syscall>,
    /// Looked through in order: the first whose conditions all hold decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<Case>,
    /// If no case decides.
    pub otherwise: Action,
}

/// An action for certain arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// All of them hold.
    pub conditions: Vec<Condition>,
    /// Then this is done.
    pub action: Action,
}

/// A comparison with one argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// What holds of it.
    pub comparison: Comparison,
}

/// Comparisons of 64 unsigned bits. Where the kernel looks at fewer bits of an argument than were passed, only
/// [`Comparison::Masked`] compares what it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "named after what they are")]
pub enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// The argument under the mask has this value.
    Masked {
        mask: u64,
        value: u64,
    },
}

impl Comparison {
    /// Whether it holds of this argument.
    pub const fn holds(self, argument: u64) -> bool {
        match self {
            Comparison::Equal(value) => argument == value,
            Comparison::NotEqual(value) => argument != value,
            Comparison::Less(value) => argument < value,
            Comparison::LessOrEqual(value) => argument <= value,
            Comparison::Greater(value) => argument > value,
            Comparison::GreaterOrEqual(value) => argument >= value,
            Comparison::Masked { mask, value } => argument & mask == value,
        }
    }
}

/// What the kernel does with a call; `SECCOMP_RET_…` of seccomp(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It happens.
    Allow,
    /// It happens and is logged.
    Log,
    /// A tracer is asked, with this number; without one the call fails with `ENOSYS`.
    Trace(u16),
    /// It fails with this error number.
    Errno(u16),
    /// The thread gets `SIGSYS`.
    Trap,
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

impl Action {
    /// "No such system call": what an older kernel says.
    pub const ABSENT: Self = Action::Errno(libc::ENOSYS as u16);
    /// "Not permitted".
    pub const REFUSED: Self = Action::Errno(libc::EPERM as u16);
    /// The largest error number the kernel passes on.
    pub const MAX_ERRNO: u16 = 4095;

    /// As the kernel writes it: `SECCOMP_RET_…` with its data.
    pub const fn code(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Log => libc::SECCOMP_RET_LOG,
            Action::Trace(data) => libc::SECCOMP_RET_TRACE | data as u32,
            Action::Errno(number) => libc::SECCOMP_RET_ERRNO | number as u32,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }

    /// How little it lets through: of several, the kernel does the most severe.
    const fn severity(self) -> u8 {
        match self {
            Action::Allow => 0,
            Action::Log => 1,
            Action::Trace(_) => 2,
            Action::Errno(_) => 3,
            Action::Trap => 4,
            Action::KillThread => 5,
            Action::KillProcess => 6,
        }
    }
}

/// Changes to a profile's filter, by name; the operator's `seccomp = { allow = […], deny = […] }`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Allowed with any argument.
    pub allow: Vec<Syscall>,
    /// Refused with `EPERM`; wins over `allow`.
    pub deny: Vec<Syscall>,
}

/// The filter of a profile for a box with these capabilities, with the operator's changes and the additional
/// architectures whose programs may run.
pub fn of_profile(
    profile: &str,
    capabilities: CapabilitySet,
    changes: &Changes,
    additional: &[Architecture],
) -> Policy {
    let has = |name: &str| {
        CapabilitySet::of([name])
            .is_ok_and(|wanted| wanted.without(capabilities) == CapabilitySet::EMPTY)
    };

    let mut allowed = profile::ALLOWED.to_vec();
    let mut refused = profile::DENIED.to_vec();
    for (capability, calls) in profile::BY_CAPABILITY {
        let list = if has(capability) {
            &mut allowed
        } else {
            &mut refused
        };
        list.extend_from_slice(calls);
    }
    if has("SYS_ADMIN") {
        allowed.extend_from_slice(&profile::ABSENT_WITHOUT_SYS_ADMIN);
    }

    let mut rules = Vec::with_capacity(8);
    if !changes.deny.is_empty() {
        rules.push(Rule::plain(changes.deny.clone(), Action::REFUSED));
    }
    if !changes.allow.is_empty() {
        rules.push(Rule::plain(changes.allow.clone(), Action::Allow));
    }
    rules.push(Rule::plain(allowed, Action::Allow));
    rules.extend(profile::CONDITIONAL.map(|call| Rule {
        calls: vec![call],
        ..conditions(call, &has)
    }));
    rules.push(Rule::plain(refused, Action::REFUSED));

    Policy {
        title: title(profile, changes),
        architectures: architectures(additional),
        rules,
        otherwise: Action::ABSENT,
        unknown: Action::ABSENT,
        log: false,
        allow_speculation: false,
    }
}

/// The native architecture and these, each once.
fn architectures(additional: &[Architecture]) -> Vec<Architecture> {
    let mut all = vec![Architecture::NATIVE];
    for architecture in additional {
        if architecture.runs_on(Architecture::NATIVE) && !all.contains(architecture) {
            all.push(*architecture);
        }
    }
    all
}

/// `app + keyctl, mlock - ptrace`.
fn title(profile: &str, changes: &Changes) -> String {
    let mut title = profile.to_owned();
    for (sign, calls) in [(" + ", &changes.allow), (" - ", &changes.deny)] {
        for (index, call) in calls.iter().enumerate() {
            title.push_str(if index == 0 { sign } else { ", " });
            title.push_str(call.name());
        }
    }
    title
}

/// Bits that the kernel takes of an `int` argument; the upper half of the register is not looked at.
const INT: u64 = 0xFFFF_FFFF;

/// The `CLONE_NEW…` flags that clone(2) takes: all but that of the time namespace, whose bit is the exit
/// signal's here. s390 has the flags in another argument, and no table here.
const NEW_NAMESPACES: u64 = 0x7E02_0000;

/// Execution domains that do no harm, personality(2): Linux, 32-bit uname, 2.6 uname, both, and the question.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, INT];

/// Netlink protocols of every box: routes, socket diagnosis, device events (read by libudev) and generic.
/// `NETLINK_AUDIT` is not among them nor opened by any capability: audit has no namespace, and its user space
/// takes the error to mean a kernel without it.
const NETLINK: [i32; 4] = [
    libc::NETLINK_ROUTE,
    libc::NETLINK_SOCK_DIAG,
    libc::NETLINK_KOBJECT_UEVENT,
    libc::NETLINK_GENERIC,
];

/// The rule for a call of [`profile::CONDITIONAL`].
fn conditions(call: Syscall, has: &impl Fn(&str) -> bool) -> Rule {
    let argument = |argument: u8, value: u64| Condition {
        argument,
        comparison: Comparison::Masked { mask: INT, value },
    };
    let case = |conditions: Vec<Condition>, action| Case { conditions, action };
    let allow = |conditions| case(conditions, Action::Allow);

    let (cases, otherwise) = match call.name() {
        "clone" if has("SYS_ADMIN") => (vec![], Action::Allow),
        "clone" => {
            let no_new_namespace = Condition {
                argument: 0,
                comparison: Comparison::Masked {
                    mask: NEW_NAMESPACES,
                    value: 0,
                },
            };
            (vec![allow(vec![no_new_namespace])], Action::REFUSED)
        }
        // Both put characters into the terminal's input, where a shell outside the box may read them.
        "ioctl" => (
            vec![
                case(vec![argument(1, libc::TIOCSTI)], Action::REFUSED),
                case(vec![argument(1, TIOCLINUX)], Action::REFUSED),
            ],
            Action::Allow,
        ),
        "personality" => (
            PERSONALITIES
                .iter()
                .map(|domain| allow(vec![argument(0, *domain)]))
                .collect(),
            Action::REFUSED,
        ),
        "socket" => {
            let family = |family: i32| argument(0, family as u64);
            let protocol = |protocol: i32| argument(2, protocol as u64);
            let mut cases: Vec<Case> = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6]
                .map(|known| allow(vec![family(known)]))
                .into();
            if has("NET_RAW") {
                cases.push(allow(vec![family(libc::AF_PACKET)]));
            }
            let unsupported = Action::Errno(libc::EPROTONOSUPPORT as u16);
            if has("NET_ADMIN") {
                cases.push(case(
                    vec![family(libc::AF_NETLINK), protocol(libc::NETLINK_AUDIT)],
                    unsupported,
                ));
                cases.push(allow(vec![family(libc::AF_NETLINK)]));
            } else {
                cases.extend(
                    NETLINK.map(|known| allow(vec![family(libc::AF_NETLINK), protocol(known)])),
                );
                cases.push(case(vec![family(libc::AF_NETLINK)], unsupported));
            }
            // As a kernel without the family says, so that programs do without it.
            (cases, NO_FAMILY)
        }
        // The other family with pairs is TIPC's, whose module the kernel would load for it.
        "socketpair" => (
            vec![allow(vec![argument(0, libc::AF_UNIX as u64)])],
            NO_FAMILY,
        ),
        _ => (vec![], Action::REFUSED),
    };
    Rule {
        calls: vec![],
        cases,
        otherwise,
    }
}

/// What a kernel without a family of sockets says.
const NO_FAMILY: Action = Action::Errno(libc::EAFNOSUPPORT as u16);

/// ioctl_console(2); the C library's headers have it, the libc crate has not.
const TIOCLINUX: u64 = 0x541C;

impl Rule {
    fn plain(calls: Vec<Syscall>, action: Action) -> Self {
        Rule {
            calls,
            cases: Vec::new(),
            otherwise: action,
        }
    }
}

impl Policy {
    /// What the filter does with a call: `number` and `audit` as the kernel has them in seccomp's data. This
    /// is the meaning of a policy; the compiled filter is tested against it.
    pub fn verdict(&self, audit: u32, number: u32, arguments: [u64; 6]) -> Action {
        let x32 = audit == Architecture::X32.audit() && number & Architecture::X32_BIT != 0;
        let Some(architecture) = self
            .architectures
            .iter()
            .copied()
            .find(|known| known.audit() == audit && (*known == Architecture::X32) == x32)
        else {
            let sibling = self
                .architectures
                .iter()
                .any(|known| known.audit() == audit);
            return if sibling {
                Action::ABSENT
            } else {
                Action::KillProcess
            };
        };
        let number = if x32 {
            number & !Architecture::X32_BIT
        } else {
            number
        };

        let Some(call) = Syscall::all().find(|call| call.number(architecture) == Some(number))
        else {
            return self.unknown;
        };
        let Some(rule) = self.rule(call) else {
            return self.otherwise;
        };
        let holds = |condition: &Condition| {
            condition
                .comparison
                .holds(arguments[usize::from(condition.argument)])
        };
        rule.cases
            .iter()
            .find(|case| case.conditions.iter().all(holds))
            .map_or(rule.otherwise, |case| case.action)
    }

    /// Whether programs can be executed at all.
    pub fn allows_execution(&self) -> bool {
        let execve = Syscall::of("execve").and_then(|call| call.number(Architecture::NATIVE));
        execve.is_some_and(|number| {
            let action = self.verdict(Architecture::NATIVE.audit(), number, [0; 6]);
            action.severity() <= Action::Trace(0).severity()
        })
    }

    /// The rule a call falls under.
    pub fn rule(&self, call: Syscall) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.calls.contains(&call))
    }

    /// The calls of the native architecture that are allowed with some arguments at least.
    pub fn allowed(&self) -> BTreeSet<Syscall> {
        let lets = |action: Action| action.severity() <= Action::Log.severity();
        Syscall::all()
            .filter(|call| call.number(Architecture::NATIVE).is_some())
            .filter(|call| match self.rule(*call) {
                Some(rule) => {
                    lets(rule.otherwise) || rule.cases.iter().any(|case| lets(case.action))
                }
                None => lets(self.otherwise),
            })
            .collect()
    }
}

impl fmt::Display for Policy {
    /// `app + keyctl: 278 calls`, with the additional architectures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} calls", self.title, self.allowed().len())?;
        for architecture in &self.architectures {
            if *architecture != Architecture::NATIVE {
                write!(f, ", also of {architecture}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
