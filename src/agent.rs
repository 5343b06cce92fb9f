//! From edited definitions to boxes that are as these say.
//!
//! [`diff`] decides, [`intend`] reads what it decides by, and [`apply`] carries it out, one at a time on a host. What
//! is being applied is written down as a generation before anything is done, so that whoever comes after one that was
//! killed finishes it. [`service`] applies what is edited, for as long as it runs; nothing else here needs it.

pub mod apply;
pub mod diff;
pub mod intend;
pub mod live;
pub mod metrics;
pub mod service;
mod watch;

use crate::definition::LoadError;
use crate::{generation, running, systemd};

/// Why definitions were not applied, or not compared with what runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The definitions cannot be listed.
    #[error("cannot list the definitions")]
    List(#[source] LoadError),
    /// The generations.
    #[error(transparent)]
    Generation(#[from] generation::Error),
    /// What runs cannot be seen.
    #[error(transparent)]
    Running(#[from] running::Error),
    /// systemd does not do what it is asked.
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    /// Whether systemd must read the units again cannot be seen.
    #[error("cannot compare the units of the boxes with those systemd has")]
    Units(#[source] std::io::Error),
    /// What was read may be half of what somebody writes.
    #[error("the definitions were edited while they were read")]
    Edited,
}
