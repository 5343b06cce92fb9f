//! From a plan to a running box: one sequence for the service and for a box in the foreground.

pub mod channel;
pub mod child;
pub mod protocol;
pub mod stdio;

pub use stdio::{Output, Stdio};
