//! The seccomp section of the OCI runtime specification (config-linux.md, "Seccomp"), and what Docker's and
//! Podman's profile files have beyond it: rules that apply only with or without a capability, on an
//! architecture or from a kernel version on.
//!
//! Where several rules match a call, the most severe decides, as the kernel has it for several filters;
//! libseccomp lets a rule without conditions win over one with, and is otherwise silent on it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Action, Architecture, Case, Comparison, Condition, Policy, Rule, Syscall};
use crate::capability::CapabilitySet;

/// Most conditions of all calls together. A program of the kernel's has room for a few thousand, but calls that are
/// decided alike share theirs.
const CASES_MAX: usize = 64 << 10;

/// Why a profile file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No JSON, a missing or an unknown key, a wrong type.
    #[error("it is no seccomp profile as the OCI runtime specification has it: {0}")]
    Parse(String),
    /// An action this program cannot carry out.
    #[error(
        "its action {0} is not supported: use SCMP_ACT_ALLOW, LOG, ERRNO, TRAP, KILL_THREAD, KILL_PROCESS or TRACE"
    )]
    Action(String),
    /// A listener was named.
    #[error(
        "it names a listener for notifications, which is not supported: remove listenerPath and the flag"
    )]
    Listener,
    /// An unknown filter flag.
    #[error(
        "its flag {0} is unknown or not supported: SECCOMP_FILTER_FLAG_TSYNC, LOG and SPEC_ALLOW are"
    )]
    Flag(String),
    /// An unknown operator.
    #[error("the operator {operator} of its rule for {call} is unknown")]
    Operator {
        /// First call of the rule.
        call: String,
        /// As written.
        operator: String,
    },
    /// A system call has six arguments.
    #[error("its rule for {call} names argument {index}, but calls have arguments 0 to 5")]
    Argument {
        /// First call of the rule.
        call: String,
        /// As written.
        index: u64,
    },
    /// The kernel passes on error numbers up to 4095.
    #[error("its error number {0} is none: Linux has 0 to 4095")]
    Errno(u64),
    /// An unknown capability in `includes` or `excludes`.
    #[error("the capability {0} in its conditions is unknown")]
    Capability(String),
    /// A `minKernel` that is no version.
    #[error("its minKernel {0:?} is no version like 5.10")]
    Kernel(String),
    /// Docker refuses that as well.
    #[error("it has both architectures and archMap: keep one of them")]
    ArchitecturesTwice,
    /// Far more than fit into a program of the kernel's.
    #[error("it has more than {CASES_MAX} conditions, counted for each call: give it fewer")]
    TooMany,
    /// A rule without a call.
    #[error("one of its rules names no system call")]
    Nameless,
}

/// A profile file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The filter.
    pub policy: Policy,
    /// Names in rules that no architecture of the table has; these rules have no effect on them.
    pub unknown: Vec<String>,
}

/// Reads a profile from its text, for a box with these capabilities on a kernel of this version (major and
/// minor); `title` is what the policy is called in print: the file's path.
pub fn read(
    title: &str,
    text: &str,
    capabilities: CapabilitySet,
    kernel: (u32, u32),
) -> Result<Read, Error> {
    let profile: Profile =
        serde_json::from_str(text).map_err(|error| Error::Parse(error.to_string()))?;
    if profile.listener_path.is_some_and(|path| !path.is_empty()) {
        return Err(Error::Listener);
    }
    let mut log = false;
    let mut allow_speculation = false;
    for flag in profile.flags.unwrap_or_default() {
        match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => log = true,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => allow_speculation = true,
            // All threads get the filter anyway: there is one.
            "SECCOMP_FILTER_FLAG_TSYNC" => {}
            _ => return Err(Error::Flag(flag)),
        }
    }

    let otherwise = action(&profile.default_action, profile.default_errno_ret)?;
    // A call that is newer than the table was in the mind of no profile's author either: ENOSYS lets its
    // callers fall back, where the customary EPERM would not.
    let unknown = match otherwise {
        Action::Errno(_) => Action::ABSENT,
        _ => otherwise,
    };

    let mut strange = Vec::new();
    let mut known_strange = BTreeSet::new();
    let mut collected: BTreeMap<Syscall, Vec<Case>> = BTreeMap::new();
    let mut number_of_cases = 0;
    for entry in profile.syscalls.unwrap_or_default() {
        let names: Vec<String> = entry
            .names
            .unwrap_or_default()
            .into_iter()
            .chain(entry.name)
            .collect();
        let first = names.first().cloned().ok_or(Error::Nameless)?;
        let action = action(&entry.action, entry.errno_ret)?;
        let cases = cases(&first, &entry.args.unwrap_or_default(), action)?;
        let includes = entry.includes.unwrap_or_default();
        let excludes = entry.excludes.unwrap_or_default();
        if !applies(&includes, &excludes, capabilities, kernel)? {
            continue;
        }
        let mut calls = BTreeSet::new();
        for name in names {
            match Syscall::of(&name) {
                Some(call) => drop(calls.insert(call)),
                None if known_strange.insert(name.clone()) => strange.push(name),
                None => {}
            }
        }
        number_of_cases += calls.len() * cases.len();
        if number_of_cases > CASES_MAX {
            return Err(Error::TooMany);
        }
        for call in calls {
            collected.entry(call).or_default().extend_from_slice(&cases);
        }
    }

    Ok(Read {
        policy: Policy {
            title: title.to_owned(),
            architectures: architectures(profile.architectures, profile.arch_map)?,
            rules: rules(collected, otherwise),
            otherwise,
            unknown,
            log,
            allow_speculation,
        },
        unknown: strange,
    })
}

