//! What holds of every input, a function for each kind of input: it takes bytes as libFuzzer or `tests/fuzz.rs` makes
//! them, and panics where it does not hold.
//!
//! What is compared with is written anew here, from the manual pages and specifications, and shares nothing with what
//! it is compared to.

mod accounts;
mod bpf;
mod cdi;
mod definition;
mod generator;
mod handover;
mod http;
mod input;
mod journal;
mod notification;
mod output;
mod protocol;
mod quantities;
mod seccomp;
mod unit_syntax;

pub use accounts::accounts;
pub use cdi::cdi;
pub use definition::definition;
pub use generator::generator;
pub use handover::handover;
pub use http::http;
pub use notification::notification;
pub use output::output;
pub use protocol::protocol;
pub use quantities::quantities;
pub use seccomp::seccomp;
