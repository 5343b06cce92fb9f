//! `[[socket]]`: what the box is started by, and finds open; systemd.socket(5).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::diagnostics::{Place, Problem};
use super::section::{Item, Problems, Section, path, quoted};
use super::tree::Value;
use super::values::{login_name, mode, size, time};
use super::{Address, BindIpv6Only, Listen, Socket, SocketKind, SocketOptions};

/// Longest path of a socket, that of `sockaddr_un` without its NUL; unix(7).
const UNIX_PATH_MAX: usize = 107;

/// Longest name of a socket: it is part of a unit's name.
const SOCKET_NAME_MAX: usize = 63;

/// Longest name of an interface, `IFNAMSIZ` without its NUL.
const INTERFACE_NAME_MAX: usize = 15;

/// What the names of the descriptors begin with that systemd keeps for the supervisor.
const RESERVED: &str = "box-";

const ADDRESS: &str = "expected a port, an address with a port or an absolute path on the host, as in 8080, \
     \"127.0.0.1:8080\", \"[::1]:8080\" or \"/run/web.socket\"";

const PATH: &str = "expected an absolute path on the host, as in \"/run/web.socket\"";

const NAME: &str = "expected letters, digits, \"-\", \"_\" and \".\", at most 63, as in \"http\"";

const ACCOUNT: &str = "expected the name or id of a user or group of the host";

/// Options of a socket with a path, and of one without.
const OF_PATHS: [&str; 4] = ["mode", "directory-mode", "user", "group"];
const OF_INTERNET: [&str; 10] = [
    "keep-alive",
    "no-delay",
    "reuse-port",
    "free-bind",
    "transparent",
    "broadcast",
    "bind-ipv6-only",
    "ip-tos",
    "ip-ttl",
    "bind-to-device",
];

pub(super) fn sockets(whole: &mut Section<'_>) -> Vec<Socket> {
    let sockets = whole.read("socket", |item| {
        let expected = "expected tables, each written below a line [[socket]]";
        item.list(expected, |item| {
            let section = Section::element("socket", "[[socket]]", item.at, item.problems)?;
            Some(socket(section, &item.at.place))
        })
        .inspect(|sockets| check_names(sockets, item.problems))
    });
    let sockets = sockets.unwrap_or_default();
    sockets.into_iter().map(|read| read.socket).collect()
}

pub(super) fn idle_stop(whole: &mut Section<'_>, sockets: &[Socket]) -> Option<Duration> {
    let (idle, place) =
        whole.read_placed("idle-stop", |item| time(item, Duration::from_secs(1)))?;
    let datagram = |socket: &Socket| {
        let kind = |listen: &Listen| listen.kind == SocketKind::Datagram;
        socket.listen.iter().any(kind)
    };
    if sockets.is_empty() {
        whole.problems().report(Problem::at(
            &place,
            "`idle-stop` without a socket",
            "nothing would start the box again: add a [[socket]]",
        ));
    } else if sockets.iter().any(datagram) {
        whole.problems().report(Problem::at(
            &place,
            "`idle-stop` does not go with a datagram socket",
            "datagrams have no connections, so nobody can tell when the box is idle",
        ));
    }
    Some(idle)
}

/// A socket, and what is compared with others.
struct ReadSocket {
    socket: Socket,
    place: Place,
    /// A name is written, whatever it is.
    is_named: bool,
    name: Option<Place>,
    addresses: Vec<(Listen, Place)>,
}

