//! The name of a box, the one key by which definition, unit, scope, id range and state are found.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a box in bytes: it is also the box's default hostname, and a DNS label holds 63.
pub const NAME_MAX: usize = 63;

/// What a box would have to share its folder in `/run/boxd` with: the layer of definitions there.
const RESERVED: &str = "definitions";

/// A valid box name: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most [`NAME_MAX`] bytes.
///
/// A value of this type can stand in a unit name, a file name and a hostname without escaping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not the name of a box.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a box name: {reason} (a name is a-z, 0-9 and inner '-', at most {NAME_MAX} characters)"
)]
pub struct NameError {
    text: String,
    reason: &'static str,
}

impl NameError {
    /// What is wrong with the text, as a clause: "it is empty".
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The service that runs this box: `box@NAME.service`.
    pub fn unit(&self) -> String {
        format!("box@{}.service", self.0)
    }

    /// The first, or only, unit of its sockets: `box@NAME.socket`.
    pub fn socket(&self) -> String {
        format!("box@{}.socket", self.0)
    }

    /// The unit of another socket of it, by the socket's name: `box@NAME:SOCKET.socket`. No name of a box has a
    /// colon, so no two boxes meet here.
    pub fn socket_of(&self, socket: &str) -> String {
        format!("box@{}:{socket}.socket", self.0)
    }

    /// The scope the payload lives in: `box-NAME.scope`.
    pub fn scope(&self) -> String {
        format!("box-{}.scope", self.0)
    }

    /// The unit that removes what the service could not: `box-clean@NAME.service`.
    pub fn cleaner(&self) -> String {
        format!("box-clean@{}.service", self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > NAME_MAX {
            "it is too long"
        } else if let Some(c) = text
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
        {
            if c.is_ascii_uppercase() {
                "it has a capital letter"
            } else {
                "it has a character that is not allowed"
            }
        } else if text.starts_with('-') {
            "it begins with '-'"
        } else if text.ends_with('-') {
            "it ends with '-'"
        } else if text == RESERVED {
            "/run/boxd/definitions is not a box's"
        } else {
            return Ok(Name(text.to_owned()));
        };
        Err(NameError {
            text: text.to_owned(),
            reason,
        })
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_of_lower_case() {
        for good in ["a", "0", "web", "web-1", "a--b", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "Web",
            "a_b",
            "a.b",
            "a/b",
            "é",
            "a\0",
            "definitions",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
