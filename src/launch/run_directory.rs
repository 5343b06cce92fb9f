//! `/run/boxd/NAME`: what a running box is known by, and the lock on its name.
//!
//! The directory itself is locked with flock(2), so that nothing is left when it is removed. The lock is held
//! by whoever launches the box or clears it away, and by a box in the foreground for its whole life: two never
//! do so at once. A box run by systemd needs none while it runs, since systemd starts its service only once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Serialize;

use crate::handover::Document;
use crate::identity;
use crate::name::Name;
use crate::plan::Plan;

/// Where the boxes of this host are known.
pub const PARENT: &str = "/run/boxd";
/// Name of the file that holds the [`Plan`].
pub const PLAN: &str = "plan.json";
/// Name of the file that holds the [`Document`] of a box that runs.
pub const DOCUMENT: &str = "document.json";
/// Name of the file that holds the texts of the definition by which the box runs.
pub const DEFINITION: &str = "definition.json";
/// Name of the socket at which operators ask for the terminal of a box.
pub const ATTACH: &str = "attach";
/// Name of the file that says that the box is left to the next supervisor.
const LEFT: &str = "left";
/// Name of the file that says that this supervisor has been called.
const CALLED: &str = "called";
/// Its name until the payload has been executed.
const LAUNCHING: &str = "launching.json";

/// Name of the file that counts the deaths of supervisors.
const DEATHS: &str = "deaths";

/// Deaths that lie further apart than this are no series.
const SERIES: Duration = Duration::from_secs(60);

/// A launcher that was killed may leave a child that has not closed the lock yet, and dies of it now.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// Those who ask for a terminal and were not answered yet.
const WAITING: i32 = 16;

/// Most bytes of a file that is read back.
const FILE_MAX: u64 = 16 << 20;

