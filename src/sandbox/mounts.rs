//! The box's own side of the mounts: one loop over the steps of the plan, inside the new root.
//!
//! What comes from the host is prepared by the launcher, [`host_mounts`](super::host_mounts); what has to be
//! taken from the host's sight by the child itself is gathered before the root changes, [`Stock`].

use std::collections::VecDeque;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::file_system::{self, Setting};
use super::identity::Identity;
use super::mount_locks;
use super::paths::{self, Kind, Root};
use super::root::{self, attach};
use super::terminal::{self, Terminal};
use crate::plan::{Closing, Content, MountFlags, MountStep, Secret, What};
use crate::sys::{self, Called as _, MountAttributes, Propagation};

/// Most bytes of a file of the host that is copied into a box.
const COPY_MAX: u64 = 1024 * 1024;

/// What could not be mounted or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the host.
    #[error("cannot copy {path:?} of the host into the box")]
    Copy {
        /// On the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The device that hides files.
    #[error("cannot take /dev/null of the host to hide files of the box with")]
    Null(#[source] sys::Error),
    /// A mount.
    #[error("cannot mount {what} at {at:?}")]
    Mount {
        /// What it is.
        what: &'static str,
        /// Inside the box.
        at: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// The kernel gives a user namespace no proc or sysfs that shows more than those there are.
    #[error(
        "cannot mount {what} at {at:?}: something is mounted over a part of this host's own {what}, as in a \
         container, and no box may see what that hides; let [security] users be \"host\""
    )]
    Covered {
        /// What it is.
        what: &'static str,
        /// Inside the box.
        at: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// The terminal.
    #[error("cannot make the box's terminal")]
    Terminal(#[source] terminal::Error),
    /// What the box could undo.
    #[error("cannot lock the mounts of the box, which has the capability SYS_ADMIN")]
    Lock(#[source] sys::Error),
    /// Namespaces inside would not see its mounts.
    #[error("cannot share the mounts of the box with namespaces inside it")]
    Share(#[source] sys::Error),
    /// A path in the box.
    #[error(transparent)]
    Path(#[from] paths::Error),
    /// The root.
    #[error(transparent)]
    Root(#[from] root::Error),
    /// The plan does not begin with a root.
    #[error(
        "cannot make a root of {what} at {at:?}: the first step of the plan must be a mount at /"
    )]
    NoRoot {
        /// What the first step is.
        what: &'static str,
        /// Where.
        at: PathBuf,
    },
    /// The launcher and the plan do not agree.
    #[error("cannot mount {what} at {at:?}: the launcher has sent no mount for it")]
    NotSent {
        /// What it is.
        what: &'static str,
        /// Inside the box.
        at: PathBuf,
    },
}

impl Error {
    /// The path inside the box this is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Mount { at, .. }
            | Error::Covered { at, .. }
            | Error::NoRoot { at, .. }
            | Error::NotSent { at, .. } => Some(at),
            Error::Path(error) => Some(error.path()),
            Error::Copy { .. }
            | Error::Null(_)
            | Error::Terminal(_)
            | Error::Lock(_)
            | Error::Share(_)
            | Error::Root(_) => None,
        }
    }
}

/// What the child takes along before the host goes out of sight.
#[derive(Debug)]
pub struct Stock {
    copies: VecDeque<Vec<u8>>,
    kernel: VecDeque<OwnedFd>,
    procfs: Option<OwnedFd>,
    null: Option<Cover>,
}

impl Stock {
    /// Gathers what these steps need: copies of the host's files, the host's `/dev/null`, and mounts of proc and
    /// sysfs, which the kernel grants a user namespace only while it sees full ones of the host,
    /// mount_namespaces(7).
    pub fn gather(steps: &[MountStep]) -> Result<Self, Error> {
        let mut stock = Stock {
            copies: VecDeque::new(),
            kernel: VecDeque::new(),
            procfs: None,
            null: None,
        };
        for step in steps {
            match &step.what {
                What::File {
                    content: Content::CopyOf(path),
                    ..
                } => stock.copies.push_back(copy_of(path)?),
                What::Proc => {
                    let procfs = of_the_kernel("proc", step)?;
                    let again = rustix::io::fcntl_dupfd_cloexec(&procfs, 3)
                        .called(|| "fcntl(procfs, F_DUPFD_CLOEXEC)".to_owned());
                    stock.procfs = Some(again.map_err(|source| failed(step, source))?);
                    stock.kernel.push_back(procfs);
                }
                What::Sysfs => stock.kernel.push_back(of_the_kernel("sysfs", step)?),
                What::Mask if stock.null.is_none() => {
                    stock.null = Some(null().map_err(Error::Null)?);
                }
                _ => {}
            }
        }
        Ok(stock)
    }
}

impl Stock {
    /// The box's own procfs, attached nowhere yet; none if the steps have none.
    pub fn procfs(&self) -> Option<&OwnedFd> {
        self.procfs.as_ref()
    }
}

/// Gives the credentials to the payload's user, and closes their file system.
pub fn give_credentials(
    root: &Root,
    steps: &[MountStep],
    identity: &Identity,
) -> Result<(), Error> {
    for step in steps {
        let What::Credentials { secrets } = &step.what else {
            continue;
        };
        let Some(directory) = root.find(&step.at)? else {
            continue;
        };
        let ids = (
            Some(Uid::from_raw(identity.uid)),
            Some(Gid::from_raw(identity.gid)),
        );
        let give = || {
            for Secret { name, .. } in secrets {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&directory, name, ids.0, ids.1, flags)
                    .called(|| format!("chownat({name:?}, {})", identity.uid))?;
            }
            rustix::fs::chownat(&directory, "", ids.0, ids.1, AtFlags::EMPTY_PATH)
                .called(|| format!("chownat(\"\", {})", identity.uid))?;
            sys::mount_setattr(directory.as_fd(), &restrictions(step.flags))
        };
        give().map_err(|source| failed(step, source))?;
    }
    Ok(())
}

/// Makes of the whole root what the plan wants it to be in the end. The process has another root afterwards when it
/// is locked.
pub fn close(root: Root, closing: Closing) -> Result<Root, Error> {
    let root = if closing.locked {
        let copy = mount_locks::lock_root().map_err(Error::Lock)?;
        root::enter(copy)?
    } else {
        root
    };
    if closing.shared {
        let shared = MountAttributes {
            recursive: true,
            propagation: Some(Propagation::Shared),
            ..MountAttributes::default()
        };
        let top = root::open(Path::new("/")).map_err(Error::Share)?;
        sys::mount_setattr(top.as_fd(), &shared).map_err(Error::Share)?;
    }
    Ok(root)
}

/// Mounts that wait for the process to stand in its own cgroup.
#[derive(Debug, Default)]
pub struct Waiting(Vec<(MountStep, OwnedFd)>);

impl Waiting {
    /// Mounts them. The cgroup namespace must be the box's.
    pub fn finish(self) -> Result<(), Error> {
        self.0.into_iter().try_for_each(|(step, place)| {
            let mount = new("cgroup2", &[], &step)?;
            attach(&mount, &place).map_err(|source| failed(&step, source))
        })
    }
}

/// Takes all steps but the ones that wait. The process has the box's root afterwards and sees no other.
///
/// `from_host` is what [`prepare`](super::host_mounts::prepare) made of the same steps. The process must be root
/// of the box, with a umask of 0.
pub fn build(
    steps: &[MountStep],
    mut stock: Stock,
    from_host: Vec<OwnedFd>,
) -> Result<Built, Error> {
    let mut from_host = VecDeque::from(from_host);
    let Some((first, rest)) = steps.split_first() else {
        return Err(Error::NoRoot {
            what: "nothing",
            at: PathBuf::from("/"),
        });
    };
    let mount = match mount_for(first, &mut stock, &mut from_host)? {
        Some(mount) if first.at == Path::new("/") => mount,
        _ => {
            return Err(Error::NoRoot {
                what: name_of(&first.what),
                at: first.at.clone(),
            });
        }
    };
    let root = root::enter(mount)?;
    let mut waiting = Waiting::default();
    let mut empty = None;
    let mut terminal = None;
    for step in rest {
        if let Some(mount) = mount_for(step, &mut stock, &mut from_host)? {
            let place = place_for(&root, step, &mount)?;
            attach(&mount, &place).map_err(|source| failed(step, source))?;
            continue;
        }
        match &step.what {
            What::Cgroup => {
                let place = root.ordinary_mount_point(&step.at)?;
                waiting.0.push((step.clone(), place));
            }
            What::Directory { mode } => root.directory(&step.at, Mode::from_raw_mode(*mode))?,
            What::File { mode, content } => {
                let mode = Mode::from_raw_mode(*mode);
                match content {
                    Content::Text(text) => root.file(&step.at, mode, text.as_bytes())?,
                    Content::CopyOf(_) => {
                        let copy = stock.copies.pop_front().unwrap_or_default();
                        root.file(&step.at, mode, &copy)?;
                    }
                }
            }
            What::Symlink { target } => root.symlink(&step.at, target)?,
            What::Remount => remount(&root, step)?,
            What::Rebind => rebind(&root, step)?,
            What::Mask => mask(&root, step, &mut stock.null, &mut empty)?,
            What::Console => terminal = Some(console(&root, step)?),
            What::Tree { .. }
            | What::Overlay { .. }
            | What::Store { .. }
            | What::Device { .. }
            | What::Credentials { .. }
            | What::Tmpfs { .. }
            | What::Proc
            | What::Sysfs
            | What::Devpts
            | What::Mqueue => {}
        }
    }
    Ok(Built {
        root,
        waiting,
        terminal,
    })
}

/// What [`build`] has built.
#[derive(Debug)]
pub struct Built {
    /// The box's root.
    pub root: Root,
    /// What is mounted later.
    pub waiting: Waiting,
    /// The box's terminal, if it has one.
    pub terminal: Option<Terminal>,
}

/// The mount of a step that is one of a new or handed over file system; none for every other step.
fn mount_for(
    step: &MountStep,
    stock: &mut Stock,
    from_host: &mut VecDeque<OwnedFd>,
) -> Result<Option<OwnedFd>, Error> {
    let sent = |mount: Option<OwnedFd>| {
        mount.ok_or_else(|| Error::NotSent {
            what: name_of(&step.what),
            at: step.at.clone(),
        })
    };
    let mount = match step.what {
        What::Tree { .. }
        | What::Overlay { .. }
        | What::Store { .. }
        | What::Device { .. }
        | What::Credentials { .. } => sent(from_host.pop_front())?,
        What::Proc | What::Sysfs => sent(stock.kernel.pop_front())?,
        What::Tmpfs { size, inodes, mode } => file_system::tmpfs(size, inodes, mode, step.flags)
            .map_err(|source| failed(step, source))?,
        What::Devpts => new(
            "devpts",
            &[
                Setting::Flag("newinstance"),
                Setting::Value("mode", "620".to_owned()),
                // tty, by the number every distribution and systemd has for it.
                Setting::Value("gid", "5".to_owned()),
                Setting::Value("ptmxmode", "666".to_owned()),
            ],
            step,
        )?,
        What::Mqueue => new("mqueue", &[], step)?,
        What::Cgroup
        | What::Console
        | What::Directory { .. }
        | What::File { .. }
        | What::Symlink { .. }
        | What::Remount
        | What::Rebind
        | What::Mask => return Ok(None),
    };
    Ok(Some(mount))
}

/// Where a mount goes. The kernel's own file systems are found by their names and go to no link's end.
fn place_for(root: &Root, step: &MountStep, mount: &OwnedFd) -> Result<OwnedFd, Error> {
    match step.what {
        What::Proc | What::Sysfs => Ok(root.ordinary_mount_point(&step.at)?),
        _ => {
            let kind = Kind::of(mount.as_fd()).map_err(|source| failed(step, source))?;
            Ok(root.mount_point(&step.at, kind)?)
        }
    }
}

fn new(kind: &str, settings: &[Setting<'_>], step: &MountStep) -> Result<OwnedFd, Error> {
    file_system::make(kind, settings, step.flags).map_err(|source| failed(step, source))
}

fn of_the_kernel(kind: &str, step: &MountStep) -> Result<OwnedFd, Error> {
    file_system::make(kind, &[], step.flags).map_err(|source| {
        if source.errno() == sys::Errno::EPERM {
            Error::Covered {
                what: name_of(&step.what),
                at: step.at.clone(),
                source,
            }
        } else {
            failed(step, source)
        }
    })
}

/// Makes a terminal, and binds the side that is the box's. It is known by descriptor alone: whatever the root has at
/// these paths, no other file is bound.
fn console(root: &Root, step: &MountStep) -> Result<Terminal, Error> {
    let terminal = Terminal::open(Some(terminal::SIZE)).map_err(Error::Terminal)?;
    let place = root.mount_point(&step.at, Kind::File)?;
    let attempt = || {
        let mount = clone_mount(&terminal.peer, false)?;
        sys::mount_setattr(mount.as_fd(), &restrictions(step.flags))?;
        attach(&mount, &place)
    };
    attempt().map_err(|source| failed(step, source))?;
    Ok(terminal)
}

fn remount(root: &Root, step: &MountStep) -> Result<(), Error> {
    let mount = root.find(&step.at)?.ok_or_else(|| {
        let call = format!("openat2({:?})", step.at);
        failed(step, sys::Error::new(call, sys::Errno::ENOENT))
    })?;
    sys::mount_setattr(mount.as_fd(), &restrictions(step.flags))
        .map_err(|source| failed(step, source))
}

fn rebind(root: &Root, step: &MountStep) -> Result<(), Error> {
    let Some(place) = root.find(&step.at)? else {
        return Ok(());
    };
    let attempt = || {
        let mount = clone_mount(&place, step.flags.recursive)?;
        sys::mount_setattr(mount.as_fd(), &restrictions(step.flags))?;
        attach(&mount, &place)
    };
    attempt().map_err(|source| failed(step, source))
}

fn mask(
    root: &Root,
    step: &MountStep,
    null: &mut Option<Cover>,
    empty: &mut Option<Cover>,
) -> Result<(), Error> {
    let Some(place) = root.find(&step.at)? else {
        return Ok(());
    };
    let mut attempt = || {
        let cover = match (Kind::of(place.as_fd())?, &mut *empty) {
            (Kind::Directory, Some(cover)) => Some(cover),
            (Kind::Directory, none) => Some(none.insert(empty_directory()?)),
            (Kind::File, _) => null.as_mut(),
        };
        let missing = || sys::Error::new("open_tree(\"/dev/null\")", sys::Errno::ENOENT);
        cover.ok_or_else(missing)?.lay_over(&place)
    };
    attempt().map_err(|source| failed(step, source))
}

/// A mount that hides what it is laid over, as often as needed: one super block serves all places.
#[derive(Debug)]
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    fn lay_over(&mut self, place: &OwnedFd) -> Result<(), sys::Error> {
        if self.attached {
            // The attached one can be cloned by every kernel, one that is attached nowhere only since 6.15.
            return attach(&clone_mount(&self.mount, false)?, place);
        }
        attach(&self.mount, place)?;
        self.attached = true;
        Ok(())
    }
}

/// The host's `/dev/null`, for one in the box could be anything.
fn null() -> Result<Cover, sys::Error> {
    let path = "/dev/null";
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(rustix::fs::CWD, path, flags)
        .called(|| format!("open_tree({path:?}, OPEN_TREE_CLONE)"))?;
    let status = rustix::fs::fstat(&mount).called(|| format!("fstat({path:?})"))?;
    let is_null = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
        && status.st_rdev == rustix::fs::makedev(1, 3);
    if !is_null {
        return Err(sys::Error::new(
            format!("fstat({path:?}) with a device that is not 1:3"),
            sys::Errno::ENODEV,
        ));
    }
    let attributes = MountAttributes {
        nosuid: true,
        noexec: true,
        propagation: Some(Propagation::Private),
        ..MountAttributes::default()
    };
    sys::mount_setattr(mount.as_fd(), &attributes)?;
    Ok(Cover {
        mount,
        attached: false,
    })
}

fn empty_directory() -> Result<Cover, sys::Error> {
    let flags = MountFlags {
        read_only: true,
        nosuid: true,
        nodev: true,
        noexec: true,
        recursive: false,
    };
    Ok(Cover {
        mount: file_system::tmpfs(4096, 1, 0o555, flags)?,
        attached: false,
    })
}

fn clone_mount(mount: &OwnedFd, recursive: bool) -> Result<OwnedFd, sys::Error> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(mount, "", flags)
        .called(|| format!("open_tree(fd {}, \"\", OPEN_TREE_CLONE)", mount.as_raw_fd()))
}

