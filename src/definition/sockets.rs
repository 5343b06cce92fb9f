//! `[[socket]]`: what the box is started by, and finds open; systemd.socket(5).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::diagnostics::{Place, Problem};
use super::instances::{Instances, differs};
use super::section::{Item, Problems, Section, path, quoted};
use super::tree::Value;
use super::values::{login_name, mode, size, time};
use crate::name::Name;

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

const HOST: &str = "expected an address without a port, as in \"127.0.0.1\" or \"::1\"";

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

/// `[[socket]]`: addresses with the same options, one socket unit of systemd's; systemd.socket(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// `FileDescriptorName=`. Absent: the name of the box's first socket unit, as systemd has it.
    pub name: Option<String>,
    /// Where it listens, in the order of the descriptors; never empty in a definition without problems.
    pub listen: Vec<Listen>,
    /// A path may be one at which somebody listens whom the host trusts.
    pub sensitive: bool,
    /// All else.
    pub options: SocketOptions,
}

impl Socket {
    /// What the payload finds in `LISTEN_FDNAMES`.
    pub fn descriptor_name(&self, of: &Name) -> String {
        // A colon would part the names from each other, so an instance has the name of all.
        self.name.clone().unwrap_or_else(|| of.base().socket())
    }
}

/// `stream`, `datagram` or `sequential-packet` of a `[[socket]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
pub struct Listen {
    /// What is exchanged there.
    pub kind: SocketKind,
    /// Where.
    pub address: Address,
}

/// The type of a socket; socket(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum SocketKind {
    /// `ListenStream=`.
    Stream,
    /// `ListenDatagram=`.
    Datagram,
    /// `ListenSequentialPacket=`.
    SequentialPacket,
}

impl SocketKind {
    /// The key of the definition.
    pub fn key(self) -> &'static str {
        match self {
            SocketKind::Stream => "stream",
            SocketKind::Datagram => "datagram",
            SocketKind::SequentialPacket => "sequential-packet",
        }
    }
}

/// Where a socket listens, on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Address {
    /// All addresses, of IPv6 and, by `bind-ipv6-only`, IPv4.
    Port(u16),
    /// One address.
    Inet(SocketAddr),
    /// Absolute path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    /// As systemd.socket(5) has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Port(port) => write!(f, "{port}"),
            Address::Inet(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Options of a `[[socket]]`: those of systemd.socket(5). Absent ones are systemd's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "systemd.socket(5) has them")]
pub struct SocketOptions {
    /// Permission bits of a path; `0666` by default.
    pub mode: Option<u32>,
    /// Permission bits of the directories made for it.
    pub directory_mode: Option<u32>,
    /// Owner of a path: a name or id of the host.
    pub user: Option<String>,
    /// Group of a path: a name or id of the host.
    pub group: Option<String>,
    pub backlog: Option<u32>,
    pub keep_alive: Option<bool>,
    pub no_delay: Option<bool>,
    pub reuse_port: Option<bool>,
    pub free_bind: Option<bool>,
    pub transparent: Option<bool>,
    pub broadcast: Option<bool>,
    pub pass_credentials: Option<bool>,
    pub bind_ipv6_only: Option<BindIpv6Only>,
    /// Bytes.
    pub receive_buffer: Option<u64>,
    /// Bytes.
    pub send_buffer: Option<u64>,
    pub ip_tos: Option<u8>,
    pub ip_ttl: Option<u32>,
    pub priority: Option<u32>,
    pub mark: Option<u32>,
    pub bind_to_device: Option<String>,
    /// Activations allowed within `trigger_limit_interval`; 0 is no limit.
    pub trigger_limit_burst: Option<u32>,
    pub trigger_limit_interval: Option<Duration>,
}

impl SocketOptions {
    /// Those that are written, as settings of systemd.socket(5); times in microseconds. Nothing is escaped.
    pub fn written(&self) -> Vec<(&'static str, String)> {
        fn text(value: Option<impl ToString>) -> Option<String> {
            value.map(|value| value.to_string())
        }
        let yes = |value: Option<bool>| value.map(|yes| if yes { "yes" } else { "no" }.to_owned());
        let octal = |mode: Option<u32>| mode.map(|mode| format!("{mode:04o}"));
        let time = |time: Option<Duration>| time.map(|time| format!("{}us", time.as_micros()));
        let all = [
            ("SocketMode", octal(self.mode)),
            ("DirectoryMode", octal(self.directory_mode)),
            ("SocketUser", self.user.clone()),
            ("SocketGroup", self.group.clone()),
            ("Backlog", text(self.backlog)),
            ("KeepAlive", yes(self.keep_alive)),
            ("NoDelay", yes(self.no_delay)),
            ("ReusePort", yes(self.reuse_port)),
            ("FreeBind", yes(self.free_bind)),
            ("Transparent", yes(self.transparent)),
            ("Broadcast", yes(self.broadcast)),
            ("PassCredentials", yes(self.pass_credentials)),
            (
                "BindIPv6Only",
                text(self.bind_ipv6_only.map(BindIpv6Only::as_str)),
            ),
            ("ReceiveBuffer", text(self.receive_buffer)),
            ("SendBuffer", text(self.send_buffer)),
            ("IPTOS", text(self.ip_tos)),
            ("IPTTL", text(self.ip_ttl)),
            ("Priority", text(self.priority)),
            ("Mark", text(self.mark)),
            ("BindToDevice", self.bind_to_device.clone()),
            ("TriggerLimitBurst", text(self.trigger_limit_burst)),
            ("TriggerLimitIntervalSec", time(self.trigger_limit_interval)),
        ];
        all.into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }
}

/// `bind-ipv6-only`: whether a socket of all IPv6 addresses takes IPv4 as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindIpv6Only {
    /// As `net.ipv6.bindv6only` of sysctl(8) says.
    Default,
    /// It does.
    Both,
    /// It does not.
    Ipv6Only,
}

