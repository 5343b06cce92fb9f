//! Waiting until definitions have changed, and whoever changes them is done.
//!
//! What is watched are directories: a file that an editor replaces is another file. The watches are made anew before
//! the definitions are read, so whatever happens from then on is seen. A change is told of when nothing more has come
//! for a while, which is longer where a file has gone or is empty: that is how many replace one. And a file that
//! somebody has open to write to is waited for, as it may be half written; the kernel knows of these, whoever watched
//! when they were opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::definition::Layers;
use crate::definition::agent::SETTINGS;
use crate::sys::is_being_written;

/// So long nothing more must come.
const QUIET: Duration = Duration::from_millis(300);

/// The same where a file has gone or has nothing in it: that would end a box, and mostly it comes back.
const REPLACED: Duration = Duration::from_secs(2);

/// After so long of one change after the other they are looked at all the same; and after so long where a file has gone
/// or is empty, as when all of them are replaced by a slow copy.
const BURST: Duration = Duration::from_secs(10);
const BURST_OF_REPLACED: Duration = Duration::from_secs(120);

/// So long a file that is being written is waited for, and it is looked at so often.
const WRITING: Duration = Duration::from_secs(30);
const WRITING_STILL: Duration = Duration::from_secs(1);

/// What happens in the directories.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Which names in a directory matter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    /// Definitions and their drop-in directories.
    Definitions,
    /// These.
    Only(BTreeSet<OsString>),
}

impl Names {
    fn matter(&self, name: &OsStr) -> bool {
        match self {
            Names::Definitions => {
                let name = name.as_bytes();
                !name.starts_with(b".") && (name.ends_with(b".toml") || name.ends_with(b".toml.d"))
            }
            Names::Only(names) => names.contains(name),
        }
    }
}

/// The directories that hold definitions, and those by whose change they appear or go.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    watched: BTreeMap<i32, Watched>,
    /// Since when there is a change that nobody was told of.
    changed: Option<Instant>,
    /// What has gone, or has nothing in it.
    away: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    names: Names,
}

impl Watch {
    /// Watches from now on, when no definition is being written, or one is for too long.
    ///
    /// # Errors
    ///
    /// Of inotify(7): its limits, above all.
    pub fn begin(layers: &Layers) -> io::Result<Watch> {
        let begin = Instant::now();
        loop {
            let mut watch = Watch::of(targets(layers, Path::new(SETTINGS)))?;
            // Whoever opens one after this look changes it, and that is seen.
            if begin.elapsed() >= WRITING || !watch.sees_writers() {
                return Ok(watch);
            }
            watch.wait(Some(WRITING_STILL))?;
        }
    }

    fn of(targets: BTreeMap<PathBuf, Names>) -> io::Result<Watch> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut watched: BTreeMap<i32, Watched> = BTreeMap::new();
        for (path, names) in targets {
            match inotify::add_watch(&inotify, &path, EVENTS) {
                Ok(watch) => {
                    // The same directory by two paths.
                    let other = watched.remove(&watch).map(|watched| watched.names);
                    let names = match (other, names) {
                        (Some(Names::Only(mut these)), Names::Only(those)) => {
                            these.extend(those);
                            Names::Only(these)
                        }
                        (Some(_), _) => Names::Definitions,
                        (None, names) => names,
                    };
                    watched.insert(watch, Watched { path, names });
                }
                // Gone since it was seen: the one above it is watched.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => {
                    return Err(io::Error::other(format!(
                        "inotify_add_watch({}): {}",
                        path.display(),
                        io::Error::from(errno)
                    )));
                }
            }
        }
        Ok(Watch {
            inotify,
            watched,
            changed: None,
            away: BTreeSet::new(),
        })
    }

    /// Returns when something has changed and all is quiet again; after `limit` in any case.
    ///
    /// # Errors
    ///
    /// The kernel's events cannot be read.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            let left = match self.changed {
                None => limit.map(|limit| limit.saturating_sub(begin.elapsed())),
                Some(first) => Some(self.left(first.elapsed())),
            };
            if left == Some(Duration::ZERO) || !self.has_events(left)? {
                return Ok(());
            }
            self.take()?;
        }
    }

    /// So long nothing more must come, so long after the first change.
    fn left(&mut self, since: Duration) -> Duration {
        // What came back in a directory that is another one now was not seen.
        self.away.retain(|path| !has_something(path));
        let (quiet, most) = match self.away.is_empty() {
            true => (QUIET, BURST),
            false => (REPLACED, BURST_OF_REPLACED),
        };
        quiet.min(most.saturating_sub(since))
    }

    /// Whether something has changed.
    ///
    /// # Errors
    ///
    /// The kernel's events cannot be read.
    pub fn has_changed(&mut self) -> io::Result<bool> {
        self.take()?;
        Ok(self.changed.is_some())
    }

    fn has_events(&self, limit: Option<Duration>) -> io::Result<bool> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref()))?;
        Ok(ready > 0)
    }

    /// Takes all events there are.
    fn take(&mut self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let what = event.events();
            let lost = ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT;
            let own = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
            if what.intersects(lost | own) {
                self.changed.get_or_insert_with(Instant::now);
                continue;
            }
            let (Some(watched), Some(name)) = (self.watched.get(&event.wd()), event.file_name())
            else {
                continue;
            };
            let name = OsStr::from_bytes(name.to_bytes());
            if !watched.names.matter(name) {
                continue;
            }
            self.changed.get_or_insert_with(Instant::now);
            let path = watched.path.join(name);
            match has_something(&path) {
                true => self.away.remove(&path),
                false => self.away.insert(path),
            };
        }
    }

    /// Whether somebody has one of the files open to write to.
    fn sees_writers(&self) -> bool {
        self.watched.values().any(|Watched { path, names }| {
            let named: Vec<OsString> = match names {
                Names::Only(names) => names.iter().cloned().collect(),
                Names::Definitions => fs::read_dir(path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.file_name())
                    .filter(|name| names.matter(name))
                    .collect(),
            };
            named.iter().any(|name| has_writer(&path.join(name)))
        })
    }
}

