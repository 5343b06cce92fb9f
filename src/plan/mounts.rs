//! The steps in which the root comes to be, in the order they are taken: the root, the kernel's own file
//! systems, what every box has, what the definition mounts, and last what is closed behind it all.

use std::path::{Path, PathBuf};

use super::machine_id::MachineId;
use super::problem::{Findings, Reason};
use super::{
    MountFlags, MountStep, Notify, What, api_filesystems, credentials, etc, exposure, root, walls,
};
use crate::definition::{Definition, Mount, MountSource, Writes};
use crate::host::{Host, Idmap, Kind, PathFacts};

/// What the steps need to know of who the box is.
pub(super) struct Identity<'a> {
    /// Its ids are a range of its own: files of the host are shown with shifted owners.
    pub(super) shifted: bool,
    pub(super) hostname: &'a str,
    pub(super) machine_id: MachineId,
    pub(super) notify: Option<&'a Notify>,
}

/// File systems every box has of its own, in which the definition may not mount.
const RESERVED: [&str; 3] = ["/proc", "/sys", "/run/host"];

/// Places that are reserved themselves, but not what lies below them.
const RESERVED_ITSELF: [&str; 3] = ["/", "/dev", "/run"];

pub(super) fn steps(
    definition: &Definition,
    host: &Host,
    identity: &Identity<'_>,
    devices: Vec<MountStep>,
    findings: &mut Findings,
) -> Vec<MountStep> {
    let mut steps = root::steps(definition, host, identity.shifted, findings);
    steps.extend(api_filesystems::steps(definition, host, findings));
    let credentials = credentials::steps(definition, host, findings);
    steps.extend(etc::identity_files(identity, credentials));
    steps.extend(devices);
    for (number, mount) in definition.mounts.iter().enumerate() {
        let key = format!("mount[{}]", number + 1);
        let (bind, at) = (format!("{key}.bind"), format!("{key}.at"));
        steps.extend(mount_step(&bind, &at, mount, host, identity, findings));
    }
    steps.extend(walls::own(definition, api_filesystems::MASK));
    if definition.root.writes == Writes::Refuse {
        steps.push(step("/", What::Remount, root::FLAGS.read_only()));
    }
    steps
}

pub(super) fn step(at: impl Into<PathBuf>, what: What, flags: MountFlags) -> MountStep {
    MountStep {
        at: at.into(),
        what,
        flags,
    }
}

pub(super) fn directory(at: &str, mode: u32) -> MountStep {
    step(at, What::Directory { mode }, MountFlags::NONE)
}

pub(super) fn symlink(at: impl Into<PathBuf>, target: impl Into<PathBuf>) -> MountStep {
    let target = target.into();
    step(at, What::Symlink { target }, MountFlags::NONE)
}

/// The tmpfs at a place where every box has one: of the size and mode the definition gives it there, none if it
/// binds something else to that place.
pub(super) fn own_tmpfs(
    definition: &Definition,
    at: &str,
    tmpfs: What,
    flags: MountFlags,
) -> Option<MountStep> {
    match definition
        .mounts
        .iter()
        .find(|mount| mount.at == Path::new(at))
    {
        None => Some(step(at, tmpfs, flags)),
        Some(mount) => match mount.source {
            MountSource::Tmpfs { .. } => tmpfs_step(mount),
            MountSource::Bind { .. } => None,
        },
    }
}

/// Places where a tmpfs of the definition takes that of every box's place, [`own_tmpfs`].
const OWN_TMPFS: [&str; 3] = ["/run", "/tmp", "/dev/shm"];

fn tmpfs_step(mount: &Mount) -> Option<MountStep> {
    let MountSource::Tmpfs { size, mode } = mount.source else {
        return None;
    };
    Some(step(&mount.at, tmpfs(size, mode), MountFlags::DATA))
}

/// What every box has at this place is closed once what boxd makes in it is there.
fn closed(mount: &Mount) -> MountStep {
    step(&mount.at, What::Remount, MountFlags::DATA.read_only())
}

/// A tmpfs with a file for every page it may hold, and room for some in the smallest.
fn tmpfs(size: u64, mode: u32) -> What {
    What::Tmpfs {
        size,
        inodes: (size / 4096).max(1024),
        mode,
    }
}

