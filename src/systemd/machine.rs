//! systemd-machined, which knows the containers and virtual machines of a host by name; org.freedesktop.machine1(5).
//!
//! It watches the unit of a machine by itself and forgets the machine with it, and what it knows outlives it in
//! `/run/systemd/machines`. The bus starts it when it is called.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use zbus::wire::{Fd, Variant};

use super::bus::{Bus, Object, Posted};
use super::scope::Process;
use super::{Error, Manager};

const MACHINED: Object<'static> = Object {
    destination: "org.freedesktop.machine1",
    path: "/org/freedesktop/machine1",
    interface: "org.freedesktop.machine1.Manager",
};

/// What systemd-machined knows, a file for each machine. A link `unit:UNIT` leads from a unit to its machine; libsystemd
/// looks there as well, sd_pid_get_machine_name(3).
const KNOWN: &str = "/run/systemd/machines";

/// Who looks after the machine, as `systemd-nspawn` and `libvirt-lxc` are.
const SERVICE: &str = "boxd";

/// `container` or `vm`.
const CLASS: &str = "container";

/// How long systemd-machined may take to forget a machine.
const WITHDRAWAL: Duration = Duration::from_secs(5);

/// How often it is asked meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// What the bus or systemd answers in its place on a host that does not have it, that does not want it, or that goes
/// down.
const ABSENT: [&str; 5] = [
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.systemd1.UnitMasked",
    "org.freedesktop.systemd1.ShuttingDown",
    "org.freedesktop.systemd1.TransactionIsDestructive",
];

/// A box, as systemd-machined is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its machine-id(5).
    pub id: u128,
    /// Where its files lie on the host; for people.
    pub root: Option<&'a Path>,
    /// Its first process, which is in its unit by now.
    pub leader: Process<'a>,
}

/// What systemd-machined was asked.
pub struct Registration {
    // Has the connection too, and goes before its runtime.
    posted: Posted,
    bus: Bus,
    leader: OwnedFd,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The box is known.
    Registered,
    /// There is no systemd-machined.
    Absent,
    /// The box has ended meanwhile.
    Ended,
}

impl Manager {
    /// Asks systemd-machined to register a box, and does not wait for the answer. The connection is needed for it:
    /// who asks must be there when systemd-machined looks who it is.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], [`Error::Client`] when there is no descriptor to be had.
    pub fn begin_registration(self, machine: &Machine<'_>) -> Result<Registration, Error> {
        let attempt = format!("register box {} with systemd-machined", machine.name);
        let leader = machine
            .leader
            .pidfd
            .try_clone_to_owned()
            .map_err(Error::Client)?;
        let root = machine
            .root
            .map(|root| root.to_string_lossy().into_owned())
            .unwrap_or_default();
        let id = machine.id.to_be_bytes();
        let mut properties: Vec<(&str, Variant<'_>)> = vec![
            ("Id", Variant::from(id.to_vec())),
            ("Service", Variant::from(SERVICE)),
            ("Class", Variant::from(CLASS)),
            ("LeaderPIDFD", Variant::from(Fd::from(leader.as_fd()))),
        ];
        if !root.is_empty() {
            properties.push(("RootDirectory", Variant::from(root.as_str())));
        }
        let by_pidfd = self.bus.message_to(
            MACHINED,
            &attempt,
            "RegisterMachineEx",
            &(machine.name, properties),
        )?;
        // One before systemd 259 knows this alone. One that knows both refuses it, since there is such a machine by
        // then: to see first which one it is would take another round.
        let by_pid = self.bus.message_to(
            MACHINED,
            &attempt,
            "RegisterMachine",
            &(
                machine.name,
                &id[..],
                SERVICE,
                CLASS,
                machine.leader.pid.unsigned_abs(),
                root.as_str(),
            ),
        )?;
        let posted = self.bus.post(&attempt, &[by_pidfd, by_pid])?;
        Ok(Registration {
            bus: self.bus,
            posted,
            leader,
        })
    }
}

impl Registration {
    /// Whether the answer is there by now.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`].
    pub fn is_answered(&mut self) -> Result<bool, Error> {
        self.bus.look_for_answers(&mut self.posted)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the words of systemd-machined, [`Error::Timeout`], [`Error::Lost`].
    pub fn outcome(self, within: Duration) -> Result<Outcome, Error> {
        let Registration {
            bus,
            posted,
            leader,
        } = self;
        let answers = bus.answers(posted, within)?;
        let mut refusal = None;
        for answer in answers {
            match answer {
                Ok(_) => return Ok(Outcome::Registered),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) if is_absent(&error) => Ok(Outcome::Absent),
            Some(_) if has_ended(&leader) => Ok(Outcome::Ended),
            Some(error) => Err(error),
            None => Ok(Outcome::Absent),
        }
    }
}

/// Has systemd-machined forget the machine of a unit that is gone, if it still knows it. Mostly it has noticed by itself.
/// Where it has not, the next box of this name must not meet its own past: the name would be taken, or
/// systemd-machined, late to stop what is left of the old one, would stop the new one. Where it is masked or removed by
/// now, what it has left behind is removed.
///
/// # Errors
///
/// As [`Registration::outcome`].
pub fn withdraw(unit: &str) -> Result<(), Error> {
    let link = Path::new(KNOWN).join(format!("unit:{unit}"));
    let Ok(name) = fs::read_link(&link) else {
        return Ok(());
    };
    let file = Path::new(KNOWN).join(name.file_name().unwrap_or_default());
    let name = name.to_string_lossy();
    let attempt = format!("have systemd-machined forget {name}");
    let bus = Manager::connect()?.bus;
    let begin = Instant::now();
    // It forgets when it has nothing else to do.
    loop {
        let call = bus.message_to(MACHINED, &attempt, "UnregisterMachine", &(&*name,))?;
        let posted = bus.post(&attempt, &[call])?;
        let left = WITHDRAWAL.saturating_sub(begin.elapsed());
        match bus.answers(posted, left)?.pop() {
            Some(Err(Error::Refused { name, .. }))
                if name == "org.freedesktop.machine1.NoSuchMachine" =>
            {
                return Ok(());
            }
            // One that is there again some day would take the next box for this one, whose first process is dead, and
            // stop it.
            Some(Err(error)) if is_absent(&error) => return remove(&attempt, &[&link, &file]),
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) | None => std::thread::sleep(ASK_AGAIN),
        }
    }
}

fn remove(attempt: &str, files: &[&Path]) -> Result<(), Error> {
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Refused {
                    attempt: attempt.to_owned(),
                    name: String::new(),
                    reason: format!("{} cannot be removed: {error}", file.display()),
                });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn is_absent(error: &Error) -> bool {
    match error {
        Error::Refused { name, .. } => ABSENT.contains(&name.as_str()),
        Error::NoSuchUnit { .. } => true,
        _ => false,
    }
}

/// A pidfd can be read when its process has ended.
fn has_ended(process: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut files = [PollFd::new(process, PollFlags::IN)];
    poll(&mut files, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
