//! The properties, a row each.

use super::{BOX, MANAGER, Of, Property, Value};

/// Every property.
pub const PROPERTY: &[Property] = &[
    constant(
        MANAGER,
        "Version",
        "s",
        Of::Host(|_| Value::Text(env!("CARGO_PKG_VERSION").to_owned())),
    ),
    property(
        MANAGER,
        "Generation",
        "t",
        Of::Host(|whole| Value::Large(whole.generation)),
    ),
    constant(
        BOX,
        "Name",
        "s",
        Of::Box(|status| Value::Text(status.name.clone())),
    ),
    constant(
        BOX,
        "Unit",
        "s",
        Of::Box(|status| Value::Text(format!("box@{}.service", status.name))),
    ),
    property(
        BOX,
        "Description",
        "s",
        Of::Box(|status| text(status.description.as_ref())),
    ),
    property(
        BOX,
        "State",
        "s",
        Of::Box(|status| Value::Text(status.state.as_str().to_owned())),
    ),
    property(
        BOX,
        "Since",
        "t",
        Of::Box(|status| Value::Large(status.since.unwrap_or(0))),
    ),
    property(
        BOX,
        "Health",
        "s",
        Of::Box(|status| text(status.health.as_ref().map(|health| health.state.as_str()))),
    ),
    property(
        BOX,
        "Result",
        "s",
        Of::Box(|status| text(status.unit.as_ref().map(|unit| &unit.result))),
    ),
    property(
        BOX,
        "Restarts",
        "u",
        Of::Box(|status| Value::Number(status.unit.as_ref().map_or(0, |unit| unit.restarts))),
    ),
    property(
        BOX,
        "FirstProcess",
        "u",
        Of::Box(|status| {
            let pid = status.payload.as_ref().map_or(0, |payload| payload.pid);
            Value::Number(u32::try_from(pid).unwrap_or(0))
        }),
    ),
    property(
        BOX,
        "StartAtBoot",
        "b",
        Of::Box(|status| Value::Flag(status.definition.start_at_boot)),
    ),
    property(
        BOX,
        "Definition",
        "s",
        Of::Box(|status| Value::Text(status.definition.state.as_str().to_owned())),
    ),
    property(
        BOX,
        "DefinitionNewer",
        "b",
        Of::Box(|status| Value::Flag(status.definition.newer)),
    ),
    property(
        BOX,
        "Problem",
        "s",
        Of::Box(|status| text(status.definition.problem.as_ref())),
    ),
    property(
        BOX,
        "Held",
        "s",
        Of::Box(|status| text(status.definition.held.as_ref())),
    ),
];

const fn property(
    interface: &'static str,
    name: &'static str,
    signature: &'static str,
    of: Of,
) -> Property {
    Property {
        interface,
        name,
        signature,
        is_constant: false,
        of,
    }
}

const fn constant(
    interface: &'static str,
    name: &'static str,
    signature: &'static str,
    of: Of,
) -> Property {
    Property {
        is_constant: true,
        ..property(interface, name, signature, of)
    }
}

/// Nothing is the empty text; and D-Bus has no text with a NUL in it.
fn text(text: Option<impl AsRef<str>>) -> Value {
    let text = text.as_ref().map_or("", |text| text.as_ref());
    Value::Text(text.replace('\0', "\u{fffd}"))
}
