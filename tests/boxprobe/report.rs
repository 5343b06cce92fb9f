//! What the probe says of where it runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::files::Mount;
use crate::machine::Errand;
use crate::{calls, devices, files, process, sockets};

/// Maps go from what was asked to the answer, in the kernel's words where it has some.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Kind to inode number.
    pub namespaces: BTreeMap<String, String>,
    /// The maps, and the ids of this process.
    pub ids: BTreeMap<String, String>,
    /// Each of the five sets.
    pub capabilities: BTreeMap<String, Vec<String>>,
    pub privileges: BTreeMap<String, String>,
    /// Every system call by name or number, with arguments that are all zero.
    pub calls: BTreeMap<String, String>,
    /// Calls whose arguments may matter to a filter.
    pub arguments: BTreeMap<String, String>,
    /// New namespaces, really made by a process of its own.
    pub unshare: BTreeMap<String, String>,
    /// By where they are.
    pub mounts: BTreeMap<String, Mount>,
    /// Files of `/proc` and `/sys` that can be opened; what is masked cannot.
    pub readable: Vec<String>,
    pub writable: Vec<String>,
    /// Nodes below `/dev`.
    pub devices: BTreeMap<String, String>,
    /// Devices of the host for which a node could be made, and what could be opened; or how that was refused.
    pub device_numbers: BTreeMap<String, String>,
    pub keyrings: BTreeMap<String, String>,
    pub descriptors: BTreeMap<u32, String>,
    /// Soft and hard.
    pub limits: BTreeMap<String, (String, String)>,
    pub sockets: BTreeMap<String, String>,
    /// What should stand above and does not, with the reason. Nothing of a box with such a line is proved.
    pub unlearnt: Vec<String>,
}

/// Collects what could not be learnt.
#[derive(Default)]
pub struct Gaps(Vec<String>);

impl Gaps {
    pub fn note(&mut self, what: &str, why: impl std::fmt::Display) {
        self.0.push(format!("{what}: {why}"));
    }

    /// The text of a file without which the report would have a hole.
    pub fn read(&mut self, path: &str) -> String {
        std::fs::read_to_string(path).unwrap_or_else(|error| {
            self.note(path, error);
            String::new()
        })
    }
}

impl Report {
    pub fn of_here(descriptors: BTreeMap<u32, String>, errand: &Errand) -> Self {
        let mut gaps = Gaps::default();
        if descriptors.is_empty() {
            gaps.note("open descriptors", "none are seen");
        }
        let (calls, arguments) = calls::verdicts(&mut gaps);
        let kernel = files::kernel_files(&mut gaps);
        Report {
            namespaces: process::namespaces(&mut gaps),
            ids: process::ids(&mut gaps),
            capabilities: process::capabilities(&mut gaps),
            privileges: process::privileges(&mut gaps),
            calls,
            arguments,
            unshare: process::new_namespaces(&mut gaps),
            mounts: files::mounts(&mut gaps),
            readable: kernel.readable,
            writable: kernel.writable,
            devices: devices::nodes(&mut gaps),
            device_numbers: devices::numbers(&mut gaps),
            keyrings: process::keyrings(),
            descriptors,
            limits: process::limits(&mut gaps),
            sockets: sockets::reachable(errand, &mut gaps),
            unlearnt: gaps.0,
        }
    }
}
