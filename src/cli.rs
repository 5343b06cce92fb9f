//! What `boxctl` says and does; one file per group of commands.

pub mod show;
mod table;
pub mod terminal;
mod text;
