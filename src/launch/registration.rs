//! What makes a box a machine for machinectl(1). It is no part of the launch: nothing waits for it, and no box fails
//! for it.

use std::time::Duration;

use crate::journal;
use crate::name::Name;
use crate::plan::Machine;
use crate::systemd::machine::{self, Outcome};
use crate::systemd::scope::Process;
use crate::systemd::{self, Manager};

/// How long systemd-machined may take, which may have to be started first; `DefaultTimeoutStartSec=` of
/// systemd-system.conf(5).
const ANSWER: Duration = Duration::from_secs(90);

/// A registration that systemd-machined was asked for.
pub struct Registration {
    name: Name,
    pending: machine::Registration,
}

impl Registration {
    pub(super) fn begin(
        manager: Manager,
        name: &Name,
        machine: &Machine,
        leader: Process<'_>,
    ) -> Option<Self> {
        // A machine's name has no colon, as an instance's has.
        let known_as = name.hostname();
        let machine = machine::Machine {
            name: &known_as,
            id: u128::from_str_radix(&machine.id, 16).unwrap_or_default(),
            root: machine.root.as_deref(),
            leader,
        };
        match manager.begin_registration(&machine) {
            Ok(pending) => Some(Registration {
                name: name.clone(),
                pending,
            }),
            Err(error) => {
                complain(name, &error);
                None
            }
        }
    }

    /// Says what became of it if that is known by now; else it is given back.
    pub fn finish_if_answered(mut self) -> Option<Self> {
        match self.pending.is_answered() {
            Ok(false) => Some(self),
            Ok(true) => {
                self.finish();
                None
            }
            Err(error) => {
                complain(&self.name, &error);
                None
            }
        }
    }

    /// Waits for what becomes of it, and says it.
    pub fn finish(self) {
        match self.pending.outcome(ANSWER) {
            Ok(Outcome::Registered | Outcome::Absent | Outcome::Ended) => {}
            Err(error) => complain(&self.name, &error),
        }
    }
}

fn complain(name: &Name, error: &systemd::Error) {
    tracing::warn!(
        "{}: machinectl does not know box {name}, which runs all the same; `machine = false` in its definition leaves it out",
        journal::chain(error)
    );
}
