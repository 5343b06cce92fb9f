//! `[credentials]`: where the box finds them.

use super::mounts::step;
use super::problem::{Findings, Reason};
use super::{MountFlags, MountStep, Secret, What};
use crate::definition::{Credential, Definition};
use crate::host::{Host, Kind};

/// Where a container manager puts them for an init; <https://systemd.io/CONTAINER_INTERFACE>. A program is told by
/// `$CREDENTIALS_DIRECTORY`.
pub(super) const DIRECTORY: &str = "/run/host/credentials";

/// The mount, if there is anything to put into it.
pub(super) fn steps(
    definition: &Definition,
    host: &Host,
    findings: &mut Findings,
) -> Option<MountStep> {
    for (name, credential) in &definition.credentials {
        check(name, credential, host, findings);
    }
    let secrets: Vec<Secret> = definition
        .credentials
        .iter()
        .map(|(name, source)| Secret {
            name: name.clone(),
            source: source.clone(),
        })
        .collect();
    (!secrets.is_empty()).then(|| {
        step(
            DIRECTORY,
            What::Credentials { secrets },
            MountFlags::INERT.read_only(),
        )
    })
}

fn check(name: &str, credential: &Credential, host: &Host, findings: &mut Findings) {
    let key = format!("credentials.{name}");
    let path = credential.path().to_owned();
    let facts = host.path(&path);
    match facts.kind {
        Kind::File => {}
        Kind::Missing => return findings.refuse(key, Reason::Missing { path }),
        Kind::Unreadable(why) => return findings.refuse(key, Reason::Unreadable { path, why }),
        Kind::Directory { .. } | Kind::Socket | Kind::Device => {
            return findings.refuse(key, Reason::NoFile { path });
        }
    }
    if let (Credential::File(_), Some(access)) = (credential, facts.access)
        && (access.mode & 0o077 != 0 || access.uid != 0)
    {
        findings.remark(format!(
            "{} is a secret, and others than root can read it on the host: chmod 600 {0}",
            path.display()
        ));
    }
}
