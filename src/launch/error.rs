//! Why a box was not launched.

use std::path::PathBuf;

use super::channel;
use super::credentials;
use super::protocol::{Failure, FromChild};
use crate::sandbox::{host_mounts, limits, user_namespace};
use crate::sys::Errno;
use crate::{cgroup, sys, systemd};

/// `EXIT_FAILURE`.
const EXIT_FAILURE: u8 = 1;
/// `EXIT_LIMITS` of systemd.exec(5).
const EXIT_LIMITS: u8 = 205;
/// `EXIT_CGROUP` of systemd.exec(5).
const EXIT_CGROUP: u8 = 219;
/// `EXIT_CREDENTIALS` of systemd.exec(5).
const EXIT_CREDENTIALS: u8 = 243;
/// `EXIT_NAMESPACE` of systemd.exec(5).
const EXIT_NAMESPACE: u8 = 226;

/// Why a box was not launched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket for the two to talk.
    #[error("cannot make the socket between launcher and child")]
    Channel(#[source] sys::Error),
    /// The kernel made no child.
    #[error("cannot make the box's namespaces{}", hint(.0))]
    Clone(#[source] sys::Error),
    /// The ids were not mapped.
    #[error("cannot give the box its ids")]
    Ids(#[source] user_namespace::Error),
    /// Limits of its processes were not raised.
    #[error(transparent)]
    Limits(#[from] limits::Error),
    /// A secret.
    #[error(transparent)]
    Credentials(credentials::Error),
    /// What the host gives to the box.
    #[error("cannot make the box's mounts")]
    HostMounts(#[source] host_mounts::Error),
    /// The socket failed.
    #[error("cannot talk to the box's first process")]
    Talk(#[source] channel::Error),
    /// The wait for the child failed.
    #[error("cannot wait for the box's first process")]
    Wait(#[source] std::io::Error),
    /// The scope was not made.
    #[error("cannot make the box's scope")]
    Scope(#[source] systemd::Error),
    /// The cgroup was not made, or not as it should be.
    #[error("cannot make the box's cgroup")]
    Cgroup(#[source] cgroup::Error),
    /// The scope stands, and the child is not in it.
    #[error("the box's first process is in the cgroup {}, which is not the one made for it", .0.display())]
    Elsewhere(PathBuf),
    /// The child says what is wrong.
    #[error("{0}")]
    Failed(Failure),
    /// The child ended and did not say why.
    #[error("the box's first process {0} before the box was complete")]
    Died(String),
    /// The child's message is not the one that comes next.
    #[error("the box's first process said {0:?} when something else was due")]
    Unexpected(FromChild),
    /// The caller wants no more of it.
    #[error("the launch was interrupted")]
    Interrupted,
}

impl Error {
    /// The exit status a service fails with for this; the numbers are those of systemd.exec(5).
    pub fn status(&self) -> u8 {
        match self {
            Error::Failed(failure) => failure.status,
            Error::Clone(_) | Error::Ids(_) | Error::HostMounts(_) => EXIT_NAMESPACE,
            Error::Limits(_) => EXIT_LIMITS,
            Error::Credentials(_) => EXIT_CREDENTIALS,
            Error::Scope(_) | Error::Cgroup(_) | Error::Elsewhere(_) => EXIT_CGROUP,
            Error::Channel(_)
            | Error::Talk(_)
            | Error::Wait(_)
            | Error::Died(_)
            | Error::Unexpected(_)
            | Error::Interrupted => EXIT_FAILURE,
        }
    }
}

/// What to do about it, where the kernel's answer is known to mean something particular; clone(2).
fn hint(error: &sys::Error) -> &'static str {
    match error.errno() {
        Errno::ENOSPC => {
            " (a limit on namespaces is reached: see the sysctls user.max_user_namespaces, user.max_pid_namespaces and so on)"
        }
        Errno::EPERM => " (this needs root, and a kernel that allows user namespaces)",
        Errno::EUSERS => " (user namespaces are nested too deeply)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_child_is_one_sentence_with_its_causes() {
        let error = Error::Failed(Failure {
            attempt: "mount /proc".into(),
            causes: vec![
                "fsconfig(fd 5, FSCONFIG_CMD_CREATE)".into(),
                "EPERM: Operation not permitted".into(),
            ],
            path: None,
            status: 226,
        });
        assert_eq!(
            error.to_string(),
            "cannot mount /proc: fsconfig(fd 5, FSCONFIG_CMD_CREATE): EPERM: Operation not permitted"
        );
        assert_eq!(error.status(), 226);
    }

    #[test]
    fn a_host_without_user_namespaces_is_told_which_sysctl() {
        let error = Error::Clone(sys::Error::new("clone3()", Errno::ENOSPC));
        assert!(error.to_string().contains("user.max_user_namespaces"));
        assert_eq!(error.status(), EXIT_NAMESPACE);
    }
}