/// One rule for each way of being decided, with all the calls that are decided so.
fn rules(collected: BTreeMap<Syscall, Vec<Case>>, otherwise: Action) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (call, mut cases) in collected {
        cases.sort_by_key(|case| std::cmp::Reverse(case.action.severity()));
        let decided = cases.iter().position(|case| case.conditions.is_empty());
        let otherwise = decided.map_or(otherwise, |index| cases[index].action);
        cases.truncate(decided.unwrap_or(cases.len()));
        match rules
            .iter_mut()
            .find(|rule| rule.otherwise == otherwise && rule.cases == cases)
        {
            Some(rule) => rule.calls.push(call),
            None => rules.push(Rule {
                calls: vec![call],
                cases,
                otherwise,
            }),
        }
    }
    rules
}

/// The cases of one rule. Conditions hold together, but several for one argument make a case each, as runc
/// and libseccomp have it.
fn cases(call: &str, arguments: &[Argument], action: Action) -> Result<Vec<Case>, Error> {
    let mut conditions = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let index = u8::try_from(argument.index)
            .ok()
            .filter(|index| *index < 6)
            .ok_or_else(|| Error::Argument {
                call: call.to_owned(),
                index: argument.index,
            })?;
        let value = argument.value;
        let comparison = match argument.op.as_str() {
            "SCMP_CMP_NE" => Comparison::NotEqual(value),
            "SCMP_CMP_LT" => Comparison::Less(value),
            "SCMP_CMP_LE" => Comparison::LessOrEqual(value),
            "SCMP_CMP_EQ" => Comparison::Equal(value),
            "SCMP_CMP_GE" => Comparison::GreaterOrEqual(value),
            "SCMP_CMP_GT" => Comparison::Greater(value),
            "SCMP_CMP_MASKED_EQ" => Comparison::Masked {
                mask: value,
                value: argument.value_two,
            },
            _ => {
                return Err(Error::Operator {
                    call: call.to_owned(),
                    operator: argument.op.clone(),
                });
            }
        };
        conditions.push(Condition {
            argument: index,
            comparison,
        });
    }
    let repeated = conditions.iter().enumerate().any(|(position, condition)| {
        conditions[..position]
            .iter()
            .any(|earlier| earlier.argument == condition.argument)
    });
    if repeated {
        let alone = |condition| Case {
            conditions: vec![condition],
            action,
        };
        return Ok(conditions.into_iter().map(alone).collect());
    }
    Ok(vec![Case { conditions, action }])
}

