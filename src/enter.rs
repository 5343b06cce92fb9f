//! Another process in a running box: `boxctl exec` and `boxctl shell`.

pub mod relay;
pub mod terminal;
