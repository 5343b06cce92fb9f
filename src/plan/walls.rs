//! What else stands around the payload: limits of its processes, settings of its namespaces, labels, and what is
//! hidden or closed of its root.

use std::path::PathBuf;

use super::mounts::step;
use super::problem::{Findings, Reason};
use super::{
    Closing, Label, MountFlags, MountStep, Privileges, ProcessLimit, Resource, Sysctl, What,
};
use crate::capability::CapabilitySet;
use crate::definition::{Definition, Profile, Users};
use crate::host::Host;

/// What systemd gives a service: programs that use select(2) see no descriptor beyond its reach, and those that
/// want more can have them. A core is dumped only by who raises its limit.
const LIMITS: [ProcessLimit; 2] = [
    ProcessLimit {
        resource: Resource::Nofile,
        soft: 1024,
        hard: Some(524_288),
        at_most: true,
    },
    ProcessLimit {
        resource: Resource::Core,
        soft: 0,
        hard: None,
        at_most: true,
    },
];

/// For programs that are not root: every port can be served and a ping sent. Nothing is gained by keeping them from
/// it in a network of the box's own.
const SYSCTLS_APP: [(&str, &str); 2] = [
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 65535"),
];

/// Settings of an ipc namespace; ipc_namespaces(7).
const OF_IPC: [&str; 12] = [
    "fs/mqueue/",
    "kernel/auto_msgmni",
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmm",
];

pub(super) fn resource_limits(definition: &Definition) -> Vec<ProcessLimit> {
    let asked = &definition.security.resource_limits;
    LIMITS
        .into_iter()
        .filter(|limit| !asked.contains_key(&limit.resource))
        .chain(asked.iter().map(|(resource, limit)| ProcessLimit {
            resource: *resource,
            soft: limit.soft,
            hard: Some(limit.hard),
            at_most: false,
        }))
        .collect()
}

pub(super) fn sysctls(definition: &Definition, findings: &mut Findings) -> Vec<Sysctl> {
    let asked = &definition.security.sysctls;
    for path in asked.keys() {
        if let Some(why) = not_the_boxs(path, definition.security.users) {
            findings.refuse(
                "security.sysctls",
                Reason::NotTheBoxs {
                    key: dotted(path),
                    why,
                },
            );
        }
    }
    let of_profile = SYSCTLS_APP
        .into_iter()
        .filter(|(path, _)| definition.profile == Profile::App && !asked.contains_key(*path));
    let sysctl = |path: &str, value: &str, optional| Sysctl {
        path: path.to_owned(),
        value: value.to_owned(),
        optional,
    };
    of_profile
        .map(|(path, value)| sysctl(path, value, true))
        .chain(asked.iter().map(|(path, value)| sysctl(path, value, false)))
        .collect()
}

/// A setting as people write it.
fn dotted(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            '/' => '.',
            '.' => '/',
            other => other,
        })
        .collect()
}

/// Why a setting may not be changed for this box: it belongs to no namespace, or to none the box has.
fn not_the_boxs(path: &str, users: Users) -> Option<&'static str> {
    if path.starts_with("net/") || OF_IPC.iter().any(|own| path.starts_with(own)) {
        return None;
    }
    match path {
        "kernel/domainname" => None,
        "kernel/hostname" => Some("is set by the key hostname; write it there"),
        _ if path.starts_with("user/max_") => match users {
            Users::Auto => None,
            Users::Host => {
                Some("is the host's in a box with security.users = \"host\"; set it on the host")
            }
        },
        _ => Some(
            "is the whole host's, not one box's: only settings of the box's own namespaces can be given \
             (net.*, kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*, kernel.domainname, user.max_*); set it on \
             the host, in sysctl.d(5)",
        ),
    }
}

/// The AppArmor profiles of `packaging/apparmor`: for boxes that may not mount, and for those that may.
pub(super) const APPARMOR: [&str; 2] = ["boxd-app", "boxd-system"];

/// What the definition asks for; else boxd's own profile, where it is loaded.
pub(super) fn labels(
    definition: &Definition,
    capabilities: CapabilitySet,
    host: &Host,
    findings: &mut Findings,
) -> Vec<Label> {
    let security = &definition.security;
    let mut labels = Vec::new();
    if let Some(profile) = &security.apparmor {
        match &host.modules.apparmor {
            None => findings.refuse("security.apparmor", Reason::NoModule { module: "AppArmor" }),
            // Stacks and children of profiles have names of several parts, which the kernel judges.
            Some(loaded)
                if !loaded.is_empty()
                    && profile != "unconfined"
                    && !profile.contains("//")
                    && !profile.starts_with(':')
                    && !loaded.contains(profile) =>
            {
                findings.refuse(
                    "security.apparmor",
                    Reason::NoProfile {
                        profile: profile.clone(),
                    },
                );
            }
            Some(_) => labels.push(Label::AppArmor(profile.clone())),
        }
    } else if security.selinux.is_none() {
        let [without_mounts, with_mounts] = APPARMOR;
        let own = match may_mount(capabilities) {
            true => with_mounts,
            false => without_mounts,
        };
        let loaded = host.modules.apparmor.as_ref();
        if loaded.is_some_and(|loaded| loaded.contains(own)) {
            labels.push(Label::AppArmor(own.to_owned()));
        }
    }
    if let Some(label) = &security.selinux {
        if host.modules.selinux {
            labels.push(Label::Selinux(label.clone()));
        } else {
            findings.refuse("security.selinux", Reason::NoModule { module: "SELinux" });
        }
    }
    labels
}