/// Whether a rule is for this box: `includes` lists what must all be there, `excludes` what must not.
fn applies(
    includes: &Filter,
    excludes: &Filter,
    capabilities: CapabilitySet,
    kernel: (u32, u32),
) -> Result<bool, Error> {
    let has = |name: &String| {
        CapabilitySet::of([name.as_str()])
            .map(|wanted| wanted.without(capabilities) == CapabilitySet::EMPTY)
            .map_err(|unknown| Error::Capability(unknown.to_owned()))
    };
    let native = |arches: &Option<Vec<String>>| {
        arches
            .as_ref()
            .filter(|arches| !arches.is_empty())
            .map(|arches| {
                arches
                    .iter()
                    .any(|arch| arch == Architecture::NATIVE.go_name())
            })
    };
    let reached = |filter: &Filter| match &filter.min_kernel {
        Some(text) if !text.is_empty() => version(text).map(|wanted| Some(kernel >= wanted)),
        _ => Ok(None),
    };

    let included: Vec<bool> = includes
        .caps
        .iter()
        .flatten()
        .map(has)
        .collect::<Result<_, _>>()?;
    let excluded: Vec<bool> = excludes
        .caps
        .iter()
        .flatten()
        .map(has)
        .collect::<Result<_, _>>()?;
    let from_kernel = reached(includes)?.unwrap_or(true);
    let until_kernel = !reached(excludes)?.unwrap_or(false);
    Ok(included.into_iter().all(|present| present)
        && !excluded.into_iter().any(|present| present)
        && native(&includes.arches).unwrap_or(true)
        && !native(&excludes.arches).unwrap_or(false)
        && from_kernel
        && until_kernel)
}

/// `5.10` or `5.10.3` as major and minor.
fn version(text: &str) -> Result<(u32, u32), Error> {
    let mut parts = text.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(Error::Kernel(text.to_owned())),
    }
}

/// The native architecture and those listed that can run here; others concern other machines.
fn architectures(
    listed: Option<Vec<String>>,
    map: Option<Vec<SubArchitectures>>,
) -> Result<Vec<Architecture>, Error> {
    let listed = listed.unwrap_or_default();
    let map = map.unwrap_or_default();
    if !listed.is_empty() && !map.is_empty() {
        return Err(Error::ArchitecturesTwice);
    }
    let of = |name: &String| {
        Architecture::ALL
            .into_iter()
            .find(|known| known.oci_name() == name)
    };
    let native = Architecture::NATIVE.oci_name();
    let mapped = map
        .iter()
        .filter(|entry| entry.architecture == native)
        .flat_map(|entry| entry.sub_architectures.iter().flatten());
    let additional: Vec<Architecture> = listed.iter().chain(mapped).filter_map(of).collect();
    Ok(super::architectures(&additional))
}

/// An action by its name in the specification; `errnoRet` is `EPERM` by default.
fn action(name: &str, data: Option<u64>) -> Result<Action, Error> {
    let number = |most: u16| {
        let data = data.unwrap_or(libc::EPERM as u64);
        u16::try_from(data)
            .ok()
            .filter(|number| *number <= most)
            .ok_or(Error::Errno(data))
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRACE" => Action::Trace(number(u16::MAX)?),
        "SCMP_ACT_ERRNO" => Action::Errno(number(Action::MAX_ERRNO)?),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        _ => return Err(Error::Action(name.to_owned())),
    })
}

