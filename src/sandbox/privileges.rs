//! What a process of the box may do: ids, capabilities, no_new_privs; capabilities(7).

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::identity::Identity;
use crate::plan::Privileges;
use crate::sys::{self, Called as _};

/// A privilege that could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ids were refused.
    #[error(
        "cannot become uid {uid} with gid {gid} and groups {groups:?}; a box with its own ids has 0 to 65535"
    )]
    Become {
        /// Inside the box.
        uid: u32,
        /// Inside the box.
        gid: u32,
        /// Inside the box.
        groups: Vec<u32>,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A capability stayed.
    #[error("cannot give up capabilities")]
    Capabilities(#[source] sys::Error),
    /// Programs could still raise their privileges.
    #[error("cannot refuse new privileges")]
    NoNewPrivileges(#[source] sys::Error),
}

/// Makes this process, which is root of the box with every capability there, the user it shall be, with no
/// more than the given privileges, now and after any execve(2).
///
/// Root of the box has the set as permitted and effective; any other user has none. The bounding set is the
/// set, inheritable and ambient are empty.
///
/// A system call filter is still to be loaded, which takes `CAP_SYS_ADMIN` where new privileges are not
/// refused. It is kept until execve(2), which takes it: it is not in the bounding set, or not root's.
pub fn drop_to(privileges: &Privileges, identity: &Identity) -> Result<(), Error> {
    let kept = privileges.capabilities.bits();
    let for_filter = if privileges.seccomp.is_some() && !privileges.no_new_privileges {
        CapabilitySet::SYS_ADMIN.bits()
    } else {
        0
    };
    bound(kept).map_err(Error::Capabilities)?;
    rustix::thread::set_keep_capabilities(for_filter != 0)
        .called(|| format!("prctl(PR_SET_KEEPCAPS, {})", u8::from(for_filter != 0)))
        .map_err(Error::Capabilities)?;
    become_user(identity).map_err(|source| Error::Become {
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups.clone(),
        source,
    })?;
    let held = if identity.uid == 0 { kept } else { 0 };
    hold(held | for_filter).map_err(Error::Capabilities)?;
    if privileges.no_new_privileges {
        rustix::thread::set_no_new_privs(true)
            .called(|| "prctl(PR_SET_NO_NEW_PRIVS, 1)".to_owned())
            .map_err(Error::NoNewPrivileges)?;
    }
    Ok(())
}

/// Takes every other capability from the bounding set, the ones this program has no name for too.
fn bound(kept: u64) -> Result<(), sys::Error> {
    for number in 0..u64::BITS {
        if kept & 1 << number != 0 {
            continue;
        }
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last one this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => {
                return Err(sys::Error::new(
                    format!("prctl(PR_CAPBSET_DROP, {number})"),
                    errno,
                ));
            }
        }
    }
    Ok(())
}

fn become_user(identity: &Identity) -> Result<(), sys::Error> {
    let ids = [identity.uid, identity.gid];
    if ids.iter().chain(&identity.groups).any(|id| *id == u32::MAX) {
        // To setresuid(2) that number means "stay who you are", which is root.
        return Err(sys::Error::new("setresuid(-1, -1, -1)", sys::Errno::EINVAL));
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups)
        .called(|| format!("setgroups({:?})", identity.groups))?;
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .called(|| format!("setresgid({0}, {0}, {0})", identity.gid))?;
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .called(|| format!("setresuid({0}, {0}, {0})", identity.uid))
}

fn hold(held: u64) -> Result<(), sys::Error> {
    rustix::thread::clear_ambient_capability_set()
        .called(|| "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)".to_owned())?;
    // A capability the launcher itself does not have cannot be asked for.
    let had = rustix::thread::capabilities(None).called(|| "capget(0)".to_owned())?;
    let held = CapabilitySet::from_bits_retain(held) & had.permitted;
    let sets = CapabilitySets {
        effective: held,
        permitted: held,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).called(|| format!("capset(0, {:#x})", held.bits()))
}
