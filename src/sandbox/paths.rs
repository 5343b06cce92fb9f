//! The one way to a path inside a root.
//!
//! A root may come from anywhere, and another box may be changing a directory both share while we look. So a
//! path is resolved by the kernel below the root's descriptor (`RESOLVE_IN_ROOT` of openat2(2)), once, and what
//! it led to is acted on by descriptor. Where something on the way has to be made, the walk here takes one
//! component at a time, never lets the kernel follow a link, and goes up by the descriptor it came down from:
//! no rename and no link, whatever its text, leads out of the root. Links in a procfs are never followed, for
//! they are not text.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::sys::{self, Called as _};

/// Most symbolic links on one way, as in path_resolution(7).
const LINKS_MAX: usize = 40;

/// Permission bits of directories made on the way.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// Permission bits of a file made to be mounted over.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// What could not be done to a path inside a root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The way there fails.
    #[error("cannot find {path:?} in the box")]
    Find {
        /// Inside the root.
        path: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// It is not there and could not be made.
    #[error("cannot make {path:?} in the box")]
    Make {
        /// Inside the root.
        path: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// It is not there, and the root takes no writes.
    #[error(
        "cannot make {path:?} in the box, whose root is read-only and has no such path: make it in the root's \
         directory, or let [root] writes be \"discard\""
    )]
    ReadOnly {
        /// Inside the root.
        path: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A link of a procfs, which leads wherever the kernel says.
    #[error("cannot follow a link of /proc on the way to {0:?} in the box")]
    MagicLink(PathBuf),
    /// A file system of the kernel must not land elsewhere through a link.
    #[error(
        "cannot use {0:?} of the box: it must be mounted on ordinary directory, and is no such thing in this root"
    )]
    NotOrdinary(PathBuf),
    /// A file was wanted and a directory is there, or the other way round.
    #[error("cannot use {path:?} of the box: it is {is}, and {wanted} is wanted there")]
    Kind {
        /// Inside the root.
        path: PathBuf,
        /// What it is.
        is: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// The file is larger than any honest one of its kind.
    #[error("cannot read {path:?} of the box: it is larger than {limit} bytes")]
    TooLarge {
        /// Inside the root.
        path: PathBuf,
        /// Most bytes.
        limit: u64,
    },
}

impl Error {
    /// The path inside the root this is about.
    pub fn path(&self) -> &Path {
        match self {
            Error::Find { path, .. }
            | Error::Make { path, .. }
            | Error::ReadOnly { path, .. }
            | Error::MagicLink(path)
            | Error::NotOrdinary(path)
            | Error::Kind { path, .. }
            | Error::TooLarge { path, .. } => path,
        }
    }

    fn make(path: &Path, source: sys::Error) -> Self {
        let path = path.to_owned();
        if source.errno() == sys::Errno::EROFS {
            Error::ReadOnly { path, source }
        } else {
            Error::Make { path, source }
        }
    }
}

/// A directory that paths are resolved in.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// Whether a mount point is wanted for a directory or for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Directories can only be mounted on directories.
    Directory,
    /// Everything else on anything else.
    File,
}

impl Kind {
    /// What the file behind a descriptor is.
    pub fn of(file: BorrowedFd<'_>) -> Result<Self, sys::Error> {
        Ok(match file_type(&status(file)?) {
            FileType::Directory => Kind::Directory,
            _ => Kind::File,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Directory => "a directory",
            Kind::File => "a file",
        }
    }
}

/// Where a path leads.
enum Place {
    There(OwnedFd),
    Missing { parent: OwnedFd, name: OsString },
}

/// Whether directories missing on the way are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parents {
    Made,
    Needed,
}

impl Root {
    /// The directory behind this descriptor.
    pub fn new(directory: OwnedFd) -> Self {
        Root(directory)
    }

