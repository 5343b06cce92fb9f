//! The box's machine-id(5).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::host::Host;
use crate::name::Name;

/// Separates these ids from all others that are derived from a machine id.
const PURPOSE: &[u8] = b"boxd box machine-id\0";

/// 128 bits, the same for a box on a host for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MachineId(u128);

/// Derived from the host's machine id, which may not be shown to others, by a keyed hash of the box's name; as
/// `sd_id128_get_machine_app_specific(3)` does.
pub(super) fn of_box(host: &Host, name: &Name) -> MachineId {
    let key = host.machine_id.as_deref().unwrap_or_default();
    let mut hash =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    hash.update(PURPOSE);
    hash.update(name.as_str().as_bytes());
    let digest: [u8; 32] = hash.finalize().into_bytes().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // Version 4, variant 1 of RFC 9562, as machine-id(5) wants it.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    MachineId(u128::from_be_bytes(bytes))
}

impl MachineId {
    /// With dashes, as `container_uuid` has it.
    pub(super) fn uuid(self) -> String {
        let hex = self.to_string();
        [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-")
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::example;

    #[test]
    fn ids_differ_by_box_and_host_and_are_uuids() {
        let mut host = Host::fixed(&example());
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let web = of_box(&host, &name("web"));
        assert_eq!(web, of_box(&host, &name("web")));
        assert_ne!(web, of_box(&host, &name("db")));
        assert_eq!(web.to_string().len(), 32);
        assert_eq!(&web.uuid()[14..15], "4");
        assert_eq!(web.uuid().replace('-', ""), web.to_string());
        host.machine_id = Some("f".repeat(32));
        assert_ne!(web, of_box(&host, &name("web")));
    }
}
