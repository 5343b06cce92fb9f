//! From a command to the program that runs: execve(2), and why it did not.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, OFlags};

use super::paths::Root;
use super::seccomp::{self, Filter};
use crate::sys::{self, Called as _, Errno};

/// Where commands are looked for when the environment has no `PATH`: as systemd does, exec_command in
/// systemd.exec(5).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a command does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory it should run in.
    #[error("cannot change to working directory {path:?}")]
    WorkingDirectory {
        /// Inside the box.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No directory of `PATH` has it.
    #[error("cannot find command {command:?} in the box: no directory of PATH={path} has it")]
    NotInPath {
        /// As the definition has it.
        command: String,
        /// What was searched.
        path: String,
    },
    /// Nothing is there.
    #[error("cannot execute {0:?}: the box has no such file")]
    Missing(PathBuf),
    /// A directory is there.
    #[error("cannot execute {0:?}: it is a directory")]
    Directory(PathBuf),
    /// It is no file that could hold a program.
    #[error("cannot execute {0:?}: it is not a regular file")]
    NotAFile(PathBuf),
    /// The permission bits.
    #[error(
        "cannot execute {path:?}: not executable for uid {uid}: its mode is {mode:03o} and its owner {owner}"
    )]
    NotExecutable {
        /// Inside the box.
        path: PathBuf,
        /// Who tried, inside the box.
        uid: u32,
        /// Permission bits.
        mode: u32,
        /// Inside the box.
        owner: u32,
    },
    /// The mount it is on.
    #[error("cannot execute {0:?}: it is on a file system mounted noexec")]
    Noexec(PathBuf),
    /// What should interpret it is not there.
    #[error("cannot execute {path:?}: the box does not have its interpreter {interpreter:?}")]
    Interpreter {
        /// Inside the box.
        path: PathBuf,
        /// Inside the box: a script's first line or a program's dynamic loader has it.
        interpreter: String,
    },
    /// Its content is no program.
    #[error(
        "cannot execute {0:?}: it is neither a program for this machine nor a script that begins with #!"
    )]
    Format(PathBuf),
    /// Arguments and environment.
    #[error("cannot execute {0:?}: its arguments and environment are too long")]
    TooLong(PathBuf),
    /// What is executed may not make all system calls, and the filter was refused.
    #[error("cannot load the system call filter")]
    Filter(#[source] sys::Error),
    /// A string cannot be an argument.
    #[error("cannot execute {0:?}: an argument or a variable has a NUL byte")]
    Nul(String),
    /// Anything else.
    #[error("cannot execute {path:?}")]
    Execute {
        /// Inside the box.
        path: PathBuf,
        /// Why.
        #[source]
        source: sys::Error,
    },
}

/// Changes to a directory of the box: through links inside it, and through none of `/proc`.
pub fn change_directory(root: &Root, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::WorkingDirectory {
        path: path.to_owned(),
        source,
    };
    let directory = root
        .find(path)
        .map_err(|error| failed(error.into()))?
        .ok_or_else(|| failed("the box has no such directory".into()))?;
    rustix::process::fchdir(&directory)
        .called(|| format!("fchdir({path:?})"))
        .map_err(|error| failed(error.into()))
}

/// The file a command names: itself if it has a slash, else the first executable of that name in `PATH`.
pub fn find(command: &str, search: &str) -> Result<PathBuf, Error> {
    if command.contains('/') {
        return Ok(PathBuf::from(command));
    }
    let mut refused = None;
    for directory in search.split(':') {
        // A relative or empty entry would mean the working directory.
        if !directory.starts_with('/') {
            continue;
        }
        let candidate = Path::new(directory).join(command);
        if !candidate.is_file() {
            continue;
        }
        match rustix::fs::accessat(CWD, &candidate, Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => return Ok(candidate),
            Err(_) => refused.get_or_insert(candidate),
        };
    }
    // What is there and may not be executed explains more than that nothing was found.
    refused.ok_or_else(|| Error::NotInPath {
        command: command.to_owned(),
        path: search.to_owned(),
    })
}

/// A program with all it is given, in the form the kernel takes.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    filter: Option<Filter>,
}

impl Program {
    /// `path` is what [`find`] found for the first of `command`; `filter` is what it may call, none for
    /// everything.
    pub fn new(
        path: PathBuf,
        command: &[String],
        environment: &[(String, String)],
        filter: Option<Filter>,
    ) -> Result<Self, Error> {
        let nul = || Error::Nul(path.display().to_string());
        let string = |text: &str| CString::new(text).map_err(|_| nul());
        Ok(Program {
            file: CString::new(path.as_os_str().as_bytes()).map_err(|_| nul())?,
            arguments: command
                .iter()
                .map(|text| string(text))
                .collect::<Result<_, _>>()?,
            environment: environment
                .iter()
                .map(|(name, value)| string(&format!("{name}={value}")))
                .collect::<Result<_, _>>()?,
            filter,
            path,
        })
    }

    /// This process becomes the program. If it does not, it has to live under the filter all the same.
    pub fn execute(self) -> Result<Infallible, Error> {
        if let Some(filter) = &self.filter {
            seccomp::load(filter).map_err(Error::Filter)?;
        }
        match nix::unistd::execve(&self.file, &self.arguments, &self.environment) {
            Ok(never) => match never {},
            Err(errno) => Err(why(self.path, errno)),
        }
    }
}

