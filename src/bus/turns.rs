//! How many may ask at once: whoever is not root cannot keep root out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::caller::Caller;
use super::refusal::Refusal;
use super::server::locked;

/// Most calls at once of one connection to the bus, whoever's it is.
const CALLS_OF_SENDER_MAX: usize = 64;

/// Most calls at once of a user who is not root.
const CALLS_OF_USER_MAX: usize = 16;

/// Most calls at once of all users who are not root.
const CALLS_OF_OTHERS_MAX: usize = 512;

/// Most calls that look, and that change something, at once: of root, and of all others together.
const LOOKS: usize = 4;
const CHANGES: usize = 8;

/// As many calls block at most.
pub const BLOCKING: usize = 2 * (LOOKS + CHANGES);

/// Who is at it.
pub struct Turns {
    of_sender: Counts<String>,
    of_user: Counts<u32>,
    calls_of_others: Semaphore,
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

/// How many there are by whose they are; who has none is not kept.
struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K: Clone + Eq + Hash> Counts<K> {
    /// One more; none if there are as many as may be.
    fn one_more(&self, of: K, max: usize) -> Option<Counted<K>> {
        let mut numbers = locked(&self.0);
        let number = numbers.entry(of.clone()).or_default();
        if *number >= max {
            return None;
        }
        *number += 1;
        let numbers = self.0.clone();
        Some(Counted { numbers, of })
    }
}

/// Counts for as long as it lives.
pub struct Counted<K: Eq + Hash> {
    numbers: Arc<Mutex<HashMap<K, usize>>>,
    of: K,
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut numbers = locked(&self.numbers);
        if let Some(number) = numbers.get_mut(&self.of) {
            *number -= 1;
            if *number == 0 {
                numbers.remove(&self.of);
            }
        }
    }
}

/// A call of a user, for as long as it lives.
pub struct OfUser<'a> {
    _of_user: Counted<u32>,
    _of_others: Option<SemaphorePermit<'a>>,
}

impl Turns {
    /// No one yet.
    pub fn new() -> Turns {
        Turns {
            of_sender: Counts(Arc::default()),
            of_user: Counts(Arc::default()),
            calls_of_others: Semaphore::new(CALLS_OF_OTHERS_MAX),
            of_root: Lanes::default(),
            of_others: Lanes::default(),
        }
    }

    /// Counts one more call of whoever has this unique name, before it is known who that is.
    ///
    /// # Errors
    ///
    /// The connection has enough of them.
    pub fn one_more_from(&self, sender: &str) -> Result<Counted<String>, Refusal> {
        self.of_sender
            .one_more(sender.to_owned(), CALLS_OF_SENDER_MAX)
            .ok_or_else(|| Refusal::too_much("too many calls of this connection at once"))
    }

    /// Counts one more call of a user.
    ///
    /// # Errors
    ///
    /// The user has enough of them, or all users but root have.
    pub fn one_more_of(&self, uid: u32) -> Result<OfUser<'_>, Refusal> {
        let (max, of_others) = match uid {
            0 => (usize::MAX, None),
            _ => {
                let permit = self.calls_of_others.try_acquire().map_err(|_| {
                    Refusal::too_much("too many calls of all users at once; try again")
                })?;
                (CALLS_OF_USER_MAX, Some(permit))
            }
        };
        let of_user = self
            .of_user
            .one_more(uid, max)
            .ok_or_else(|| Refusal::too_much("too many calls of this user at once"))?;
        Ok(OfUser {
            _of_user: of_user,
            _of_others: of_others,
        })
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
        assert!(locked(&turns.of_user.0).is_empty());
    }

    #[test]
    fn no_other_user_and_no_connection_keeps_root_out() {
        let turns = Turns::new();
        let of_others: Vec<_> = (1..)
            .flat_map(|uid| [uid; CALLS_OF_USER_MAX])
            .take(CALLS_OF_OTHERS_MAX)
            .map(|uid| turns.one_more_of(uid))
            .collect();
        assert!(of_others.iter().all(Result::is_ok));
        assert!(turns.one_more_of(100_000).is_err());
        assert!(turns.one_more_of(0).is_ok());
        drop(of_others);
        assert!(turns.one_more_of(100_000).is_ok());

        let of_one: Vec<_> = (0..CALLS_OF_SENDER_MAX)
            .map(|_| turns.one_more_from(":1.7"))
            .collect();
        assert!(of_one.iter().all(Result::is_ok));
        assert!(turns.one_more_from(":1.7").is_err());
        assert!(turns.one_more_from(":1.8").is_ok());
        drop(of_one);
        assert!(locked(&turns.of_sender.0).is_empty());
    }
}
