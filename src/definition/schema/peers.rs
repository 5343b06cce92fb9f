//! What the keys are called elsewhere: for who knows Quadlet, systemd-nspawn or Docker and looks for the word here.

/// The words of others for a key; empty where they have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Peers {
    /// podman-systemd.unit(5); of `[Container]` where no section is named.
    pub quadlet: &'static str,
    /// systemd.nspawn(5); of the unit `systemd-nspawn@.service` where its section is named.
    pub nspawn: &'static str,
    /// An option of `docker run`.
    pub docker: &'static str,
}

impl Peers {
    /// Those of a key by its dotted path. A key that is not in the list has none.
    pub(super) fn of(path: &str) -> Peers {
        NAMES.iter().find(|(key, ..)| *key == path).map_or_else(
            Peers::default,
            |(_, quadlet, nspawn, docker)| Peers {
                quadlet,
                nspawn,
                docker,
            },
        )
    }

    /// Each one that has a word, with it.
    pub fn words(&self) -> Vec<(&'static str, &'static str)> {
        let all = [
            ("Quadlet", self.quadlet),
            ("nspawn", self.nspawn),
            ("Docker", self.docker),
        ];
        all.into_iter()
            .filter(|(_, word)| !word.is_empty())
            .collect()
    }
}

/// Key, Quadlet, nspawn, Docker.
const NAMES: &[(&str, &str, &str, &str)] = &[
    ("after", "[Unit] After=", "[Unit] After=", ""),
    (
        "command",
        "Exec=, Entrypoint=",
        "Parameters=",
        "--entrypoint, arguments",
    ),
    (
        "credentials",
        "Secret=",
        "--load-credential=",
        "--secret (swarm)",
    ),
    (
        "description",
        "[Unit] Description=",
        "[Unit] Description=",
        "--label",
    ),
    (
        "device.access",
        "AddDevice=",
        "[Service] DeviceAllow=",
        "--device …:rwm",
    ),
    ("device.at", "AddDevice=", "", "--device HOST:BOX"),
    ("device.cdi", "AddDevice=", "", "--device vendor/class=name"),
    (
        "device.path",
        "AddDevice=",
        "Bind= with [Service] DeviceAllow=",
        "--device",
    ),
    ("device.optional", "AddDevice=-…", "Bind=-…", ""),
    ("environment", "Environment=", "Environment=", "--env"),
    ("environment-file", "EnvironmentFile=", "", "--env-file"),
    ("groups", "GroupAdd=", "", "--group-add"),
    ("health.command", "HealthCmd=", "", "--health-cmd"),
    (
        "health.interval",
        "HealthInterval=",
        "",
        "--health-interval",
    ),
    ("health.on-failure", "HealthOnFailure=", "", ""),
    ("health.retries", "HealthRetries=", "", "--health-retries"),
    (
        "health.start-interval",
        "HealthStartupInterval=",
        "",
        "--health-start-interval",
    ),
    (
        "health.start-period",
        "HealthStartPeriod=",
        "",
        "--health-start-period",
    ),
    ("health.timeout", "HealthTimeout=", "", "--health-timeout"),
    ("hostname", "HostName=", "Hostname=", "--hostname"),
    ("idle-stop", "", "", ""),
    ("machine", "", "--register=", ""),
    (
        "instances",
        "NAME@.container, one unit each",
        "",
        "docker compose --scale",
    ),
    (
        "mount.at",
        "Volume=, Tmpfs=",
        "Bind=, TemporaryFileSystem=",
        "--volume, --tmpfs",
    ),
    ("mount.bind", "Volume=", "Bind=", "--volume"),
    (
        "mount.mode",
        "Tmpfs=…:mode=",
        "TemporaryFileSystem=…:mode=",
        "--tmpfs …:mode=",
    ),
    (
        "mount.read-only",
        "Volume=…:ro",
        "BindReadOnly=",
        "--volume …:ro",
    ),
    (
        "mount.recursive",
        "Volume=…:rbind",
        "Bind=…:rbind",
        "--mount bind-recursive=",
    ),
    ("mount.tmpfs", "Tmpfs=", "TemporaryFileSystem=", "--tmpfs"),
    ("output.line-max", "", "", "--log-opt max-size="),
    (
        "output.rate-interval",
        "[Service] LogRateLimitIntervalSec=",
        "[Service] LogRateLimitIntervalSec=",
        "",
    ),
    (
        "output.rate-lines",
        "[Service] LogRateLimitBurst=",
        "[Service] LogRateLimitBurst=",
        "",
    ),
    (
        "output.priority-prefix",
        "[Service] SyslogLevelPrefix=",
        "[Service] SyslogLevelPrefix=",
        "",
    ),
    (
        "output.stdout-priority",
        "[Service] SyslogLevel=",
        "[Service] SyslogLevel=",
        "",
    ),
    ("profile", "", "Boot=", ""),
    (
        "ready.timeout",
        "[Service] TimeoutStartSec=",
        "[Service] TimeoutStartSec=",
        "",
    ),
    ("ready.when", "Notify=", "NotifyReady=", ""),
    ("reload.command", "ReloadCmd=", "", ""),
    ("reload.notify", "[Service] Type=notify-reload", "", ""),
    ("reload.signal", "ReloadSignal=", "", ""),
    ("requires", "[Unit] Requires=", "[Unit] Requires=", ""),
    (
        "resources.cpu",
        "[Service] CPUQuota=",
        "[Service] CPUQuota=",
        "--cpus",
    ),
    (
        "resources.cpu-weight",
        "[Service] CPUWeight=",
        "[Service] CPUWeight=",
        "--cpu-shares",
    ),
    (
        "resources.cpus",
        "[Service] AllowedCPUs=",
        "CPUAffinity=",
        "--cpuset-cpus",
    ),
    (
        "resources.io-read",
        "[Service] IOReadBandwidthMax=",
        "[Service] IOReadBandwidthMax=",
        "--device-read-bps",
    ),
    (
        "resources.io-read-operations",
        "[Service] IOReadIOPSMax=",
        "[Service] IOReadIOPSMax=",
        "--device-read-iops",
    ),
    (
        "resources.io-weight",
        "[Service] IOWeight=",
        "[Service] IOWeight=",
        "--blkio-weight",
    ),
    (
        "resources.io-write",
        "[Service] IOWriteBandwidthMax=",
        "[Service] IOWriteBandwidthMax=",
        "--device-write-bps",
    ),
    (
        "resources.io-write-operations",
        "[Service] IOWriteIOPSMax=",
        "[Service] IOWriteIOPSMax=",
        "--device-write-iops",
    ),
    (
        "resources.memory",
        "Memory=",
        "[Service] MemoryMax=",
        "--memory",
    ),
    (
        "resources.memory-high",
        "[Service] MemoryHigh=",
        "[Service] MemoryHigh=",
        "--memory-reservation",
    ),
    (
        "resources.memory-swap",
        "[Service] MemorySwapMax=",
        "[Service] MemorySwapMax=",
        "--memory-swap",
    ),
    (
        "resources.tasks",
        "PidsLimit=",
        "[Service] TasksMax=",
        "--pids-limit",
    ),
    (
        "restart.delay",
        "[Service] RestartSec=",
        "[Service] RestartSec=",
        "",
    ),
    (
        "restart.limit-burst",
        "[Unit] StartLimitBurst=",
        "[Unit] StartLimitBurst=",
        "--restart on-failure:N",
    ),
    (
        "restart.limit-interval",
        "[Unit] StartLimitIntervalSec=",
        "[Unit] StartLimitIntervalSec=",
        "",
    ),
    (
        "restart.policy",
        "[Service] Restart=",
        "[Service] Restart=",
        "--restart",
    ),
    ("root.directory", "Rootfs=", "--directory=", ""),
    (
        "root.writes",
        "ReadOnly=",
        "Volatile=, ReadOnly=, Ephemeral=",
        "--read-only, --rm",
    ),
    (
        "security.apparmor",
        "AppArmor=",
        "",
        "--security-opt apparmor=",
    ),
    (
        "security.capabilities",
        "AddCapability=, DropCapability=",
        "Capability=, DropCapability=",
        "--cap-add, --cap-drop",
    ),
    ("security.mask", "Mask=", "Inaccessible=", ""),
    (
        "security.no-new-privileges",
        "NoNewPrivileges=",
        "NoNewPrivileges=",
        "--security-opt no-new-privileges",
    ),
    ("security.read-only-paths", "", "BindReadOnly=", ""),
    ("security.rlimits", "Ulimit=", "LimitNOFILE= …", "--ulimit"),
    (
        "security.seccomp",
        "SeccompProfile=",
        "SystemCallFilter=",
        "--security-opt seccomp=",
    ),
    (
        "security.selinux",
        "SecurityLabelType=, SecurityLabelLevel=",
        "--selinux-context=",
        "--security-opt label=",
    ),
    ("security.syscall-archs", "", "Personality=", ""),
    ("security.sysctls", "Sysctl=", "", "--sysctl"),
    (
        "security.unmask",
        "Unmask=",
        "",
        "--security-opt systempaths=unconfined",
    ),
    (
        "security.users",
        "UserNS=, UIDMap=, GIDMap=",
        "PrivateUsers=",
        "--userns",
    ),
    (
        "socket.backlog",
        "[Socket] Backlog=",
        "[Socket] Backlog=",
        "",
    ),
    (
        "socket.datagram",
        "[Socket] ListenDatagram=",
        "[Socket] ListenDatagram=",
        "",
    ),
    (
        "socket.name",
        "[Socket] FileDescriptorName=",
        "[Socket] FileDescriptorName=",
        "",
    ),
    (
        "socket.sequential-packet",
        "[Socket] ListenSequentialPacket=",
        "[Socket] ListenSequentialPacket=",
        "",
    ),
    (
        "socket.stream",
        "[Socket] ListenStream=",
        "[Socket] ListenStream=",
        "",
    ),
    (
        "start-at-boot",
        "[Install] WantedBy=",
        "machinectl enable",
        "--restart always",
    ),
    ("stop.command", "[Service] ExecStop=", "", ""),
    ("stop.signal", "StopSignal=", "KillSignal=", "--stop-signal"),
    (
        "stop.timeout",
        "StopTimeout=",
        "[Service] TimeoutStopSec=",
        "--stop-timeout",
    ),
    ("tty", "", "", "--tty"),
    ("user", "User=, Group=", "User=", "--user"),
    ("watchdog.timeout", "[Service] WatchdogSec=", "", ""),
    (
        "working-directory",
        "WorkingDir=",
        "WorkingDirectory=",
        "--workdir",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_about_a_key_and_every_key_has_at_most_one() {
        let keys: BTreeSet<String> = super::super::keys()
            .into_iter()
            .map(|key| key.path)
            .collect();
        let mut seen = BTreeSet::new();
        for (key, quadlet, nspawn, docker) in NAMES {
            assert!(keys.contains(*key), "{key} is no key");
            assert!(seen.insert(key), "{key} stands twice");
            for word in [quadlet, nspawn, docker] {
                assert!(!word.contains(char::is_control), "{key}: {word}");
            }
        }
    }
}