/// The flags of a step as mount_setattr(2) takes them.
pub(super) fn restrictions(flags: MountFlags) -> MountAttributes<'static> {
    MountAttributes {
        recursive: flags.recursive,
        read_only: flags.read_only,
        nosuid: flags.nosuid,
        nodev: flags.nodev,
        noexec: flags.noexec,
        idmap: None,
        propagation: None,
    }
}

/// Content of a file of the host; empty if the host has none.
fn copy_of(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Copy {
        path: path.to_owned(),
        source,
    };
    // A pipe without a writer must not hold the start up.
    let nonblock = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(nonblock.bits() as i32)
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    let mut content = Vec::new();
    file.take(COPY_MAX + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > COPY_MAX {
        let reason = format!("it is larger than {COPY_MAX} bytes");
        return Err(failed(std::io::Error::other(reason)));
    }
    Ok(content)
}

fn failed(step: &MountStep, source: sys::Error) -> Error {
    Error::Mount {
        what: name_of(&step.what),
        at: step.at.clone(),
        source,
    }
}

pub(super) fn name_of(what: &What) -> &'static str {
    match what {
        What::Tree { .. } => "a tree of the host",
        What::Overlay { .. } => "an overlay",
        What::Tmpfs { .. } => "a tmpfs",
        What::Proc => "proc",
        What::Sysfs => "sysfs",
        What::Devpts => "devpts",
        What::Console => "the box's terminal",
        What::Mqueue => "mqueue",
        What::Cgroup => "cgroup2",
        What::Directory { .. } => "a directory",
        What::File { .. } => "a file",
        What::Symlink { .. } => "a symbolic link",
        What::Remount => "with other flags what is",
        What::Rebind => "over itself what is",
        What::Mask => "a mask",
        What::Store { .. } => "a store",
        What::Device { .. } => "a device",
        What::Credentials { .. } => "credentials",
    }
}
