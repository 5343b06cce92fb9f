//! The launcher's side of the mounts: what is the host's is cloned with the host's privileges, shifted into the
//! box's ids, and handed to the child as mounts that are attached nowhere.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::file_system::{self, Setting};
use super::mounts::restrictions;
use super::{mount_locks, root};
use crate::capability::CapabilitySet;
use crate::identity::{self, IdRange};
use crate::name::Name;
use crate::plan::{MountFlags, MountStep, Node, NodeKind, Plan, Secret, Upper, What};
use crate::sys::{self, Called as _, MountAttributes, Propagation};

/// Permission bits of directories of the host made on the way to what a box keeps: what lies in it may hold
/// setuid files of the box's making.
const CLOSED: u32 = 0o700;

/// Permission bits of a store and of a kept upper layer until the box changes them.
const OPEN: Mode = Mode::from_raw_mode(0o755);

/// What of the host could not be made ready for the box.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path cannot be cloned.
    #[error("cannot take {path:?} of the host for {at:?} in the box")]
    Clone {
        /// On the host.
        path: PathBuf,
        /// In the box.
        at: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// Somebody who may write on the way there has changed it since the box was planned.
    #[error(
        "cannot take {path:?} of the host for {at:?} in the box: a symbolic link is on the way there, where none was \
         when the box was planned; if nobody is meddling with that directory, start the box again"
    )]
    Moved {
        /// On the host.
        path: PathBuf,
        /// In the box.
        at: PathBuf,
        /// What the kernel said.
        #[source]
        source: sys::Error,
    },
    /// A directory in which others could put what they like.
    #[error(
        "will not use {path:?} of the host, in which the box keeps what it writes: user {owner} owns it or others may \
         write to it; make it root's, with mode 0700"
    )]
    Trust {
        /// On the host.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The file system cannot shift owners.
    #[error(
        "cannot show {path:?} of the host with the box's owners: its file system, or one mounted below it, has no \
         idmapped mounts; move it to one that has (ext4, xfs, btrfs), or let [security] users be \"host\""
    )]
    Idmap {
        /// On the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A flag of the mount was refused.
    #[error("cannot restrict the mount of {path:?} of the host")]
    Restrict {
        /// On the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A directory in which the box keeps what it writes.
    #[error("cannot make {path:?} of the host, in which the box keeps what it writes")]
    Keep {
        /// On the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// The overlay.
    #[error("cannot lay a writable layer over {lower:?} of the host")]
    Overlay {
        /// On the host.
        lower: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A device.
    #[error("cannot make the device {at:?} of the box")]
    Device {
        /// In the box.
        at: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// The secrets.
    #[error("cannot put the box's credentials into memory")]
    Credentials(#[source] sys::Error),
    /// The box could undo the restrictions.
    #[error(
        "cannot lock the restrictions of the mounts of {name}, which has the capability SYS_ADMIN"
    )]
    Lock {
        /// The box.
        name: Name,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// The launcher's excursion into a mount namespace of its own.
    #[error("cannot use a mount namespace of its own to put an overlay together in")]
    Workshop(#[source] sys::Error),
    /// The launcher did not get back: it must not go on.
    #[error(
        "cannot return to the host's mount namespace; this process sees other mounts than the host"
    )]
    Stranded(#[source] sys::Error),
}

/// How many mounts [`prepare`] makes of these steps.
pub fn count(steps: &[MountStep]) -> usize {
    steps
        .iter()
        .filter(|step| {
            matches!(
                step.what,
                What::Tree { .. }
                    | What::Overlay { .. }
                    | What::Store { .. }
                    | What::Device { .. }
                    | What::Credentials { .. }
            )
        })
        .count()
}

/// The contents of a box's credentials, by their names.
pub type Secrets = BTreeMap<String, Vec<u8>>;

/// What [`prepare`] made.
#[derive(Debug)]
pub struct Prepared {
    /// One mount for each step of the plan that is a `Tree`, an `Overlay`, a `Store`, a `Device` or `Credentials`, in
    /// their order.
    pub mounts: Vec<OwnedFd>,
    /// Mounts that these were made of and do not need any more. To close one that is attached nowhere takes the kernel
    /// a while, for which the child need not wait: it gets its mounts first.
    pub used_up: Vec<OwnedFd>,
}

/// Prepares the mounts that come from the host.
///
/// `user_namespace` is the box's, with its ids mapped: what [`map`](super::user_namespace::map) gave; none for
/// a box without one. The process must have one thread.
pub fn prepare(
    plan: &Plan,
    user_namespace: Option<BorrowedFd<'_>>,
    secrets: &Secrets,
) -> Result<Prepared, Error> {
    let shift = match (user_namespace, plan.ids) {
        (Some(namespace), Some(ids)) => Some(Shift { namespace, ids }),
        _ => None,
    };
    let root_of_box = shift.map_or(0, |shift| shift.ids.base);
    let mut devices = devices(plan, root_of_box)?.into_iter();
    let mut mounts = Vec::with_capacity(count(&plan.mounts));
    let mut used_up = Vec::new();
    for step in &plan.mounts {
        mounts.push(match &step.what {
            What::Tree {
                path,
                recursive,
                idmap,
            } => {
                let source = Source {
                    path,
                    recursive: *recursive,
                    whose: Whose::Operators,
                };
                source.mount(step, shift.filter(|_| *idmap))?
            }
            What::Store { path } => {
                make_store(path)?;
                let source = Source {
                    path,
                    recursive: false,
                    whose: Whose::Ours,
                };
                source.mount(step, shift)?
            }
            What::Overlay {
                lower,
                idmap,
                upper,
            } => {
                let (mount, layers) = overlay(step, lower, upper, *idmap, shift)?;
                used_up.extend(layers);
                mount
            }
            What::Device { .. } => match devices.next() {
                Some(device) => device,
                None => continue,
            },
            What::Credentials { secrets: wanted } => {
                credentials(step, wanted, secrets, root_of_box).map_err(Error::Credentials)?
            }
            _ => continue,
        });
    }
    if shift.is_some() && may_mount(plan) {
        let locked =
            in_a_workshop(|| mount_locks::lock(&mounts))?.map_err(|source| Error::Lock {
                name: plan.name.clone(),
                source,
            })?;
        used_up.append(&mut mounts);
        mounts = locked;
    }
    Ok(Prepared { mounts, used_up })
}

/// Whether the payload may change mounts of its own namespace, that is, take a restriction back.
fn may_mount(plan: &Plan) -> bool {
    let sys_admin = CapabilitySet::of(["SYS_ADMIN"]).unwrap_or(CapabilitySet::ALL);
    plan.privileges.capabilities.bits() & sys_admin.bits() != 0
}

/// How owners on disk become owners in the box.
#[derive(Clone, Copy)]
struct Shift<'a> {
    namespace: BorrowedFd<'a>,
    ids: IdRange,
}

/// Something of the host that gets a mount of its own.
struct Source<'a> {
    path: &'a Path,
    recursive: bool,
    whose: Whose,
}

/// Who says where something of the host is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The operator, by a path that the plan has resolved and judged. Whoever may write on the way there, another
    /// box say, must not make it lead elsewhere since: it has no link.
    Operators,
    /// boxd, in a directory that is root's alone.
    Ours,
}

impl Source<'_> {
    /// A clone with the step's flags, that hears of no mount of the host and tells it of none.
    fn mount(&self, step: &MountStep, shift: Option<Shift<'_>>) -> Result<OwnedFd, Error> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        flags.set(OpenTreeFlags::AT_RECURSIVE, self.recursive);
        let mount = self
            .open()
            .and_then(|place| {
                open_tree(&place, "", flags)
                    .called(|| format!("open_tree({:?}, {flags:?})", self.path))
            })
            .map_err(|source| {
                let (path, at) = (self.path.to_owned(), step.at.clone());
                match source.errno() {
                    sys::Errno::ELOOP => Error::Moved { path, at, source },
                    _ => Error::Clone { path, at, source },
                }
            })?;
        let own = MountAttributes {
            recursive: self.recursive,
            idmap: shift.map(|shift| shift.namespace),
            propagation: Some(Propagation::Private),
            ..MountAttributes::default()
        };
        sys::mount_setattr(mount.as_fd(), &own).map_err(|source| {
            let path = self.path.to_owned();
            match shift {
                Some(_) => Error::Idmap { path, source },
                None => Error::Restrict { path, source },
            }
        })?;
        let restrictions = restrictions(step.flags);
        if !restrictions.is_empty() {
            sys::mount_setattr(mount.as_fd(), &restrictions).map_err(|source| Error::Restrict {
                path: self.path.to_owned(),
                source,
            })?;
        }
        Ok(mount)
    }

    fn open(&self) -> Result<OwnedFd, sys::Error> {
        let resolve = match self.whose {
            Whose::Operators => ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            Whose::Ours => ResolveFlags::NO_MAGICLINKS,
        };
        let open = |flags: OFlags| {
            rustix::fs::openat2(
                CWD,
                self.path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            )
            .called(|| format!("openat2({:?}, {flags:?}, {resolve:?})", self.path))
        };
        // As a place alone it would not be mounted where an automount waits for it.
        match open(OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if error.errno() == sys::Errno::ENOTDIR => open(OFlags::PATH),
            opened => opened,
        }
    }
}

