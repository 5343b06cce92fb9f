//! Files in the box's `/etc`.

use std::path::{Path, PathBuf};

use super::mounts::{Identity, directory, step, symlink};
use super::{Content, MountFlags, MountStep, What, api_filesystems};

use crate::host::Host;

/// Names come from files; nsswitch.conf(5).
const NSSWITCH: &str = "passwd: files\n\
                        group: files\n\
                        shadow: files\n\
                        hosts: files dns\n\
                        networks: files\n\
                        protocols: files\n\
                        services: files\n\
                        ethers: files\n\
                        rpc: files\n";

/// A box has its own loopback interface and no other.
const RESOLV_CONF: &str = "# This box has no network, and so no name server.\n";

/// Who the box is, for programs that look it up.
pub(super) fn identity_files(
    identity: &Identity<'_>,
    credentials: Option<MountStep>,
) -> Vec<MountStep> {
    let hostname = identity.hostname;
    let mut steps = vec![
        text("/etc/hostname", 0o644, format!("{hostname}\n")),
        text("/etc/hosts", 0o644, hosts(hostname)),
        text("/etc/resolv.conf", 0o644, RESOLV_CONF.to_owned()),
        text(
            "/etc/machine-id",
            0o444,
            format!("{}\n", identity.machine_id),
        ),
    ];
    steps.extend(api_filesystems::run_host(
        identity.machine_id.uuid(),
        identity.notify,
        credentials,
    ));
    steps
}

/// The `/etc` of a box on the host's programs; `tree` shows a directory of the host read-only.
pub(super) fn of_host(host: &Host, mut tree: impl FnMut(&Path) -> MountStep) -> Vec<MountStep> {
    let mut steps = vec![
        directory("/etc", 0o755),
        text("/etc/passwd", 0o644, host.accounts.passwd.clone()),
        text("/etc/group", 0o644, host.accounts.group.clone()),
        text("/etc/nsswitch.conf", 0o644, NSSWITCH.to_owned()),
        symlink("/etc/mtab", "/proc/self/mounts"),
    ];
    steps.extend(host.etc.copies.iter().map(|path| copy(path)));
    steps.extend(
        host.etc
            .links
            .iter()
            .map(|(at, target)| symlink(at, target)),
    );
    steps.extend(host.etc.trees.iter().map(|path| tree(path)));
    steps
}

fn hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1 localhost\n\
         127.0.1.1 {hostname}\n\
         ::1 localhost ip6-localhost ip6-loopback\n"
    )
}

fn text(at: &str, mode: u32, text: String) -> MountStep {
    let content = Content::Text(text);
    step(at, What::File { mode, content }, MountFlags::NONE)
}

fn copy(path: &Path) -> MountStep {
    let content = Content::CopyOf(PathBuf::from(path));
    step(
        path,
        What::File {
            mode: 0o644,
            content,
        },
        MountFlags::NONE,
    )
}
