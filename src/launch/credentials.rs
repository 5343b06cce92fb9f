//! What the box's credentials are: read by the launcher, and kept by nobody.
//!
//! Encrypted ones are decrypted by systemd-creds(1), which asks the host's TPM or its secret, as it does for
//! `LoadCredentialEncrypted=` of systemd.exec(5). It is asked at each start: so a changed definition needs no reload
//! of systemd, and a box in the foreground has them too.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::plan::{Credential, MountStep, Secret, What};
use crate::sandbox::host_mounts::Secrets;

/// Most bytes of all credentials of a box: `CREDENTIALS_TOTAL_SIZE_MAX` of systemd.
const SIZE_MAX: usize = 1 << 20;

/// Most bytes that are repeated of what systemd-creds says.
const SAID_MAX: u64 = 1024;

/// A credential that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot read the credential {name} of the box from {path:?}")]
    Read {
        /// Its name.
        name: String,
        /// On the host.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nobody to decrypt.
    #[error(
        "cannot decrypt the credential {name} of the box: systemd-creds, which does that, cannot be run"
    )]
    NoDecryption {
        /// Its name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// It was not encrypted for this host, or not under this name.
    #[error(
        "cannot decrypt the credential {name} of the box from {path:?}: {said}; it is made by: systemd-creds encrypt \
         --name={name} PLAIN {path:?}"
    )]
    Decrypt {
        /// Its name.
        name: String,
        /// On the host.
        path: PathBuf,
        /// What systemd-creds says.
        said: String,
    },
    /// They would fill memory that cannot be swapped.
    #[error(
        "cannot take the credentials of the box: with {name} they are more than {SIZE_MAX} bytes"
    )]
    TooLarge {
        /// The one that is too much.
        name: String,
    },
}

/// Reads the secrets these steps want.
pub fn read(steps: &[MountStep]) -> Result<Secrets, Error> {
    let wanted = steps.iter().flat_map(|step| match &step.what {
        What::Credentials { secrets } => secrets.as_slice(),
        _ => &[],
    });
    let mut secrets = Secrets::new();
    let mut left = SIZE_MAX;
    for Secret { name, source } in wanted {
        let content = match source {
            Credential::File(path) => read_file(name, path)?,
            Credential::Encrypted(path) => decrypt(name, path)?,
        };
        left = left
            .checked_sub(content.len())
            .ok_or_else(|| Error::TooLarge { name: name.clone() })?;
        secrets.insert(name.clone(), content);
    }
    Ok(secrets)
}

fn read_file(name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let attempt = || {
        // A pipe without a writer must not hold the start up.
        let file = std::fs::File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        let mut content = Vec::new();
        file.take(SIZE_MAX as u64 + 1).read_to_end(&mut content)?;
        Ok(content)
    };
    attempt().map_err(|source| Error::Read {
        name: name.to_owned(),
        path: path.to_owned(),
        source,
    })
}

fn decrypt(name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::NoDecryption {
        name: name.to_owned(),
        source,
    };
    let mut child = Command::new("systemd-creds")
        .arg("decrypt")
        .arg("--newline=no")
        .arg(format!("--name={name}"))
        .arg("--")
        .arg(path)
        .arg("-")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut content = Vec::new();
    let mut said = String::new();
    // It says why only after it has written nothing, so neither pipe waits for the other; and what is beyond the
    // limits ends it by SIGPIPE.
    let read = child.stdout.take().map_or(Ok(0), |out| {
        out.take(SIZE_MAX as u64 + 1).read_to_end(&mut content)
    });
    let read = read.and_then(|_| {
        child
            .stderr
            .take()
            .map_or(Ok(0), |err| err.take(SAID_MAX).read_to_string(&mut said))
    });
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    if content.len() > SIZE_MAX {
        return Err(Error::TooLarge {
            name: name.to_owned(),
        });
    }
    if !status.success() {
        let said = said.lines().last().unwrap_or("it does not say why").trim();
        return Err(Error::Decrypt {
            name: name.to_owned(),
            path: path.to_owned(),
            said: said.chars().filter(|c| !c.is_control()).collect(),
        });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::MountFlags;

    fn steps(secrets: &[(&str, &Path)]) -> Vec<MountStep> {
        let secrets = secrets
            .iter()
            .map(|(name, path)| Secret {
                name: (*name).to_owned(),
                source: Credential::File((*path).to_owned()),
            })
            .collect();
        vec![MountStep {
            at: "/run/host/credentials".into(),
            what: What::Credentials { secrets },
            flags: MountFlags::INERT,
        }]
    }

    #[test]
    fn what_is_too_much_or_no_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let (small, large) = (
            directory.path().join("small"),
            directory.path().join("large"),
        );
        std::fs::write(&small, b"s\0cret\n").expect("written");
        std::fs::write(&large, vec![b'x'; SIZE_MAX]).expect("written");
        let secrets = read(&steps(&[("a", &small), ("b", &small)])).expect("small");
        assert_eq!(secrets["a"], b"s\0cret\n");
        let error = read(&steps(&[("a", &large), ("b", &small)])).expect_err("too much");
        assert!(error.to_string().contains("with b they are more than"));
        assert!(matches!(
            read(&steps(&[("a", directory.path())])),
            Err(Error::Read { .. })
        ));
    }
}