    /// The root this process has; chroot(2).
    pub fn of_this_process() -> Result<Self, Error> {
        rustix::fs::open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .called(|| r#"open("/", O_PATH)"#.to_owned())
        .map(Root)
        .map_err(|source| Error::Find {
            path: PathBuf::from("/"),
            source,
        })
    }

    /// What is at `path`, through links inside the root; none if nothing is. For use by descriptor, `O_PATH`.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>, Error> {
        match self.resolve(path, Parents::Needed)? {
            Place::There(found) => Ok(Some(found)),
            Place::Missing { .. } => Ok(None),
        }
    }

    /// A place to mount on, through links inside the root; made, with its parents, if it is missing.
    pub fn mount_point(&self, path: &Path, kind: Kind) -> Result<OwnedFd, Error> {
        let (parent, name) = match self.resolve(path, Parents::Made)? {
            Place::There(found) => {
                let is = Kind::of(found.as_fd()).map_err(|source| Error::Find {
                    path: path.to_owned(),
                    source,
                })?;
                if is != kind {
                    return Err(Error::Kind {
                        path: path.to_owned(),
                        is: is.name(),
                        wanted: kind.name(),
                    });
                }
                return Ok(found);
            }
            Place::Missing { parent, name } => (parent, name),
        };
        let made = match kind {
            Kind::Directory => make_directory(&parent, &name, DIRECTORY_MODE),
            Kind::File => make_file(&parent, &name, FILE_MODE).map(drop),
        };
        made.and_then(|()| open_component(&parent, &name))
            .map_err(|source| Error::make(path, source))
    }

    /// A place to mount a file system of the kernel on: a directory, reached through no link at all.
    ///
    /// Programs, and what is masked afterwards, find these by their names; an image must not move them.
    pub fn ordinary_mount_point(&self, path: &Path) -> Result<OwnedFd, Error> {
        let plain = || {
            openat2(
                &self.0,
                path,
                OFlags::PATH | OFlags::DIRECTORY,
                ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
            )
        };
        let found = match plain() {
            Err(source) if source.errno() == sys::Errno::ENOENT => {
                self.mount_point(path, Kind::Directory)?;
                plain()
            }
            found => found,
        };
        found.map_err(|source| match source.errno() {
            sys::Errno::ELOOP | sys::Errno::ENOTDIR | sys::Errno::ENOENT => {
                Error::NotOrdinary(path.to_owned())
            }
            _ => Error::Find {
                path: path.to_owned(),
                source,
            },
        })
    }

    /// A directory at `path`, made with these permission bits if it is missing, its parents with 755.
    pub fn directory(&self, path: &Path, mode: Mode) -> Result<(), Error> {
        match self.resolve(path, Parents::Made)? {
            Place::There(found) => match Kind::of(found.as_fd()) {
                Ok(Kind::Directory) => Ok(()),
                Ok(Kind::File) => Err(Error::Kind {
                    path: path.to_owned(),
                    is: Kind::File.name(),
                    wanted: Kind::Directory.name(),
                }),
                Err(source) => Err(Error::Find {
                    path: path.to_owned(),
                    source,
                }),
            },
            Place::Missing { parent, name } => {
                make_directory(&parent, &name, mode).map_err(|source| Error::make(path, source))
            }
        }
    }

