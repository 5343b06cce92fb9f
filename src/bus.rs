//! `org.boxd1` on the system bus: what the agent serves there, and `boxctl` asks for where its caller is not root.
//!
//! Who calls is known from the bus and from a pidfd, never from what is said (`caller`); what they may do is polkit's
//! to say (`authority`), and where it is absent root alone may. What `boxctl` does is done by `boxctl`, in a process
//! of its own for each call (`errand`): so there is one way to do it and one set of words, the agent holds nothing
//! while a box takes its time, and whatever becomes of a call does not become of the agent. [`interface`] is the table
//! of all of it, from which the introspection comes too; org.boxd1(5) describes it.
//!
//! There is no call that runs a command in a box or attaches to its terminal. The agent would have to stand between
//! the caller's descriptors and the box for as long as that lasts, and a box's terminal must not end with an agent that
//! is restarted; nor is a command in a box less than being the box's user, which is more than looking after it.

use std::time::Duration;

mod authority;
mod boxes;
mod caller;
mod calls;
pub mod client;
mod errand;
pub mod interface;
mod refusal;
mod server;
mod turns;

pub use server::{Bus, serve};

/// The name on the bus.
pub const NAME: &str = "org.boxd1";

/// So long an answer of the bus itself, or of who answers at once, is waited for.
const ANSWER: Duration = Duration::from_secs(30);
