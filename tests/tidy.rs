//! The architecture, held by reading the source: which module may know which, where `unsafe` and the large
//! crates stay, and what the tree looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

#[path = "tidy/source.rs"]
mod source;

use source::{METHOD, Source, library, root, sources};

/// What each module may use of the others, besides [`FOR_ALL`]. A module is the longest of these a path begins with.
///
/// From top to bottom: what talks to people; what runs boxes; what speaks to the outside; what is decided; what
/// is known; what the kernel is asked.
const MAY_USE: &[(&str, &str)] = &[
    ("cli", EVERYTHING),
    (
        "attach",
        "enter::relay enter::terminal launch::run_directory running",
    ),
    // Both sides speak it.
    ("attach::protocol", ""),
    ("run", EVERYTHING),
    ("foreground", EVERYTHING),
    (
        "agent",
        "cgroup definition generation generator handover health host journal launch::run_directory plan run::follow_the_service running status sys::give_heap_back sys::ignore_sigio sys::is_being_written systemd",
    ),
    // What it has done is done by boxctl, so it knows of nothing but what there is.
    (
        "bus",
        "cgroup definition::Layers generation journal running status systemd",
    ),
    ("stop", "journal plan running"),
    (
        "clean",
        "cgroup handover journal launch plan running status sys systemd",
    ),
    (
        "status",
        "cgroup definition generation generator::DROP_IN generator::is_known handover health host identity journal plan running supervisor::kept systemd",
    ),
    (
        "enter",
        "cgroup definition::User handover health identity launch plan running sandbox sys",
    ),
    (
        "probe",
        "enter health journal plan running sandbox::namespaces sys",
    ),
    (
        "running",
        "cgroup definition::SourceText handover health launch::run_directory plan sys",
    ),
    ("reload", "enter plan running supervisor sys"),
    (
        "launch",
        "cgroup handover identity journal launch::child launch::channel launch::credentials launch::environment launch::protocol launch::stdio plan \
         sandbox sys systemd",
    ),
    // The child of a launch, and what it does to itself: neither the definition, nor anything that may have
    // threads or a connection.
    (
        "launch::child",
        "launch::Sockets launch::Stdio launch::channel launch::environment launch::protocol launch::stdio plan sandbox sys",
    ),
    ("launch::environment", "plan sandbox"),
    ("launch::credentials", "plan sandbox"),
    ("launch::channel", "launch::protocol sys"),
    ("launch::protocol", "plan"),
    ("launch::stdio", "sys"),
    // Not a word of D-Bus: a box must outlive a bus that hangs.
    (
        "supervisor",
        "attach::protocol cgroup handover health identity journal launch::run_directory::PARENT launch::run_directory::replace_text plan sys systemd::notify",
    ),
    ("sandbox", "identity launch::protocol plan sys"),
    ("journal", "handover plan::Output plan::Rate sys"),
    // Who speaks to systemd over D-Bus knows units and limits, and nothing of mounts.
    (
        "systemd",
        "cgroup plan::Limit plan::Scope plan::Stop sys systemd::notify",
    ),
    ("systemd::notify", "sys"),
    ("cgroup", "host::Disk plan::Limit sys"),
    (
        "handover",
        "identity plan::HealthRules plan::IdRange plan::Output plan::ReadyWhen sys",
    ),
    (
        "generator",
        "definition generation host::real_path plan::exposure",
    ),
    ("generation", "definition host plan"),
    ("plan", "definition host identity"),
    ("host", "definition identity sys"),
    ("definition", ""),
    ("identity", ""),
    ("sys", ""),
    ("health", ""),
    ("name", ""),
    ("programs", ""),
    ("capability", ""),
    ("syscall", ""),
];

/// For a module that ties the others together.
const EVERYTHING: &str = "*";

/// What every module may use.
const FOR_ALL: [&str; 4] = ["capability", "name", "programs", "syscall"];

/// Crates that are named in one place, or nowhere but in some: crate, modules.
const CRATES: &[(&str, &[&str])] = &[
    // Neither the child of a launch nor what it does to itself has a log.
    (
        "tracing",
        &[
            "agent",
            "bus",
            "clean",
            "journal",
            "launch::registration",
            "launch::unfinished",
            "run",
        ],
    ),
    ("tracing_subscriber", &["journal"]),
    ("zbus", &["bus", "systemd"]),
    ("cgroups_rs", &["cgroup"]),
    ("tracing_journald", &["journal"]),
    ("clap", &["cli"]),
    ("prometheus_client", &["agent"]),
    ("ratatui", &["cli"]),
    ("toml", &["definition"]),
    ("toml_edit", &["definition"]),
    ("annotate_snippets", &["definition"]),
    ("schemars", &["definition"]),
];

