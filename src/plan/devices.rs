//! Devices of the host: nodes and mounts in the root, rules of the scope, and what else a specification wants.

use std::path::{Path, PathBuf};

use super::exposure;
use super::mounts::{self, Identity, step};
use super::problem::{Findings, Reason};
use super::{DeviceRule, MountFlags, MountStep, What};
use crate::definition::{Definition, Device, DeviceAccess, DeviceSource, Mount, MountSource};
use crate::host::cdi::Edits;
use crate::host::{DeviceFacts, Host, Node};

/// What the devices of a box add to its plan.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) steps: Vec<MountStep>,
    pub(super) rules: Vec<DeviceRule>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) groups: Vec<u32>,
}

/// A device works, and nothing else about its mount does.
const FLAGS: MountFlags = MountFlags {
    nodev: false,
    ..MountFlags::INERT
};

pub(super) fn of(
    definition: &Definition,
    host: &Host,
    identity: &Identity<'_>,
    findings: &mut Findings,
) -> Devices {
    let mut devices = Devices::default();
    for (number, device) in definition.devices.iter().enumerate() {
        let number = number + 1;
        match &device.source {
            DeviceSource::Path {
                path,
                at,
                access,
                mode,
            } => {
                let wanted = Wanted {
                    path,
                    at: at.as_ref().unwrap_or(path),
                    access: *access,
                    mode: *mode,
                };
                let key = format!("device[{number}].path");
                devices.nodes(&key, device, &wanted, host, findings);
            }
            DeviceSource::Cdi(name) => {
                let key = format!("device[{number}].cdi");
                match host.cdi.get(name) {
                    Some(Ok(edits)) => {
                        devices.edits(&key, device, name, edits, host, identity, findings);
                    }
                    Some(Err(why)) if device.optional => {
                        findings.remark(format!("device {name} is left out: {why}"))
                    }
                    other => findings.refuse(
                        key,
                        Reason::NoCdiDevice {
                            name: name.clone(),
                            why: match other {
                                Some(Err(why)) => why.clone(),
                                _ => "nobody looked".to_owned(),
                            },
                        },
                    ),
                }
            }
        }
    }
    devices
}

/// One node, or those of a directory.
struct Wanted<'a> {
    path: &'a Path,
    at: &'a Path,
    access: DeviceAccess,
    mode: u32,
}

impl Devices {
    fn nodes(
        &mut self,
        key: &str,
        device: &Device,
        wanted: &Wanted<'_>,
        host: &Host,
        findings: &mut Findings,
    ) {
        let path = wanted.path.to_owned();
        match host.devices.get(wanted.path) {
            Some(DeviceFacts::Device(node)) => {
                self.node(key, device, wanted, wanted.at.to_owned(), *node, findings);
            }
            Some(DeviceFacts::Directory(nodes)) if !nodes.is_empty() => {
                for (below, node) in nodes {
                    let at = wanted.at.join(below);
                    self.node(key, device, wanted, at, *node, findings);
                }
            }
            Some(DeviceFacts::Missing) | Some(DeviceFacts::Directory(_)) if device.optional => {
                findings.remark(format!(
                    "device {} is left out: it is not there",
                    path.display()
                ));
            }
            Some(DeviceFacts::Missing) => findings.refuse(key, Reason::NoDevice { path }),
            Some(DeviceFacts::Directory(_)) => {
                findings.refuse(key, Reason::DirectoryWithoutDevices { path });
            }
            Some(DeviceFacts::NoDevice) => findings.refuse(key, Reason::NotADevice { path }),
            Some(DeviceFacts::Unreadable(why)) => {
                let why = why.clone();
                findings.refuse(key, Reason::Unreadable { path, why });
            }
            None => {
                let why = "nobody looked".to_owned();
                findings.refuse(key, Reason::Unreadable { path, why });
            }
        }
    }

    fn node(
        &mut self,
        key: &str,
        device: &Device,
        wanted: &Wanted<'_>,
        at: PathBuf,
        node: Node,
        findings: &mut Findings,
    ) {
        if let Some(whose) = mounts::reserved(&at) {
            findings.refuse(key, Reason::Reserved { at, whose });
            return;
        }
        if let Some(what) = exposure::device(node) {
            if !device.sensitive {
                findings.refuse(
                    key,
                    Reason::SensitiveDevice {
                        path: wanted.path.to_owned(),
                        what,
                    },
                );
                return;
            }
            findings.remark(format!(
                "{} is {what}: the box has it, {}",
                at.display(),
                wanted.access
            ));
        }
        self.steps.push(step(
            at,
            What::Device {
                node,
                mode: wanted.mode,
            },
            FLAGS,
        ));
        self.rules.push(DeviceRule {
            node,
            access: wanted.access,
        });
    }