    /// A new file at `path` with this content. What was there goes, unless it is a directory; a link is
    /// replaced and not followed, so a pipe or device of the root is never written to.
    pub fn file(&self, path: &Path, mode: Mode, content: &[u8]) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => {
                return Err(Error::Kind {
                    path: path.to_owned(),
                    is: Kind::Directory.name(),
                    wanted: Kind::File.name(),
                });
            }
            Err(errno) => {
                let call = format!("unlinkat(fd {}, {name:?})", parent.as_raw_fd());
                return Err(Error::make(path, sys::Error::new(call, errno)));
            }
        }
        make_file(&parent, name, mode)
            .and_then(|file| {
                File::from(file)
                    .write_all(content)
                    .called(|| format!("write({name:?}, {} bytes)", content.len()))
            })
            .map_err(|source| Error::make(path, source))
    }

    /// A symbolic link at `path`, unless something of that name is there.
    pub fn symlink(&self, path: &Path, target: &Path) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        match open_component(&parent, name) {
            Ok(_) => return Ok(()),
            Err(error) if error.errno() == sys::Errno::ENOENT => {}
            Err(source) => {
                return Err(Error::Find {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        rustix::fs::symlinkat(target, &parent, name)
            .called(|| format!("symlinkat({target:?}, fd {}, {name:?})", parent.as_raw_fd()))
            .map_err(|source| Error::make(path, source))
    }

    /// Content of a regular file of at most `limit` bytes; none if there is no such file.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let find = |source| Error::Find {
            path: path.to_owned(),
            source,
        };
        // Opening a pipe for reading would otherwise wait for somebody to write.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match openat2(&self.0, path, flags, IN_ROOT) {
            Ok(file) => file,
            Err(error) if matches!(error.errno(), sys::Errno::ENOENT | sys::Errno::ENOTDIR) => {
                return Ok(None);
            }
            Err(source) => return Err(find(source)),
        };
        let is = file_type(&status(file.as_fd()).map_err(find)?);
        if is != FileType::RegularFile {
            return Err(Error::Kind {
                path: path.to_owned(),
                is: type_name(is),
                wanted: Kind::File.name(),
            });
        }
        let mut content = Vec::new();
        File::from(file)
            .take(limit + 1)
            .read_to_end(&mut content)
            .called(|| format!("read({path:?})"))
            .map_err(find)?;
        if content.len() as u64 > limit {
            return Err(Error::TooLarge {
                path: path.to_owned(),
                limit,
            });
        }
        Ok(Some(content))
    }

    /// The directory that holds the last component of `path`, made if it is missing, and that component.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Error> {
        let not_a_name = || Error::Kind {
            path: path.to_owned(),
            is: Kind::Directory.name(),
            wanted: Kind::File.name(),
        };
        let name = path.file_name().ok_or_else(not_a_name)?;
        let directory = path.parent().ok_or_else(not_a_name)?;
        let parent = self.mount_point(directory, Kind::Directory)?;
        Ok((parent, name))
    }

    fn resolve(&self, path: &Path, parents: Parents) -> Result<Place, Error> {
        match openat2(&self.0, path, OFlags::PATH, IN_ROOT) {
            Ok(found) => Ok(Place::There(found)),
            // Where the kernel cannot be sure in the end, the walk is.
            Err(error) if matches!(error.errno(), sys::Errno::ENOENT | sys::Errno::EAGAIN) => {
                self.walk(path, parents)
            }
            Err(error) if error.errno() == sys::Errno::ELOOP => {
                // Either a loop, or a link of a procfs; the walk tells which.
                self.walk(path, parents)
            }
            Err(source) => Err(Error::Find {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn walk(&self, path: &Path, parents: Parents) -> Result<Place, Error> {
        let find = |source| Error::Find {
            path: path.to_owned(),
            source,
        };
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut ahead = names(path);
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                above.pop();
                continue;
            }
            let here = above.last().unwrap_or(&self.0);
            let next = match open_component(here, &name) {
                Ok(next) => next,
                Err(error) if error.errno() == sys::Errno::ENOENT => {
                    if ahead.is_empty() || parents == Parents::Needed {
                        let parent = here.try_clone().called(|| "dup".to_owned()).map_err(find)?;
                        return Ok(Place::Missing { parent, name });
                    }
                    make_directory(here, &name, DIRECTORY_MODE)
                        .and_then(|()| open_component(here, &name))
                        .map_err(|source| Error::make(path, source))?
                }
                Err(source) => return Err(find(source)),
            };
            let next_status = status(next.as_fd()).map_err(find)?;
            if file_type(&next_status) != FileType::Symlink {
                above.push(next);
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                let call = format!("walk({path:?})");
                return Err(find(sys::Error::new(call, sys::Errno::ELOOP)));
            }
            if is_procfs(&next).map_err(find)? {
                return Err(Error::MagicLink(path.to_owned()));
            }
            let target = rustix::fs::readlinkat(&next, "", Vec::new())
                .called(|| format!("readlinkat({name:?})"))
                .map_err(find)?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                above.clear();
            }
            for name in names(&target).into_iter().rev() {
                ahead.push_front(name);
            }
        }
        match above.pop() {
            Some(found) => Ok(Place::There(found)),
            None => self
                .0
                .try_clone()
                .called(|| "dup".to_owned())
                .map(Place::There)
                .map_err(find),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn openat2(
    root: &OwnedFd,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, sys::Error> {
    // EAGAIN is how the kernel says that something was renamed or mounted meanwhile, wherever on this host, and that
    // it cannot be sure of a ".." on the way.
    const ATTEMPTS: u32 = 100;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if attempts < ATTEMPTS => {}
            opened => {
                return opened.called(|| {
                    format!(
                        "openat2(fd {}, {path:?}, {flags:?}, {resolve:?})",
                        root.as_raw_fd()
                    )
                });
            }
        }
    }
}

/// One name in one directory, itself and not where it leads.
fn open_component(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd, sys::Error> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).called(|| {
        format!(
            "openat(fd {}, {name:?}, O_PATH | O_NOFOLLOW)",
            directory.as_raw_fd()
        )
    })
}

fn make_directory(parent: &OwnedFd, name: &OsStr, mode: Mode) -> Result<(), sys::Error> {
    match rustix::fs::mkdirat(parent, name, mode) {
        // Somebody else made it; what it is shows when it is opened.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(sys::Error::new(
            format!("mkdirat(fd {}, {name:?}, {:o})", parent.as_raw_fd(), mode),
            errno,
        )),
    }
}

