//! `[reload]` as data.

use schemars::JsonSchema;

use super::{Argument, Signal};

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    { "required": ["signal"] },
    { "required": ["command"] },
    { "required": ["notify"], "properties": { "notify": { "const": true } } },
]))]
#[schemars(extend("not" = { "anyOf": [
    { "required": ["signal", "command"] },
    { "required": ["notify", "command"], "properties": { "notify": { "const": true } } },
] }))]
pub(super) struct Reload {
    /// Sent to the box's first process, by name or number. Default: `SIGHUP` with `notify`, else none.
    signal: Option<Signal>,
    /// A program that is run inside the box, with its arguments; the reload is over when it ends, and has failed
    /// if its exit status is not 0. Default: none.
    #[schemars(length(min = 1))]
    command: Option<Vec<Argument>>,
    /// The box says RELOADING=1 after the signal and READY=1 when it is done, by sd_notify(3); the reload lasts
    /// until then. Default: `false`.
    notify: Option<bool>,
}
