//! What the root is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::mounts::{self, Shift, directory, shift, step, symlink};
use super::problem::{Findings, Reason};
use super::{MountFlags, MountStep, Upper, What, etc, exposure};
use crate::definition::{Definition, RootSource, Writes};
use crate::host::{self, Host, Kind, TopLevel};

/// The root itself never carries devices: a box's are its own, in `/dev`.
pub(super) const FLAGS: MountFlags = MountFlags::NODEV;

/// Most files in a root in memory; `TMPFS_LIMITS_ROOTFS` of systemd is of this order.
const INODES: u64 = 1 << 20;

pub(super) fn steps(
    definition: &Definition,
    host: &Host,
    shifted: bool,
    findings: &mut Findings,
) -> Vec<MountStep> {
    if definition.root.writes == Writes::Keep {
        check_store(host, shifted, findings);
    }
    match &definition.root.source {
        RootSource::Directory(path) => {
            check_directory(path, definition.root.sensitive, host, shifted, findings);
            vec![step("/", overlay(definition, path, host, shifted), FLAGS)]
        }
        RootSource::Host => host_root(definition, host, shifted, findings),
    }
}

/// The directory stays as it is, whatever becomes of writes: what a start adds to it (mount points, files such
/// as `/etc/hosts`) goes to the upper layer, and so does what the box writes. With `refuse` the overlay is
/// closed in the end.
fn overlay(definition: &Definition, path: &Path, host: &Host, shifted: bool) -> What {
    What::Overlay {
        lower: host.path(path).real,
        idmap: shifted,
        upper: match definition.root.writes {
            Writes::Discard | Writes::Refuse => Upper::Memory {
                size: half_of_memory(host),
                inodes: INODES,
            },
            Writes::Keep => Upper::Directory {
                path: host::kept_directory(&definition.name),
            },
        },
    }
}

/// What tmpfs(5) takes by itself. What is written is charged to the box's memory all the same.
fn half_of_memory(host: &Host) -> u64 {
    host.memory / 2
}

fn check_directory(
    path: &Path,
    sensitive: bool,
    host: &Host,
    shifted: bool,
    findings: &mut Findings,
) {
    const KEY: &str = "root.directory";
    let facts = host.path(path);
    let owned = path.to_owned();
    // The directory is never written: the box's writes go to a layer over it.
    let exposed = exposure::check(path, &facts.real, &facts.kind, true);
    match &facts.kind {
        Kind::Missing => findings.refuse(KEY, Reason::Missing { path: owned }),
        Kind::Unreadable(why) => {
            let why = why.clone();
            findings.refuse(KEY, Reason::Unreadable { path: owned, why });
        }
        Kind::File | Kind::Socket | Kind::Device => {
            findings.refuse(KEY, Reason::RootNotDirectory { path: owned });
        }
        Kind::Directory { has_usr: false } => {
            findings.refuse(KEY, Reason::RootWithoutUsr { path: owned });
        }
        Kind::Directory { has_usr: true } => {
            match exposed {
                Some(exposure) if !sensitive => {
                    let path = owned.clone();
                    findings.refuse(KEY, Reason::Sensitive { path, exposure });
                }
                Some(exposure) => {
                    findings.remark(format!("{} {exposure}: the box has it", path.display()));
                }
                None => {}
            }
            if let Shift::Impossible(filesystem) = shift(&facts, false, shifted) {
                let advice = "move it to one such as ext4, xfs or btrfs";
                findings.refuse(
                    KEY,
                    Reason::NoIdmap {
                        path: path.to_owned(),
                        filesystem,
                        advice,
                    },
                );
            }
            if !facts.mounts_below.is_empty() {
                let below: Vec<String> = facts
                    .mounts_below
                    .iter()
                    .map(|mount| mount.display().to_string())
                    .collect();
                findings.remark(format!(
                    "what is mounted below {} is no part of the root: bind it with a [[mount]] ({})",
                    path.display(),
                    below.join(", ")
                ));
            }
        }
    }
}

fn check_store(host: &Host, shifted: bool, findings: &mut Findings) {
    let path = Path::new(host::STATE_DIRECTORY);
    let facts = host.path(path);
    if let Shift::Impossible(filesystem) = shift(&facts, false, shifted) {
        let advice =
            "mount one such as ext4, xfs or btrfs there, keep nothing (root.writes = \"discard\")";
        findings.refuse(
            "root.writes",
            Reason::NoIdmap {
                path: path.to_owned(),
                filesystem,
                advice,
            },
        );
    }
}

