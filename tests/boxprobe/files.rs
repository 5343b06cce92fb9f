//! Mounts, and what of the kernel's own files can be opened.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::report::Gaps;

/// One line of proc_pid_mountinfo(5); of several at a place, the one on top.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    pub kind: String,
    /// What of the file system is mounted here.
    pub root: String,
    /// Of the mount and of the file system: what restricts it.
    pub flags: Vec<String>,
    /// `private`, `shared`, `slave`, …
    pub propagation: Vec<String>,
    /// It is the null device, laid over what is not to be seen.
    pub masks: bool,
}

impl Mount {
    /// Memory that came into being with the box and goes with it, and the root that writes to such memory.
    pub fn is_the_box_s_own(&self) -> bool {
        ["tmpfs", "overlay"].contains(&self.kind.as_str()) && self.root == "/"
    }
}

/// What a mount may be kept from.
pub const RESTRICTIONS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

pub fn mounts(gaps: &mut Gaps) -> BTreeMap<String, Mount> {
    let text = gaps.read("/proc/self/mountinfo");
    let mut mounts = BTreeMap::new();
    for line in text.lines() {
        match mount(line) {
            Some((at, mount)) => {
                mounts.insert(at, mount);
            }
            None => gaps.note("/proc/self/mountinfo", format!("{line:?}")),
        }
    }
    mounts
}

fn mount(line: &str) -> Option<(String, Mount)> {
    let (front, back) = line.split_once(" - ")?;
    let front: Vec<&str> = front.split(' ').collect();
    let back: Vec<&str> = back.split(' ').collect();
    let (of_mount, of_file_system) = (front.get(5)?, back.get(2)?);
    let options: Vec<&str> = of_mount
        .split(',')
        .chain(of_file_system.split(','))
        .collect();
    let mut propagation: Vec<String> = front[6..]
        .iter()
        .map(|tag| {
            let kind = tag.split(':').next().unwrap_or(tag);
            match kind {
                "master" => "slave".to_owned(),
                other => other.to_owned(),
            }
        })
        .filter(|kind| kind != "propagate_from")
        .collect();
    if propagation.is_empty() {
        propagation.push("private".to_owned());
    }
    let at = front.get(4)?.replace("\\040", " ");
    let masks = !at.starts_with("/dev/")
        && fs::metadata(&at).is_ok_and(|metadata| is_null_device(&metadata));
    let mount = Mount {
        kind: (*back.first()?).to_owned(),
        root: front.get(3)?.replace("\\040", " "),
        flags: RESTRICTIONS
            .iter()
            .filter(|flag| options.contains(flag))
            .map(|flag| (*flag).to_owned())
            .collect(),
        propagation,
        masks,
    };
    Some((at, mount))
}

#[derive(Default)]
pub struct KernelFiles {
    pub readable: Vec<String>,
    pub writable: Vec<String>,
}

/// Everything below `/proc` and `/sys` that can be opened; of all processes, this one stands for the rest.
pub fn kernel_files(gaps: &mut Gaps) -> KernelFiles {
    let mut found = KernelFiles::default();
    for top in ["/proc", "/sys"] {
        if let Err(error) = fs::read_dir(top) {
            gaps.note(top, error);
        }
        walk(Path::new(top), top, &mut found);
    }
    found.readable.sort();
    found.writable.sort();
    found
}

/// Folders of a process that show what is reported elsewhere, or the same again.
const OF_PROCESS: [&str; 5] = [
    "/proc/self/task",
    "/proc/self/fd",
    "/proc/self/fdinfo",
    "/proc/self/map_files",
    "/proc/self/ns",
];

/// `shown` is how the folder is called in the report.
fn walk(folder: &Path, shown: &str, found: &mut KernelFiles) {
    let own = std::process::id().to_string();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut shown = format!("{shown}/{name}");
        if folder == Path::new("/proc") && name.bytes().all(|byte| byte.is_ascii_digit()) {
            if name != own {
                continue;
            }
            "/proc/self".clone_into(&mut shown);
        }
        if kind.is_dir() {
            if !OF_PROCESS.contains(&shown.as_str()) {
                walk(&entry.path(), &shown, found);
            }
        } else if !kind.is_symlink() {
            if opens(&entry.path(), OpenOptions::new().read(true)) {
                found.readable.push(shown.clone());
            }
            if opens(&entry.path(), OpenOptions::new().write(true)) {
                found.writable.push(shown);
            }
        }
    }
}

/// Whether the file itself can be opened, and not a device that was put over it to hide it.
fn opens(path: &Path, options: &mut OpenOptions) -> bool {
    open(path, options)
        .and_then(|file| file.metadata())
        .is_ok_and(|metadata| !is_null_device(&metadata))
}

fn is_null_device(metadata: &fs::Metadata) -> bool {
    let null = nix::sys::stat::makedev(1, 3);
    metadata.file_type().is_char_device() && metadata.rdev() == null
}

/// Without waiting for anybody, becoming a terminal's owner, or following a link.
pub fn open(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW)
        .open(path)
}
