//! The walls of a box, one module for each facility of the kernel.
//!
//! Nothing here knows a definition's text, systemd or a log: it is given values of the [plan](crate::plan) and
//! answers with errors whose sentences begin with "cannot".

pub mod exec;
pub mod file_system;
pub mod host_mounts;
pub mod identity;
pub mod kernel_settings;
pub mod limits;
mod mount_locks;
pub mod mounts;
pub mod namespaces;
pub mod paths;
pub mod privileges;
pub mod root;
pub mod seccomp;
pub mod terminal;
pub mod user_namespace;