/// Whether this is a directory, or a file with anything in it: one that is empty is a mask, if it stays so.
fn has_something(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() || metadata.len() > 0)
}

fn has_writer(path: &Path) -> bool {
    // To open what is no file may have an effect.
    if !path.is_file() {
        return false;
    }
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    file.is_ok_and(|file| is_being_written(file.as_fd()))
}

/// Which directories are watched for which names.
fn targets(layers: &Layers, settings: &Path) -> BTreeMap<PathBuf, Names> {
    let mut targets = BTreeMap::new();
    for path in layers
        .directories()
        .iter()
        .map(PathBuf::as_path)
        .chain([settings])
    {
        watch_path(path, &mut targets);
        if path.is_symlink() {
            watch_link(path, &mut targets);
        }
    }
    for layer in layers.directories() {
        watch_directory(layer, &mut targets);
        for entry in fs::read_dir(layer).into_iter().flatten().flatten() {
            let path = entry.path();
            if !Names::Definitions.matter(&entry.file_name()) {
                continue;
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_symlink() {
                watch_link(&path, &mut targets);
            }
            if path.is_dir() {
                watch_directory(&path, &mut targets);
                for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                        watch_link(&entry.path(), &mut targets);
                    }
                }
            }
        }
    }
    targets
}

fn watch_directory(directory: &Path, targets: &mut BTreeMap<PathBuf, Names>) {
    targets.insert(directory.to_owned(), Names::Definitions);
}

/// Watches for a path to appear, go or be replaced: in the directory that holds it, or would.
fn watch_path(path: &Path, targets: &mut BTreeMap<PathBuf, Names>) {
    for (child, parent) in path.ancestors().zip(path.ancestors().skip(1)) {
        if let (true, Some(name)) = (parent.is_dir(), child.file_name()) {
            let names = targets
                .entry(parent.to_owned())
                .or_insert_with(|| Names::Only(BTreeSet::new()));
            if let Names::Only(names) = names {
                names.insert(name.to_owned());
            }
            return;
        }
    }
}