impl BindIpv6Only {
    /// The value of `BindIPv6Only=`.
    pub fn as_str(self) -> &'static str {
        match self {
            BindIpv6Only::Default => "default",
            BindIpv6Only::Both => "both",
            BindIpv6Only::Ipv6Only => "ipv6-only",
        }
    }
}

pub(super) fn sockets(whole: &mut Section<'_>, instances: &Instances) -> Vec<Socket> {
    let sockets = whole.read("socket", |item| {
        let expected = "expected tables, each written below a line [[socket]]";
        item.list(expected, |item| {
            let section = Section::element("socket", "[[socket]]", item.at, item.problems)?;
            Some(socket(section, &item.at.place, instances))
        })
        .inspect(|sockets| {
            check_names(sockets, item.problems);
            if instances.are_several() {
                check_instances(sockets, item.problems);
            }
        })
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
    addresses: Vec<ReadAddress>,
}

/// An address, and where it is written.
struct ReadAddress {
    listen: Listen,
    place: Place,
    /// For all instances together, from what to what; nothing for a path that is another one for each.
    ports: Option<RangeInclusive<u16>>,
    /// Each instance has one of its own.
    differs: bool,
}

fn socket(mut section: Section<'_>, place: &Place, instances: &Instances) -> ReadSocket {
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
                .read(key, |item| listen(item, kind, instances))
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
    let is_path = |read: &ReadAddress| matches!(read.listen.address, Address::Unix(_));
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
            listen: addresses.iter().map(|read| read.listen.clone()).collect(),
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

fn listen(item: Item<'_>, kind: SocketKind, instances: &Instances) -> Option<Vec<ReadAddress>> {
    let one = |item: Item<'_>| {
        if let Value::Table(_) = item.at.value {
            return address_of_table(item, kind, instances);
        }
        let address = address(item, kind)?;
        Some(ReadAddress {
            ports: port(&address).map(|port| port..=port),
            listen: Listen { kind, address },
            place: item.at.place.clone(),
            differs: false,
        })
    };
    match &item.at.value {
        Value::Array(elements) if elements.is_empty() => item.refuse(ADDRESS),
        Value::Array(_) => item.list(ADDRESS, one),
        _ => one(item).map(|read| vec![read]),
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

/// What is added to a port.
#[derive(Clone, Copy)]
enum Plus {
    Index,
}

/// An address in its parts, which may differ from one instance to the next.
fn address_of_table(
    item: Item<'_>,
    kind: SocketKind,
    instances: &Instances,
) -> Option<ReadAddress> {
    let mut section = Section::element("", "{ port = … }", item.at, item.problems)?;
    let (port_at, path_at) = (section.place_of("port"), section.place_of("path"));
    let port_differs = section.place_of("plus").is_some();
    let mut path_differs = false;
    let path = section.read("path", |item| {
        path_differs = differs(item.at);
        instances.read(item, |item| item.parsed(PATH, unix))
    });
    let first = section.read("port", |item| {
        u16::try_from(item.integer(1..=u64::from(u16::MAX))?).ok()
    });
    let host = section.read_placed("address", |item| {
        item.parsed(HOST, |text| {
            text.parse::<IpAddr>().map_err(|_| HOST.to_owned())
        })
    });
    let plus = section.read_placed("plus", |item| item.choice(&[("index", Plus::Index)]));
    section.finish();
    let problems = item.problems;
    let refuse = |place: &Place, title: &str, label: &str| {
        problems.report(Problem::at(place, title, label));
        None
    };
    let place = item.at.place.clone();
    let Some(port_at) = port_at else {
        if path_at.is_none() {
            problems.report(Problem::absent(
                Some(&place),
                format!("`{}` holds a table without an address", item.key),
                "expected `port` or `path` in it, as in { port = 8080, plus = \"index\" }",
            ));
            return None;
        }
        let of_a_port = host.as_ref().map(|(_, place)| place);
        if let Some(place) = of_a_port.or(plus.as_ref().map(|(_, place)| place)) {
            return refuse(
                place,
                "this does not go with `path`",
                "it belongs to `port`",
            );
        }
        let address = path?;
        return Some(ReadAddress {
            listen: Listen { kind, address },
            place,
            ports: None,
            differs: path_differs,
        });
    };
    if path_at.is_some() {
        return refuse(
            &port_at,
            "a port beside a path",
            "expected either port or path",
        );
    }
    if kind == SocketKind::SequentialPacket {
        return refuse(&port_at, "a port where there is none", PATH);
    }
    let first = first?;
    let (port, ports) = match &plus {
        None => (first, first..=first),
        Some((Plus::Index, plus_at)) => {
            if !instances.are_there(plus_at, problems) {
                return None;
            }
            let Some(last) = first.checked_add(instances.count?) else {
                return refuse(
                    &port_at,
                    "the last instance has no port",
                    "expected a port that is at most 65535 with the number of the last instance",
                );
            };
            (first.saturating_add(instances.index()), first + 1..=last)
        }
    };
    let address = match host {
        Some((host, _)) => Address::Inet(SocketAddr::new(host, port)),
        None => Address::Port(port),
    };
    Some(ReadAddress {
        listen: Listen { kind, address },
        place,
        ports: Some(ports),
        differs: port_differs,
    })
}

fn port(address: &Address) -> Option<u16> {
    match address {
        Address::Port(port) => Some(*port),
        Address::Inet(address) => Some(address.port()),
        Address::Unix(_) => None,
    }
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
        for ReadAddress { listen, place, .. } in &read.addresses {
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

/// No two instances want the same address.
fn check_instances(sockets: &[ReadSocket], problems: &Problems) {
    let host = |address: &Address| match address {
        Address::Inet(address) => Some(address.ip()),
        Address::Port(_) | Address::Unix(_) => None,
    };
    let mut known: Vec<&ReadAddress> = Vec::new();
    for socket in sockets {
        let reused = socket.socket.options.reuse_port == Some(true);
        for read in &socket.addresses {
            let is_shared = reused && read.ports.is_some();
            if !read.differs && !is_shared {
                problems.report(Problem::at(
                    &read.place,
                    "all instances would listen at this address",
                    match read.ports {
                        Some(_) => {
                            "expected one of each one's own, as in { port = 8080, plus = \"index\" }, or `reuse-port`"
                        }
                        None => {
                            "expected one of each one's own, as in { path = [\"/run/web-\", { instance = \"index\" }] }"
                        }
                    },
                ));
            }
            let meets = |other: &&&ReadAddress| {
                let (Some(one), Some(two)) = (&other.ports, &read.ports) else {
                    return false;
                };
                // Those that are the same for one instance are so for all, and told already.
                other.listen != read.listen
                    && other.listen.kind == read.listen.kind
                    && host(&other.listen.address) == host(&read.listen.address)
                    && one.start() <= two.end()
                    && two.start() <= one.end()
            };
            if let Some(earlier) = known.iter().find(meets) {
                problems.report(
                    Problem::at(
                        &read.place,
                        "two instances at one address",
                        "expected ports that none of the others has",
                    )
                    .related(&earlier.place, "some of these are taken here"),
                );
            }
            known.push(read);
        }
    }
}
