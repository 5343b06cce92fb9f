//! boxd: containers ("boxes") for Linux hosts, run the way systemd runs services.
//!
//! `Definition` is what the operator wrote, [`plan::Plan`] what will be done with every default decided,
//! `Running` what exists, `Status` what we say about it. A box is started by `boxd run NAME` in
//! `box@NAME.service`: it reads the definition, plans, clones the child and execs `box-supervisor` in the same
//! process. The payload lives in `box-NAME.scope`; no daemon stands between it and the kernel.
//!
//! The modules, in reading order:

pub mod agent;
pub mod attach;
pub mod bus;
pub mod capability;
pub mod cgroup;
pub mod clean;
pub mod cli;
pub mod definition;
pub mod enter;
pub mod foreground;
pub mod generation;
pub mod generator;
pub mod handover;
pub mod health;
pub mod host;
pub mod identity;
pub mod journal;
pub mod launch;
pub mod name;
pub mod plan;
pub mod probe;
pub mod programs;
pub mod reload;
pub mod run;
pub mod running;
pub mod sandbox;
pub mod status;
pub mod stop;
pub mod supervisor;
pub mod sys;
pub mod syscall;
pub mod systemd;