/// Watches every file that a link leads to on its way.
fn watch_link(link: &Path, targets: &mut BTreeMap<PathBuf, Names>) {
    /// As many as the kernel follows.
    const LINKS_MAX: usize = 40;
    let mut path = link.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
        watch_path(&path, targets);
    }
    // Behind links in the path itself.
    if let Ok(real) = link.canonicalize() {
        watch_path(&real, targets);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    struct Place {
        root: tempfile::TempDir,
        layers: Layers,
    }

    impl Place {
        fn new(directories: &[&str]) -> Place {
            let root = tempfile::tempdir().expect("a directory");
            for directory in directories {
                fs::create_dir_all(root.path().join(directory)).expect("made");
            }
            let layers = Layers::under(root.path());
            Place { root, layers }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.root.path().join(path)
        }

        fn watch(&self) -> Watch {
            let settings = self.path("etc/boxd.toml");
            Watch::of(targets(&self.layers, &settings)).expect("watches")
        }

        /// Whether what is done is seen: the events are there when the call that makes them returns.
        fn sees(&self, act: impl FnOnce(&Place)) -> bool {
            let mut watch = self.watch();
            act(self);
            watch.has_changed().expect("events")
        }
    }

    #[test]
    fn every_way_of_editing_is_seen() {
        let place = Place::new(&["etc/boxd/web.toml.d", "usr/lib/boxd"]);
        let put = |path: &str| fs::write(place.path(path), "x").expect("written");
        assert!(place.sees(|_| put("etc/boxd/web.toml")));
        assert!(place.sees(|_| put("usr/lib/boxd/db.toml")));
        assert!(place.sees(|_| put("etc/boxd/web.toml.d/10.toml")));
        assert!(place.sees(|_| put("etc/boxd.toml")));
        assert!(!place.sees(|_| put("etc/boxd/.web.toml.swp")));
        assert!(!place.sees(|_| put("etc/boxd/web.toml~")));
        assert!(!place.sees(|_| put("etc/passwd")));
        assert!(place.sees(|place| {
            let (from, to) = (place.path("etc/boxd/web.toml~"), "etc/boxd/web.toml");
            fs::rename(from, place.path(to)).expect("renamed");
        }));
        assert!(
            place.sees(|place| fs::remove_file(place.path("etc/boxd/web.toml")).expect("gone"))
        );
    }

    #[test]
    fn directories_come_go_and_are_replaced() {
        let place = Place::new(&["etc", "other"]);
        let make = |path: &str| fs::create_dir(place.path(path)).expect("made");
        let rename = |from: &str, to: &str| {
            fs::rename(place.path(from), place.path(to)).expect("renamed");
        };
        assert!(place.sees(|_| make("etc/boxd")));
        assert!(place.sees(|_| make("run")));
        assert!(place.sees(|_| make("run/boxd")));
        assert!(!place.sees(|_| make("run/boxd/web")), "a box that starts");
        assert!(place.sees(|_| rename("etc/boxd", "etc/boxd.old")));
        assert!(place.sees(|_| rename("other", "etc/boxd")));
        assert!(place.sees(|_| fs::remove_dir_all(place.path("etc/boxd")).expect("gone")));
    }

    #[test]
    fn a_link_is_watched_where_it_leads() {
        let place = Place::new(&["etc/boxd", "store/1", "store/2"]);
        let link = |to: &str, at: &str| {
            std::os::unix::fs::symlink(place.path(to), place.path(at)).expect("a link");
        };
        fs::write(place.path("store/1/web.toml"), "x").expect("written");
        link("store/1", "store/current");
        link("store/current/web.toml", "etc/boxd/web.toml");
        assert!(
            place.sees(|place| fs::write(place.path("store/1/web.toml"), "y").expect("written"))
        );
        assert!(!place.sees(|place| fs::write(place.path("store/1/other"), "y").expect("written")));
    }

    #[test]
    fn a_layer_that_is_a_link_is_watched_where_it_leads() {
        let place = Place::new(&["etc", "store/1", "store/2"]);
        let link = |to: &str, at: &str| {
            std::os::unix::fs::symlink(place.path(to), place.path(at)).expect("a link");
        };
        link("store/1", "store/current");
        link("store/current", "etc/boxd");
        assert!(
            place.sees(|place| fs::write(place.path("store/1/web.toml"), "x").expect("written"))
        );
        assert!(place.sees(|place| {
            fs::remove_file(place.path("store/current")).expect("gone");
        }));
    }

    #[test]
    fn a_file_that_is_being_written_is_known() {
        crate::sys::ignore_sigio();
        let place = Place::new(&["etc/boxd", "store"]);
        let link = place.path("etc/boxd/link.toml");
        std::os::unix::fs::symlink(place.path("store/it"), link).expect("a link");
        for path in ["etc/boxd/web.toml", "store/it"] {
            let mut file = File::create(place.path(path)).expect("made");
            file.write_all(b"half").expect("written");
            let watch = place.watch();
            assert!(watch.sees_writers(), "{path}");
            drop(file);
            // A process that another test starts meanwhile has the file too, until it executes something.
            let is_left = (0..1000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                !watch.sees_writers()
            });
            assert!(is_left, "{path}");
        }
        let _other = File::create(place.path("etc/boxd/web.toml~")).expect("made");
        assert!(!place.watch().sees_writers());
    }

    #[test]
    fn what_goes_or_is_empty_is_given_more_time() {
        let place = Place::new(&["etc/boxd"]);
        let path = place.path("etc/boxd/web.toml");
        let mut watch = place.watch();
        let mut is_away = |act: &dyn Fn()| {
            act();
            assert!(watch.has_changed().expect("events"));
            !watch.away.is_empty()
        };
        assert!(is_away(&|| drop(File::create(&path).expect("made"))));
        assert!(!is_away(&|| fs::write(&path, "x").expect("written")));
        let other = place.path("etc/boxd/web.toml~");
        assert!(is_away(&|| fs::rename(&path, &other).expect("renamed")));
        assert!(!is_away(&|| fs::rename(&other, &path).expect("renamed")));
        assert!(is_away(&|| fs::remove_file(&path).expect("gone")));

        let late = BURST + Duration::from_secs(1);
        assert_eq!(watch.left(late), REPLACED);
        assert_eq!(watch.left(BURST_OF_REPLACED), Duration::ZERO);
        fs::write(&path, "x").expect("written");
        assert_eq!(watch.left(Duration::ZERO), QUIET);
        assert_eq!(watch.left(late), Duration::ZERO);
    }

    #[test]
    fn a_change_ends_the_wait_and_so_does_its_limit() {
        let place = Place::new(&["etc/boxd"]);
        let mut watch = place.watch();
        watch.wait(Some(Duration::from_millis(1))).expect("waited");
        fs::write(place.path("etc/boxd/web.toml"), "x").expect("written");
        watch.wait(None).expect("waited");
        assert!(watch.has_changed().expect("events"));
    }
}
