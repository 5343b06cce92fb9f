//! Which capabilities the payload keeps, and which system calls it may make.

use super::Privileges;
use super::problem::{Findings, Reason};
use super::seccomp::{self, Changes, Policy};
use super::walls;
use crate::capability::CapabilitySet;
use crate::definition::{CapabilityChange, Definition, Profile, Seccomp, Users};
use crate::host::Host;
use crate::syscall::{Architecture, Syscall};

/// A program that serves the network, changes to a user of its own and owns its files. Nothing that mounts,
/// traces, makes nodes, or gives capabilities to files.
const APP: [&str; 8] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "NET_BIND_SERVICE",
];

/// What systemd-nspawn(1) leaves an init, see its `--capability=`.
pub(super) const SYSTEM: [&str; 26] = [
    "AUDIT_CONTROL",
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
    "SYS_RESOURCE",
    "SYS_TTY_CONFIG",
];

/// What keyrings(7) are used by.
const KEYRING: [&str; 3] = ["add_key", "keyctl", "request_key"];

pub(super) fn of(definition: &Definition, host: &Host, findings: &mut Findings) -> Privileges {
    let own_users = definition.security.users == Users::Auto;
    let mut capabilities = of_profile(definition.profile, own_users);
    for change in &definition.security.capabilities {
        capabilities = match change {
            CapabilityChange::Add(more) => capabilities.union(*more),
            CapabilityChange::Drop(less) => capabilities.without(*less),
        };
    }
    if !own_users && capabilities != capabilities.without(set(&["SYS_ADMIN"])) {
        findings.remark(
            "SYS_ADMIN with security.users = \"host\" is the host's own: root in this box can become root of the host",
        );
    }
    Privileges {
        capabilities,
        no_new_privileges: definition.security.gains_none(definition.profile),
        seccomp: system_calls(definition, host, capabilities, findings),
        resource_limits: walls::resource_limits(definition),
        labels: walls::labels(definition, capabilities, host, findings),
    }
}

/// What a profile gives.
pub(super) fn of_profile(profile: Profile, own_users: bool) -> CapabilitySet {
    match profile {
        Profile::App => set(&APP),
        // Over its own network, and only where a user namespace keeps it from reaching further.
        Profile::System if own_users => set(&SYSTEM).union(set(&["NET_ADMIN"])),
        Profile::System => set(&SYSTEM),
    }
}

/// The filter of a box that says nothing of it: with the capabilities of its profile, and users of its own.
pub fn system_calls_of(profile: Profile) -> Policy {
    let capabilities = of_profile(profile, true);
    seccomp::of_profile(profile.name(), capabilities, &Changes::default(), &[])
}

fn system_calls(
    definition: &Definition,
    host: &Host,
    capabilities: CapabilitySet,
    findings: &mut Findings,
) -> Option<Policy> {
    const KEY: &str = "security.seccomp";
    let additional = &definition.security.syscall_architectures;
    for architecture in additional {
        if !architecture.runs_on(Architecture::NATIVE) {
            let architecture = *architecture;
            findings.refuse(
                "security.syscall-archs",
                Reason::NoArchitecture { architecture },
            );
        }
    }
    let of_profile = |allow: &[Syscall], deny: &[Syscall]| {
        let keyring = KEYRING.iter().filter(|_| definition.security.keyring);
        let changes = Changes {
            allow: allow
                .iter()
                .copied()
                .chain(keyring.filter_map(|name| Syscall::of(name)))
                .collect(),
            deny: deny.to_vec(),
        };
        seccomp::of_profile(
            definition.profile.name(),
            capabilities,
            &changes,
            additional,
        )
    };
    let policy = match &definition.security.seccomp {
        Seccomp::Profile => of_profile(&[], &[]),
        Seccomp::Changes { allow, deny } => of_profile(allow, deny),
        Seccomp::Unconfined => {
            findings.remark(
                "security.seccomp = \"unconfined\": the box can make every system call of the kernel",
            );
            return None;
        }
        Seccomp::File(path) => {
            let title = path.display().to_string();
            let text = match &host.seccomp {
                Some(Ok(text)) => text,
                Some(Err(why)) => {
                    let why = why.clone();
                    findings.refuse(
                        KEY,
                        Reason::Unreadable {
                            path: path.clone(),
                            why,
                        },
                    );
                    return None;
                }
                None => {
                    let why = "nobody looked".to_owned();
                    findings.refuse(
                        KEY,
                        Reason::Unreadable {
                            path: path.clone(),
                            why,
                        },
                    );
                    return None;
                }
            };
            match seccomp::read_oci(&title, text, capabilities, host.kernel) {
                Ok(read) => {
                    if !read.unknown.is_empty() {
                        findings.remark(format!(
                            "{title} has rules for system calls that this version of boxd does not know, without \
                             effect: {}",
                            read.unknown.join(", ")
                        ));
                    }
                    read.policy
                }
                Err(source) => {
                    let path = path.clone();
                    findings.refuse(KEY, Reason::Seccomp { path, source });
                    return None;
                }
            }
        }
    };
    if !policy.allows_execution() {
        let title = policy.title.clone();
        findings.refuse(KEY, Reason::NoExecution { title });
    }
    Some(policy)
}