/// Modules that decide by what they are given alone.
const PURE: [&str; 2] = ["definition", "plan"];

/// The parts of them that read what is written.
const READ: [&str; 2] = ["definition::agent", "definition::layers"];

/// Where there is something to be asked: files, clocks, the environment, other programs, the kernel.
const ASKS: [&[&str]; 11] = [
    &["nix", "unistd"],
    &["rustix"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "os", "unix", "fs"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["tokio"],
];

/// Functions of this crate that ask.
const ASKS_FOR_US: [&str; 4] = [
    "host::Disk::under",
    "host::read",
    "host::real_path",
    "identity::claim",
];

/// The top level of the repository, besides dotfiles.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "config",
    "packaging",
    "src",
    "tests",
    "units",
];

/// Names that fit everything.
const FORBIDDEN_NAMES: &[&str] = &[
    "common", "handler", "handlers", "helper", "helpers", "manager", "util", "utils",
];

/// "The manager" is what systemd calls itself on the bus.
const SYSTEMD_S_OWN_WORD: [&str; 2] = ["systemd", "manager"];

/// Modules that make a box's root or act in one.
const IN_A_ROOT: [&str; 4] = ["sandbox", "enter", "launch::child", "launch::stdio"];

/// Modules whose functions act on files by a path, or by a name in a directory.
const BY_PATH: [&[&str]; 8] = [
    &["std", "fs"],
    &["std", "os", "unix", "fs"],
    &["nix", "dir"],
    &["nix", "fcntl"],
    &["nix", "mount"],
    &["nix", "sys", "stat"],
    &["rustix", "fs"],
    &["rustix", "mount"],
];

/// Functions of these that take descriptors alone, or no file.
const BY_DESCRIPTOR: [&str; 12] = [
    "fchmod",
    "fchown",
    "fsconfig_create",
    "fsconfig_set_fd",
    "fsconfig_set_flag",
    "fsconfig_set_string",
    "fsmount",
    "fsopen",
    "fstat",
    "fstatfs",
    "makedev",
    "memfd_create",
];

/// Functions of other modules that act by a path.
const BY_PATH_ELSEWHERE: [&[&str]; 8] = [
    &["nix", "unistd", "access"],
    &["nix", "unistd", "chdir"],
    &["nix", "unistd", "chown"],
    &["nix", "unistd", "chroot"],
    &["nix", "unistd", "mkdir"],
    &["rustix", "process", "chdir"],
    &["rustix", "process", "chroot"],
    &["rustix", "process", "pivot_root"],
];

/// The same as methods: those of std::path::Path that ask the file system.
const METHODS_BY_PATH: [&str; 10] = [
    "canonicalize",
    "exists",
    "is_dir",
    "is_file",
    "is_symlink",
    "metadata",
    "read_dir",
    "read_link",
    "symlink_metadata",
    "try_exists",
];

/// Calls by a path although they are part of making a box: module, call, and why it cannot be led astray.
const BY_PATH_ALL_THE_SAME: &[(&str, &str, &str)] = &[
    (
        "enter::envoy",
        "method::is_file",
        "the root is the box's own",
    ),
    (
        "enter::envoy",
        "rustix::fs",
        "/dev/null of the host; /dev/pts/ptmx, judged by its descriptor",
    ),
    ("enter::envoy", "std::fs", "the box's cgroup, from the host"),
    ("enter::seal", "rustix::fs", "this program itself"),
    ("enter::seal", "rustix::mount", "this program itself"),
    ("launch::stdio", "rustix::fs::open", "/dev/null of the host"),
    (
        "sandbox::exec",
        "method::is_dir",
        "the root is the box's own",
    ),
    (
        "sandbox::exec",
        "method::is_file",
        "the root is the box's own",
    ),
    ("sandbox::exec", "rustix::fs", "the root is the box's own"),
    ("sandbox::exec", "std::fs", "the root is the box's own"),
    (
        "sandbox::host_mounts",
        "rustix::fs",
        "the launcher: sources, through no link; names of ours",
    ),
    (
        "sandbox::host_mounts",
        "rustix::mount::open_tree",
        "clones of what is open",
    ),
    (
        "sandbox::host_mounts",
        "rustix::process::chroot",
        "to \".\", where it came from",
    ),
    (
        "sandbox::host_mounts",
        "std::fs",
        "the launcher, where root alone may write",
    ),
    (
        "sandbox::kernel_settings",
        "rustix::fs::openat2",
        "a procfs of our own",
    ),
    (
        "sandbox::kernel_settings",
        "std::fs::File",
        "a file that is open",
    ),
    (
        "sandbox::mount_locks",
        "rustix::fs",
        "a tmpfs of its own, which no box has seen",
    ),
    (
        "sandbox::mount_locks",
        "rustix::mount::open_tree",
        "a tmpfs of its own, which no box has seen",
    ),
    ("sandbox::mount_locks", "std::fs::File", "a pipe"),
    ("sandbox::mounts", "method::is_file", "of an open file"),
    ("sandbox::mounts", "method::metadata", "of an open file"),
    ("sandbox::mounts", "rustix::fs::CWD", "the host's /dev/null"),
    (
        "sandbox::mounts",
        "rustix::fs::chownat",
        "credentials, in a ramfs of ours",
    ),
    (
        "sandbox::mounts",
        "rustix::mount::open_tree",
        "what is open; the host's /dev/null",
    ),
    (
        "sandbox::mounts",
        "std::fs::File::options",
        "a file of the host",
    ),
    (
        "sandbox::namespaces",
        "std::fs::File",
        "the process' own namespaces",
    ),
    ("sandbox::paths", "rustix::fs", "the module that resolves"),
    ("sandbox::paths", "std::fs", "the module that resolves"),
    ("sandbox::root", "rustix::fs::open", "its own root"),
    ("sandbox::root", "rustix::mount", "what is open; \".\""),
    ("sandbox::root", "rustix::process::chdir", "to \"/\""),
    (
        "sandbox::root",
        "rustix::process::pivot_root",
        "from \".\" to \".\"",
    ),
    (
        "sandbox::terminal",
        "rustix::fs",
        "by what it is, and no link",
    ),
    (
        "sandbox::user_namespace",
        "rustix::fs::open",
        "of the child",
    ),
    ("sandbox::user_namespace", "std::fs::File", "of the child"),
];