/// Reads from the file what the kernel's answer leaves open.
fn why(path: PathBuf, errno: Errno) -> Error {
    let Ok(status) = std::fs::metadata(&path) else {
        return match errno {
            Errno::ENOENT | Errno::ENOTDIR => Error::Missing(path),
            _ => other(path, errno),
        };
    };
    match errno {
        Errno::EACCES | Errno::EPERM if status.is_dir() => Error::Directory(path),
        Errno::EACCES if !status.is_file() => Error::NotAFile(path),
        Errno::EACCES if is_on_noexec(&path) => Error::Noexec(path),
        Errno::EACCES => Error::NotExecutable {
            uid: rustix::process::geteuid().as_raw(),
            mode: status.mode() & 0o7777,
            owner: status.uid(),
            path,
        },
        Errno::ENOENT | Errno::ENOTDIR => match interpreter(&path) {
            Some(interpreter) => Error::Interpreter { path, interpreter },
            None => other(path, errno),
        },
        Errno::ENOEXEC => Error::Format(path),
        Errno::E2BIG => Error::TooLong(path),
        _ => other(path, errno),
    }
}

fn other(path: PathBuf, errno: Errno) -> Error {
    let source = sys::Error::new(format!("execve({path:?})"), errno);
    Error::Execute { path, source }
}

fn is_on_noexec(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|file_system| {
        file_system
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::NOEXEC)
    })
}

/// What a script's first line or an ELF file's program header names; elf(5).
fn interpreter(path: &Path) -> Option<String> {
    const READ_MAX: u64 = 64 * 1024;
    let file = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .ok()?;
    let mut start = Vec::new();
    File::from(file)
        .take(READ_MAX)
        .read_to_end(&mut start)
        .ok()?;
    let name = match start.strip_prefix(b"#!") {
        Some(line) => line
            .split(|byte| *byte == b'\n')
            .next()?
            .trim_ascii()
            .split(|byte| byte.is_ascii_whitespace())
            .next()?,
        None => elf_interpreter(&start)?,
    };
    Some(OsStr::from_bytes(name).to_string_lossy().into_owned())
}

/// Text of the `PT_INTERP` segment of a 64-bit ELF file of this machine's byte order.
fn elf_interpreter(file: &[u8]) -> Option<&[u8]> {
    const CLASS_64: u8 = 2;
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_ne_bytes(file.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(file.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| {
        let number = u64::from_ne_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?);
        usize::try_from(number).ok()
    };
    if !file.starts_with(b"\x7fELF") || *file.get(4)? != CLASS_64 {
        return None;
    }
    let table = long(32)?;
    let entry_size = usize::from(half(54)?);
    let entries = usize::from(half(56)?);
    (0..entries)
        .filter_map(|entry| table.checked_add(entry.checked_mul(entry_size)?))
        .find(|at| at.checked_add(4).and_then(|_| word(*at)) == Some(PT_INTERP))
        .and_then(|at| {
            let offset = long(at.checked_add(8)?)?;
            let size = long(at.checked_add(32)?)?;
            let text = file.get(offset..offset.checked_add(size)?)?;
            text.split(|byte| *byte == 0).next()
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(directory: &tempfile::TempDir, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    fn run(path: &Path) -> String {
        let command = [path.display().to_string()];
        Program::new(path.to_owned(), &command, &[], None)
            .expect("no NUL")
            .execute()
            .expect_err("it does not run")
            .to_string()
    }

    #[test]
    fn each_reason_has_its_sentence() {
        let directory = tempfile::tempdir().expect("a directory");
        let cases = [
            (directory.path().join("missing"), "the box has no such file"),
            (directory.path().to_owned(), "it is a directory"),
            (PathBuf::from("/dev/null"), "it is not a regular file"),
            (
                file(&directory, "plain", "#!/bin/sh\n", 0o644),
                "not executable for uid 0: its mode is 644 and its owner 0",
            ),
            (
                file(&directory, "script", "#! /no/such/shell -x\n", 0o755),
                r#"the box does not have its interpreter "/no/such/shell""#,
            ),
            (
                file(&directory, "text", "hello", 0o755),
                "it is neither a program for this machine nor a script that begins with #!",
            ),
        ];
        for (path, reason) in cases {
            let wanted = format!("cannot execute {path:?}: {reason}");
            assert_eq!(run(&path), wanted);
        }
    }

    #[test]
    fn a_dynamic_program_names_its_loader() {
        let own = std::env::current_exe().expect("this test");
        let loader = interpreter(&own).expect("it is dynamic");
        assert!(loader.starts_with("/lib"), "{loader}");
    }

    #[test]
    fn no_content_makes_the_reading_of_headers_panic() {
        let own = std::fs::read(std::env::current_exe().expect("this test")).expect("readable");
        let header = &own[..1024];
        for length in 0..header.len() {
            elf_interpreter(&header[..length]);
        }
        for at in 4..64 {
            let mut broken = header.to_vec();
            broken[at] = 0xff;
            elf_interpreter(&broken);
        }
    }

    #[test]
    fn a_command_is_looked_for_in_path() {
        let first = tempfile::tempdir().expect("a directory");
        let second = tempfile::tempdir().expect("a directory");
        let refused = file(&first, "both", "", 0o644);
        let both = file(&second, "both", "", 0o755);
        let search = format!("::.:{}:{}", first.path().display(), second.path().display());
        assert_eq!(find("both", &search).expect("in the second"), both);
        let only = format!("{}", first.path().display());
        assert_eq!(find("both", &only).expect("to be refused by name"), refused);
        assert_eq!(
            find("./both", &only).expect("as it stands"),
            Path::new("./both")
        );
        let error = find("none", &only).expect_err("nowhere");
        assert!(
            error.to_string().contains("no directory of PATH="),
            "{error}"
        );
    }
}
