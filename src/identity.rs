//! Which ids of the host a box has: a range of its own for every box, found again at its next start.
//!
//! Ranges are those systemd sets aside for containers (<https://systemd.io/UIDS-GIDS>). Which box has which is
//! kept in a [`Registry`] under `/var/lib/boxd/ids`, on disk, because files that a box made outside its own
//! root may carry its ids after it has stopped.

mod foreign;
mod registry;

pub use registry::{Error, Registry};

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// A range of 65536 host ids the box's ids 0 to 65535 stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdRange {
    /// Host id of the box's id 0; a multiple of [`IdRange::SIZE`].
    pub base: u32,
}

impl IdRange {
    /// Ids in a range.
    pub const SIZE: u32 = 65536;
    /// First base that may be given away: `CONTAINER_UID_BASE_MIN` of systemd.
    pub const BASE_MIN: u32 = 524_288;
    /// Last base that may be given away: `CONTAINER_UID_BASE_MAX` of systemd.
    pub const BASE_MAX: u32 = 1_878_982_656;

    /// The last host id of the range.
    pub const fn last(self) -> u32 {
        self.base + (Self::SIZE - 1)
    }
}

/// The range of this box, reserved now if it has none: the same one at every call, and no other box's.
pub fn claim(name: &Name) -> Result<IdRange, Error> {
    Registry::system().claim(name)
}

/// The range this box has reserved, if it has one; changes nothing.
pub fn look_up(name: &Name) -> Result<Option<IdRange>, Error> {
    Registry::system().look_up(name)
}

/// The range [`claim`] would give; changes nothing.
pub fn propose(name: &Name) -> Result<IdRange, Error> {
    Registry::system().propose(name)
}

/// Gives the range of this box back, so that another box may get it; no error if it has none.
///
/// Only for a box that is gone for good: files with its ids may be left on disk.
pub fn release(name: &Name) -> Result<(), Error> {
    Registry::system().release(name)
}

/// Whether a file or directory with this owner and these permission bits belongs to the user boxd runs as, and nobody
/// else may write to it.
pub fn is_ours_alone(owner: u32, mode: u32) -> bool {
    owner == rustix::process::geteuid().as_raw() && mode & 0o022 == 0
}