/// Marks of what was left for later, in halves so that this file has none.
const MARKS: [(&str, &str); 3] = [("TO", "DO"), ("FIX", "ME"), ("XX", "X")];

/// Most lines of a file that is read by people.
const LINES_MAX: usize = 800;

/// The entry of [`MAY_USE`] a module belongs to.
fn entry(parts: &[String]) -> Option<&'static str> {
    let whole = parts.join("::");
    MAY_USE
        .iter()
        .map(|(module, _)| *module)
        .filter(|module| begins_with(&whole, module))
        .max_by_key(|module| module.len())
}

fn begins_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn report(wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn modules_know_only_what_is_below_them() {
    let table: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut wrong = BTreeSet::new();
    for source in library() {
        let path = source.path.display();
        let Some(own) = entry(&source.module) else {
            wrong.insert(format!(
                "{path}: a module without a place in the architecture: give it one in tests/tidy.rs"
            ));
            continue;
        };
        for mention in &source.mentions {
            let Some(used) = mention.internal() else {
                continue;
            };
            let Some(target) = entry(used) else { continue };
            let whole = used.join("::");
            let allowed = |module| module == EVERYTHING || begins_with(&whole, module);
            if target != own
                && !FOR_ALL.contains(&target)
                && !table[own].split_whitespace().any(allowed)
            {
                wrong.insert(format!(
                    "{path}:{}: {own} may not know {whole}",
                    mention.line
                ));
            }
        }
    }
    report(wrong);
}

#[test]
fn large_crates_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for source in library() {
        for mention in &source.mentions {
            for (name, places) in CRATES {
                let is_there = |place: &&str| begins_with(&source.module.join("::"), place);
                if mention.is_external(&[name]) && !places.iter().any(is_there) {
                    wrong.push(format!(
                        "{}:{}: {name} is named in {} alone",
                        source.path.display(),
                        mention.line,
                        places.join(", ")
                    ));
                }
            }
        }
    }
    report(wrong);
}

/// The same definition and the same facts are the same plan, whenever and wherever it is made.
#[test]
fn what_decides_asks_nobody() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for source in library() {
        let module = source.module.join("::");
        let Some(pure) = PURE.iter().find(|pure| begins_with(&module, pure)) else {
            continue;
        };
        seen.insert(pure);
        if READ.iter().any(|reads| begins_with(&module, reads)) {
            continue;
        }
        for mention in &source.mentions {
            let whole = mention.parts.join("::");
            let is_method = mention.is_external(&[METHOD])
                && METHODS_BY_PATH.contains(&mention.parts[1].as_str());
            // Of the C library, constants alone.
            let is_call = mention.is_external(&["libc"])
                && mention.parts[1].starts_with(|first: char| first.is_lowercase());
            let for_us = mention.internal().is_some()
                && ASKS_FOR_US.iter().any(|there| begins_with(&whole, there));
            if is_method || is_call || for_us || ASKS.iter().any(|there| mention.is_external(there))
            {
                wrong.push(format!(
                    "{}:{}: {module} may not ask {whole}",
                    source.path.display(),
                    mention.line
                ));
            }
        }
    }
    assert_eq!(seen.len(), PURE.len(), "{seen:?}");
    report(wrong);
}

