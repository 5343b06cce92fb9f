//! Paths of the host that give a box more than it may have without its operator saying so.
//!
//! What is bound into a box is bound with the host's rights behind it: a socket's other end does not know of
//! user namespaces, and a file that the host runs or reads is the host's whoever wrote it. A mount of such a
//! path is refused unless it says `sensitive = true`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::host::{Access, Kind, Node, NodeKind};

/// Why a path is sensitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The sensitive place.
    pub place: PathBuf,
    /// What it is, a noun phrase: "the host's passwords".
    pub what: &'static str,
    /// How the path relates to it.
    pub relation: Relation,
}

/// How a path relates to a sensitive place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is the place or lies in it.
    Is,
    /// The place lies in it.
    Contains,
}

impl fmt::Display for Exposure {
    /// "is the host's system bus", "contains /etc, the host's configuration".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.relation {
            Relation::Is => write!(f, "is {}", self.what),
            Relation::Contains => write!(f, "contains {}, {}", self.place.display(), self.what),
        }
    }
}

/// How far a place reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The place itself; what lies in it has entries of its own or is harmless.
    Itself,
    /// And all that lies in it.
    Everything,
    /// And all that lies in it, but only to a box that can write there.
    Writable,
}

use Reach::{Everything, Itself, Writable};

/// Sensitive places. The first that fits is told, so a place stands before those that lie in it.
const PLACES: &[(&str, Reach, &str)] = &[
    ("/", Itself, "the host's whole file system"),
    (
        "/etc",
        Itself,
        "the host's configuration, with its passwords and keys",
    ),
    (
        "/etc/boxd",
        Everything,
        "the definitions of this host's boxes",
    ),
    (
        "/etc/credstore",
        Everything,
        "a store of the host's credentials",
    ),
    (
        "/etc/credstore.encrypted",
        Everything,
        "a store of the host's credentials",
    ),
    ("/etc/gshadow", Everything, "the host's group passwords"),
    ("/etc/shadow", Everything, "the host's passwords"),
    ("/etc/ssh", Itself, "the host's keys"),
    ("/etc/ssl/private", Everything, "the host's keys"),
    (
        "/etc/sudoers",
        Everything,
        "the host's rules for who becomes root",
    ),
    (
        "/etc/sudoers.d",
        Everything,
        "the host's rules for who becomes root",
    ),
    (
        "/etc/systemd",
        Everything,
        "what systemd runs on the host as root",
    ),
    (
        "/etc",
        Writable,
        "what the host's services and its root are told to do",
    ),
    (
        "/proc",
        Everything,
        "the host's processes and kernel settings",
    ),
    ("/sys", Everything, "the host's devices and kernel settings"),
    ("/dev", Itself, "every device of the host"),
    ("/dev/block", Everything, "the host's block devices"),
    ("/dev/disk", Everything, "the host's block devices"),
    ("/dev/mapper", Everything, "the host's block devices"),
    ("/boot", Everything, "the kernel that the host boots"),
    ("/efi", Everything, "the kernel that the host boots"),
    (
        "/root",
        Everything,
        "the home of the host's root, with its keys",
    ),
    (
        "/run",
        Itself,
        "the run-time directory of the host's services, with their sockets",
    ),
    ("/run/boxd", Everything, "the state and sockets of boxd"),
    (
        "/run/containerd",
        Everything,
        "the socket of containerd, which gives root on the host",
    ),
    (
        "/run/credentials",
        Everything,
        "the credentials of the host's services",
    ),
    (
        "/run/crio",
        Everything,
        "the socket of CRI-O, which gives root on the host",
    ),
    ("/run/dbus", Everything, "the host's system bus"),
    (
        "/run/docker",
        Everything,
        "the run-time directory of Docker",
    ),
    (
        "/run/docker.sock",
        Everything,
        "the socket of Docker, which gives root on the host",
    ),
    (
        "/run/libvirt",
        Everything,
        "the sockets of libvirt, which give root on the host",
    ),
    (
        "/run/podman",
        Everything,
        "the socket of Podman, which gives root on the host",
    ),
    (
        "/run/snapd.socket",
        Everything,
        "the socket of snapd, which gives root on the host",
    ),
    (
        "/run/systemd/private",
        Everything,
        "the socket of systemd, which gives root on the host",
    ),
    (
        "/run/udev/control",
        Everything,
        "the socket of udev, which gives root on the host",
    ),
    (
        "/var/lib/boxd",
        Everything,
        "the files of this host's boxes",
    ),
    (
        "/var/lib/containerd",
        Everything,
        "the files of this host's containers",
    ),
    (
        "/var/lib/containers",
        Everything,
        "the files of this host's containers",
    ),
    (
        "/var/lib/docker",
        Everything,
        "the files of this host's containers",
    ),
    (
        "/var/lib/incus",
        Everything,
        "the files and the socket of Incus",
    ),
    (
        "/var/lib/lxd",
        Everything,
        "the files and the socket of LXD",
    ),
    (
        "/var/lib/systemd/credential.secret",
        Everything,
        "the key to the host's credentials",
    ),
    ("/usr/bin", Writable, "programs that the host runs as root"),
    ("/usr/lib", Writable, "programs that the host runs as root"),
    (
        "/usr/lib64",
        Writable,
        "libraries that the host's programs use",
    ),
    (
        "/usr/libexec",
        Writable,
        "programs that the host runs as root",
    ),
    (
        "/usr/local/bin",
        Writable,
        "programs that the host runs as root",
    ),
    (
        "/usr/local/lib",
        Writable,
        "libraries that the host's programs use",
    ),
    (
        "/usr/local/sbin",
        Writable,
        "programs that the host runs as root",
    ),
    ("/usr/sbin", Writable, "programs that the host runs as root"),
    (
        "/usr/share/dbus-1",
        Writable,
        "services that the host's bus starts as root",
    ),
    (
        "/usr/share/polkit-1",
        Writable,
        "the host's rules for who may do what",
    ),
    // Where these are no links.
    ("/bin", Writable, "programs that the host runs as root"),
    ("/lib", Writable, "programs that the host runs as root"),
    ("/lib64", Writable, "libraries that the host's programs use"),
    ("/sbin", Writable, "programs that the host runs as root"),
    (
        "/var/lib/dpkg",
        Writable,
        "scripts that the host's package manager runs as root",
    ),
    (
        "/var/lib/systemd",
        Writable,
        "the state of the host's systemd",
    ),
    (
        "/var/spool/cron",
        Writable,
        "what the host runs by the clock as root",
    ),
];

