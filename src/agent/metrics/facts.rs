//! What is told of boxes, read when somebody asks.

use std::collections::{BTreeMap, BTreeSet};

use crate::handover::Document;
use crate::health;
use crate::name::Name;
use crate::running;
use crate::status::dropped;
use crate::status::stats::{self, Stats};
use crate::systemd::{self, Manager, Starts};

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What runs cannot be listed.
    #[error("cannot see what runs")]
    Running(#[source] running::Error),
    /// systemd does not answer.
    #[error("cannot see the units of the boxes")]
    Systemd(#[source] systemd::Error),
}

/// What is told of all boxes that run, or whose unit is not at rest.
#[derive(Debug, Default)]
pub struct Facts {
    /// By name.
    pub boxes: Vec<Seen>,
    /// Boxes of which it cannot be seen what runs: another boxd launched them, say.
    pub unseen: usize,
}

/// What is told of one box. What is not known is absent.
#[derive(Debug)]
pub struct Seen {
    /// The box.
    pub name: Name,
    /// It is ready, and not about to stop.
    pub up: bool,
    /// Restarts since somebody started it; none of a box in the foreground.
    pub restarts: Option<u32>,
    /// Microseconds from the begin of its start until it was ready. Of a box whose supervisor was replaced since by
    /// way of its unit nobody knows it any more.
    pub start_duration: Option<u64>,
    /// How it answers when it is asked.
    pub health: Option<health::State>,
    /// Bytes of its output that were dropped.
    pub output_dropped: Option<u64>,
    /// What it uses, while it runs.
    pub stats: Option<Stats>,
}

/// A unit that is not at rest.
struct Unit {
    active_state: String,
    starts: Starts,
}

/// What there is to tell now.
///
/// # Errors
///
/// Only what keeps it from telling anything.
pub fn facts() -> Result<Facts, Error> {
    let manager = Manager::connect().map_err(Error::Systemd)?;
    let loaded = manager.list_units(&["box@*.service"]);
    let mut units: BTreeMap<Name, Unit> = BTreeMap::new();
    for unit in loaded.map_err(Error::Systemd)? {
        let name = unit.unit.strip_prefix("box@");
        let name = name.and_then(|name| name.strip_suffix(".service")?.parse().ok());
        if let Some(name) = name.filter(|_| unit.active_state != "inactive") {
            let unit = Unit {
                active_state: unit.active_state,
                starts: Starts::default(),
            };
            units.insert(name, unit);
        }
    }
    let services: Vec<String> = units.keys().map(Name::unit).collect();
    let starts = manager.starts(&services).map_err(Error::Systemd)?;
    for (unit, starts) in units.values_mut().zip(starts) {
        unit.starts = starts;
    }
    let running = running::names().map_err(Error::Running)?;
    let names: BTreeSet<Name> = running.into_iter().chain(units.keys().cloned()).collect();
    let mut facts = Facts::default();
    for name in names {
        match running::launched(&name) {
            Ok(launched) => {
                let document = launched.map(|(document, _process)| document);
                let unit = units.get(&name);
                facts.boxes.extend(seen(name, unit, document.as_ref()));
            }
            Err(_) => facts.unseen += 1,
        }
    }
    Ok(facts)
}

/// None of a box that has ended meanwhile, or whose files a killed launcher left.
fn seen(name: Name, unit: Option<&Unit>, document: Option<&Document>) -> Option<Seen> {
    if document.is_none() && unit.is_none() {
        return None;
    }
    let starts = unit.map(|unit| &unit.starts);
    Some(Seen {
        // One without a unit runs in the foreground.
        up: unit.is_none_or(|unit| {
            matches!(
                unit.active_state.as_str(),
                "active" | "reloading" | "refreshing"
            )
        }),
        restarts: starts.map(|starts| starts.restarts),
        start_duration: document
            .zip(starts)
            .and_then(|(document, starts)| start_duration(starts, document.started)),
        health: document
            .and_then(running::health)
            .map(|health| health.state),
        output_dropped: document.and_then(|document| match document.output.rate {
            // There is nothing that would be too much.
            None => Some(0),
            Some(_) => dropped::output(&name, starts?.main_pid),
        }),
        stats: document.and_then(stats::of),
        name,
    })
}

/// By the times of its unit, if they are those of the start in which the box was begun.
fn start_duration(starts: &Starts, started: u64) -> Option<u64> {
    let is_of_this_start = (1..=started).contains(&starts.inactive_exit);
    let ready = starts.active_enter.checked_sub(starts.inactive_exit);
    ready.filter(|_| is_of_this_start && starts.active_enter >= started)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cgroup::pressure::{Pressure, Share, Stall};
    use crate::status::Limits;

    /// A box with everything, one that is starting, and one that has failed.
    pub fn all_there_is() -> Facts {
        let share = |total| Share {
            total,
            ..Share::default()
        };
        let stall = |some, full| {
            Some(Stall {
                some: share(some),
                full: Some(share(full)),
            })
        };
        let name = |name: &str| name.parse().expect("a name");
        let nothing = |of: &str| Seen {
            name: name(of),
            up: false,
            restarts: None,
            start_duration: None,
            health: None,
            output_dropped: None,
            stats: None,
        };
        Facts {
            unseen: 1,
            boxes: vec![
                Seen {
                    restarts: Some(5),
                    ..nothing("broken")
                },
                Seen {
                    restarts: Some(0),
                    health: Some(health::State::Starting),
                    stats: Some(Stats {
                        started: 1_800_000_000_000_000,
                        cpu: Some(0),
                        ..Stats::default()
                    }),
                    ..nothing("starting")
                },
                Seen {
                    up: true,
                    restarts: Some(1),
                    start_duration: Some(12_500),
                    health: Some(health::State::Healthy),
                    output_dropped: Some(4711),
                    stats: Some(Stats {
                        name: "web".to_owned(),
                        started: 1_799_999_999_250_000,
                        cpu: Some(3_723_100_000),
                        memory: Some(12_897_485),
                        memory_peak: Some(15 << 20),
                        swap: Some(0),
                        tasks: Some(3),
                        io_read: Some(4096),
                        io_written: Some(1 << 40),
                        oom_kills: Some(2),
                        pressure: Pressure {
                            cpu: stall(1_500_000, 250_000),
                            memory: stall(0, 0),
                            io: stall(999, 1),
                        },
                        limits: Limits {
                            memory: Some(512 << 20),
                            cpu: Some(1_500_000),
                            tasks: Some(512),
                            ..Limits::default()
                        },
                    }),
                    ..nothing("web")
                },
            ],
        }
    }

    #[test]
    fn a_start_is_measured_by_the_times_of_its_own_unit() {
        let unit = |inactive_exit, active_enter| Starts {
            inactive_exit,
            active_enter,
            ..Starts::default()
        };
        assert_eq!(start_duration(&unit(1000, 5000), 2000), Some(4000));
        // Not yet ready; ready in an earlier life.
        assert_eq!(start_duration(&unit(1000, 0), 2000), None);
        assert_eq!(start_duration(&unit(1000, 900), 2000), None);
        // A supervisor that was killed, and its heir: the box is older than what the unit tells.
        assert_eq!(start_duration(&unit(3000, 3500), 2000), None);
        // In the foreground.
        assert_eq!(start_duration(&unit(0, 0), 2000), None);
    }

    #[test]
    fn a_box_that_has_ended_is_not_told_of() {
        let name = || "web".parse::<Name>().expect("a name");
        assert!(seen(name(), None, None).is_none());
        for (state, up) in [("failed", false), ("activating", false), ("active", true)] {
            let unit = Unit {
                active_state: state.to_owned(),
                starts: Starts::default(),
            };
            let seen = seen(name(), Some(&unit), None).expect("told of");
            assert_eq!((seen.up, seen.restarts), (up, Some(0)));
        }
    }
}