fn socket(mut section: Section<'_>, place: &Place) -> ReadSocket {
    let is_named = section.place_of("name").is_some();
    let name = section.read_placed("name", |item| item.parsed(NAME, socket_name));
    let written: Vec<(&str, Place)> = OF_PATHS
        .iter()
        .chain(&OF_INTERNET)
        .filter_map(|key| Some((*key, section.place_of(key)?)))
        .collect();
    let mut addresses = Vec::new();
    let mut is_written = false;
    for (key, kind) in [
        ("stream", SocketKind::Stream),
        ("datagram", SocketKind::Datagram),
        ("sequential-packet", SocketKind::SequentialPacket),
    ] {
        is_written |= section.place_of(key).is_some();
        addresses.extend(
            section
                .read(key, |item| listen(item, kind))
                .unwrap_or_default(),
        );
    }
    if !is_written {
        section.problems().report(Problem::absent(
            Some(place),
            "a socket without an address",
            "say where it listens: `stream = \"127.0.0.1:8080\"`, `datagram = …` or `sequential-packet = …`",
        ));
    }
    let sensitive = section.read("sensitive", |item| item.boolean());
    section.read("accept", |item| match item.boolean()? {
        false => Some(()),
        true => {
            item.refuse("a box takes all connections of its sockets: there is not one box for each")
        }
    });
    let options = options(&mut section);
    let is_path = |(listen, _): &(Listen, Place)| matches!(listen.address, Address::Unix(_));
    if !addresses.is_empty() {
        for (key, at) in written {
            let (fits, what) = match OF_PATHS.contains(&key) {
                true => (addresses.iter().any(is_path), "a path"),
                false => (!addresses.iter().all(is_path), "an address with a port"),
            };
            if !fits {
                section.problems().report(Problem::at(
                    &at,
                    format!("`socket.{key}` does not go with these addresses"),
                    format!("only a socket with {what} has this"),
                ));
            }
        }
    }
    section.finish();
    let (name, name_at) = name.unzip();
    ReadSocket {
        socket: Socket {
            name,
            listen: addresses.iter().map(|(listen, _)| listen.clone()).collect(),
            sensitive: sensitive.unwrap_or_default(),
            options,
        },
        place: place.clone(),
        is_named,
        name: name_at,
        addresses,
    }
}

fn options(section: &mut Section<'_>) -> SocketOptions {
    let account = |item: Item<'_>| match item.at.value {
        Value::Integer(_) => Some(item.integer(0..=u64::from(u32::MAX) - 1)?.to_string()),
        _ => item.parsed(ACCOUNT, |text| login_name(text, ACCOUNT)),
    };
    let number = |item: Item<'_>, range| u32::try_from(item.integer(range)?).ok();
    SocketOptions {
        mode: section.read("mode", mode),
        directory_mode: section.read("directory-mode", mode),
        user: section.read("user", account),
        group: section.read("group", account),
        backlog: section.read("backlog", |item| number(item, 1..=i32::MAX as u64)),
        keep_alive: section.read("keep-alive", |item| item.boolean()),
        no_delay: section.read("no-delay", |item| item.boolean()),
        reuse_port: section.read("reuse-port", |item| item.boolean()),
        free_bind: section.read("free-bind", |item| item.boolean()),
        transparent: section.read("transparent", |item| item.boolean()),
        broadcast: section.read("broadcast", |item| item.boolean()),
        pass_credentials: section.read("pass-credentials", |item| item.boolean()),
        bind_ipv6_only: section.read("bind-ipv6-only", |item| {
            item.choice(&[
                ("default", BindIpv6Only::Default),
                ("both", BindIpv6Only::Both),
                ("ipv6-only", BindIpv6Only::Ipv6Only),
            ])
        }),
        receive_buffer: section.read("receive-buffer", |item| size(item, 1)),
        send_buffer: section.read("send-buffer", |item| size(item, 1)),
        ip_tos: section.read("ip-tos", tos),
        ip_ttl: section.read("ip-ttl", |item| number(item, 1..=255)),
        priority: section.read("priority", |item| number(item, 0..=i32::MAX as u64)),
        mark: section.read("mark", |item| number(item, 0..=i32::MAX as u64)),
        bind_to_device: section.read("bind-to-device", |item| item.parsed(INTERFACE, interface)),
        trigger_limit_burst: section.read("trigger-limit-burst", |item| {
            number(item, 0..=u64::from(u32::MAX))
        }),
        trigger_limit_interval: section
            .read("trigger-limit-interval", |item| time(item, Duration::ZERO)),
    }
}

fn listen(item: Item<'_>, kind: SocketKind) -> Option<Vec<(Listen, Place)>> {
    let one = |item: Item<'_>| {
        let address = address(item, kind)?;
        Some((Listen { kind, address }, item.at.place.clone()))
    };
    match &item.at.value {
        Value::Array(elements) if elements.is_empty() => item.refuse(ADDRESS),
        Value::Array(_) => item.list(ADDRESS, one),
        _ => one(item).map(|listen| vec![listen]),
    }
}