/// The host's programs over an empty root of the box's own.
fn host_root(
    definition: &Definition,
    host: &Host,
    shifted: bool,
    findings: &mut Findings,
) -> Vec<MountStep> {
    let usr = Path::new("/usr");
    if !matches!(host.path(usr).kind, Kind::Directory { .. }) {
        findings.refuse("root.host", Reason::HostWithoutUsr);
    }
    let root = match definition.root.writes {
        Writes::Keep => What::Store {
            path: host::kept_directory(&definition.name).join("root"),
        },
        Writes::Discard | Writes::Refuse => What::Tmpfs {
            size: half_of_memory(host),
            inodes: INODES,
            mode: 0o755,
        },
    };
    let mut unshifted: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut of_host = |path: &Path| {
        let facts = host.path(path);
        let idmap = match shift(&facts, true, shifted) {
            Shift::Unneeded => false,
            Shift::Possible => true,
            Shift::Impossible(filesystem) => {
                unshifted.entry(filesystem).or_default().push(path.into());
                false
            }
        };
        read_only_tree(path, facts.real, idmap)
    };
    let mut steps = vec![step("/", root, FLAGS), of_host(usr)];
    for (at, what) in &host.top_level {
        steps.push(match what {
            TopLevel::Link(target) => symlink(at, target),
            TopLevel::Directory => of_host(at),
        });
    }
    steps.extend(etc::of_host(host, of_host));
    steps.extend([
        directory("/home", 0o755),
        directory("/root", 0o700),
        directory("/var", 0o755),
        directory("/var/cache", 0o755),
        directory("/var/lib", 0o755),
        directory("/var/log", 0o755),
        directory("/var/tmp", 0o1777),
        symlink("/var/lock", "/run/lock"),
        symlink("/var/run", "/run"),
    ]);
    for (filesystem, paths) in &unshifted {
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        findings.remark(mounts::unshifted(&paths, filesystem));
    }
    steps
}

/// A directory of the host at its own place.
fn read_only_tree(at: &Path, path: PathBuf, idmap: bool) -> MountStep {
    step(
        at,
        What::Tree {
            path,
            recursive: true,
            idmap,
        },
        MountFlags::NODEV.read_only().recursive(true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Idmap, example};
    use crate::plan::{Plan, resolve};

    fn directory_root(path: &str, writes: Writes) -> Definition {
        let mut definition = example();
        definition.root.source = RootSource::Directory(path.into());
        definition.root.writes = writes;
        definition
    }

    fn plan(definition: &Definition) -> Plan {
        resolve(definition, &Host::fixed(definition)).expect("a plan")
    }

    fn problem(definition: &Definition, host: &Host) -> String {
        resolve(definition, host).expect_err("a problem")[0].to_string()
    }

    #[test]
    fn a_root_that_is_none_is_refused_with_what_it_is() {
        for (path, part) in [
            ("/srv/missing", "/srv/missing does not exist"),
            ("/srv/file", "/srv/file is not a directory"),
            ("/srv/empty", "/srv/empty has no directory usr"),
            ("/srv/overlay", "/srv/overlay lies on overlay"),
        ] {
            let definition = directory_root(path, Writes::Discard);
            let problem = problem(&definition, &Host::fixed(&definition));
            assert!(
                problem.starts_with("box web: root.directory: "),
                "{problem}"
            );
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn refused_writes_close_the_root_last() {
        for definition in [directory_root("/srv/web", Writes::Refuse), {
            let mut definition = example();
            definition.root.writes = Writes::Refuse;
            definition
        }] {
            let plan = plan(&definition);
            let last = plan.mounts.last().expect("steps");
            assert_eq!(last.what, What::Remount);
            assert!(last.flags.read_only && last.at == Path::new("/"));
        }
    }

    #[test]
    fn only_the_first_step_makes_the_root() {
        for writes in [Writes::Discard, Writes::Keep] {
            let plan = plan(&directory_root("/srv/web", writes));
            assert_eq!(plan.mounts[0].at, Path::new("/"));
            assert!(
                plan.mounts[1..]
                    .iter()
                    .all(|step| step.at != Path::new("/"))
            );
        }
    }

    #[test]
    fn a_host_that_cannot_shift_owners_still_lends_its_programs_and_says_so() {
        let definition = example();
        let mut host = Host::fixed(&definition);
        for facts in host.paths.values_mut() {
            facts.idmap = Idmap::No("overlay".to_owned());
            facts.idmap_recursive = facts.idmap.clone();
        }
        let plan = resolve(&definition, &host).expect("a plan");
        assert!(
            plan.remarks[0]
                .starts_with("files in /usr, /etc/alternatives, /etc/ssl/certs are nobody's")
        );
        assert!(plan.mounts.iter().any(|step| step.at == Path::new("/usr")
            && matches!(step.what, What::Tree { idmap: false, .. })
            && step.flags.read_only));
        let mut definition = definition;
        definition.root.writes = Writes::Keep;
        host.paths
            .insert(host::STATE_DIRECTORY.into(), host.path(Path::new("/usr")));
        assert!(problem(&definition, &host).contains("root.writes: /var/lib/boxd lies on overlay"));
    }

    #[test]
    fn a_host_without_usr_has_nothing_to_lend() {
        let definition = example();
        let mut host = Host::fixed(&definition);
        host.paths.clear();
        assert!(problem(&definition, &host).contains("root.host: this host has no directory /usr"));
    }

    #[test]
    fn mounts_below_a_root_are_remarked_on() {
        let definition = directory_root("/srv/web", Writes::Discard);
        let mut host = Host::fixed(&definition);
        host.paths
            .get_mut(Path::new("/srv/web"))
            .expect("facts")
            .mounts_below = vec!["/srv/web/data".into()];
        let plan = resolve(&definition, &host).expect("a plan");
        assert!(
            plan.remarks[0].contains("(/srv/web/data)"),
            "{:?}",
            plan.remarks
        );
    }
}
