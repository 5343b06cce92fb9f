//! Capabilities by name and as sets; capabilities(7).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names in the order of their numbers, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities: bit N is capability number N, as in capget(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = CapabilitySet(0);
    /// Every capability this program knows.
    pub const ALL: Self = CapabilitySet((1 << NAMES.len()) - 1);

    /// The set of these names, given with or without `CAP_`, in any case; the first unknown name is the error.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.into_iter().try_fold(Self::EMPTY, |set, name| {
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match NAMES.iter().position(|known| *known == bare) {
                Some(number) => Ok(CapabilitySet(set.0 | 1 << number)),
                None => Err(name),
            }
        })
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        CapabilitySet(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        CapabilitySet(self.0 & !other.0)
    }

    /// The bits as capset(2) takes them.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From the bits of capget(2) or a `Cap…:` line of proc_pid_status(5).
    pub const fn from_bits(bits: u64) -> Self {
        CapabilitySet(bits)
    }

    /// Whether the capability of this number is in the set.
    pub const fn contains(self, number: usize) -> bool {
        self.0 & 1 << number != 0
    }

    /// The names in the set, in the order of their numbers.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(number, _)| self.contains(*number))
            .map(|(_, name)| *name)
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::EMPTY {
            return f.write_str("none");
        }
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}