fn set(names: &[&str]) -> CapabilitySet {
    CapabilitySet::of(names.iter().copied()).expect("the names are those of capabilities(7)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::example;

    fn names(definition: &Definition) -> Vec<&'static str> {
        let mut findings = Findings::new(definition.name.clone());
        let host = Host::fixed(definition);
        of(definition, &host, &mut findings)
            .capabilities
            .names()
            .collect()
    }

    #[test]
    fn profiles_have_their_sets() {
        let mut definition = example();
        assert_eq!(names(&definition).len(), APP.len());
        definition.profile = Profile::System;
        assert_eq!(names(&definition).len(), SYSTEM.len() + 1);
        assert!(names(&definition).contains(&"NET_ADMIN"));
        definition.security.users = Users::Host;
        assert!(!names(&definition).contains(&"NET_ADMIN"));
    }

    #[test]
    fn changes_count_in_the_order_written() {
        let mut definition = example();
        definition.security.capabilities = vec![
            CapabilityChange::Drop(CapabilitySet::ALL),
            CapabilityChange::Add(set(&["NET_RAW", "KILL"])),
            CapabilityChange::Drop(set(&["KILL"])),
        ];
        assert_eq!(names(&definition), ["NET_RAW"]);
        definition.security.capabilities = vec![CapabilityChange::Add(CapabilitySet::ALL)];
        assert_eq!(names(&definition).len(), 41);
    }

    fn planned(definition: &Definition, host: &Host) -> Result<crate::plan::Plan, Vec<String>> {
        crate::plan::resolve(definition, host)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn filter(seccomp: Seccomp) -> (Option<String>, Vec<String>) {
        let mut definition = example();
        definition.security.seccomp = seccomp;
        let plan = planned(&definition, &Host::fixed(&definition)).expect("a plan");
        let policy = plan.privileges.seccomp;
        (policy.map(|policy| policy.to_string()), plan.remarks)
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_filter_is_the_profile_s_a_file_s_or_none() {
        let call = |name| crate::syscall::Syscall::of(name).expect("a call");
        assert_eq!(
            filter(Seccomp::Profile),
            (Some("app: 276 calls".to_owned()), vec![])
        );
        let changes = Seccomp::Changes {
            allow: vec![call("keyctl")],
            deny: vec![call("ptrace"), call("mknod")],
        };
        let title = "app + keyctl - ptrace, mknod: 275 calls".to_owned();
        assert_eq!(filter(changes), (Some(title), vec![]));
        let (file, remarks) = filter(Seccomp::File("/etc/web.json".into()));
        assert_eq!(file.as_deref(), Some("/etc/web.json: 4 calls"));
        assert!(
            remarks[0].contains("without effect: strange"),
            "{remarks:?}"
        );
        let (all, remarks) = filter(Seccomp::Unconfined);
        assert_eq!(all, None);
        assert!(remarks[0].contains("every system call"), "{remarks:?}");
    }

    #[test]
    fn a_filter_that_cannot_be_had_or_lets_nothing_start_is_a_problem() {
        let mut definition = example();
        definition.security.seccomp = Seccomp::File("/etc/web.json".into());
        let mut host = Host::fixed(&definition);
        for (text, reason) in [
            (
                Err("No such file".to_owned()),
                "cannot look at /etc/web.json: No such file",
            ),
            (
                Ok("{".to_owned()),
                "/etc/web.json cannot be used: it is no seccomp profile",
            ),
            (
                Ok(r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#.to_owned()),
                "/etc/web.json does not allow the system call execve",
            ),
        ] {
            host.seccomp = Some(text);
            let problems = planned(&definition, &host).expect_err(reason);
            assert!(problems[0].contains("security.seccomp"), "{problems:?}");
            assert!(problems[0].contains(reason), "{problems:?}");
        }
    }

    #[test]
    fn programs_of_another_machine_are_a_problem() {
        let foreign = Architecture::ALL
            .into_iter()
            .find(|known| !known.runs_on(Architecture::NATIVE));
        let mut definition = example();
        definition.security.syscall_architectures.extend(foreign);
        let problems = planned(&definition, &Host::fixed(&definition)).expect_err("foreign");
        assert!(
            problems[0].contains("security.syscall-archs: this host has"),
            "{problems:?}"
        );
    }
}
