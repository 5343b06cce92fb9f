//! What a box must be after edits, whatever of them the agent has seen: it looks at the files after the last one in any
//! case, and after each of those before or not. Each look has one result, so there is a set of states in which a box may
//! be; and what is seen of it must be one of them.
//!
//! All definitions here start with the host, and no box requires another one.

use std::collections::BTreeSet;

/// What a definition does that can be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The box comes up.
    Good,
    /// It ends before it is ready.
    Failing,
    /// This host cannot carry it out.
    Impossible,
}

/// A definition that can be parsed. Two are the same text exactly if they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text {
    pub kind: Kind,
    /// Which needs a restart.
    pub life: u32,
    /// Which is changed while it runs.
    pub words: u32,
    /// These count where they are.
    pub drop_in: Option<u32>,
}

impl Text {
    pub fn described(&self) -> u32 {
        self.drop_in.unwrap_or(self.words)
    }

    fn same_life(&self, other: &Text) -> bool {
        (self.kind, self.life) == (other.kind, other.life)
    }

    fn says_the_same(&self, other: &Text) -> bool {
        self.same_life(other) && self.described() == other.described()
    }
}

/// What the files of a box say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Text(Text),
    Broken,
    /// There is none, or it is empty.
    Nothing,
    /// The directory is not there.
    Unreachable,
}

/// Who has them applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    ByChange,
    ByPerson,
}

/// What a generation keeps of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Entry {
    pub definition: Option<Text>,
    pub held: Option<Held>,
}

/// Why that is not what the files say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    Broken,
    Unreachable,
    Impossible,
    /// This one did not come up.
    Rejected(Text),
}

/// A state in which a box may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct State {
    pub entry: Option<Entry>,
    /// The definition by which it runs.
    pub runs: Option<Text>,
    /// Its service has failed.
    pub failed: bool,
    /// Its first process is another one than at the beginning.
    pub touched: bool,
}

impl State {
    /// The definition of the generation in force.
    pub fn in_force(&self) -> Option<Text> {
        self.entry?.definition
    }

    /// Whether `boxctl status` says that it is held.
    pub fn is_held(&self) -> bool {
        self.entry
            .is_some_and(|entry| entry.held.is_some() && entry.definition.is_some())
    }

    /// After these files were applied.
    #[must_use]
    pub fn applied(&self, found: Found, asked: Asked) -> State {
        let before = self.in_force();
        let was = Entry {
            definition: before.or(self.runs),
            held: self.entry.and_then(|entry| entry.held),
        };
        let next = State {
            entry: entry(found, was, asked),
            ..*self
        };
        match (next.in_force(), self.runs) {
            (None, Some(_)) if before.is_some() => State {
                runs: None,
                touched: true,
                ..next
            },
            (None, _) => next,
            (Some(after), Some(ran)) => {
                let untouched = before == Some(after) && asked == Asked::ByChange;
                if untouched || after.says_the_same(&ran) {
                    next
                } else if after.same_life(&ran) {
                    State {
                        runs: Some(after),
                        ..next
                    }
                } else {
                    next.started(after, before)
                }
            }
            (Some(after), None) => {
                let changed = before.is_some_and(|before| !before.says_the_same(&after));
                match before.is_none() || (self.failed && changed) {
                    true => next.started(after, before),
                    false => next,
                }
            }
        }
    }

    /// After it was started or restarted by this definition, and put back if it did not come up.
    fn started(self, after: Text, before: Option<Text>) -> State {
        let (touched, ran) = (true, self.runs);
        if after.kind == Kind::Good {
            return State {
                runs: Some(after),
                failed: false,
                touched,
                ..self
            };
        }
        let last = ran.or(before).filter(|last| *last != after);
        // One that had failed already is tried by the definition before.
        let again = last.filter(|last| self.failed && last.kind == Kind::Good);
        let runs = ran.or(again);
        State {
            entry: Some(Entry {
                definition: last,
                held: Some(Held::Rejected(after)),
            }),
            runs,
            failed: runs.is_none(),
            touched,
        }
    }

    /// After an operator has started it again, by what is in force.
    #[must_use]
    pub fn restarted(&self) -> State {
        let good = self.in_force().filter(|text| text.kind == Kind::Good);
        State {
            runs: good,
            failed: good.is_none(),
            touched: true,
            ..*self
        }
    }

    /// After an operator has stopped it.
    #[must_use]
    pub fn stopped(&self) -> State {
        State {
            runs: None,
            ..*self
        }
    }
}

/// What a generation keeps of these files.
fn entry(found: Found, was: Entry, asked: Asked) -> Option<Entry> {
    let held = |held| {
        Some(Entry {
            definition: was.definition,
            held: Some(held),
        })
    };
    match found {
        Found::Broken => held(Held::Broken),
        Found::Nothing => None,
        Found::Unreachable => was.definition.and_then(|_| held(Held::Unreachable)),
        Found::Text(text) => {
            let refused = Held::Rejected(text);
            if was.held == Some(refused) && asked == Asked::ByChange {
                held(refused)
            } else if text.kind == Kind::Impossible && was.definition != Some(text) {
                held(Held::Impossible)
            } else {
                Some(Entry {
                    definition: Some(text),
                    held: None,
                })
            }
        }
    }
}

/// All states in which a box may be.
#[derive(Debug, Clone, Default)]
pub struct States(pub BTreeSet<State>);

impl States {
    /// Before anything is known of it.
    pub fn none() -> States {
        States([State::default()].into())
    }

    /// After an edit that was seen, or not.
    pub fn edited(&mut self, found: Found) {
        let seen = self.each(|state| state.applied(found, Asked::ByChange));
        self.0.extend(seen.0);
    }

    /// After something that has happened.
    #[must_use]
    pub fn each(&self, what: impl Fn(&State) -> State) -> States {
        States(self.0.iter().map(what).collect())
    }
}