fn make_file(parent: &OwnedFd, name: &OsStr, mode: Mode) -> Result<OwnedFd, sys::Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, mode).called(|| {
        format!(
            "openat(fd {}, {name:?}, O_CREAT | O_EXCL, {:o})",
            parent.as_raw_fd(),
            mode
        )
    })
}

fn status(file: BorrowedFd<'_>) -> Result<Stat, sys::Error> {
    rustix::fs::fstat(file).called(|| format!("fstat(fd {})", file.as_raw_fd()))
}

fn file_type(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

fn type_name(is: FileType) -> &'static str {
    match is {
        FileType::Directory => "a directory",
        FileType::RegularFile => "a file",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    }
}

fn is_procfs(file: &OwnedFd) -> Result<bool, sys::Error> {
    let file_system =
        rustix::fs::fstatfs(file).called(|| format!("fstatfs(fd {})", file.as_raw_fd()))?;
    Ok(file_system.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Canary {
        outside: tempfile::TempDir,
        inside: tempfile::TempDir,
        root: Root,
    }

    /// A root full of links that lead out, beside a directory that must stay as it is.
    fn canary() -> Canary {
        let outside = tempfile::tempdir().expect("a directory");
        std::fs::write(outside.path().join("file"), "untouched").expect("a file");
        let inside = tempfile::tempdir().expect("a directory");
        let root = inside.path();
        symlink(outside.path(), root.join("absolute")).expect("a link");
        let mut relative = PathBuf::from("../../../../../../../..");
        relative.push(outside.path().strip_prefix("/").expect("it is absolute"));
        symlink(relative, root.join("relative")).expect("a link");
        symlink("loop", root.join("loop")).expect("a link");
        symlink("../../made/by/link", root.join("dangling")).expect("a link");
        std::fs::create_dir(root.join("etc")).expect("a directory");
        symlink("/etc", root.join("alias")).expect("a link");
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .expect("it is there");
        Canary {
            outside,
            inside,
            root: Root::new(fd),
        }
    }

    impl Canary {
        fn assert_untouched(&self) {
            let names: Vec<_> = std::fs::read_dir(self.outside.path())
                .expect("it is there")
                .map(|entry| entry.expect("readable").file_name())
                .collect();
            assert_eq!(names, ["file"]);
            let content =
                std::fs::read_to_string(self.outside.path().join("file")).expect("it is there");
            assert_eq!(content, "untouched");
        }
    }

    #[test]
    fn links_that_lead_out_end_inside() {
        for way in ["absolute", "relative"] {
            let canary = canary();
            let path = Path::new(way).join("file");
            assert!(
                canary.root.find(&path).expect("no error").is_none(),
                "{way}"
            );
            canary
                .root
                .mount_point(&path, Kind::File)
                .unwrap_or_else(|error| panic!("{way}: {error}"));
            canary
                .root
                .file(&path, Mode::from_raw_mode(0o600), b"inside")
                .unwrap_or_else(|error| panic!("{way}: {error}"));
            canary
                .root
                .directory(&Path::new(way).join("d/e"), DIRECTORY_MODE)
                .unwrap_or_else(|error| panic!("{way}: {error}"));
            let read = canary.root.read(&path, 100).expect("readable");
            assert_eq!(read.as_deref(), Some(b"inside".as_slice()), "{way}");
            canary.assert_untouched();
            let same_path_inside = canary
                .inside
                .path()
                .join(canary.outside.path().strip_prefix("/").expect("absolute"));
            assert!(same_path_inside.join("file").exists());
        }
    }

    #[test]
    fn a_dangling_link_is_a_mount_point_where_it_leads() {
        let canary = canary();
        canary
            .root
            .mount_point(Path::new("/dangling"), Kind::Directory)
            .expect("made");
        assert!(canary.inside.path().join("made/by/link").is_dir());
    }

    #[test]
    fn a_loop_is_an_error_and_no_hang() {
        let canary = canary();
        let error = canary
            .root
            .mount_point(Path::new("/loop/x"), Kind::File)
            .expect_err("it has no end");
        assert!(matches!(error, Error::Find { .. }), "{error}");
    }

    #[test]
    fn links_of_proc_are_not_followed() {
        let root = Root::of_this_process().expect("it is there");
        for path in ["/proc/self/root/etc", "/proc/self/fd/0", "/proc/self/cwd"] {
            let error = root.find(Path::new(path)).expect_err(path);
            assert!(matches!(error, Error::MagicLink(_)), "{path}: {error}");
        }
    }

    #[test]
    fn file_systems_of_the_kernel_need_an_ordinary_directory() {
        let canary = canary();
        for path in ["/alias", "/absolute/proc", "/alias/sub", "/dangling"] {
            let error = canary
                .root
                .ordinary_mount_point(Path::new(path))
                .expect_err(path);
            assert!(
                error
                    .to_string()
                    .contains("must be mounted on ordinary directory"),
                "{path}: {error}"
            );
        }
        canary
            .root
            .ordinary_mount_point(Path::new("/proc"))
            .expect("made");
        canary.assert_untouched();
    }

    #[test]
    fn a_file_replaces_what_was_there() {
        let canary = canary();
        let path = Path::new("/etc/hostname");
        let on_disk = canary.inside.path().join("etc/hostname");
        symlink(canary.outside.path().join("file"), &on_disk).expect("a link");
        canary
            .root
            .file(path, Mode::from_raw_mode(0o640), b"box\n")
            .expect("written");
        canary.assert_untouched();
        let status = std::fs::symlink_metadata(&on_disk).expect("it is there");
        assert!(status.is_file());
        assert_eq!(status.permissions().mode() & 0o777, 0o640);

        std::fs::remove_file(&on_disk).expect("it is there");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &on_disk,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a pipe");
        let error = canary.root.read(path, 100).expect_err("a pipe has no end");
        assert!(error.to_string().contains("it is a pipe"), "{error}");
        canary
            .root
            .file(path, Mode::from_raw_mode(0o644), b"box\n")
            .expect("written, and not into the pipe");

        let error = canary
            .root
            .file(Path::new("/etc"), Mode::from_raw_mode(0o644), b"")
            .expect_err("a directory is there");
        assert!(matches!(error, Error::Kind { .. }), "{error}");
    }

    #[test]
    fn reading_is_bounded() {
        let canary = canary();
        let file = File::create(canary.inside.path().join("etc/passwd")).expect("a file");
        file.set_len(1 << 40).expect("sparse");
        let error = canary
            .root
            .read(Path::new("/etc/passwd"), 1024)
            .expect_err("it is huge");
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }
}
