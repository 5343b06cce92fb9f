//! Which files of the host's `/etc` a box on the host's `/usr` gets: those without which programs from `/usr`
//! do not work, and no configuration beyond them.

use std::fs;
use std::path::{Path, PathBuf};

/// What of `/etc` is passed on; absolute paths on the host, the same in the box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Etc {
    /// Files copied at start.
    pub copies: Vec<PathBuf>,
    /// Directories shown read-only.
    pub trees: Vec<PathBuf>,
    /// Links with their text, which lead into `/usr`.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// The linker's cache, names of services and protocols, and what TLS libraries read when they are loaded.
const COPIES: [&str; 4] = [
    "/etc/ld.so.cache",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/openssl.cnf",
];

/// Where `awk` and its like are links to on Debian; trust stores of Debian, Fedora and Arch. None of them holds
/// a private key.
const TREES: [&str; 5] = [
    "/etc/alternatives",
    "/etc/ca-certificates/extracted",
    "/etc/crypto-policies",
    "/etc/pki/ca-trust/extracted",
    "/etc/ssl/certs",
];

/// The time zone, who the host is, and the trust store's other name on Fedora.
const LINKS: [&str; 3] = ["/etc/localtime", "/etc/os-release", "/etc/pki/tls/certs"];

impl Etc {
    pub(super) fn read() -> Etc {
        let existing = |paths: &[&str], is: fn(&Path) -> bool| {
            paths
                .iter()
                .map(PathBuf::from)
                .filter(|path| is(path))
                .collect()
        };
        let mut etc = Etc {
            copies: existing(&COPIES, Path::is_file),
            trees: existing(&TREES, Path::is_dir),
            links: Vec::new(),
        };
        for path in LINKS.map(PathBuf::from) {
            match fs::read_link(&path) {
                Ok(target) => etc.links.push((path, target)),
                Err(_) if path.is_file() => etc.copies.push(path),
                Err(_) => {}
            }
        }
        etc
    }

    /// See [`super::Host::fixed`].
    pub(super) fn fixed() -> Etc {
        Etc {
            copies: COPIES[..3].iter().map(PathBuf::from).collect(),
            trees: vec!["/etc/alternatives".into(), "/etc/ssl/certs".into()],
            links: vec![
                (
                    "/etc/localtime".into(),
                    "/usr/share/zoneinfo/Etc/UTC".into(),
                ),
                ("/etc/os-release".into(), "../usr/lib/os-release".into()),
            ],
        }
    }
}
