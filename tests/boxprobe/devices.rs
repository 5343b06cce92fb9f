//! Devices: the nodes there are, and those one could make.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::files::open;
use crate::report::Gaps;

/// Everything below `/dev`, as `c 1:3 rw`, with what can be opened.
pub fn nodes(gaps: &mut Gaps) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Err(error) = fs::read_dir("/dev") {
        gaps.note("/dev", error);
    }
    walk(Path::new("/dev"), &mut found);
    found
}

fn walk(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            walk(&path, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            let letter = if kind.is_char_device() { 'c' } else { 'b' };
            let number = metadata.rdev();
            let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
            let opened = opened(&path);
            found.insert(
                path.to_string_lossy().into_owned(),
                format!("{letter} {major}:{minor} {opened}"),
            );
        }
    }
}

/// `r`, `w`, both, or why not.
fn opened(path: &Path) -> String {
    let mut letters = String::new();
    let mut why = String::new();
    for (letter, options) in [
        ('r', OpenOptions::new().read(true).clone()),
        ('w', OpenOptions::new().write(true).clone()),
    ] {
        match open(path, &mut options.clone()) {
            Ok(_) => letters.push(letter),
            Err(error) => why = format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or(0))),
        }
    }
    if letters.is_empty() { why } else { letters }
}

/// To open one of these is to begin something: a machine's watchdog bites when it is not fed.
const NOT_OPENED: [(&str, u64); 1] = [("c", 10 << 32 | 130)];

/// A node for each device of the host is made and opened, in `/dev` and where devices are least expected. Those that
/// could not be made are one line for each reason.
pub fn numbers(gaps: &mut Gaps) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut tried = 0;
    for (letter, folder) in [("c", "/sys/dev/char"), ("b", "/sys/dev/block")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((major, minor)) = name
                .split_once(':')
                .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            else {
                continue;
            };
            tried += 1;
            number(letter, major, minor, &mut found);
        }
    }
    // Where the kernel's list is hidden, these are there in any case.
    for (letter, major, minor) in [
        ("c", 1, 1),
        ("c", 1, 3),
        ("c", 1, 11),
        ("c", 4, 0),
        ("b", 7, 0),
        ("b", 254, 0),
    ] {
        tried += 1;
        number(letter, major, minor, &mut found);
    }
    if found.is_empty() {
        gaps.note("device numbers", format!("{tried} tried without an answer"));
    }
    found
}

fn number(letter: &str, major: u64, minor: u64, found: &mut BTreeMap<String, String>) {
    let kind = if letter == "c" {
        SFlag::S_IFCHR
    } else {
        SFlag::S_IFBLK
    };
    for folder in ["/dev", "/tmp"] {
        let path = format!("{folder}/boxprobe-device");
        let made = mknod(
            path.as_str(),
            kind,
            Mode::S_IRUSR | Mode::S_IWUSR,
            makedev(major, minor),
        );
        match made {
            Ok(()) => {
                let opened = if NOT_OPENED.contains(&(letter, major << 32 | minor)) {
                    "made, not tried to open".to_owned()
                } else {
                    format!("made, {}", opened(Path::new(&path)))
                };
                // What is there for all may be made and opened again.
                found.insert(format!("{letter} {major}:{minor} in {folder}"), opened);
                let _ = fs::remove_file(&path);
            }
            Err(errno) => {
                found.insert(format!("refused in {folder}"), format!("{errno:?}"));
            }
        }
    }
}