/// Why the directory could not be had or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody launches this box, clears it away, or runs it in the foreground.
    #[error(
        "box {name} is being started, stopped or run in the foreground by another process; wait for it, or stop it first"
    )]
    Busy {
        /// The box.
        name: Name,
    },
    /// Somebody who is not the user boxd runs as could put what he likes there.
    #[error(
        "will not use {}: user {owner} owns it or others may write to it; remove it", path.display()
    )]
    Trust {
        /// The directory, or the one that holds those of all boxes.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The directory could not be made or locked.
    #[error("cannot {attempt} {}", path.display())]
    Directory {
        /// `make`, `open`, `lock`, `look at`, `look for`, `read`, `remove`.
        attempt: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket of the box could not be made.
    #[error("cannot make the socket {}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in it could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The locked directory. Unlocked, and left in its place, when dropped.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when another process has the lock.
    pub fn claim(name: &Name) -> Result<Self, Error> {
        Self::claim_in(Path::new(PARENT), name)
    }

    fn claim_in(parent: &Path, name: &Name) -> Result<Self, Error> {
        let path = parent.join(name.as_str());
        let failed = |attempt| {
            let path = path.clone();
            move |source| Error::Directory {
                attempt,
                path,
                source,
            }
        };
        let begin = Instant::now();
        loop {
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Before the first box of a boot, where no tmpfiles.d(5) made it.
                    fs::create_dir_all(parent).map_err(failed("make"))?;
                    continue;
                }
                Err(source) => return Err(failed("make")(source)),
            }
            let lock = match open_directory(&path) {
                Ok(lock) => lock,
                // Removed by its owner since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(failed("open")(source)),
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) if begin.elapsed() < LAST_BREATH => {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                Err(Errno::WOULDBLOCK) => return Err(Error::Busy { name: name.clone() }),
                Err(errno) => return Err(failed("lock")(errno.into())),
            }
            if is_still_at(&lock, &path) {
                let of_all = fs::symlink_metadata(parent).map_err(failed("look at"))?;
                let own = lock.metadata().map_err(failed("look at"))?;
                trust(parent, &of_all)?;
                trust(&path, &own)?;
                return Ok(RunDirectory { path, _lock: lock });
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The document of the box that was launched last and not cleared away, if there is one that can be
    /// understood.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`]: it is there and cannot be read.
    pub fn document(&self) -> Result<Option<Document>, Error> {
        for file in [DOCUMENT, LAUNCHING] {
            let path = self.path.join(file);
            match read(&path) {
                Ok(json) => {
                    // What another box's says must not be done to this one's cgroup, nor to that one's.
                    if let Ok(document) = crate::handover::understand(&json)
                        && self.path.ends_with(document.name.as_str())
                    {
                        return Ok(Some(document));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(Error::Directory {
                        attempt: "read",
                        path,
                        source,
                    });
                }
            }
        }
        Ok(None)
    }

    /// Whether that box was launched to the end. One that was not dies with its launcher.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`]: that cannot be seen.
    pub fn is_confirmed(&self) -> Result<bool, Error> {
        let path = self.path.join(DOCUMENT);
        path.try_exists().map_err(|source| Error::Directory {
            attempt: "look for",
            path,
            source,
        })
    }

    /// Writes what the box is, before its payload begins.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] when `/run` is full, above all.
    pub fn write(&self, document: &Document) -> Result<(), Error> {
        self.write_file(LAUNCHING, document)
    }

    /// Writes down by which definition the box runs: as it was launched, and again when it was changed since.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn write_definition(&self, texts: &impl Serialize) -> Result<(), Error> {
        self.write_file(DEFINITION, texts)
    }

    /// Writes down what is done for the box, and what it is once it was changed while it runs.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn write_plan(&self, plan: &Plan) -> Result<(), Error> {
        self.write_file(PLAN, plan)
    }

    /// Makes the socket through which the box will speak, at the place the plan has for it. Anybody may write to
    /// it who can reach it: nobody can enter this directory, and the socket is bound into the box.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn notify_socket(&self, path: &Path) -> Result<OwnedFd, Error> {
        let attempt = || -> io::Result<OwnedFd> {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = UnixDatagram::bind(path)?;
            // Before anybody can send: from then on each message comes with its sender.
            set_socket_passcred(&socket, true)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
            Ok(socket.into())
        };
        attempt().map_err(|source| Error::Socket {
            path: path.to_owned(),
            source,
        })
    }

    /// Makes the socket at which operators ask for the terminal of the box. Only root can reach it.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn attach_socket(&self) -> Result<OwnedFd, Error> {
        let path = self.path.join(ATTACH);
        let attempt = || -> io::Result<OwnedFd> {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            // From here on it answers; those who ask sooner are told that nobody is there.
            rustix::net::listen(&socket, WAITING)?;
            Ok(socket)
        };
        attempt().map_err(|source| Error::Socket {
            path: path.clone(),
            source,
        })
    }

    /// The payload has been executed.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn confirm(&self) -> Result<(), Error> {
        let path = self.path.join(DOCUMENT);
        fs::rename(self.path.join(LAUNCHING), &path).map_err(|source| Error::Write { path, source })
    }

    /// Counts the death of a supervisor: how many this box has lost one soon after the other, this one included.
    /// `now` is a time of a clock that only goes forward.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn count_death(&self, now: Duration) -> Result<u32, Error> {
        let (count, last) = read(&self.path.join(DEATHS))
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or((0u32, Duration::ZERO));
        let count = match now.saturating_sub(last) < SERIES {
            true => count.saturating_add(1),
            false => 1,
        };
        self.write_file(DEATHS, &(count, now))?;
        Ok(count)
    }

    /// Writes down that the box is left to the next supervisor, which is about to be called, by this run of its
    /// service: an `INVOCATION_ID` of systemd.exec(5).
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn leave(&self, invocation: &str) -> Result<(), Error> {
        self.write_file(LEFT, &invocation)
    }

    /// Writes down that this run of its service has called the next supervisor: from now on the job of the call waits for
    /// the service to come to rest.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn call(&self, invocation: &str) -> Result<(), Error> {
        self.write_file(CALLED, &invocation)
    }

    /// Removes the directory with all in it.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`].
    pub fn remove(self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Directory {
                attempt: "remove",
                path: self.path,
                source,
            }),
            _ => Ok(()),
        }
    }

    fn write_file(&self, file: &str, content: &impl Serialize) -> Result<(), Error> {
        let path = self.path.join(file);
        replace(&path, content).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })
    }
}

/// Writes a file in place of the one that may be there, for root alone. Readers see the whole file or none.
///
/// # Errors
///
/// It cannot be written; what was there stays.
pub fn replace(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let mut json = serde_json::to_vec(content)?;
    json.push(b'\n');
    replace_text(path, &json)
}

