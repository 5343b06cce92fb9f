//! The format as data: JSON Schema for editors, and the table of keys for manual pages.

/// One key of the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Dotted, as in `resources.memory`; keys of `[[mount]]` begin with `mount[].`.
    pub path: String,
    /// What may be written, as in `"size"` or `"list of strings"`.
    pub kind: String,
    /// What holds when the key is not written; empty where that is nothing at all.
    pub default: String,
    /// One line.
    pub doc: String,
}

/// JSON Schema (draft 2020-12) of a definition.
pub fn schema() -> serde_json::Value {
    serde_json::Value::Null
}

/// Every key of the format in the order in which a manual page lists them.
pub fn keys() -> Vec<Key> {
    Vec::new()
}
