//! All that can be asked: one table, by which calls are answered and from which the introspection is written.

mod methods;
mod properties;

use std::fmt::Write as _;

use zbus::Message;
use zbus::wire::Variant;

pub use methods::METHODS;
pub use properties::PROPERTY;

use super::boxes::Whole;
use crate::name::{Name, NameError};
use crate::status::Status;

/// The object of the host.
pub const HOST: &str = "/org/boxd1";

/// Below it stands an object for each box.
pub const BOXES: &str = "/org/boxd1/box";

/// What the host's object does.
pub const MANAGER: &str = "org.boxd1.Manager";

/// What a box's object does.
pub const BOX: &str = "org.boxd1.Box";

const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
const PEER: &str = "org.freedesktop.DBus.Peer";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// What a caller must be allowed to do. Root is, and a process in a box is nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// To see which boxes there are, how they are, and what their definitions say.
    Look,
    /// To have boxes do what their definitions say.
    Manage,
    /// To change what definitions say, or which of them are in force.
    Configure,
}

impl Need {
    /// The action of polkit.
    pub fn action(self) -> Option<&'static str> {
        match self {
            Need::Nothing => None,
            Need::Look => Some("org.boxd1.look"),
            Need::Manage => Some("org.boxd1.manage"),
            Need::Configure => Some("org.boxd1.configure"),
        }
    }

    /// As in "may not look at boxes".
    pub(super) fn words(self) -> &'static str {
        match self {
            Need::Nothing | Need::Look => "look at boxes",
            Need::Manage => "manage boxes",
            Need::Configure => "change the definitions of boxes, nor which are in force",
        }
    }
}

/// A name and a type of D-Bus.
pub type Argument = (&'static str, &'static str);

/// A method.
pub struct Method {
    /// Its interface.
    pub interface: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it is given.
    pub takes: &'static [Argument],
    /// What it answers.
    pub gives: &'static [Argument],
    /// What the caller must be allowed to do.
    pub need: Need,
    pub(super) how: How,
}

/// How a method is carried out.
pub(super) enum How {
    Introspect,
    Ping,
    MachineId,
    Get,
    GetAll,
    Set,
    ListBoxes,
    GetBox,
    Boxctl(Errand),
}

/// What `boxctl` is called with, and what of it is the answer.
pub(super) struct Errand {
    pub words: fn(&Message, Option<&Name>) -> Result<Vec<String>, Unfit>,
    pub tells: Tells,
    /// Exit statuses that are no failure.
    pub fine: &'static [i32],
}

/// What is answered of an errand that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tells {
    Nothing,
    Output,
    Complaints,
}

/// Why arguments are not those of a method.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the arguments have another form")]
    Form(#[from] zbus::Error),
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A property. None can be set.
pub struct Property {
    /// Its interface.
    pub interface: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub signature: &'static str,
    /// Never changes, so nobody is told when it does.
    pub is_constant: bool,
    pub(super) of: Of,
}

/// Where a property comes from.
pub(super) enum Of {
    Host(fn(&Whole) -> Value),
    Box(fn(&Status) -> Value),
}

/// What a property is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u32),
    Large(u64),
}

impl Value {
    pub fn variant(&self) -> Variant<'_> {
        match self {
            Value::Text(text) => Variant::from(text.as_str()),
            Value::Flag(flag) => Variant::from(*flag),
            Value::Number(number) => Variant::from(*number),
            Value::Large(number) => Variant::from(*number),
        }
    }
}

/// What is told without being asked: name, and what comes with it. `PropertiesChanged` beside these.
pub const SIGNALS: &[(&str, &[Argument])] = &[
    ("BoxNew", &[("name", "s"), ("object", "o")]),
    ("BoxRemoved", &[("name", "s"), ("object", "o")]),
];

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    /// One that only leads to others: the part of the path that follows it.
    Above(&'static str),
    Host,
    Boxes,
    Box(Name),
}

impl Object {
    pub fn at(path: &str) -> Option<Object> {
        Some(match path {
            "/" => Object::Above("org"),
            "/org" => Object::Above("boxd1"),
            HOST => Object::Host,
            BOXES => Object::Boxes,
            _ => Object::Box(name_in(path.strip_prefix(BOXES)?.strip_prefix('/')?)?),
        })
    }

    /// What it does beside the interfaces that all have.
    pub fn interface(&self) -> Option<&'static str> {
        match self {
            Object::Above(_) | Object::Boxes => None,
            Object::Host => Some(MANAGER),
            Object::Box(_) => Some(BOX),
        }
    }

    pub fn has(&self, interface: &str) -> bool {
        let own = self.interface();
        match interface {
            INTROSPECTABLE | PEER => true,
            PROPERTIES => own.is_some(),
            other => own == Some(other),
        }
    }

    /// The method of this name. Without an interface the first one that has it.
    pub fn method(&self, interface: Option<&str>, name: &str) -> Option<&'static Method> {
        METHODS.iter().find(|method| {
            method.name == name
                && interface.is_none_or(|interface| interface == method.interface)
                && self.has(method.interface)
        })
    }

    /// What a caller must be allowed for a method here: which boxes there are is told to those who may see them.
    pub fn need(&self, method: &Method) -> Need {
        match (self, method.need) {
            (Object::Boxes | Object::Box(_), Need::Nothing) => Need::Look,
            (_, need) => need,
        }
    }
}