/// The step of a mount; the keys are those its problems are told at.
pub(super) fn mount_step(
    key: &str,
    at_key: &str,
    mount: &Mount,
    host: &Host,
    identity: &Identity<'_>,
    findings: &mut Findings,
) -> Option<MountStep> {
    let is_tmpfs = matches!(mount.source, MountSource::Tmpfs { .. });
    let own = OWN_TMPFS.iter().any(|at| mount.at == Path::new(at));
    if own && is_tmpfs {
        return mount.read_only.then(|| closed(mount));
    }
    if let Some(whose) = reserved(&mount.at) {
        let at = mount.at.clone();
        findings.refuse(at_key, Reason::Reserved { at, whose });
        return None;
    }
    match &mount.source {
        MountSource::Tmpfs { .. } => tmpfs_step(mount).map(|mut step| {
            step.flags.read_only = mount.read_only;
            step
        }),
        MountSource::Bind { path, recursive } => {
            let facts = host.path(path);
            if let Some(reason) = not_bindable(path, &facts.kind) {
                findings.refuse(key, reason);
                return None;
            }
            if let Some(exposure) = exposure::check(path, &facts.real, &facts.kind, mount.read_only)
            {
                if !mount.sensitive {
                    let path = path.clone();
                    findings.refuse(key, Reason::Sensitive { path, exposure });
                    return None;
                }
                findings.remark(format!("{} {exposure}: the box has it", path.display()));
            } else if let Some(others) = others(&facts, host)
                && !mount.read_only
            {
                findings.remark(format!(
                    "{others} can write in {} as well as the box: what either puts there the other may meet",
                    path.display()
                ));
            }
            let recursive = *recursive && matches!(facts.kind, Kind::Directory { .. });
            let idmap = match shift(&facts, recursive, identity.shifted) {
                Shift::Unneeded => false,
                Shift::Possible => true,
                Shift::Impossible(filesystem) if mount.read_only => {
                    findings.remark(unshifted(&[path.as_path()], &filesystem));
                    false
                }
                Shift::Impossible(filesystem) => {
                    let reason = Reason::NoIdmap {
                        path: path.clone(),
                        filesystem,
                        advice: "add read-only = true to accept that",
                    };
                    findings.refuse(key, reason);
                    return None;
                }
            };
            let flags = MountFlags {
                read_only: mount.read_only,
                ..MountFlags::DATA
            };
            Some(step(
                &mount.at,
                What::Tree {
                    path: facts.real,
                    recursive,
                    idmap,
                },
                flags.recursive(recursive),
            ))
        }
    }
}

pub(super) fn reserved(at: &Path) -> Option<&'static str> {
    RESERVED
        .into_iter()
        .find(|reserved| at.starts_with(reserved))
        .or_else(|| {
            RESERVED_ITSELF
                .into_iter()
                .find(|reserved| at == Path::new(reserved))
        })
        .or_else(|| {
            api_filesystems::DEVICES
                .into_iter()
                .chain(["/dev/pts", "/dev/mqueue"])
                .find(|reserved| at.starts_with(reserved))
        })
}

/// Who else can write in a directory, the box's own ids left out.
fn others(facts: &PathFacts, host: &Host) -> Option<String> {
    let is_directory = matches!(facts.kind, Kind::Directory { .. });
    let access = facts.access.filter(|_| is_directory)?;
    let of_the_box = host
        .ids
        .as_ref()
        .is_ok_and(|ids| (ids.base..=ids.last()).contains(&access.uid));
    exposure::others(access).filter(|_| !of_the_box || access.mode & 0o002 != 0)
}

fn not_bindable(path: &Path, kind: &Kind) -> Option<Reason> {
    let path = path.to_owned();
    match kind {
        Kind::Missing => Some(Reason::Missing { path }),
        Kind::Unreadable(why) => Some(Reason::Unreadable {
            path,
            why: why.clone(),
        }),
        Kind::Device => Some(Reason::Device { path }),
        Kind::Directory { .. } | Kind::File | Kind::Socket => None,
    }
}

/// Whether the owners of a tree of the host are to be shifted.
pub(super) enum Shift {
    /// The box has the host's ids.
    Unneeded,
    /// They are.
    Possible,
    /// They should be and cannot, on this type of file system.
    Impossible(String),
}

pub(super) fn shift(facts: &PathFacts, recursive: bool, shifted: bool) -> Shift {
    let idmap = if recursive {
        &facts.idmap_recursive
    } else {
        &facts.idmap
    };
    match idmap {
        _ if !shifted => Shift::Unneeded,
        Idmap::Yes => Shift::Possible,
        Idmap::No(filesystem) => Shift::Impossible(filesystem.clone()),
    }
}