/// A node for each device, which root of the box owns, in a file system of the host's: in one of the box's own it
/// would be dead.
fn devices(plan: &Plan, owner: u32) -> Result<Vec<OwnedFd>, Error> {
    let wanted: Vec<(&MountStep, Node, u32)> = plan
        .mounts
        .iter()
        .filter_map(|step| match step.what {
            What::Device { node, mode } => Some((step, node, mode)),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |step: &MountStep, source| Error::Device {
        at: step.at.clone(),
        source,
    };
    let inodes = wanted.len() as u64 + 1;
    let bench = file_system::tmpfs(0, inodes, CLOSED, MountFlags::default())
        .map_err(|source| failed(wanted[0].0, source))?;
    in_a_workshop(|| {
        let here = root::open(Path::new("/")).map_err(|source| failed(wanted[0].0, source))?;
        root::attach(&bench, &here)
            .and_then(|()| root::change_directory(&bench))
            .map_err(|source| failed(wanted[0].0, source))?;
        wanted
            .iter()
            .enumerate()
            .map(|(number, (step, node, mode))| {
                device(&number.to_string(), *node, *mode, owner, step)
                    .map_err(|source| failed(step, source))
            })
            .collect()
    })?
}

fn device(
    name: &str,
    node: Node,
    mode: u32,
    owner: u32,
    step: &MountStep,
) -> Result<OwnedFd, sys::Error> {
    let kind = match node.kind {
        NodeKind::Character => FileType::CharacterDevice,
        NodeKind::Block => FileType::BlockDevice,
    };
    let (major, minor) = (node.major, node.minor);
    let number = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, name, kind, Mode::from_raw_mode(mode), number)
        .called(|| format!("mknod({major}:{minor})"))?;
    // mknod(2) heeds the umask.
    rustix::fs::chmodat(CWD, name, Mode::from_raw_mode(mode), AtFlags::empty())
        .called(|| format!("chmod({mode:o})"))?;
    let ids = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    rustix::fs::chownat(CWD, name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)
        .called(|| format!("chown({owner})"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, name, flags).called(|| format!("open_tree({name:?})"))?;
    let attributes = MountAttributes {
        propagation: Some(Propagation::Private),
        ..restrictions(step.flags)
    };
    sys::mount_setattr(mount.as_fd(), &attributes)?;
    Ok(mount)
}

/// The secrets as files of the box's root, which gives them to the payload's user and closes the mount. No page of a
/// ramfs is ever written to swap.
fn credentials(
    step: &MountStep,
    wanted: &[Secret],
    secrets: &Secrets,
    owner: u32,
) -> Result<OwnedFd, sys::Error> {
    let open = MountFlags {
        read_only: false,
        ..step.flags
    };
    let mount = file_system::make("ramfs", &[Setting::Value("mode", "500".to_owned())], open)?;
    let ids = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    for Secret { name, .. } in wanted {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&mount, name, flags, Mode::from_raw_mode(0o400))
            .called(|| format!("openat({name:?}, O_CREAT)"))?;
        let content = secrets.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut rest = content;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest).called(|| format!("write({name:?})"))?;
            rest = &rest[written..];
        }
        rustix::fs::fchown(&file, ids.0, ids.1).called(|| format!("fchown({name:?})"))?;
    }
    rustix::fs::chownat(&mount, "", ids.0, ids.1, AtFlags::EMPTY_PATH)
        .called(|| "chownat(credentials)".to_owned())?;
    Ok(mount)
}

