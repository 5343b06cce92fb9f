//! The name of a box, the one key by which definition, unit, scope, id range and state are found.
//!
//! A definition with `instances` describes several boxes: `web:1`, `web:2`, … Each of them has all that a box has, by
//! its own name. What they have in common, the definition and the target, goes by the name without a number.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a box in bytes: it is also the box's default hostname, and a DNS label holds 63.
pub const NAME_MAX: usize = 63;

/// Most instances of one definition.
pub const INSTANCES_MAX: u16 = 1000;

/// What a box would have to share its folder in `/run/boxd` with: the layer of definitions there.
const RESERVED: &str = "definitions";

/// A valid box name: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most [`NAME_MAX`] bytes; of an instance with its number after
/// a colon, from 1 to [`INSTANCES_MAX`].
///
/// A value of this type can stand in a unit name and a file name without escaping; in a hostname by
/// [`Name::hostname`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// By their definitions, and the instances of one by their numbers.
impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        let parts = |name: &Name| -> (usize, Option<u16>) {
            let end = name.0.find(':').unwrap_or(name.0.len());
            (end, name.instance())
        };
        let ((end, index), (other_end, other_index)) = (parts(self), parts(other));
        self.0[..end]
            .cmp(&other.0[..other_end])
            .then(index.cmp(&other_index))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a text is not the name of a box.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a box name: {reason} (a name is a-z, 0-9 and inner '-', at most {NAME_MAX} characters{})",
    if *.is_instance { ", and an instance has its number after it, as in web:2" } else { "" }
)]
pub struct NameError {
    text: String,
    reason: &'static str,
    is_instance: bool,
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

    /// The name that a definition has, in the name of its file for one: never that of an instance.
    ///
    /// # Errors
    ///
    /// The text is no name, or has the number of an instance.
    pub fn of_definition(text: &str) -> Result<Self, NameError> {
        match defined(text) {
            None => Ok(Name(text.to_owned())),
            Some(reason) => Err(NameError {
                text: text.to_owned(),
                reason,
                is_instance: false,
            }),
        }
    }

    /// The number of an instance; none for a box that is the only one of its definition.
    pub fn instance(&self) -> Option<u16> {
        self.0.split_once(':')?.1.parse().ok()
    }

    /// The name of its definition: what all instances have in common.
    pub fn base(&self) -> Name {
        match self.0.split_once(':') {
            Some((base, _)) => Name(base.to_owned()),
            None => self.clone(),
        }
    }

    /// An instance of this definition. One that could not be, of number 0 or above [`INSTANCES_MAX`], is the nearest
    /// that can.
    pub fn with_instance(&self, index: u16) -> Name {
        Name(format!("{}:{}", self.base(), index.clamp(1, INSTANCES_MAX)))
    }

    /// Its host name where the definition says none: `web`, or `web-2`.
    pub fn hostname(&self) -> String {
        self.0.replace(':', "-")
    }

    /// The service that runs this box: `box@NAME.service`.
    pub fn unit(&self) -> String {
        format!("box@{}.service", self.0)
    }

    /// The first, or only, unit of its sockets: `box@NAME.socket`.
    pub fn socket(&self) -> String {
        format!("box@{}.socket", self.0)
    }

    /// The unit of another socket of it, by the socket's name: `box@NAME:SOCKET.socket`. A socket whose name is a
    /// number can have the unit that the first one of an instance would have; but no definition has both.
    pub fn socket_of(&self, socket: &str) -> String {
        format!("box@{}:{socket}.socket", self.0)
    }

    /// The scope the payload lives in: `box-NAME.scope`.
    pub fn scope(&self) -> String {
        format!("box-{}.scope", self.0)
    }

    /// What starts and stops all instances of its definition: `box-NAME.target`.
    pub fn target(&self) -> String {
        format!("box-{}.target", self.base())
    }

    /// The unit that removes what the service could not: `box-clean@NAME.service`.
    pub fn cleaner(&self) -> String {
        format!("box-clean@{}.service", self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (base, instance) = match text.split_once(':') {
            Some((base, instance)) => (base, Some(instance)),
            None => (text, None),
        };
        let reason = match (defined(base), instance) {
            (Some(reason), _) => reason,
            (None, None) => return Ok(Name(text.to_owned())),
            (None, Some(instance)) => match numbered(instance) {
                Some(reason) => reason,
                None => return Ok(Name(text.to_owned())),
            },
        };
        Err(NameError {
            text: text.to_owned(),
            reason,
            is_instance: instance.is_some(),
        })
    }
}

/// Why a text is no name of a definition, if it is not.
fn defined(text: &str) -> Option<&'static str> {
    let strange = |c: &char| !matches!(c, 'a'..='z' | '0'..='9' | '-');
    Some(if text.is_empty() {
        "it is empty"
    } else if text.len() > NAME_MAX {
        "it is too long"
    } else if let Some(c) = text.chars().find(strange) {
        match c {
            'A'..='Z' => "it has a capital letter",
            ':' => "a colon comes before the number of an instance, and this is the name of all",
            _ => "it has a character that is not allowed",
        }
    } else if text.starts_with('-') {
        "it begins with '-'"
    } else if text.ends_with('-') {
        "it ends with '-'"
    } else if text == RESERVED {
        "/run/boxd/definitions is not a box's"
    } else {
        return None;
    })
}

/// Why a text is no number of an instance, if it is not. There is one way to write each.
fn numbered(text: &str) -> Option<&'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("what stands after the colon is not the number of an instance");
    }
    if text.starts_with('0') {
        return Some("instances are counted from 1, without zeros before the number");
    }
    match text.parse::<u16>() {
        Ok(index) if index <= INSTANCES_MAX => None,
        _ => Some("there are at most 1000 instances"),
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
            assert!(Name::of_definition(good).is_ok(), "{good}");
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

    #[test]
    fn an_instance_is_written_in_one_way() {
        let web: Name = "web:12".parse().expect("an instance");
        assert_eq!(web.instance(), Some(12));
        assert_eq!(web.base().as_str(), "web");
        assert_eq!(web.hostname(), "web-12");
        assert_eq!(web.unit(), "box@web:12.service");
        assert_eq!(web.target(), "box-web.target");
        assert_eq!(web.base().with_instance(12), web);
        assert_eq!(web.base().instance(), None);
        assert!("web:1000".parse::<Name>().is_ok());
        let mut sorted = ["web:10", "web-1", "web:2", "web", "we"]
            .map(|name| name.parse::<Name>().expect("a name"));
        sorted.sort();
        assert_eq!(
            sorted.map(String::from),
            ["we", "web", "web:2", "web:10", "web-1"]
        );
        for bad in [
            "web:",
            "web:0",
            "web:01",
            "web:+1",
            "web:1001",
            "web:99999",
            "web:1:2",
            "web:x",
            ":1",
            "Web:1",
            "web: 1",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        let refused = Name::of_definition("web:1").expect_err("an instance");
        assert!(refused.reason().contains("colon"), "{refused}");
    }
}
