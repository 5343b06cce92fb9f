//! The system call filter: a [`Policy`] made a program of the kernel's, and loaded; seccomp(2).
//!
//! The profiles' own come with this program, compiled; any other is compiled while a box is made. It is loaded as the
//! last thing before execve(2).
//! A policy that needs no look at arguments comes out as a binary search over the numbers alone, which the
//! kernel evaluates once when it is loaded: it keeps a bitmap of what is always allowed, and those calls then
//! cost nothing (Linux 5.11).

mod compiler;
// Whatever runs elsewhere is compiled at each start.
#[cfg(target_arch = "x86_64")]
mod precompiled;

use std::borrow::Cow;

use crate::plan::seccomp::Policy;
use crate::plan::{self, Profile};
use crate::sys::{self, Instruction};

/// A filter, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    instructions: Cow<'static, [Instruction]>,
    log: bool,
    allow_speculation: bool,
}

/// The policy does not fit into a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot make the system call filter: it would be {instructions} instructions long, of which the kernel takes \
     {}; give it fewer conditions",
    sys::MOST_INSTRUCTIONS
)]
pub struct TooLong {
    /// What it would take.
    pub instructions: usize,
}

impl Filter {
    /// The program as the kernel gets it.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
}

/// The program that does what [`Policy::verdict`] says.
pub fn compile(policy: &Policy) -> Result<Filter, TooLong> {
    let instructions = match precompiled(policy) {
        Some(instructions) => Cow::Borrowed(instructions),
        None => Cow::Owned(compiler::compile(policy)),
    };
    if instructions.len() > sys::MOST_INSTRUCTIONS {
        return Err(TooLong {
            instructions: instructions.len(),
        });
    }
    Ok(Filter {
        instructions,
        log: policy.log,
        allow_speculation: policy.allow_speculation,
    })
}

/// The program for a profile's policy, which nobody has changed.
fn precompiled(policy: &Policy) -> Option<&'static [Instruction]> {
    let profile = PROFILES
        .into_iter()
        .find(|profile| profile.name() == policy.title)?;
    if *policy != plan::system_calls_of(profile) {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    return Some(match profile {
        Profile::App => &precompiled::APP,
        Profile::System => &precompiled::SYSTEM,
    });
    #[cfg(not(target_arch = "x86_64"))]
    None
}

const PROFILES: [Profile; 2] = [Profile::App, Profile::System];

/// Puts this process, and all it becomes, under the filter. `no_new_privs` is set, or the caller has
/// `CAP_SYS_ADMIN` in its user namespace.
pub fn load(filter: &Filter) -> Result<(), sys::Error> {
    sys::set_seccomp_filter(&filter.instructions, filter.log, filter.allow_speculation)
}

#[cfg(test)]
mod tests;