fn make_store(path: &Path) -> Result<(), Error> {
    let keep = |source| Error::Keep {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        make_closed(parent).map_err(keep)?;
        trust(parent)?;
    }
    match rustix::fs::mkdir(path, OPEN) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(keep(sys::Error::new(format!("mkdir({path:?})"), errno))),
    }
}

/// What boxd opens and makes in there by its name is only as good as who may write there.
fn trust(path: &Path) -> Result<(), Error> {
    let status = rustix::fs::lstat(path)
        .called(|| format!("lstat({path:?})"))
        .map_err(|source| Error::Keep {
            path: path.to_owned(),
            source,
        })?;
    if !identity::is_ours_alone(status.st_uid, status.st_mode) {
        return Err(Error::Trust {
            path: path.to_owned(),
            owner: status.st_uid,
        });
    }
    Ok(())
}

fn make_closed(path: &Path) -> Result<(), sys::Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(CLOSED)
        .create(path)
        .called(|| format!("mkdir({path:?}, {CLOSED:o})"))
}

/// A writable layer over a directory of the host, and the mounts of its layers. The overlay holds its layers by itself:
/// where they were mounted matters to nobody.
fn overlay(
    step: &MountStep,
    lower: &Path,
    upper: &Upper,
    idmap: bool,
    shift: Option<Shift<'_>>,
) -> Result<(OwnedFd, [OwnedFd; 2]), Error> {
    let bare = MountStep {
        flags: MountFlags::default(),
        ..step.clone()
    };
    let lower_mount = Source {
        path: lower,
        recursive: false,
        whose: Whose::Operators,
    }
    .mount(&bare, shift.filter(|_| idmap))?;
    let failed = |source| Error::Overlay {
        lower: lower.to_owned(),
        source,
    };
    let owner = Owner::of(&lower_mount, idmap, shift).map_err(failed)?;
    let store = match upper {
        Upper::Memory { size, inodes } => memory_layers(*size, *inodes, &owner).map_err(failed)?,
        Upper::Directory { path } => {
            let keep = |source| Error::Keep {
                path: path.clone(),
                source,
            };
            make_closed(path).map_err(keep)?;
            trust(path)?;
            make_layers(path, &owner.on_disk(shift)).map_err(keep)?;
            let source = Source {
                path,
                recursive: false,
                whose: Whose::Ours,
            };
            source.mount(&bare, shift)?
        }
    };
    let layers = Layers {
        lower: lower_mount,
        upper: open_directory(store.as_fd(), "upper").map_err(failed)?,
        work: open_directory(store.as_fd(), "work").map_err(failed)?,
        store,
    };
    let joined = match layers.join(step.flags, shift) {
        // To an older kernel a descriptor without a file is none, or a layer is a string, or has to be mounted.
        Err(error) if matches!(error.errno(), sys::Errno::EBADF | sys::Errno::EINVAL) => {
            in_a_workshop(|| layers.join_where_mounted(step.flags, shift))?
        }
        joined => joined,
    };
    Ok((joined.map_err(failed)?, [layers.lower, layers.store]))
}