/// The object of a box: whatever is no letter or digit is written as `_` and two digits.
pub fn path_of(name: &Name) -> String {
    let mut path = format!("{BOXES}/");
    for byte in name.as_str().bytes() {
        match byte.is_ascii_alphanumeric() {
            true => path.push(char::from(byte)),
            false => {
                let _ = write!(path, "_{byte:02x}");
            }
        }
    }
    path
}

fn name_in(element: &str) -> Option<Name> {
    unescaped(element)?.parse().ok()
}

/// The text that an element of an object path stands for, as systemd writes them too.
pub(super) fn unescaped(element: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = element.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The introspection of an object; `children` are the elements of the path below it.
pub(super) fn introspection(object: &Object, children: &[String]) -> String {
    let mut xml = String::from(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n",
    );
    for interface in [
        Some(INTROSPECTABLE),
        Some(PEER),
        Some(PROPERTIES),
        object.interface(),
    ] {
        let Some(interface) = interface.filter(|interface| object.has(interface)) else {
            continue;
        };
        let _ = writeln!(xml, " <interface name=\"{interface}\">");
        for method in METHODS
            .iter()
            .filter(|method| method.interface == interface)
        {
            let _ = writeln!(xml, "  <method name=\"{}\">", method.name);
            for (direction, arguments) in [("in", method.takes), ("out", method.gives)] {
                for (name, signature) in arguments {
                    let _ = writeln!(
                        xml,
                        "   <arg name=\"{name}\" type=\"{signature}\" direction=\"{direction}\"/>"
                    );
                }
            }
            xml.push_str("  </method>\n");
        }
        for property in PROPERTY
            .iter()
            .filter(|property| property.interface == interface)
        {
            let told = match property.is_constant {
                true => "const",
                false => "true",
            };
            let _ = writeln!(
                xml,
                "  <property name=\"{}\" type=\"{}\" access=\"read\">\n   \
                 <annotation name=\"org.freedesktop.DBus.Property.EmitsChangedSignal\" value=\"{told}\"/>\n  \
                 </property>",
                property.name, property.signature
            );
        }
        let signals: &[(&str, &[Argument])] = match interface {
            MANAGER => SIGNALS,
            PROPERTIES => &[(
                "PropertiesChanged",
                &[
                    ("interface", "s"),
                    ("changed", "a{sv}"),
                    ("invalidated", "as"),
                ],
            )],
            _ => &[],
        };
        for (name, arguments) in signals {
            let _ = writeln!(xml, "  <signal name=\"{name}\">");
            for (name, signature) in *arguments {
                let _ = writeln!(xml, "   <arg name=\"{name}\" type=\"{signature}\"/>");
            }
            xml.push_str("  </signal>\n");
        }
        xml.push_str(" </interface>\n");
    }
    for child in children {
        let _ = writeln!(xml, " <node name=\"{child}\"/>");
    }
    xml.push_str("</node>\n");
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_found_by_its_path_and_no_other() {
        let name: Name = "shop-front-2".parse().expect("a name");
        let path = path_of(&name);
        assert_eq!(path, "/org/boxd1/box/shop_2dfront_2d2");
        assert_eq!(Object::at(&path), Some(Object::Box(name)));
        for none in [
            "/org/boxd1/box/",
            "/org/boxd1/box/a/b",
            "/org/boxd1/box/A",
            "/org/boxd1/box/a_",
            "/org/boxd1/box/a_2",
            "/org/boxd1/box/_2e_2e",
            "/org/boxd1/box/_ff",
            "/org/boxd2",
        ] {
            assert_eq!(Object::at(none), None, "{none}");
        }
    }

    #[test]
    fn nothing_that_changes_is_for_those_who_may_only_look() {
        for method in METHODS {
            let How::Boxctl(errand) = &method.how else {
                continue;
            };
            assert!(
                errand.tells != Tells::Nothing || method.need != Need::Look,
                "{} does something",
                method.name
            );
            assert_ne!(method.need, Need::Nothing, "{}", method.name);
        }
    }

    #[test]
    fn names_of_boxes_are_told_to_those_who_may_see_them() {
        let introspect = Object::Boxes
            .method(None, "Introspect")
            .expect("it has that");
        assert_eq!(Object::Host.need(introspect), Need::Nothing);
        assert_eq!(Object::Boxes.need(introspect), Need::Look);
    }

    #[test]
    fn an_object_has_the_methods_of_its_interfaces() {
        let name: Name = "web".parse().expect("a name");
        let web = Object::Box(name);
        assert!(web.method(Some(BOX), "Inspect").is_some());
        assert!(web.method(Some(MANAGER), "List").is_none());
        assert!(Object::Host.method(None, "List").is_some());
        assert!(Object::Boxes.method(Some(PROPERTIES), "Get").is_none());
        let xml = introspection(&web, &[]);
        for has in [
            "\"Inspect\"",
            "\"State\" type=\"s\" access=\"read\"",
            "PropertiesChanged",
        ] {
            assert!(xml.contains(has), "{has}: {xml}");
        }
        assert!(!xml.contains(MANAGER));
        assert!(
            introspection(&Object::Boxes, &["web".to_owned()]).contains("<node name=\"web\"/>")
        );
    }
}
