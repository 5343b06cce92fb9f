//! boxd's own messages, and the payload's output in journald's native protocol.

pub mod lines;
pub mod native;
pub mod relay;
