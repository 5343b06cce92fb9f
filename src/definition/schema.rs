//! The format as data: JSON Schema for editors, and the table of keys for manual pages.
//!
//! The types here are never made: they describe what may be written, and the reader says what it means. A test
//! holds both to the same keys.
#![expect(dead_code, reason = "the types exist for their schema")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::quantity::PROCESSOR_MAX;
use crate::capability::NAMES;
use crate::syscall::Syscall;

mod health;
mod keys;
mod peers;
mod reload;

use health::Health;
pub use keys::{Key, keys};
pub use peers::Peers;
use reload::Reload;

/// JSON Schema (draft 2020-12) of a definition.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Format>().to_value();
    tidy(&mut schema);
    schema
}

/// TOML knows no null, and one description is one line: editors break it where their windows end.
fn tidy(value: &mut Value) {
    if let Value::Array(values) = value {
        values.iter_mut().for_each(tidy);
    }
    let Value::Object(map) = value else {
        return;
    };
    map.values_mut().for_each(tidy);
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = &**types {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(either)) = map.get_mut("anyOf") {
        either.retain(|schema| schema["type"] != "null");
        if let [Value::Object(only)] = &**either {
            let only = only.clone();
            map.remove("anyOf");
            map.extend(only);
        }
    }
}

/// What runs in a box, from which files, within which limits. The file's name is the box's; boxd(8) says where
/// it lies. A drop-in has some of the keys: which of them there must be, the whole decides.
#[derive(JsonSchema)]
#[schemars(
    title = "Definition of a box",
    rename_all = "kebab-case",
    deny_unknown_fields
)]
struct Format {
    /// How many boxes there are of it: NAME:1, NAME:2 and so on, each with its own number in what differs from one to
    /// the next. Default: one box, without a number.
    #[schemars(range(min = 1, max = 1000))]
    instances: Option<u16>,
    /// One line for people. Default: "Box" and the box's name.
    description: Option<Line>,
    /// The program and its arguments. The program is an absolute path inside the box, or a name that is looked
    /// up in the box's PATH.
    #[schemars(length(min = 1))]
    command: Option<Vec<Argument>>,
    /// Whom the command runs as, looked up inside the box: a name, "uid" or "uid:gid". Default: root of the
    /// box.
    user: Option<Login>,
    /// Groups beside those the box's own files give a named user, looked up inside the box. Default: none.
    groups: Option<Vec<Login>>,
    /// Where the command starts, inside the box. Default: `/`.
    working_directory: Option<AbsolutePath>,
    /// Environment of the command; of an instance also by parts. Default: only what boxd itself sets.
    environment: Option<BTreeMap<Variable, Differing<String>>>,
    /// Files of the host with lines KEY=VALUE, read at each start; later ones win over earlier ones and all over
    /// `environment`. With "-" before it, a file may be missing. Default: none.
    environment_file: Option<OneOrMore<EnvironmentFile>>,
    /// The box's host name; of an instance also by parts. Default: the box's name, of an instance NAME-1 and so on.
    hostname: Option<Differing<HostName>>,
    /// Whether the command has a terminal of the box's own, also at /dev/console, for programs that are used by
    /// hand: `boxctl attach`. What it shows goes to the journal by lines. Default: `false`.
    tty: Option<bool>,
    /// "app" for a program, "system" for a box that boots an init of its own. Default: `app`.
    profile: Option<Profile>,
    /// Boxes by name, or any units, after which this box is started. Default: none.
    after: Option<Vec<Dependency>>,
    /// Boxes by name, or any units, without which this box is not started. Default: none.
    requires: Option<Vec<Dependency>>,
    /// Whether the box is started when the host boots; with sockets, whether they listen then, and the first
    /// connection starts the box. Default: `false`.
    start_at_boot: Option<bool>,
    /// Whether systemd-machined(8) knows the box by its name, for machinectl(1), `systemctl -M` and `journalctl -M`;
    /// a host without it is no error. Default: `true`.
    machine: Option<bool>,
    /// Where the box's files come from. Default: the host's /usr.
    root: Option<Root>,
    /// What is mounted into the root, in the order written. Default: none.
    mount: Option<Vec<Mount>>,
    /// What the box is started by at the first connection, and finds open; see systemd.socket(5). Default: none.
    socket: Option<Vec<Socket>>,
    /// After how long without a connection of its sockets the box is stopped; the next one starts it again.
    /// Default: never.
    idle_stop: Option<Time>,
    /// When the box counts as started.
    ready: Option<Ready>,
    /// Whether the box must be heard of now and then.
    watchdog: Option<Watchdog>,
    /// How the box is asked to read its configuration anew: `systemctl reload`. Default: it cannot be.
    reload: Option<Reload>,
    /// How the box is stopped.
    stop: Option<Stop>,
    /// What becomes of the lines the box writes.
    output: Option<Output>,
    /// Whether systemd starts the box again when it has ended; see systemd.service(5).
    restart: Option<Restart>,
    /// How the box is asked whether it does what it is there for.
    health: Option<Health>,
    /// Limits and weights; see systemd.resource-control(5).
    resources: Option<Resources>,
    /// What the box may do.
    security: Option<Security>,
    /// Devices of the host that the box has. Default: none.
    device: Option<Vec<Device>>,
    /// Secrets that the box finds as read-only files of its user in the directory $CREDENTIALS_DIRECTORY, in
    /// memory that is never swapped: by name, each from a file of the host or from one that systemd-creds(1)
    /// has encrypted for this host. Default: none.
    #[schemars(title = "table of files")]
    credentials: Option<BTreeMap<CredentialName, Credential>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["path"] }, { "required": ["cdi"] }]))]
