//! Who calls: as the bus says, and the process it says it of.
//!
//! The process is held by a pidfd while it is looked at. Nothing that a caller says of itself counts.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use zbus::Connection;
use zbus::fdo::ConnectionCredentials;

use super::ANSWER;
use super::refusal::Refusal;
use crate::{cgroup, running};

/// One who may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user, on the host.
    pub uid: u32,
    /// As whom they logged in, whatever they have become since.
    login: Option<u32>,
}

impl Caller {
    /// Who has this unique name.
    ///
    /// # Errors
    ///
    /// A process of a box is refused whatever it is, and so is one that has ended: nobody could tell what it was.
    pub async fn of(connection: &Connection, sender: &str) -> Result<Caller, Refusal> {
        let credentials = tokio::time::timeout(ANSWER, credentials(connection, sender))
            .await
            .map_err(|_| Refusal::denied("the bus does not say who calls"))?
            .map_err(|error| Refusal::denied(format!("the bus does not say who calls: {error}")))?;
        let uid = credentials
            .unix_user_id()
            .ok_or_else(|| Refusal::denied("the bus does not say which user calls"))?;
        let process = match credentials
            .process_id()
            .and_then(|pid| Pid::from_raw(pid as i32))
        {
            // Before dbus 1.15.8 there is the number alone; one that was given anew meanwhile is another process.
            Some(pid) if credentials.process_fd().is_none() => {
                pidfd_open(pid, PidfdFlags::empty()).ok()
            }
            _ => credentials.into_process_fd().map(OwnedFd::from),
        };
        let ended = || Refusal::denied("the process that calls has ended");
        let process = process.ok_or_else(ended)?;
        let pid = number(&process).ok_or_else(ended)?;
        let cgroup = cgroup::of_process(pid);
        let login = login(pid);
        // Only now is it known whose these were: a number is not used again before its process is gone.
        if running::has_ended(&process) {
            return Err(ended());
        }
        let cgroup = cgroup.map_err(|error| {
            Refusal::denied(format!("whose process calls is not known: {error}"))
        })?;
        if is_in_a_box(&cgroup) {
            return Err(Refusal::denied(
                "a process in a box may ask nothing of boxd",
            ));
        }
        Ok(Caller { uid, login })
    }

    /// To whom what is done is put down.
    pub fn author(self) -> u32 {
        self.login.unwrap_or(self.uid)
    }
}

async fn credentials(
    connection: &Connection,
    sender: &str,
) -> Result<ConnectionCredentials, zbus::Error> {
    let bus = "org.freedesktop.DBus";
    let reply = connection
        .call_method(
            Some(bus),
            "/org/freedesktop/DBus",
            Some(bus),
            "GetConnectionCredentials",
            &(sender,),
        )
        .await?;
    reply.body().deserialize()
}

/// The number of the process of a pidfd; none if it has ended or is of no process here.
fn number(process: &OwnedFd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|pid| *pid > 0)
}

fn login(pid: i32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    // What the kernel has for nobody.
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// Whether a cgroup is a box's or below one: by its name, and of boxes in the foreground by what is known of them.
fn is_in_a_box(cgroup: &Path) -> bool {
    is_named_as_a_box(cgroup)
        || running::names()
            .unwrap_or_default()
            .iter()
            .filter_map(running::document)
            .any(|document| cgroup.starts_with(document.cgroup))
}

fn is_named_as_a_box(cgroup: &Path) -> bool {
    cgroup.iter().any(|part| {
        let part = part.to_string_lossy();
        part == "box.slice" || part.starts_with("box-") && part.ends_with(".scope")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_known_by_its_cgroup() {
        for (cgroup, is) in [
            ("/box.slice/box-web.scope", true),
            ("/box.slice/box-web.scope/init.scope", true),
            ("/machine.slice/box-web.scope/a/b", true),
            ("/box.slice", true),
            ("/system.slice/box.service", false),
            ("/user.slice/user-1000.slice/session-1.scope", false),
            ("/", false),
        ] {
            assert_eq!(is_named_as_a_box(Path::new(cgroup)), is, "{cgroup}");
        }
    }

    #[test]
    fn a_pidfd_knows_its_process_until_that_ends() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("started");
        let pid = Pid::from_raw(child.id() as i32).expect("a pid");
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("alive");
        assert_eq!(number(&process), Some(child.id() as i32));
        drop(child.stdin.take());
        child.wait().expect("our child");
        assert_eq!(number(&process), None);
    }
}