/// What it means to the box that owners are not shifted.
pub(super) fn unshifted(paths: &[&Path], filesystem: &str) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!(
        "files in {} are nobody's in the box: on {filesystem} owners cannot be shifted (no idmapped mounts)",
        paths.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::example;
    use crate::plan::resolve;

    fn bind(path: &str, at: &str) -> Mount {
        Mount {
            at: at.into(),
            source: MountSource::Bind {
                path: path.into(),
                recursive: true,
            },
            read_only: false,
            sensitive: false,
        }
    }

    fn sized(at: &str, size: u64) -> Mount {
        Mount {
            at: at.into(),
            source: MountSource::Tmpfs { size, mode: 0o700 },
            read_only: false,
            sensitive: false,
        }
    }

    fn plan(mounts: Vec<Mount>) -> Result<Vec<MountStep>, Vec<String>> {
        let mut definition = example();
        definition.mounts = mounts;
        match resolve(&definition, &Host::fixed(&definition)) {
            Ok(plan) => Ok(plan.mounts),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn what_is_the_boxs_own_is_not_mounted_over() {
        for at in [
            "/",
            "/proc",
            "/proc/sys",
            "/sys/fs",
            "/dev",
            "/dev/null",
            "/dev/pts/0",
            "/run",
            "/run/host/x",
        ] {
            let problems = plan(vec![bind("/srv/www", at)]).expect_err(at);
            assert!(problems[0].contains("mount[1].at: "), "{problems:?}");
        }
        for at in [
            "/procs",
            "/dev/shm",
            "/tmp",
            "/run/web",
            "/etc/hosts",
            "/usr",
        ] {
            plan(vec![bind("/srv/www", at)]).expect(at);
        }
    }

    #[test]
    fn a_tmpfs_takes_the_place_of_the_boxs_own() {
        for at in OWN_TMPFS {
            let steps = plan(vec![sized(at, 1 << 20)]).expect("a plan");
            let there: Vec<_> = steps
                .iter()
                .filter(|step| step.at == Path::new(at))
                .collect();
            assert_eq!(there.len(), 1, "{at}");
            assert_eq!(there[0].what, tmpfs(1 << 20, 0o700));
        }
        let steps = plan(vec![bind("/srv/www", "/tmp")]).expect("a plan");
        assert_eq!(
            steps
                .iter()
                .filter(|step| step.at == Path::new("/tmp"))
                .count(),
            1
        );
    }

    #[test]
    fn a_read_only_tmpfs_is_closed_after_what_boxd_makes_in_it() {
        let mut mount = sized("/run", 1 << 20);
        mount.read_only = true;
        let steps = plan(vec![mount]).expect("a plan");
        let last = steps.last().expect("steps");
        assert_eq!(
            (last.at.as_path(), &last.what),
            (Path::new("/run"), &What::Remount)
        );
        assert!(last.flags.read_only);
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        for (path, part) in [
            ("/srv/missing", "does not exist"),
            ("/dev/device", "is a device"),
            ("/srv/overlay", "read-only = true"),
        ] {
            let problems = plan(vec![sized("/a", 1), bind(path, "/b")]).expect_err(path);
            assert!(problems[0].contains(part), "{problems:?}");
            assert!(problems[0].contains("mount[2].bind"), "{problems:?}");
        }
    }

    #[test]
    fn a_read_only_bind_that_cannot_be_shifted_is_made_with_a_remark() {
        let mut definition = example();
        let mut mount = bind("/srv/overlay", "/b");
        mount.read_only = true;
        definition.mounts = vec![mount];
        let plan = resolve(&definition, &Host::fixed(&definition)).expect("a plan");
        assert_eq!(plan.remarks.len(), 1);
        assert!(plan.remarks[0].contains("files in /srv/overlay are nobody's"));
    }

    #[test]
    fn a_sensitive_path_is_bound_only_when_the_mount_says_so() {
        for path in ["/", "/etc", "/run/docker.sock", "/var/lib", "/proc/sys"] {
            let problems = plan(vec![bind(path, "/b")]).expect_err(path);
            assert!(problems[0].contains("sensitive = true"), "{problems:?}");
            assert!(problems[0].contains("mount[1].bind"), "{problems:?}");
            let mut mount = bind(path, "/b");
            mount.sensitive = true;
            let mut definition = example();
            definition.mounts = vec![mount];
            let plan = resolve(&definition, &Host::fixed(&definition)).expect(path);
            assert!(
                plan.remarks[0].contains("the box has it"),
                "{:?}",
                plan.remarks
            );
        }
        // Read, the host's programs are in every box; written, they are root on the host.
        let mut programs = bind("/usr/local/bin", "/b");
        plan(vec![programs.clone()]).expect_err("writable");
        programs.read_only = true;
        plan(vec![programs]).expect("read-only");
    }

    #[test]
    fn a_directory_that_others_can_write_is_pointed_out() {
        let mut definition = example();
        definition.mounts = vec![bind("/srv/www", "/b")];
        let mut host = Host::fixed(&definition);
        let mut remarks = |uid, mode| {
            let facts = host
                .paths
                .get_mut(Path::new("/srv/www"))
                .expect("looked at");
            facts.access = Some(crate::host::Access { uid, gid: 0, mode });
            resolve(&definition, &host).expect("a plan").remarks
        };
        assert_eq!(remarks(0, 0o755), Vec::<String>::new());
        assert_eq!(remarks(1_048_576 + 33, 0o755), Vec::<String>::new());
        assert!(remarks(33, 0o755)[0].contains("user 33 of the host can write in /srv/www"));
        assert!(remarks(0, 0o1777)[0].contains("every user of the host"));
    }
}