    #[expect(clippy::too_many_arguments, reason = "all that a plan is made of")]
    fn edits(
        &mut self,
        key: &str,
        device: &Device,
        name: &str,
        edits: &Edits,
        host: &Host,
        identity: &Identity<'_>,
        findings: &mut Findings,
    ) {
        if let Some(hook) = edits.hooks.first() {
            findings.refuse(
                key,
                Reason::CdiHook {
                    name: name.to_owned(),
                    hook: hook.clone(),
                },
            );
            return;
        }
        if !edits.unknown.is_empty() {
            findings.refuse(
                key,
                Reason::CdiUnknown {
                    name: name.to_owned(),
                    keys: edits.unknown.join(", "),
                },
            );
            return;
        }
        for node in &edits.nodes {
            let wanted = Wanted {
                path: &node.path,
                at: &node.at,
                access: node.access,
                mode: node.mode,
            };
            self.nodes(key, device, &wanted, host, findings);
        }
        for wanted in &edits.mounts {
            let mount = Mount {
                at: wanted.at.clone(),
                source: MountSource::Bind {
                    path: wanted.path.clone(),
                    recursive: false,
                },
                read_only: wanted.read_only,
                sensitive: device.sensitive,
            };
            self.steps.extend(mounts::mount_step(
                key, key, &mount, host, identity, findings,
            ));
        }
        self.environment.extend(edits.environment.iter().cloned());
        self.groups.extend(&edits.groups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{SourceText, parse};
    use crate::plan::{Plan, resolve};

    fn plan(text: &str) -> Result<Plan, Vec<String>> {
        let text = SourceText {
            path: "web.toml".into(),
            text: format!("command = ['/bin/true']\n{text}"),
        };
        let definition =
            parse(&"web".parse().expect("a name"), &[text]).expect("a good definition");
        resolve(&definition, &Host::fixed(&definition))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_device_is_a_node_and_a_rule() {
        let plan = plan(
            "[[device]]\npath = '/dev/fuse'\n[[device]]\npath = '/dev/directory'\nat = '/dev/dri'\naccess = 'r'\n\
             [[device]]\npath = '/dev/missing'\noptional = true\n",
        )
        .expect("a plan");
        let rules: Vec<String> = plan
            .scope
            .devices
            .iter()
            .map(|rule| format!("{} {}", rule.property(), rule.access))
            .collect();
        assert_eq!(
            rules,
            [
                "/dev/char/10:229 rw",
                "/dev/char/10:240 r",
                "/dev/char/10:241 r"
            ]
        );
        let at: Vec<_> = plan
            .mounts
            .iter()
            .filter(|step| matches!(step.what, What::Device { .. }))
            .map(|step| step.at.to_string_lossy())
            .collect();
        assert_eq!(at, ["/dev/fuse", "/dev/dri/card0", "/dev/dri/deep/card1"]);
        assert!(plan.remarks[0].contains("/dev/missing is left out"));
    }

    #[test]
    fn what_is_no_harmless_device_is_refused() {
        for (text, part) in [
            ("path = '/dev/missing'", "there is no device /dev/missing"),
            ("path = '/srv/file'", "/srv/file is no device"),
            ("path = '/dev/disk'", "is a disk of the host"),
            ("path = '/dev/x'\nat = '/dev/null'", "belongs to /dev/null"),
            ("path = '/dev/x'\nat = '/proc/x'", "belongs to /proc"),
            ("cdi = 'acme.com/gpu=7'", "there are acme.com/gpu=0"),
            ("cdi = 'acme.com/gpu=hooked'", "/usr/bin/acme-hook"),
            ("cdi = 'acme.com/gpu=future'", "intelRdt"),
        ] {
            let problems = plan(&format!("[[device]]\n{text}\n")).expect_err(part);
            assert!(problems[0].contains(part), "{problems:?}");
            assert!(problems[0].contains("device[1]."), "{problems:?}");
        }
        let plan =
            plan("[[device]]\npath = '/dev/disk'\nsensitive = true\n").expect("as asked for");
        assert!(plan.remarks[0].contains("is a disk of the host"));
    }

    #[test]
    fn a_specification_adds_what_it_says_under_what_the_definition_says() {
        let plan = plan("environment = { ACME = 'mine' }\n[[device]]\ncdi = 'acme.com/gpu=0'\n")
            .expect("a plan");
        assert!(
            plan.payload
                .environment
                .contains(&("ACME".to_owned(), "mine".to_owned()))
        );
        assert_eq!(plan.payload.groups, [crate::plan::Group::Id(44)]);
        assert_eq!(plan.scope.devices.len(), 2);
        assert!(
            plan.mounts
                .iter()
                .any(|step| { step.at == Path::new("/usr/lib/acme") && step.flags.read_only })
        );
    }
}