/// `linux.seccomp`. A key that is not known is an error: an unread condition would make a rule wider than it
/// was meant.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u64>,
    /// Podman's name for the number above, for people.
    #[serde(rename = "defaultErrno")]
    _default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<SubArchitectures>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    #[serde(rename = "listenerMetadata")]
    _listener_metadata: Option<String>,
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SubArchitectures {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    names: Option<Vec<String>>,
    /// Docker's form before there were `names`.
    name: Option<String>,
    action: String,
    errno_ret: Option<u64>,
    #[serde(rename = "errno")]
    _errno: Option<String>,
    args: Option<Vec<Argument>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Policy, Error> {
        read("test", text, CapabilitySet::EMPTY, (6, 1)).map(|read| read.policy)
    }

    fn verdict(policy: &Policy, call: &str, arguments: [u64; 6]) -> Action {
        let number = Syscall::of(call)
            .and_then(|call| call.number(Architecture::NATIVE))
            .expect("a native call");
        policy.verdict(Architecture::NATIVE.audit(), number, arguments)
    }

    #[test]
    fn the_specification_s_example_is_read() {
        let policy = policy(
            r#"{"defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": ["getcwd", "chmod"], "action": "SCMP_ACT_ERRNO"}]}"#,
        )
        .expect("valid");
        assert_eq!(policy.otherwise, Action::Allow);
        assert_eq!(policy.unknown, Action::Allow);
        assert_eq!(policy.architectures[0], Architecture::NATIVE);
        assert_eq!(verdict(&policy, "getcwd", [0; 6]), Action::REFUSED);
        assert_eq!(verdict(&policy, "read", [0; 6]), Action::Allow);
    }

    #[test]
    fn of_matching_rules_the_most_severe_decides_in_whatever_order_they_stand() {
        // As Podman's file has it for the socket family 40, which its rule for "not 16" matches too.
        let vsock = r#"{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":97,
                        "args":[{"index":0,"value":40,"valueTwo":0,"op":"SCMP_CMP_EQ"}]}"#;
        let others = r#"{"names":["socket"],"action":"SCMP_ACT_ALLOW",
                         "args":[{"index":0,"value":16,"valueTwo":0,"op":"SCMP_CMP_NE"}]}"#;
        for rules in [format!("{vsock},{others}"), format!("{others},{vsock}")] {
            let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rules}]}}"#);
            let policy = policy(&text).expect("valid");
            assert_eq!(
                verdict(&policy, "socket", [40, 0, 0, 0, 0, 0]),
                Action::Errno(97)
            );
            assert_eq!(
                verdict(&policy, "socket", [2, 0, 0, 0, 0, 0]),
                Action::Allow
            );
            assert_eq!(
                verdict(&policy, "socket", [16, 0, 0, 0, 0, 0]),
                Action::REFUSED
            );
        }
    }

    #[test]
    fn several_conditions_on_one_argument_are_alternatives() {
        let policy = policy(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["personality"],"action":"SCMP_ACT_ALLOW",
                "args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#,
        )
        .expect("valid");
        assert_eq!(
            verdict(&policy, "personality", [8, 0, 0, 0, 0, 0]),
            Action::Allow
        );
        assert_eq!(
            verdict(&policy, "personality", [1, 0, 0, 0, 0, 0]),
            Action::REFUSED
        );
    }

    #[test]
    fn rules_depend_on_capabilities_and_kernel() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":[
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["mount"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]},"errnoRet":1,"errno":"EPERM"},
            {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
            {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
            {"names":["s390_sthyi"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}},
            {"names":["made_up_call"],"action":"SCMP_ACT_ALLOW"}]}"#;
        let plain = read("test", text, CapabilitySet::EMPTY, (6, 1)).expect("valid");
        assert_eq!(plain.unknown, ["made_up_call"]);
        assert_eq!(verdict(&plain.policy, "mount", [0; 6]), Action::REFUSED);
        assert_eq!(verdict(&plain.policy, "ptrace", [0; 6]), Action::Allow);
        assert_eq!(verdict(&plain.policy, "bpf", [0; 6]), Action::ABSENT);
        let admin = read("test", text, CapabilitySet::ALL, (6, 1)).expect("valid");
        assert_eq!(verdict(&admin.policy, "mount", [0; 6]), Action::Allow);
    }

    #[test]
    fn calls_newer_than_the_table_are_absent_where_the_default_is_an_error() {
        let policy = policy(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#).expect("valid");
        let audit = Architecture::NATIVE.audit();
        assert_eq!(policy.verdict(audit, 5000, [0; 6]), Action::ABSENT);
        assert_eq!(policy.verdict(audit, 0, [0; 6]), Action::REFUSED);
    }

    #[test]
    fn conditions_for_every_call_have_a_bound() {
        let text = |conditions: usize| {
            let names: Vec<String> = Syscall::all().map(|call| call.name().to_owned()).collect();
            let condition = r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"}"#;
            let conditions = vec![condition; conditions].join(",");
            let names = serde_json::to_string(&names).expect("JSON");
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":{names},"action":"SCMP_ACT_ALLOW","args":[{conditions}]}}]}}"#
            )
        };
        assert!(policy(&text(100)).is_ok());
        assert_eq!(policy(&text(1000)), Err(Error::TooMany));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_a_reason() {
        for (text, reason) in [
            ("[]", "it is no seccomp profile"),
            (r#"{}"#, "missing field `defaultAction`"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","sycalls":[]}"#,
                "unknown field `sycalls`",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
                "SCMP_ACT_NOTIFY is not supported",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#,
                "4096",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#,
                "listener",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
                "flag",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_KILL"}]}"#,
                "names no system call",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
                   "args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
                "argument 6",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
                   "args":[{"index":0,"value":1,"op":"SCMP_CMP_EG"}]}]}"#,
                "SCMP_CMP_EG",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
                   "excludes":{"caps":["CAP_FLY"]}}]}"#,
                "CAP_FLY",
            ),
        ] {
            let error = policy(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
