//! Restrictions of mounts that the box's root cannot take back, whatever it may otherwise do to mounts.
//!
//! The kernel locks what restricts a mount, like being read-only, when a mount namespace is copied by a
//! process of another user namespace than the one that owns it; mount_namespaces(7). The box makes its own
//! mount namespace and would own every mount in it without a lock. So a process that lives for this alone
//! makes the copy, and we take the copied mounts from it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{DumpableBehavior, PidfdGetfdFlags, Signal, WaitId, WaitIdOptions};

use super::file_system;
use super::paths::Kind;
use super::root;
use crate::plan::MountFlags;
use crate::sys::{self, Called as _, Errno, Fork};

/// Copies of these mounts, attached nowhere, whose restrictions are locked.
///
/// The process must be in a mount namespace of its own; its working directory is another afterwards.
pub fn lock(mounts: &[OwnedFd]) -> Result<Vec<OwnedFd>, sys::Error> {
    let bench = file_system::tmpfs(0, 0, 0o700, MountFlags::default())?;
    // Not over the root itself: to the kernel the process would be in a chroot(2), which makes no user namespace.
    root::attach(&bench, &root::open(Path::new("/dev"))?)?;
    root::change_directory(&bench)?;
    for (number, mount) in mounts.iter().enumerate() {
        let place = place_for(mount, &name(number))?;
        root::attach(mount, &place)?;
    }
    copy_in_another_namespace((0..mounts.len()).map(name).collect())
}

/// A copy of this process' whole root, attached nowhere, in which nothing can be unmounted on its own and no
/// restriction be taken back. The process must be in a mount namespace of its own, at whose root it stands.
pub fn lock_root() -> Result<OwnedFd, sys::Error> {
    let mut copies = copy_in_another_namespace(vec!["/".to_owned()])?;
    copies
        .pop()
        .ok_or_else(|| sys::Error::new("open_tree(\"/\", OPEN_TREE_CLONE)", Errno::ENOENT))
}

fn copy_in_another_namespace(places: Vec<String>) -> Result<Vec<OwnedFd>, sys::Error> {
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .called(|| "pipe2(O_CLOEXEC)".to_owned())?;
    match sys::clone3(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)? {
        Fork::Child => copy_and_wait(&places, File::from(tell)),
        Fork::Parent { pidfd, .. } => {
            drop(tell);
            let copies = take(&places, File::from(told), &pidfd);
            let ended = end(&pidfd);
            let copies = copies?;
            ended.map(|()| copies)
        }
    }
}

fn name(number: usize) -> String {
    number.to_string()
}

fn place_for(mount: &OwnedFd, name: &str) -> Result<OwnedFd, sys::Error> {
    let mode = Mode::from_raw_mode(0o700);
    match Kind::of(mount.as_fd())? {
        Kind::Directory => {
            rustix::fs::mkdir(name, mode).called(|| format!("mkdir({name:?})"))?;
        }
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::open(name, flags, mode).called(|| format!("open({name:?}, O_CREAT)"))?;
        }
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(name, flags, Mode::empty()).called(|| format!("open({name:?}, O_PATH)"))
}

/// The life of the process that makes the copy: to clone what its namespace shows, to tell the numbers of the
/// descriptors, or a negative errno in the place of the one that failed, and to be there until it is killed.
fn copy_and_wait(places: &[String], mut tell: File) -> ! {
    // With the launcher gone nobody would kill it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // A process that has changed its user is closed to its own like, which take its descriptors here. Of those there
    // is none but its parent; without this pidfd_getfd(2) says so.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let mut copies = Vec::with_capacity(places.len());
    for place in places {
        let copy = open_tree(CWD, place.as_str(), flags);
        let said = match &copy {
            Ok(copy) => copy.as_raw_fd(),
            Err(errno) => -errno.raw_os_error(),
        };
        if tell.write_all(&said.to_ne_bytes()).is_err() || said < 0 {
            break;
        }
        copies.extend(copy);
    }
    drop(tell);
    loop {
        rustix::event::pause();
    }
}

fn take(places: &[String], mut told: File, copier: &OwnedFd) -> Result<Vec<OwnedFd>, sys::Error> {
    places
        .iter()
        .map(|place| {
            let mut said = [0; size_of::<RawFd>()];
            told.read_exact(&mut said)
                .called(|| format!("read(number of the copy of {place:?})"))?;
            let said = RawFd::from_ne_bytes(said);
            if said < 0 {
                let call = format!("open_tree({place:?}, OPEN_TREE_CLONE | AT_RECURSIVE)");
                return Err(sys::Error::new(call, Errno::from_raw(-said)));
            }
            rustix::process::pidfd_getfd(copier, said, PidfdGetfdFlags::empty())
                .called(|| format!("pidfd_getfd(fd {}, {said})", copier.as_raw_fd()))
        })
        .collect()
}

fn end(copier: &OwnedFd) -> Result<(), sys::Error> {
    rustix::process::pidfd_send_signal(copier, Signal::KILL)
        .called(|| format!("pidfd_send_signal(fd {}, SIGKILL)", copier.as_raw_fd()))?;
    rustix::process::waitid(WaitId::PidFd(copier.as_fd()), WaitIdOptions::EXITED)
        .called(|| format!("waitid(pidfd {})", copier.as_raw_fd()))
        .map(drop)
}