/// Sockets below `/run/systemd` that are made for everyone: logging and name resolution.
const PUBLIC_SOCKETS: [&str; 2] = ["/run/systemd/journal", "/run/systemd/resolve"];

/// What lies in `/run/user/UID` and acts for that user.
const OF_A_USER: [&str; 6] = [
    "bus",
    "containerd",
    "containerd-rootless",
    "docker.sock",
    "podman",
    "systemd",
];

/// Why a path of the host is not to be bound without `sensitive = true`; none if it may.
///
/// `path` is absolute and as written; `real` is where it leads, without links; `kind` is what stands there.
pub fn check(path: &Path, real: &Path, kind: &Kind, read_only: bool) -> Option<Exposure> {
    [path, real].into_iter().find_map(|path| {
        place(path, read_only)
            .or_else(|| socket_of_systemd(path, kind))
            .or_else(|| of_a_user(path))
    })
}

/// Why nobody is to listen at a path of the host without `sensitive = true`; none if one may. The same as to
/// bind what would be there.
pub fn of_socket(path: &Path, real: &Path) -> Option<Exposure> {
    check(path, real, &Kind::Socket, false)
}

fn place(path: &Path, read_only: bool) -> Option<Exposure> {
    let applies = |reach: Reach| reach != Writable || !read_only;
    let exposure = |(place, _, what): &(&str, Reach, &'static str), relation| Exposure {
        place: place.into(),
        what,
        relation,
    };
    let is = PLACES.iter().find(|(place, reach, _)| match reach {
        Itself => path == Path::new(place),
        Everything | Writable => applies(*reach) && path.starts_with(place),
    });
    if let Some(entry) = is {
        return Some(exposure(entry, Relation::Is));
    }
    PLACES
        .iter()
        .find(|(place, reach, _)| applies(*reach) && Path::new(place).starts_with(path))
        .map(|entry| exposure(entry, Relation::Contains))
}

fn socket_of_systemd(path: &Path, kind: &Kind) -> Option<Exposure> {
    let of_systemd = *kind == Kind::Socket && path.starts_with("/run/systemd");
    let public = PUBLIC_SOCKETS
        .iter()
        .any(|directory| path.starts_with(directory));
    (of_systemd && !public).then(|| Exposure {
        place: path.to_owned(),
        what: "a socket of the host's systemd",
        relation: Relation::Is,
    })
}