/// What an overlay is made of, attached nowhere.
struct Layers {
    lower: OwnedFd,
    /// The mount in which the next two lie.
    store: OwnedFd,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Layers {
    /// Linux 6.15 and later take layers as they are.
    fn join(&self, flags: MountFlags, shift: Option<Shift<'_>>) -> Result<OwnedFd, sys::Error> {
        let layers = [
            Setting::File("lowerdir+", self.lower.as_fd()),
            Setting::File("upperdir", self.upper.as_fd()),
            Setting::File("workdir", self.work.as_fd()),
        ];
        join(layers, flags, shift)
    }

    /// Before that they have to be mounted somewhere, which is done in a mount namespace that nobody else sees and
    /// that goes with the visit: this process must be in one.
    fn join_where_mounted(
        &self,
        flags: MountFlags,
        shift: Option<Shift<'_>>,
    ) -> Result<OwnedFd, sys::Error> {
        let bench = file_system::tmpfs(0, 0, CLOSED, MountFlags::default())?;
        root::attach(&bench, &root::open(Path::new("/"))?)?;
        root::change_directory(&bench)?;
        for (name, mount) in [("lower", &self.lower), ("store", &self.store)] {
            make_directory(bench.as_fd(), name)?;
            root::attach(mount, &root::open(Path::new(name))?)?;
        }
        let layer = |key, name: &str| Setting::Value(key, name.to_owned());
        let layers = [
            layer("lowerdir", "lower"),
            layer("upperdir", "store/upper"),
            layer("workdir", "store/work"),
        ];
        join(layers, flags, shift)
    }
}

fn join(
    layers: [Setting<'_>; 3],
    flags: MountFlags,
    shift: Option<Shift<'_>>,
) -> Result<OwnedFd, sys::Error> {
    let _maker = shift.map(|shift| MakerId::of_box(shift.ids)).transpose()?;
    let [lower, upper, work] = layers;
    let value = |key, text: &str| Setting::Value(key, text.to_owned());
    let settings = [
        lower,
        upper,
        work,
        // A lower directory that was renamed stays one, as on any file system.
        value("redirect_dir", "on"),
        // Both would tie the upper layer to this very lower one: an updated root would not mount.
        value("index", "off"),
        value("metacopy", "off"),
    ];
    file_system::make("overlay", &settings, flags)
}

/// A mount with the directories of an upper layer that goes with the box.
fn memory_layers(size: u64, inodes: u64, owner: &Owner) -> Result<OwnedFd, sys::Error> {
    let store = file_system::tmpfs(size, inodes, CLOSED, MountFlags::default())?;
    make_layer(store.as_fd(), Path::new("upper"), owner)?;
    make_directory(store.as_fd(), "work")?;
    Ok(store)
}

/// Owner and permission bits of a directory, as the host's file systems have them.
struct Owner {
    uid: u32,
    gid: u32,
    mode: Mode,
}

impl Owner {
    /// Who owns the root of the lower layer as the box sees it: the upper layer's root is what shows.
    fn of(lower: &OwnedFd, idmap: bool, shift: Option<Shift<'_>>) -> Result<Self, sys::Error> {
        let status = rustix::fs::fstat(lower).called(|| "fstat(lower layer)".to_owned())?;
        let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
        Ok(match shift {
            // Owners that the box does not know would make its root directory nobody's.
            Some(Shift { ids, .. }) => {
                let within = |id: u32| (ids.base..=ids.base + (IdRange::SIZE - 1)).contains(&id);
                let known = idmap && within(status.st_uid) && within(status.st_gid);
                let (uid, gid) = if known {
                    (status.st_uid, status.st_gid)
                } else {
                    (ids.base, ids.base)
                };
                Owner { uid, gid, mode }
            }
            None => Owner {
                uid: status.st_uid,
                gid: status.st_gid,
                mode,
            },
        })
    }

    /// The same as it is written below an idmapped mount, where ids begin at 0.
    fn on_disk(&self, shift: Option<Shift<'_>>) -> Owner {
        let base = shift.map_or(0, |shift| shift.ids.base);
        Owner {
            uid: self.uid - base,
            gid: self.gid - base,
            mode: self.mode,
        }
    }
}

/// The directories of a kept layer. A start that was interrupted here leaves nothing a later one would take for
/// a finished layer.
fn make_layers(path: &Path, owner: &Owner) -> Result<(), sys::Error> {
    let directory = root::open(path)?;
    match rustix::fs::mkdirat(&directory, "work", Mode::from_raw_mode(CLOSED)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => {
            return Err(sys::Error::new(
                format!("mkdirat({path:?}, \"work\")"),
                errno,
            ));
        }
    }
    if rustix::fs::accessat(
        &directory,
        "upper",
        rustix::fs::Access::EXISTS,
        AtFlags::empty(),
    )
    .is_ok()
    {
        return Ok(());
    }
    let unfinished = "upper.new";
    match rustix::fs::unlinkat(&directory, unfinished, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => {
            return Err(sys::Error::new(
                format!("rmdir({path:?}/{unfinished})"),
                errno,
            ));
        }
    }
    make_layer(directory.as_fd(), Path::new(unfinished), owner)?;
    rustix::fs::renameat(&directory, unfinished, &directory, "upper")
        .called(|| format!("renameat({path:?}, {unfinished:?}, \"upper\")"))
}

fn make_layer(parent: BorrowedFd<'_>, name: &Path, owner: &Owner) -> Result<(), sys::Error> {
    rustix::fs::mkdirat(parent, name, owner.mode).called(|| format!("mkdirat({name:?})"))?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let layer = rustix::fs::openat(parent, name, flags, Mode::empty())
        .called(|| format!("openat({name:?})"))?;
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::fchown(&layer, Some(uid), Some(gid))
        .called(|| format!("fchown({name:?}, {}, {})", owner.uid, owner.gid))?;
    // mkdir(2) heeds the umask and drops the set-id bits.
    rustix::fs::fchmod(&layer, owner.mode).called(|| format!("fchmod({name:?}, {:o})", owner.mode))
}

fn make_directory(parent: BorrowedFd<'_>, name: &str) -> Result<(), sys::Error> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(CLOSED))
        .called(|| format!("mkdirat({name:?})"))
}

fn open_directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, sys::Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).called(|| format!("openat({name:?})"))
}

