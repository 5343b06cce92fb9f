//! Which capabilities the payload keeps.

use super::Privileges;
use super::problem::Findings;
use crate::capability::CapabilitySet;
use crate::definition::{CapabilityChange, Definition, Profile, Users};

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
const SYSTEM: [&str; 26] = [
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

pub(super) fn of(definition: &Definition, findings: &mut Findings) -> Privileges {
    let own_users = definition.security.users == Users::Auto;
    let mut capabilities = match definition.profile {
        Profile::App => set(&APP),
        // Over its own network, and only where a user namespace keeps it from reaching further.
        Profile::System if own_users => set(&SYSTEM).union(set(&["NET_ADMIN"])),
        Profile::System => set(&SYSTEM),
    };
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
        no_new_privileges: definition
            .security
            .no_new_privileges
            .unwrap_or(definition.profile == Profile::App),
    }
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
        of(definition, &mut findings).capabilities.names().collect()
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
}