/// A path inside a root is resolved by the one module that cannot be led out of it. Whoever opens by a string
/// while a box is made opens what the box's root says.
#[test]
fn files_of_a_root_are_opened_through_one_module() {
    let mut wrong = Vec::new();
    let mut needed = BTreeSet::new();
    for source in library() {
        let module = source.module.join("::");
        if !IN_A_ROOT.iter().any(|there| begins_with(&module, there)) {
            continue;
        }
        for mention in &source.mentions {
            let call = mention.parts.join("::");
            let function = BY_PATH
                .iter()
                .filter(|there| mention.is_external(there))
                .find_map(|there| mention.parts.get(there.len()));
            let by_path = mention.is_external(&["std", "fs"])
                || function.is_some_and(|name| {
                    name == "CWD"
                        || name.starts_with(|first: char| first.is_lowercase())
                            && !BY_DESCRIPTOR.contains(&name.as_str())
                })
                || BY_PATH_ELSEWHERE
                    .iter()
                    .any(|there| mention.is_external(there))
                || mention.parts[0] == METHOD
                    && METHODS_BY_PATH.contains(&mention.parts[1].as_str());
            if !by_path {
                continue;
            }
            let row = BY_PATH_ALL_THE_SAME
                .iter()
                .find(|(there, allowed, _)| module == *there && begins_with(&call, allowed));
            match row {
                Some((there, allowed, _)) => drop(needed.insert((*there, *allowed))),
                None => wrong.push(format!(
                    "{}:{}: {call} by a path; use sandbox::paths",
                    source.path.display(),
                    mention.line
                )),
            }
        }
    }
    let unneeded = BY_PATH_ALL_THE_SAME
        .iter()
        .filter(|(module, call, _)| !needed.contains(&(*module, *call)))
        .map(|(module, call, _)| {
            format!("{module} does not use {call} any more: take out its row")
        });
    report(wrong.into_iter().chain(unneeded));
}

/// A root of a running box is entered by setns(2), or not at all: a path through `/proc/PID/root` is resolved by
/// whatever the box has put there.
#[test]
fn nobody_reaches_into_a_root_through_proc() {
    let mut wrong = Vec::new();
    for source in library() {
        for (line, text) in &source.strings {
            let into = ["/root", "/cwd", "/map_files"];
            if text.contains("/proc/") && into.iter().any(|into| text.contains(into)) {
                wrong.push(format!("{}:{line}: {text}", source.path.display()));
            }
        }
    }
    report(wrong);
}

/// A test program that makes system calls by number, which nothing of boxd may.
const CALLS_BY_NUMBER: &str = "tests/boxprobe/kernel.rs";

#[test]
fn unsafe_code_is_in_sys_alone() {
    let outside = |source: &&Source| {
        !(source.module[0] == "sys" && source.path.starts_with("src"))
            && source.path != Path::new(CALLS_BY_NUMBER)
    };
    report(sources().iter().filter(outside).flat_map(|source| {
        let path = source.path.display();
        source
            .lines_with_unsafe
            .iter()
            .map(move |line| format!("{path}:{line}: unsafe outside sys"))
    }));
}

/// A file one would scroll through twice is two files, and a name that fits everything says nothing.
#[test]
fn files_are_short_and_named_after_what_they_hold() {
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.display();
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path}: {lines} lines; {LINES_MAX} are enough"));
        }
        for part in &source.module {
            if FORBIDDEN_NAMES.contains(&part.as_str()) && source.module != SYSTEMD_S_OWN_WORD {
                wrong.push(format!("{path}: {part} says nothing of what is in it"));
            }
        }
        if source.path.ends_with("mod.rs") {
            wrong.push(format!("{path}: name.rs stands beside name/"));
        }
        for (number, line) in source.text.lines().enumerate() {
            for word in MARKS.map(|(one, other)| format!("{one}{other}")) {
                if line.contains(&word) {
                    wrong.push(format!("{path}:{}: {word}: do it or file it", number + 1));
                }
            }
        }
    }
    report(wrong);
}

#[test]
fn the_top_level_stays_what_it_is() {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    // Built from a release's archive there is no git: then everything that is there counts.
    let names: BTreeSet<String> = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|path| path.split('/').next())
            .map(str::to_owned)
            .collect(),
        _ => fs::read_dir(root())
            .expect("the repository")
            .map(|entry| entry.expect("a readable entry").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| name != "target")
            .collect(),
    };
    report(
        names
            .into_iter()
            .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
            .map(|name| format!("{name}: does not belong to the top level")),
    );
}