struct Device {
    /// A device node of the host, or a directory of some. Default: none; either this or `cdi` is written.
    path: Option<AbsolutePath>,
    /// Where in the box. Default: the same path.
    at: Option<AbsolutePath>,
    /// What may be done with it: "r" read, "w" write, "m" make nodes of it. Default: `rw`.
    access: Option<DeviceAccess>,
    /// Permission bits of the node in the box, whose root owns it. Default: `0666`.
    mode: Option<Mode>,
    /// A device of the Container Device Interface, from the specifications in /etc/cdi and /var/run/cdi.
    /// Default: none; either this or `path` is written.
    cdi: Option<CdiName>,
    /// Whether the box starts without it where it is missing. Default: `false`.
    optional: Option<bool>,
    /// Whether it may be one that gives the box power over the host, such as a disk. Default: `false`.
    sensitive: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Credential {
    /// A file of the host, read at each start.
    File(AbsolutePath),
    /// A file of the host that systemd-creds(1) has encrypted, decrypted at each start.
    Encrypted(AbsolutePath),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Profile {
    App,
    System,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("not" = {
    "required": ["directory", "host"],
    "properties": { "host": { "const": true } },
}))]
struct Root {
    /// A directory of the host that holds a root file system; of an instance also by parts. Default: none.
    directory: Option<Differing<AbsolutePath>>,
    /// The host's /usr, read-only, with all else private and empty: a box without an image. Default: `true`,
    /// unless `directory` is written.
    host: Option<bool>,
    /// What becomes of writes to the root: "discard" keeps them in memory until the box stops, "keep" on disk
    /// for the next start, "refuse" makes the root read-only. Default: `discard`.
    writes: Option<Writes>,
    /// Whether `directory` may be one that gives the box power over the host, such as `/`. Default: `false`.
    sensitive: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Writes {
    Discard,
    Keep,
    Refuse,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["bind"] }, { "required": ["tmpfs"] }]))]
