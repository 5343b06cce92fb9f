//! The walls of a box, one module for each facility of the kernel.
//!
//! Nothing here knows a definition, systemd or a log: it is given values of the [plan](crate::plan) and
//! answers with errors whose sentences begin with "cannot".

pub mod host_mounts;
pub mod identity;
pub mod namespaces;
pub mod privileges;
pub mod seccomp;
pub mod user_namespace;