/// The same with a text.
///
/// # Errors
///
/// As there.
pub fn replace_text(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?
        .write_all(text)?;
    fs::rename(&new, path)
}

/// Whether this run of the service has [left](RunDirectory::leave) the box to the next supervisor.
///
/// # Errors
///
/// [`Error::Directory`]: it is written down, and cannot be read.
pub fn is_left(name: &Name, invocation: &str) -> Result<bool, Error> {
    is_of(name, LEFT, invocation)
}

/// Whether this run of the service has [called](RunDirectory::call) the next supervisor.
///
/// # Errors
///
/// As [`is_left`].
pub fn is_called(name: &Name, invocation: &str) -> Result<bool, Error> {
    is_of(name, CALLED, invocation)
}

/// Whether a file of a box was written by this run of its service.
fn is_of(name: &Name, file: &str, invocation: &str) -> Result<bool, Error> {
    let path = Path::new(PARENT).join(name.as_str()).join(file);
    match read(&path) {
        Ok(json) => Ok(serde_json::from_slice::<String>(&json).is_ok_and(|by| by == invocation)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Directory {
            attempt: "read",
            path,
            source,
        }),
    }
}

/// Whether anything is known of a box of this name.
pub fn exists(name: &Name) -> bool {
    fs::symlink_metadata(Path::new(PARENT).join(name.as_str())).is_ok()
}

/// The same box as the document says: the directory has not been cleared away since, nor used for another one.
///
/// # Errors
///
/// It is there and cannot be read.
pub fn holds(document: &Document) -> io::Result<bool> {
    let path = Path::new(PARENT)
        .join(document.name.as_str())
        .join(DOCUMENT);
    match read(&path) {
        Ok(json) => Ok(crate::handover::understand(&json).is_ok_and(|found| found == *document)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .custom_flags((rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW).bits() as i32)
        .open(path)
}

fn trust(path: &Path, facts: &fs::Metadata) -> Result<(), Error> {
    if !identity::is_ours_alone(facts.uid(), facts.mode()) {
        return Err(Error::Trust {
            path: path.to_owned(),
            owner: facts.uid(),
        });
    }
    Ok(())
}

fn is_still_at(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// A file of a run directory; of one that is too large to be that, a part.
///
/// # Errors
///
/// As [`File::open`] and [`read`](std::io::Read::read) have them.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_owner_and_nothing_stays_behind() {
        let parent = tempfile::tempdir().expect("a directory");
        let parent = parent.path().join("boxd");
        let name: Name = "web".parse().expect("a name");
        let first = RunDirectory::claim_in(&parent, &name).expect("nobody has it");
        let second = RunDirectory::claim_in(&parent, &name);
        assert!(matches!(second, Err(Error::Busy { .. })), "{second:?}");
        assert!(first.document().expect("it can be read").is_none());
        first.remove().expect("it goes");
        assert!(!parent.join("web").exists());

        let again = RunDirectory::claim_in(&parent, &name).expect("it is free");
        drop(again);
        assert!(parent.join("web").exists());
        RunDirectory::claim_in(&parent, &name)
            .expect("an owner that died holds nothing")
            .remove()
            .expect("it goes");
    }

    #[test]
    fn deaths_are_counted_while_they_follow_each_other_closely() {
        let parent = tempfile::tempdir().expect("a directory");
        let name: Name = "web".parse().expect("a name");
        let directory = RunDirectory::claim_in(parent.path(), &name).expect("nobody has it");
        let count = |seconds| {
            directory
                .count_death(Duration::from_secs(seconds))
                .expect("counts")
        };
        assert_eq!(
            [count(100), count(130), count(189), count(300)],
            [1, 2, 3, 1]
        );
        std::fs::write(parent.path().join("web").join(DEATHS), "no JSON").expect("writes");
        assert_eq!(count(301), 1);
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_is_refused() {
        let parent = tempfile::tempdir().expect("a directory");
        let name: Name = "web".parse().expect("a name");
        std::os::unix::fs::symlink("/tmp", parent.path().join("web")).expect("a link");
        let claimed = RunDirectory::claim_in(parent.path(), &name);
        assert!(
            matches!(
                claimed,
                Err(Error::Directory {
                    attempt: "open",
                    ..
                })
            ),
            "{claimed:?}"
        );
    }
}