/// An init may mount what it likes, and finds its mounts in the namespaces of its services; what boxd has mounted
/// stays as it is.
pub(super) fn closing(definition: &Definition, privileges: &Privileges) -> Closing {
    Closing {
        // Where users are the host's there is nobody to lock against.
        locked: may_mount(privileges.capabilities) && definition.security.users == Users::Auto,
        shared: definition.profile == Profile::System,
    }
}

fn may_mount(capabilities: CapabilitySet) -> bool {
    let sys_admin = CapabilitySet::of(["SYS_ADMIN"]).unwrap_or(CapabilitySet::ALL);
    sys_admin.without(capabilities) == CapabilitySet::EMPTY
}

/// The profile's masks without those the definition takes away.
pub(super) fn masked(
    of_profile: Vec<PathBuf>,
    definition: &Definition,
    findings: &mut Findings,
) -> Vec<PathBuf> {
    let unmask = &definition.security.unmask;
    for path in unmask {
        if !of_profile.contains(path) {
            let hidden: Vec<String> = of_profile
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            findings.refuse(
                "security.unmask",
                Reason::NotHidden {
                    path: path.clone(),
                    hidden: hidden.join(", "),
                },
            );
        }
    }
    of_profile
        .into_iter()
        .filter(|path| !unmask.contains(path))
        .collect()
}

/// What the definition hides and closes, when all is mounted.
pub(super) fn own(definition: &Definition, mask_flags: MountFlags) -> Vec<MountStep> {
    let security = &definition.security;
    let read_only = MountFlags {
        recursive: true,
        ..MountFlags::NONE.read_only()
    };
    let closed = security
        .read_only_paths
        .iter()
        .map(|at| step(at, What::Rebind, read_only));
    let masked = security
        .mask
        .iter()
        .map(|at| step(at, What::Mask, mask_flags));
    closed.chain(masked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::example;
    use crate::plan::resolve;

    #[test]
    fn settings_of_the_host_are_refused_with_what_they_are() {
        for (path, part) in [
            ("kernel/core_pattern", "is the whole host's"),
            ("vm/swappiness", "is the whole host's"),
            ("kernel/hostname", "the key hostname"),
        ] {
            assert!(
                not_the_boxs(path, Users::Auto).is_some_and(|why| why.contains(part)),
                "{path}"
            );
        }
        for path in [
            "net/core/somaxconn",
            "net/ipv4/conf/eth0.1/rp_filter",
            "kernel/shmmax",
            "kernel/sem",
            "fs/mqueue/msg_max",
            "kernel/domainname",
            "user/max_user_namespaces",
        ] {
            assert_eq!(not_the_boxs(path, Users::Auto), None, "{path}");
        }
        assert!(not_the_boxs("user/max_user_namespaces", Users::Host).is_some());
        assert_eq!(dotted("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
    }

    #[test]
    fn a_box_has_the_profile_of_the_package_where_it_is_loaded() {
        let labels = |loaded: &[&str], change: &dyn Fn(&mut Definition)| {
            let mut definition = example();
            change(&mut definition);
            let mut host = Host::fixed(&definition);
            host.modules.apparmor = Some(loaded.iter().map(ToString::to_string).collect());
            resolve(&definition, &host)
                .expect("a plan")
                .privileges
                .labels
        };
        let label = |name: &str| vec![Label::AppArmor(name.to_owned())];
        let both = ["boxd-app", "boxd-system", "unconfined"];
        assert_eq!(labels(&both, &|_| {}), label("boxd-app"));
        let system: &dyn Fn(&mut Definition) = &|definition| definition.profile = Profile::System;
        assert_eq!(labels(&both, system), label("boxd-system"));
        assert_eq!(labels(&["boxd-app"], system), []);
        assert_eq!(labels(&[], &|_| {}), []);
        let asked = |definition: &mut Definition| {
            definition.security.apparmor = Some("unconfined".to_owned());
        };
        assert_eq!(labels(&both, &asked), label("unconfined"));
        let text = include_str!("../../packaging/apparmor/boxd");
        for name in APPARMOR {
            assert!(text.contains(&format!("\nprofile {name} flags=")), "{name}");
        }
    }

    #[test]
    fn mounts_are_locked_where_the_box_could_change_them() {
        let closing = |change: &dyn Fn(&mut Definition)| {
            let mut definition = example();
            change(&mut definition);
            resolve(&definition, &Host::fixed(&definition))
                .expect("a plan")
                .closing
        };
        assert_eq!(closing(&|_| {}), Closing::default());
        let both = Closing {
            locked: true,
            shared: true,
        };
        assert_eq!(
            closing(&|definition| definition.profile = Profile::System),
            both
        );
        assert!(
            !closing(&|definition| {
                definition.profile = Profile::System;
                definition.security.users = Users::Host;
            })
            .locked
        );
    }
}