/// While it lives this process makes files as root of the box, with the privileges of root of the host.
///
/// An overlay works on its layers for good as who mounted it, and an idmapped layer can take no file from an
/// owner that is outside the map, as root of the host is; the kernel then mounts it read-only.
struct MakerId;

impl MakerId {
    fn of_box(ids: IdRange) -> Result<Self, sys::Error> {
        let before = rustix::thread::capabilities(None).called(|| "capget(0)".to_owned())?;
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(ids.base));
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(ids.base));
        let maker = MakerId;
        // The kernel takes the capabilities over files from a process whose file system uid is no longer 0.
        rustix::thread::set_capabilities(None, before).called(|| "capset(0)".to_owned())?;
        Ok(maker)
    }
}

impl Drop for MakerId {
    fn drop(&mut self) {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(0));
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(0));
    }
}

/// Runs `work` in a mount namespace of its own that tells the host nothing, and comes back, with the
/// process' root and working directory, however `work` went.
fn in_a_workshop<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    let place = Whereabouts::of_this_process().map_err(Error::Workshop)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .called(|| "unshare(CLONE_NEWNS)".to_owned())
        .map_err(Error::Workshop)?;
    let private = MountAttributes {
        recursive: true,
        propagation: Some(Propagation::Private),
        ..MountAttributes::default()
    };
    let separated =
        root::open(Path::new("/")).and_then(|root| sys::mount_setattr(root.as_fd(), &private));
    let result = separated.map(|()| work());
    place.return_to().map_err(Error::Stranded)?;
    result.map_err(Error::Workshop)
}

/// What setns(2) into a mount namespace takes from a process.
struct Whereabouts {
    namespace: OwnedFd,
    root: OwnedFd,
    working_directory: OwnedFd,
}

impl Whereabouts {
    fn of_this_process() -> Result<Self, sys::Error> {
        let path = "/proc/self/ns/mnt";
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .called(|| format!("open({path:?})"))?;
        Ok(Whereabouts {
            namespace,
            root: root::open(Path::new("/"))?,
            working_directory: root::open(Path::new("."))?,
        })
    }

    fn return_to(self) -> Result<(), sys::Error> {
        nix::sched::setns(&self.namespace, CloneFlags::CLONE_NEWNS)
            .called(|| format!("setns(fd {}, CLONE_NEWNS)", self.namespace.as_raw_fd()))?;
        root::change_directory(&self.root)?;
        rustix::process::chroot(".").called(|| r#"chroot(".")"#.to_owned())?;
        root::change_directory(&self.working_directory)
    }
}
