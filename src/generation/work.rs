//! What a generation has to do, and what ran when that was begun: written down for whoever finishes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::definition::SourceText;
use crate::name::Name;

/// What is to be done for a generation, by the name of the box.
pub type Work = BTreeMap<Name, Task>;

/// What is to be done about one box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Task {
    /// What.
    pub what: What,
    /// What ran of it before anything was done.
    pub ran: Runs,
}

/// What is done about a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Its service, or its sockets where it has some.
    Start,
    /// Its service and its sockets.
    Stop,
    /// Its service; where a socket has changed its sockets as well.
    Restart {
        /// Its service.
        service: bool,
        /// Its sockets.
        sockets: bool,
    },
    /// It is changed while it runs.
    Change,
    /// Nothing but that the definition is read: it does not run, or `boxctl run` has it.
    Read,
}

impl What {
    /// As it is shown.
    pub fn verb(self) -> &'static str {
        match self {
            What::Start => "start",
            What::Stop => "stop",
            What::Restart { .. } => "restart",
            What::Change => "change",
            What::Read => "read",
        }
    }
}

/// What runs of a box.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Runs {
    /// Its service.
    pub service: Service,
    /// The definition by which it was started, where that is known.
    pub definition: Option<Vec<SourceText>>,
    /// Its sockets that are open.
    pub sockets: Vec<String>,
}

/// What the service of a box does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Nothing.
    #[default]
    AtRest,
    /// Nothing, after a failure.
    Failed,
    /// It runs, comes up, or waits for its restart.
    Up,
    /// Nothing: `boxctl run` has the box.
    Foreground,
}