struct Mount {
    /// Where in the box; no mount may hide one before it.
    at: AbsolutePath,
    /// A directory, file or socket of the host; of an instance also by parts. Default: none; either this or `tmpfs` is
    /// written.
    bind: Option<Differing<AbsolutePath>>,
    /// Whether mounts below what is bound come along. Default: `true`.
    recursive: Option<bool>,
    /// An empty file system in memory that holds at most this much. Default: none; either this or `bind` is
    /// written.
    tmpfs: Option<Size>,
    /// Permission bits of the tmpfs, in octal. Default: `0755`.
    mode: Option<Mode>,
    /// Whether writes are refused. Default: `false`.
    read_only: Option<bool>,
    /// Whether what is bound may be something that gives the box power over the host, such as `/etc` or the
    /// socket of Docker. Default: `false`.
    sensitive: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    { "required": ["stream"] }, { "required": ["datagram"] }, { "required": ["sequential-packet"] },
]))]
struct Socket {
    /// Connections: a port, an address with a port or a path on the host, or several: ListenStream=. Each instance has
    /// its own by { port = 8080, plus = "index" }, with `address` if need be, or { path = … } by parts. Default: none; one of this, `datagram` and `sequential-packet` is written.
    stream: Option<OneOrMore<Address>>,
    /// Datagrams: ListenDatagram=. Default: none.
    datagram: Option<OneOrMore<Address>>,
    /// Connections that keep messages whole, at a path of the host: ListenSequentialPacket=. Default: none.
    sequential_packet: Option<OneOrMore<SocketPath>>,
    /// What the program finds in LISTEN_FDNAMES: FileDescriptorName=. Default: `box@NAME.socket`.
    name: Option<SocketName>,
    /// Whether a path may be one of the host's own, such as that of Docker's socket. Default: `false`.
    sensitive: Option<bool>,
    /// Only false: the box takes all connections. Default: `false`.
    accept: Option<bool>,
    /// Permission bits of a path, in octal: SocketMode=. Default: `0666`.
    mode: Option<Mode>,
    /// Permission bits of the directories made for a path, in octal: DirectoryMode=. Default: `0755`.
    directory_mode: Option<Mode>,
    /// Owner of a path, by name or id on the host: SocketUser=. Default: `root`.
    user: Option<HostAccount>,
    /// Group of a path, by name or id on the host: SocketGroup=. Default: `root`, or that of `user`.
    group: Option<HostAccount>,
    /// Connections that may wait: Backlog=. Default: systemd's.
    #[schemars(range(min = 1))]
    backlog: Option<u32>,
    /// Whether the peer is asked now and then if it is still there: KeepAlive=. Default: `false`.
    keep_alive: Option<bool>,
    /// Whether small packets are sent at once: NoDelay=. Default: `false`.
    no_delay: Option<bool>,
    /// Whether others may listen at the same port: ReusePort=. Default: `false`.
    reuse_port: Option<bool>,
    /// Whether the address may be one the host does not have yet: FreeBind=. Default: `false`.
    free_bind: Option<bool>,
    /// Whether connections to any address may be taken: Transparent=. Default: `false`.
    transparent: Option<bool>,
    /// Whether datagrams may be sent to all: Broadcast=. Default: `false`.
    broadcast: Option<bool>,
    /// Whether messages carry who sent them: PassCredentials=. Default: `false`.
    pass_credentials: Option<bool>,
    /// Whether a socket of all IPv6 addresses takes IPv4 as well: BindIPv6Only=. Default: `default`, as sysctl
    /// says.
    bind_ipv6_only: Option<BindIpv6Only>,
    /// Bytes the kernel keeps of what comes in: ReceiveBuffer=. Default: the kernel's.
    receive_buffer: Option<Size>,
    /// Bytes the kernel keeps of what goes out: SendBuffer=. Default: the kernel's.
    send_buffer: Option<Size>,
    /// Type of service: IPTOS=. Default: the kernel's.
    ip_tos: Option<TypeOfService>,
    /// Hops a packet may take: IPTTL=. Default: the kernel's.
    #[schemars(range(min = 1, max = 255))]
    ip_ttl: Option<u32>,
    /// Priority of what is sent: Priority=. Default: the kernel's.
    priority: Option<u32>,
    /// Mark of packets for the firewall: Mark=. Default: none.
    mark: Option<u32>,
    /// Interface whose traffic alone is taken: BindToDevice=. Default: all.
    bind_to_device: Option<InterfaceName>,
    /// Starts allowed within `trigger-limit-interval`, 0 for no limit; one more, and systemd closes the socket:
    /// TriggerLimitBurst=. Default: `20`.
    trigger_limit_burst: Option<u32>,
    /// The time in which they are counted: TriggerLimitIntervalSec=. Default: `2s`.
    trigger_limit_interval: Option<Time>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum BindIpv6Only {
    Default,
    Both,
    Ipv6Only,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Ready {
    /// "started": when the command has been executed; "notify": when it says READY=1 itself, by sd_notify(3);
    /// "healthy": when a probe of [health] has succeeded. Default: `started`.
    when: Option<ReadyWhen>,
    /// How long a start may take before it is given up. Default: `90s`.
    timeout: Option<Time>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum ReadyWhen {
    Started,
    Notify,
    Healthy,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Watchdog {
    /// The box has failed, and is ended by SIGABRT, when it has not said WATCHDOG=1 for so long, by sd_notify(3);
    /// it finds this as WATCHDOG_USEC. Default: it need not say anything.
    timeout: Option<Time>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Stop {
    /// Run in the box, as `boxctl exec` would, before the signal, within the same time again. Default: none.
    command: Option<Vec<Argument>>,
    /// Sent to the box's first process, by name or number. Default: `SIGTERM`, `SIGRTMIN+3` with
    /// `profile = "system"`.
    signal: Option<Signal>,
    /// How long the box may take before all its processes are killed. Default: `10s`, `90s` with
    /// `profile = "system"`.
    timeout: Option<Time>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Output {
    /// Priority in the journal of lines on standard output that name none; see syslog(3). Default: `info`.
    stdout_priority: Option<Priority>,
    /// The same for standard error. Default: `info`.
    stderr_priority: Option<Priority>,
    /// Whether a line names its priority by beginning with `<0>` to `<7>`; see sd-daemon(3). Default: `true`.
    priority_prefix: Option<bool>,
    /// Most bytes of a line that stay in one entry of the journal, 1K to 1M. Default: `256K`.
    line_max: Option<Size>,
    /// The time in which the limits below are counted. Default: `30s`.
    rate_interval: Option<Time>,
    /// Most lines in that time; more are dropped and counted in the journal. Default: no limit.
    #[schemars(range(min = 1))]
    rate_lines: Option<u32>,
    /// Most bytes in that time; more are dropped and counted in the journal. Default: no limit.
    rate_bytes: Option<Size>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Priority {
    Emerg,
    Alert,
    Crit,
    Err,
    Warning,
    Notice,
    Info,
    Debug,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Restart {
    /// After which ends systemd starts the box again: Restart=. Default: `no`.
    policy: Option<RestartPolicy>,
    /// Time before each new start: RestartSec=. Default: `100ms`.
    delay: Option<Time>,
    /// Starts that are allowed within `limit-interval`: StartLimitBurst=. Default: systemd's, mostly `5`.
    #[schemars(range(min = 1))]
    limit_burst: Option<u32>,
    /// The time in which `limit-burst` starts are allowed, 0 for no limit: StartLimitIntervalSec=. Default:
    /// systemd's, mostly `10s`.
    limit_interval: Option<Time>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum RestartPolicy {
    No,
    OnSuccess,
    OnFailure,
    OnAbnormal,
    OnWatchdog,
    OnAbort,
    Always,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Resources {
    /// Memory beyond which nothing is given: MemoryMax=. Default: no limit.
    memory: Option<MemoryLimit>,
    /// Memory beyond which the box is slowed down: MemoryHigh=. Default: no limit.
    memory_high: Option<MemoryLimit>,
    /// Swap: MemorySwapMax=. Default: no limit.
    memory_swap: Option<MemoryLimit>,
    /// Processor time in cores, 1.5 for one and a half: CPUQuota=. Default: no limit.
    cpu: Option<Cores>,
    /// Share of processor time beside others: CPUWeight=. Default: systemd's, mostly `100`.
    cpu_weight: Option<Weight>,
    /// Processors the box may run on: AllowedCPUs=. Default: all.
    cpus: Option<Processors>,
    /// Processes and threads: TasksMax=. Default: systemd's.
    #[schemars(range(min = 1, max = 4194304))]
    tasks: Option<u64>,
    /// Share of disk time beside others: IOWeight=. Default: systemd's, mostly `100`.
    io_weight: Option<Weight>,
    /// Bytes read per second from a device, or the device a file of the host lies on: IOReadBandwidthMax=.
    /// Default: no limit.
    io_read: Option<BTreeMap<AbsolutePath, Rate>>,
    /// Bytes written per second: IOWriteBandwidthMax=. Default: no limit.
    io_write: Option<BTreeMap<AbsolutePath, Rate>>,
    /// Reads per second: IOReadIOPSMax=. Default: no limit.
    io_read_operations: Option<BTreeMap<AbsolutePath, Rate>>,
    /// Writes per second: IOWriteIOPSMax=. Default: no limit.
    io_write_operations: Option<BTreeMap<AbsolutePath, Rate>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Security {
    /// "auto" gives the box a range of 65536 ids of its own, "host" those of the host, so that its root is the
    /// host's. Default: `auto`.
    users: Option<Users>,
    /// Changes to the capabilities of the profile, in the order written: "+" gives, "-" takes. Default: none.
    capabilities: Option<Vec<CapabilityChange>>,
    /// Whether programs are refused privileges that executing them would give: PR_SET_NO_NEW_PRIVS(2const).
    /// Default: `true`, `false` with `profile = "system"`.
    no_new_privileges: Option<bool>,
    /// "host", or "private" for CLOCK_MONOTONIC and CLOCK_BOOTTIME that begin at zero when the box starts.
    /// Default: `host`.
    clock: Option<Clock>,
    /// Which system calls the box may make: "profile", changes to the profile by name, a file in the form of the
    /// OCI runtime specification, or "unconfined" for all. Default: `profile`.
    seccomp: Option<Seccomp>,
    /// Architectures besides the host's own whose programs may run. Default: none.
    syscall_archs: Option<Vec<Architecture>>,
    /// Kernel settings of the box's own namespaces, sysctl(8). Default: the kernel's; with `profile = "app"`
    /// users other than root may bind every port and send pings.
    sysctls: Option<BTreeMap<SysctlName, SysctlValue>>,
    /// Limits of each process, getrlimit(2): a number, "infinity", or a soft and a hard limit. Default:
    /// nofile `1024:524288`, a soft core of 0, the others as the service has them.
    rlimits: Option<ResourceLimits>,
    /// Paths inside the box that are hidden besides those the profile hides. Default: none.
    mask: Option<Vec<AbsolutePath>>,
    /// Paths the profile hides that are shown, such as `/proc/interrupts`. Default: none.
    unmask: Option<Vec<AbsolutePath>>,
    /// Paths inside the box that are made read-only, with all that is mounted below. Default: none.
    read_only_paths: Option<Vec<AbsolutePath>>,
    /// Whether programs may use keyrings(7), of which the box always has its own. Default: `false`.
    keyring: Option<bool>,
    /// The AppArmor profile it runs under, which must be loaded on the host. Default: boxd's own where it is loaded.
    apparmor: Option<Line>,
    /// The SELinux label it runs under. Default: the host's choice.
    selinux: Option<Line>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[schemars(title = "\"profile\", \"unconfined\", changes or file")]
enum Seccomp {
    Named(SeccompName),
    Changes(SeccompChanges),
    File(SeccompFile),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum SeccompName {
    Profile,
    Unconfined,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct SeccompChanges {
    /// System calls that are allowed too, with any argument. Default: none.
    allow: Option<Vec<SyscallName>>,
    /// System calls that are refused; wins over `allow`. Default: none.
    deny: Option<Vec<SyscallName>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct SeccompFile {
    /// A file of the host.
    file: AbsolutePath,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Users {
    Auto,
    Host,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Clock {
    Host,
    Private,
}

// An array, or what stands for an array of one.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

// A value, or what it is put together from.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Differing<T> {
    Same(T),
    Parts(Parts),
}

/// What stands for something of the instance.
fn part() -> Value {
    serde_json::json!({
        "type": "object",
        "required": ["instance"],
        "additionalProperties": false,
        "properties": { "instance": { "enum": ["index", "name"] } },
    })
}

/// The path of a socket, as a table.
fn path_by_parts() -> Value {
    serde_json::json!({
        "type": "object",
        "required": ["path"],
        "additionalProperties": false,
        "properties": {
            "path": { "anyOf": [{ "type": "string", "pattern": "^/" }, { "$ref": "#/$defs/Parts" }] },
        },
    })
}

/// A type of text or number, as its JSON Schema has it. The title is what manual pages call it.
macro_rules! written_as {
    ($($name:ident: $schema:tt)*) => {$(
        struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

written_as! {
    Line: { "title": "text", "type": "string", "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]+$" }
    Argument: { "title": "string", "type": "string", "pattern": "^[^\\x00]*$" }
    Variable: { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }
    AbsolutePath: { "title": "absolute path", "type": "string", "pattern": "^/" }
    EnvironmentFile: { "title": "absolute path", "type": "string", "pattern": "^-?/" }
    Address: {
        "title": "port, address or path",
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65535 },
            { "type": "string", "pattern": "^(/.*|[0-9]+|[0-9.]+:[0-9]+|\\[[0-9A-Fa-f:.%]+\\]:[0-9]+)$" },
            {
                "type": "object",
                "required": ["port"],
                "additionalProperties": false,
                "properties": {
                    "port": { "type": "integer", "minimum": 1, "maximum": 65535 },
                    "address": { "type": "string" },
                    "plus": { "enum": ["index"] },
                },
            },
            (path_by_parts()),
        ],
    }
    SocketPath: {
        "title": "absolute path",
        "anyOf": [{ "type": "string", "pattern": "^/" }, (path_by_parts())],
    }
    Parts: {
        "title": "parts",
        "anyOf": [
            (part()),
            { "type": "array", "minItems": 1, "items": { "anyOf": [{ "type": "string" }, (part())] } },
        ],
    }
    SocketName: {
        "title": "name",
        "type": "string",
        "maxLength": 63,
        "pattern": "^[A-Za-z0-9._-]+$",
        "not": { "pattern": "^box-" },
    }
    HostAccount: {
        "title": "name or id",
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 4_294_967_294_u32 },
            { "type": "string", "pattern": "^[^-+~:/,\\s][^:/,\\s]*$" },
        ],
    }
    InterfaceName: { "title": "interface", "type": "string", "pattern": "^[^\\s/:%]{1,15}$" }
    TypeOfService: {
        "title": "type of service",
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 255 },
            { "enum": ["low-delay", "throughput", "reliability", "low-cost"] },
        ],
    }
    Login: {
        "title": "name or id",
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 4_294_967_294_u32 },
            { "type": "string", "pattern": "^([0-9]+(:[0-9]+)?|[^-+~:/,\\s][^:/,\\s]*)$" },
        ],
    }
    HostName: {
        "title": "host name",
        "type": "string",
        "maxLength": 64,
        "pattern": "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$",
    }
    Dependency: {
        "title": "box or unit",
        "type": "string",
        "pattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|[A-Za-z0-9:_.\\\\@-]+\\.[a-z]+)$",
    }
    Size: {
        "title": "size",
        "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,9})? ?[BKMGTPE]?$" },
        ],
    }
    MemoryLimit: {
        "title": "size or \"infinity\"",
        "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^([0-9]+(\\.[0-9]{1,9})? ?[BKMGTPE]?|infinity)$" },
        ],
    }
    Rate: {
        "title": "rate",
        "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,9})? ?[BKMGT]?$" },
        ],
    }
    Time: {
        "title": "time",
        "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "pattern": "^([0-9]+(\\.[0-9]{1,9})? ?[A-Za-zµμ]* ?)+$" },
        ],
    }
    Signal: {
        "title": "signal",
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 64 },
            { "type": "string", "pattern": "^([0-9]+|[A-Za-z]+[0-9]*([+-][0-9]+)?)$" },
        ],
    }
    Endpoint: {
        "title": "address and port",
        "type": "string",
        "pattern": "^([0-9.]+|\\[[0-9a-fA-F:.]+\\]|localhost):[0-9]{1,5}$",
    }
    Url: {
        "title": "URL",
        "type": "string",
        "pattern": "^http://([0-9.]+|\\[[0-9a-fA-F:.]+\\]|localhost)(:[0-9]{1,5})?([/?][!-\"$-~]*)?$",
    }
    Statuses: {
        "title": "status codes",
        "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?(, ?[1-5][0-9]{2}(-[1-5][0-9]{2})?)*$" },
        ],
    }
    Cores: { "title": "number", "type": "number", "minimum": 0.01, "maximum": PROCESSOR_MAX + 1 }
    Weight: { "title": "1 to 10000", "type": "integer", "minimum": 1, "maximum": 10000 }
    Processors: {
        "title": "processors",
        "type": "string",
        "pattern": "^[0-9]+(-[0-9]+)?([, ]+[0-9]+(-[0-9]+)?)*$",
    }
    SysctlName: { "type": "string", "pattern": "^[A-Za-z0-9_:@+-]+([./][A-Za-z0-9_.:@/+-]+)+$" }
    SysctlValue: {
        "title": "number or text",
        "anyOf": [{ "type": "integer" }, { "type": "string", "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]+$" }],
    }
    ResourceLimits: {
        "title": "table of limits",
        "type": "object",
        "additionalProperties": false,
        "patternProperties": {
            (format!("^({})$", crate::definition::Resource::ALL.map(|known| known.name()).join("|"))): {
                "anyOf": [
                    { "type": "integer", "minimum": 0 },
                    { "type": "string", "pattern": "^(infinity|[0-9.]+ ?[BKMGTPE]?)(:(infinity|[0-9.]+ ?[BKMGTPE]?))?$" },
                ],
            },
        },
    }
    DeviceAccess: { "title": "letters", "type": "string", "pattern": "^(r?w?m?|r?m?w?|w?r?m?|w?m?r?|m?r?w?|m?w?r?)$", "minLength": 1 }
    CdiName: {
        "title": "vendor/class=name",
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*$",
    }
    CredentialName: { "type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$" }
    Mode: { "title": "octal digits", "type": "string", "pattern": "^[0-7]{3,4}$" }
    SyscallName: {
        "title": "system call",
        "enum": (Syscall::all().map(Syscall::name).collect::<Vec<_>>()),
    }
    Architecture: {
        "title": "architecture",
        "enum": (crate::syscall::Architecture::ALL.map(|known| known.name())),
    }
    CapabilityChange: {
        "title": "capability",
        "type": "string",
        "pattern": (format!("^[+-](ALL|(CAP_)?({}))$", NAMES.join("|"))),
    }
}
