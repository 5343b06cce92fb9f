//! What can be reached by a socket: files, abstract names, and the host's loopback.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::machine::Errand;
use crate::report::Gaps;

pub fn reachable(errand: &Errand, gaps: &mut Gaps) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    files(Path::new("/"), &mut found);
    for name in abstract_names(gaps) {
        let answer = answer(UnixAddr::new_abstract(name.as_bytes()));
        found.insert(format!("abstract {name}"), answer);
    }
    let canary = answer(UnixAddr::new_abstract(errand.abstract_name.as_bytes()));
    found.insert("the host's abstract socket".to_owned(), canary);
    let address = SocketAddr::from(([127, 0, 0, 1], errand.port));
    let host = match TcpStream::connect_timeout(&address, Duration::from_secs(20)) {
        Ok(_) => "connected".to_owned(),
        Err(error) => error.kind().to_string(),
    };
    found.insert("the host's loopback".to_owned(), host);
    for line in gaps.read("/proc/self/net/dev").lines().skip(2) {
        if let Some((name, _)) = line.split_once(':') {
            found.insert(format!("interface {}", name.trim()), "there".to_owned());
        }
    }
    found
}

/// Every socket that lies somewhere.
fn files(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let path = entry.path();
        if kind.is_dir() {
            if path != Path::new("/proc") && path != Path::new("/sys") {
                files(&path, found);
            }
        } else if kind.is_socket() {
            let name = path.to_string_lossy().into_owned();
            found.insert(format!("file {name}"), answer(UnixAddr::new(&path)));
        }
    }
}

/// What listens under a name that is no file, in this namespace of networks.
fn abstract_names(gaps: &mut Gaps) -> Vec<String> {
    gaps.read("/proc/self/net/unix")
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix('@'))
        .map(str::to_owned)
        .collect()
}

fn answer(address: nix::Result<UnixAddr>) -> String {
    let address = match address {
        Ok(address) => address,
        Err(errno) => return format!("{errno:?}"),
    };
    let mut last = None;
    for kind in [SockType::Stream, SockType::Datagram, SockType::SeqPacket] {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let answer = socket(AddressFamily::Unix, kind, flags, None)
            .and_then(|socket| connect(socket.as_raw_fd(), &address));
        match answer {
            // A full queue is a listener that was reached.
            Ok(()) | Err(nix::errno::Errno::EAGAIN) => return "connected".to_owned(),
            // The name is there, and something of another kind listens.
            Err(nix::errno::Errno::EPROTOTYPE) => {}
            Err(errno) => last = Some(errno),
        }
    }
    last.map_or("of no known kind".to_owned(), |errno| format!("{errno:?}"))
}
