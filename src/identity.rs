//! Which ids of the host a box has: a range of its own for every box, found again at its next start.

use serde::{Deserialize, Serialize};

/// A range of 65536 host ids the box's ids 0 to 65535 stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdRange {
    /// Host id of the box's id 0; a multiple of [`IdRange::SIZE`].
    pub base: u32,
}

impl IdRange {
    /// Ids in a range.
    pub const SIZE: u32 = 65536;
}