fn of_a_user(path: &Path) -> Option<Exposure> {
    let below = path.strip_prefix("/run/user").ok()?;
    let mut parts = below.components().skip(1);
    let what = "the run-time directory of a user of the host, with sockets that act for that user";
    let relation = match parts.next() {
        // `/run/user` or `/run/user/UID`.
        None => Relation::Is,
        Some(name) if OF_A_USER.iter().any(|known| name.as_os_str() == *known) => Relation::Is,
        Some(_) => return None,
    };
    Some(Exposure {
        place: path.to_owned(),
        what,
        relation,
    })
}

/// Who but root and the box can write in a directory of the host that the box can write, as a phrase. They and
/// the box can put links and files in each other's way there.
pub fn others(access: Access) -> Option<String> {
    if access.mode & 0o002 != 0 {
        Some("every user of the host".to_owned())
    } else if access.uid != 0 {
        Some(format!("user {} of the host", access.uid))
    } else if access.mode & 0o020 != 0 && access.gid != 0 {
        Some(format!("group {} of the host", access.gid))
    } else {
        None
    }
}

/// What a device is that gives a box power over the host, or reads its memory or what people type.
pub(super) fn device(node: Node) -> Option<&'static str> {
    match (node.kind, node.major, node.minor) {
        (NodeKind::Block, 7, _) => Some("a loop device of the host, a disk made of a file"),
        (NodeKind::Block, _, _) => {
            Some("a disk of the host, or a part of one, past all permissions of files")
        }
        (NodeKind::Character, 1, 1 | 2) => Some("the host's memory"),
        (NodeKind::Character, 1, 4) => Some("the ports of the host's hardware"),
        (NodeKind::Character, 1, 11) => Some("the log of the host's kernel"),
        (NodeKind::Character, 4 | 5, 0 | 1) | (NodeKind::Character, 4, _) => {
            Some("a terminal of the host")
        }
        (NodeKind::Character, 10, 223) | (NodeKind::Character, 13, _) => {
            Some("input of the host's keyboards and mice")
        }
        (NodeKind::Character, 10, 236) => Some("the device mapper, which makes disks of disks"),
        (NodeKind::Character, 10, 237) => Some("the control of loop devices"),
        (NodeKind::Character, 9 | 21, _) => Some("a disk or tape of the host by its raw commands"),
        (NodeKind::Character, 202 | 203, _) => Some("the registers of the host's processors"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: Kind = Kind::Directory { has_usr: false };

    fn told(path: &str) -> Option<String> {
        let path = Path::new(path);
        check(path, path, &DIRECTORY, true).map(|exposure| exposure.to_string())
    }

    #[test]
    fn the_places_of_the_host_are_sensitive() {
        for (path, sentence) in [
            ("/", "is the host's whole file system"),
            (
                "/etc",
                "is the host's configuration, with its passwords and keys",
            ),
            ("/proc", "is the host's processes and kernel settings"),
            ("/sys", "is the host's devices and kernel settings"),
            ("/dev", "is every device of the host"),
            ("/boot", "is the kernel that the host boots"),
            ("/root", "is the home of the host's root, with its keys"),
            (
                "/run",
                "is the run-time directory of the host's services, with their sockets",
            ),
            ("/var/lib/boxd", "is the files of this host's boxes"),
            (
                "/run/docker.sock",
                "is the socket of Docker, which gives root on the host",
            ),
            (
                "/run/containerd/containerd.sock",
                "is the socket of containerd, which gives root on the host",
            ),
            ("/run/dbus/system_bus_socket", "is the host's system bus"),
            (
                "/run/systemd/private",
                "is the socket of systemd, which gives root on the host",
            ),
            ("/run/boxd/web", "is the state and sockets of boxd"),
        ] {
            assert_eq!(told(path).as_deref(), Some(sentence), "{path}");
        }
    }

    #[test]
    fn so_is_what_contains_one_and_what_lies_in_one() {
        for (path, sentence) in [
            (
                "/var/lib",
                "contains /var/lib/boxd, the files of this host's boxes",
            ),
            (
                "/var",
                "contains /var/lib/boxd, the files of this host's boxes",
            ),
            (
                "/run/systemd",
                "contains /run/systemd/private, the socket of systemd, which gives root on the host",
            ),
            ("/etc/ssl", "contains /etc/ssl/private, the host's keys"),
            (
                "/var/lib/boxd/boxes/db",
                "is the files of this host's boxes",
            ),
            (
                "/proc/sys/kernel",
                "is the host's processes and kernel settings",
            ),
            (
                "/root/.ssh",
                "is the home of the host's root, with its keys",
            ),
        ] {
            assert_eq!(told(path).as_deref(), Some(sentence), "{path}");
        }
        assert!(told("/run/user/1000").is_some());
        assert!(told("/run/user/1000/bus").is_some());
        assert!(told("/run/user/1000/pipewire-0").is_none());
    }

    #[test]
    fn what_boxes_are_given_every_day_is_not() {
        for path in [
            "/srv/www",
            "/home/anna/site",
            "/var/log/web",
            "/var/cache",
            "/opt/app",
            "/etc/ssl/certs",
            "/etc/hosts",
            "/etc/nginx",
            "/dev/dri",
            "/run/web",
            "/usr",
            "/usr/share/zoneinfo",
            "/var/lib/postgresql",
            "/mnt/data",
            "/etcetera",
            "/boots",
            "/run/systemd/resolve/stub-resolv.conf",
        ] {
            assert_eq!(told(path), None, "{path}");
        }
    }

    #[test]
    fn what_the_host_is_told_to_do_is_read_only() {
        let told = |path: &str, read_only| {
            check(Path::new(path), Path::new(path), &DIRECTORY, read_only).is_some()
        };
        for path in [
            "/etc/nginx",
            "/etc/cron.d",
            "/etc/ld.so.preload",
            "/etc/pam.d",
            "/lib/systemd/system",
            "/usr/share",
            "/usr/share/dbus-1/system-services",
            "/var/lib/dpkg/info",
            "/var/spool",
            "/var/spool/cron/crontabs",
        ] {
            assert!(told(path, false), "{path}");
            assert!(!told(path, true), "{path}");
        }
        for path in ["/srv/www", "/usr/share/zoneinfo", "/var/spool/mail"] {
            assert!(!told(path, false), "{path}");
        }
    }

    #[test]
    fn a_link_is_what_it_leads_to() {
        let docker = Path::new("/run/docker.sock");
        for path in ["/var/run/docker.sock", "/srv/harmless"] {
            let exposure = check(Path::new(path), docker, &Kind::Socket, true).expect("sensitive");
            assert_eq!(exposure.place, docker);
        }
        // And is itself what it is called, wherever it leads.
        assert!(check(Path::new("/etc"), Path::new("/srv/etc"), &DIRECTORY, true).is_some());
    }

    #[test]
    fn sockets_of_systemd_are_but_for_those_made_for_everyone() {
        let told =
            |path: &str| check(Path::new(path), Path::new(path), &Kind::Socket, true).is_some();
        assert!(told("/run/systemd/notify"));
        assert!(told("/run/systemd/userdb/io.systemd.Machine"));
        assert!(!told("/run/systemd/journal/dev-log"));
        assert!(!told("/run/systemd/resolve/io.systemd.Resolve"));
    }

    #[test]
    fn the_host_s_programs_may_be_read_but_not_written() {
        for path in [
            "/usr",
            "/usr/bin",
            "/usr/lib/systemd",
            "/usr/local",
            "/usr/local/sbin/x",
        ] {
            let path = Path::new(path);
            assert_eq!(check(path, path, &DIRECTORY, true), None);
            assert!(
                check(path, path, &DIRECTORY, false).is_some(),
                "{}",
                path.display()
            );
        }
        let share = Path::new("/usr/share/web");
        assert_eq!(check(share, share, &DIRECTORY, false), None);
    }

    #[test]
    fn others_who_can_write_are_named() {
        let others = |uid, gid, mode| others(Access { uid, gid, mode });
        assert_eq!(others(0, 0, 0o755), None);
        assert_eq!(others(0, 0, 0o775), None);
        assert_eq!(
            others(0, 100, 0o775).as_deref(),
            Some("group 100 of the host")
        );
        assert_eq!(
            others(33, 33, 0o755).as_deref(),
            Some("user 33 of the host")
        );
        assert_eq!(
            others(0, 0, 0o1777).as_deref(),
            Some("every user of the host")
        );
    }
}