fn address(item: Item<'_>, kind: SocketKind) -> Option<Address> {
    let of_path = kind == SocketKind::SequentialPacket;
    if let Value::Integer(_) = item.at.value {
        if of_path {
            return item.wrong_type(PATH);
        }
        let port = item.integer(1..=u64::from(u16::MAX))?;
        return u16::try_from(port).ok().map(Address::Port);
    }
    item.parsed(if of_path { PATH } else { ADDRESS }, |text| {
        if text.starts_with('/') {
            return unix(text);
        }
        if of_path {
            return Err(PATH.to_owned());
        }
        if text.starts_with('@') {
            return Err(format!(
                "anybody could take a socket without a path, and open it; {ADDRESS}"
            ));
        }
        let port = |port: u16| {
            (port != 0)
                .then_some(port)
                .ok_or_else(|| "expected a port from 1 to 65535".to_owned())
        };
        if let Ok(number) = text.parse::<u16>() {
            return port(number).map(Address::Port);
        }
        let address: SocketAddr = text.parse().map_err(|_| ADDRESS.to_owned())?;
        port(address.port())?;
        Ok(Address::Inet(address))
    })
}

fn unix(text: &str) -> Result<Address, String> {
    let path = path(text, PATH)?;
    if path.as_os_str().len() > UNIX_PATH_MAX {
        return Err(format!(
            "expected at most {UNIX_PATH_MAX} bytes: the kernel has no room for a longer path of a socket"
        ));
    }
    // systemd takes white space at the end of a line for nothing.
    let ends_blank = |text: &str| text.ends_with(char::is_whitespace);
    if path.to_str().is_none_or(ends_blank) || path.parent().is_none() {
        return Err(PATH.to_owned());
    }
    Ok(Address::Unix(path))
}

fn socket_name(text: &str) -> Result<String, String> {
    if text.starts_with(RESERVED) {
        return Err(format!(
            "names that begin with \"{RESERVED}\" are those of what systemd keeps for the supervisor"
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.len() > SOCKET_NAME_MAX || !text.chars().all(allowed) {
        return Err(NAME.to_owned());
    }
    Ok(text.to_owned())
}

const INTERFACE: &str = "expected the name of a network interface, as in \"eth0\"";

fn interface(text: &str) -> Result<String, String> {
    let strange = |c: char| c.is_whitespace() || !c.is_ascii() || "/:%".contains(c);
    if text.len() > INTERFACE_NAME_MAX || text.contains(strange) || matches!(text, "." | "..") {
        return Err(INTERFACE.to_owned());
    }
    Ok(text.to_owned())
}

/// A number, or a name of `IPTOS=`.
fn tos(item: Item<'_>) -> Option<u8> {
    match item.at.value {
        Value::Integer(_) => u8::try_from(item.integer(0..=255)?).ok(),
        // <netinet/ip.h>.
        _ => item.choice(&[
            ("low-delay", 0x10),
            ("throughput", 0x08),
            ("reliability", 0x04),
            ("low-cost", 0x02),
        ]),
    }
}

/// Every socket can be told from the others, and no two want the same address.
fn check_names(sockets: &[ReadSocket], problems: &Problems) {
    let mut names: BTreeMap<&str, &Place> = BTreeMap::new();
    let mut addresses: BTreeMap<&Listen, &Place> = BTreeMap::new();
    for (index, read) in sockets.iter().enumerate() {
        match (&read.socket.name, &read.name) {
            (Some(name), Some(place)) => match names.get(&**name) {
                Some(earlier) => problems.report(
                    Problem::at(
                        place,
                        format!("two sockets of the name {}", quoted(name)),
                        "expected another name, or one [[socket]] with a list of addresses",
                    )
                    .related(earlier, "the other one"),
                ),
                None => {
                    names.insert(name, place);
                }
            },
            _ if index > 0 && !read.is_named => problems.report(Problem::absent(
                Some(&read.place),
                "a further socket without `name`",
                "only the first can be without: the program tells them apart by their names",
            )),
            _ => {}
        }
        for (listen, place) in &read.addresses {
            match addresses.get(listen) {
                Some(earlier) => problems.report(
                    Problem::at(
                        place,
                        "two sockets at one address",
                        "expected another address",
                    )
                    .related(earlier, "taken here already"),
                ),
                None => {
                    addresses.insert(listen, place);
                }
            }
        }
    }
}
