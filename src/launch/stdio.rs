//! What the payload finds open: standard input, output and error, and sockets.

use std::os::fd::OwnedFd;

/// What the payload finds as descriptors 0, 1 and 2.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// The sockets the payload finds from descriptor 3 on, each with its name; sd_listen_fds(3).
pub type Sockets = Vec<(String, OwnedFd)>;

/// The launcher's ends of a [`Stdio`].
#[derive(Debug)]
pub struct Output {
    /// Read end of the payload's standard output.
    pub stdout: OwnedFd,
    /// Read end of the payload's standard error.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// `/dev/null` as all three: for a box that has a terminal in the end.
    ///
    /// The error is that of open(2).
    pub fn nothing() -> std::io::Result<Stdio> {
        let null = || nothing(rustix::fs::OFlags::RDWR);
        Ok(Stdio {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
        })
    }

    /// `/dev/null` as input, and a pipe each for output and error; all close-on-exec.
    ///
    /// The error is that of open(2) or pipe(2).
    pub fn piped() -> std::io::Result<(Stdio, Output)> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let stdin = nothing(rustix::fs::OFlags::RDONLY)?;
        let (stdout_read, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr_read, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let output = Output {
            stdout: stdout_read,
            stderr: stderr_read,
        };
        Ok((
            Stdio {
                stdin,
                stdout,
                stderr,
            },
            output,
        ))
    }
}

fn nothing(access: rustix::fs::OFlags) -> std::io::Result<OwnedFd> {
    let flags = access | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(
        "/dev/null",
        flags,
        rustix::fs::Mode::empty(),
    )?)
}
