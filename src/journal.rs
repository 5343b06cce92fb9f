//! boxd's own messages, and the payload's output in journald's native protocol.

pub mod fields;
pub mod gate;
pub mod lines;
pub mod native;
mod own;
pub mod relay;

pub use own::{chain, init, init_for_all};
