//! How many may ask at once: whoever is not root cannot keep root out.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::caller::Caller;
use super::refusal::Refusal;
use super::server::locked;

/// Most calls at once of a user who is not root.
const CALLS_OF_USER_MAX: usize = 16;

/// Most calls that look, and that change something, at once: of root, and of all others together.
const LOOKS: usize = 4;
const CHANGES: usize = 8;

/// As many calls block at most.
pub const BLOCKING: usize = 2 * (LOOKS + CHANGES);

/// Who is at it.
pub struct Turns {
    of_user: Mutex<HashMap<u32, usize>>,
    of_root: Lanes,
    of_others: Lanes,
}

struct Lanes {
    looks: Semaphore,
    changes: Semaphore,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes {
            looks: Semaphore::new(LOOKS),
            changes: Semaphore::new(CHANGES),
        }
    }
}

/// A call of a user, for as long as it lives.
pub struct OfUser<'a> {
    turns: &'a Turns,
    uid: u32,
}

impl Turns {
    /// No one yet.
    pub fn new() -> Turns {
        Turns {
            of_user: Mutex::default(),
            of_root: Lanes::default(),
            of_others: Lanes::default(),
        }
    }

    /// Counts one more call.
    ///
    /// # Errors
    ///
    /// The user has enough of them.
    pub fn one_more_of(&self, uid: u32) -> Result<OfUser<'_>, Refusal> {
        let mut of_user = locked(&self.of_user);
        let number = of_user.entry(uid).or_default();
        if uid != 0 && *number >= CALLS_OF_USER_MAX {
            return Err(Refusal::too_much("too many calls of this user at once"));
        }
        *number += 1;
        Ok(OfUser { turns: self, uid })
    }

    /// Waits for a turn to look at something.
    pub async fn look(&self, caller: Caller) -> Option<SemaphorePermit<'_>> {
        // They are never closed.
        self.lanes(caller).looks.acquire().await.ok()
    }

    /// Waits for a turn to change something.
    pub async fn change(&self, caller: Caller) -> Option<SemaphorePermit<'_>> {
        self.lanes(caller).changes.acquire().await.ok()
    }

    fn lanes(&self, caller: Caller) -> &Lanes {
        match caller.uid {
            0 => &self.of_root,
            _ => &self.of_others,
        }
    }
}

impl Drop for OfUser<'_> {
    fn drop(&mut self) {
        let mut of_user = locked(&self.turns.of_user);
        if let Some(number) = of_user.get_mut(&self.uid) {
            *number -= 1;
            if *number == 0 {
                of_user.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_calls_and_root_has_more() {
        let turns = Turns::new();
        let calls: Vec<_> = (0..CALLS_OF_USER_MAX)
            .map(|_| turns.one_more_of(1000))
            .collect();
        assert!(calls.iter().all(Result::is_ok));
        assert!(turns.one_more_of(1000).is_err());
        assert!(turns.one_more_of(1001).is_ok());
        let of_root: Vec<_> = (0..=CALLS_OF_USER_MAX)
            .map(|_| turns.one_more_of(0))
            .collect();
        assert!(of_root.iter().all(Result::is_ok));
        drop((calls, of_root));
        assert!(turns.one_more_of(1000).is_ok());
        assert!(locked(&turns.of_user).is_empty());
    }
}
