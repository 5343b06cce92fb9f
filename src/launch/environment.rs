//! The payload's environment: what the plan says, files of the host over it, and what is known of the user.

use std::path::PathBuf;

use crate::plan::EnvironmentFile;
use crate::plan::{Payload, Plan};
use crate::sandbox::identity::Identity;

/// Most bytes of an environment file; a whole environment of execve(2) is hardly larger.
const FILE_MAX: u64 = 1024 * 1024;

/// What is wrong with an environment file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there or cannot be read.
    #[error("cannot read environment file {path:?} of the host")]
    Read {
        /// On the host.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of it is no assignment.
    #[error("cannot read environment file {path:?} of the host: line {line} {reason}")]
    Line {
        /// On the host.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The payload's environment with its files read over it, sorted by name.
pub fn read(payload: &Payload) -> Result<Vec<(String, String)>, Error> {
    let mut environment = payload.environment.clone();
    for file in &payload.environment_files {
        for (name, value) in read_file(file)? {
            set(&mut environment, name, value);
        }
    }
    environment.sort();
    Ok(environment)
}

/// Adds what is not set yet of `HOME`, `USER`, `LOGNAME` and `SHELL`; environ(7).
pub fn add_user(environment: &mut Vec<(String, String)>, identity: &Identity) {
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let known = [
        ("HOME", identity.home.as_ref().map(path)),
        ("USER", identity.name.clone()),
        ("LOGNAME", identity.name.clone()),
        ("SHELL", identity.shell.as_ref().map(path)),
    ];
    for (name, value) in known {
        if let Some(value) = value
            && !environment.iter().any(|(there, _)| there == name)
        {
            environment.push((name.to_owned(), value));
        }
    }
    environment.sort();
}

/// Tells the payload, which is the first process of its box, what is open; sd_listen_fds(3). Whatever else stood
/// there would be wrong.
pub fn add_sockets(environment: &mut Vec<(String, String)>, names: &[String]) {
    if names.is_empty() {
        return;
    }
    for (name, value) in [
        ("LISTEN_FDNAMES", names.join(":")),
        ("LISTEN_FDS", names.len().to_string()),
        ("LISTEN_PID", "1".to_owned()),
    ] {
        set(environment, name.to_owned(), value);
    }
    environment.sort();
}

/// Sets what tells the first process of the box, and no other, where and how often it is to be heard of;
/// sd_notify(3), sd_watchdog_enabled(3).
pub fn add_notify(environment: &mut Vec<(String, String)>, plan: &Plan) {
    let Some(notify) = &plan.notify else {
        return;
    };
    let socket = notify.socket.to_string_lossy().into_owned();
    set(environment, "NOTIFY_SOCKET".to_owned(), socket);
    if let Some(timeout) = plan.watchdog {
        let microseconds = timeout.as_micros().to_string();
        set(environment, "WATCHDOG_USEC".to_owned(), microseconds);
        // As it sees itself in its pid namespace.
        set(environment, "WATCHDOG_PID".to_owned(), "1".to_owned());
    }
    environment.sort();
}

/// Value of a variable.
pub fn get<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment
        .iter()
        .find(|(there, _)| there == name)
        .map(|(_, value)| value.as_str())
}

fn set(environment: &mut Vec<(String, String)>, name: String, value: String) {
    match environment.iter_mut().find(|(there, _)| *there == name) {
        Some((_, old)) => *old = value,
        None => environment.push((name, value)),
    }
}

fn read_file(file: &EnvironmentFile) -> Result<Vec<(String, String)>, Error> {
    use std::io::{Error as IoError, ErrorKind, Read as _};
    let failed = |source| Error::Read {
        path: file.path.clone(),
        source,
    };
    let open = match std::fs::File::open(&file.path) {
        Ok(open) => open,
        Err(error) if file.optional && error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    open.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        let reason = format!("it is larger than {FILE_MAX} bytes");
        return Err(failed(IoError::other(reason)));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| failed(IoError::other("it is not text in UTF-8")))?;
    parse(&text).map_err(|(line, reason)| Error::Line {
        path: file.path.clone(),
        line,
        reason,
    })
}

/// Assignments in the form of `EnvironmentFile=`, systemd.exec(5): comments begin with `#` or `;`, values may be
/// quoted as in a shell, a backslash before the end of the line goes on in the next. The error is the number of
/// a line and what is wrong with it.
fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let mut scanner = Scanner {
        characters: text.chars().peekable(),
        line: 1,
    };
    let mut assignments = Vec::new();
    while let Some(first) = scanner.after_blanks() {
        match first {
            '#' | ';' => scanner.skip_line(),
            _ => assignments.push(scanner.assignment()?),
        }
    }
    Ok(assignments)
}

struct Scanner<'a> {
    characters: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.characters.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Skips white space and empty lines and shows what follows.
    fn after_blanks(&mut self) -> Option<char> {
        while self
            .characters
            .next_if(|c| c.is_whitespace() && *c != '\n')
            .is_some()
            || self.characters.peek() == Some(&'\n')
        {
            if self.characters.peek() == Some(&'\n') {
                self.next();
            }
        }
        self.characters.peek().copied()
    }

    /// To the end of a comment, which a backslash continues as well.
    fn skip_line(&mut self) {
        while let Some(character) = self.next() {
            match character {
                '\\' => {
                    self.next();
                }
                '\n' => return,
                _ => {}
            }
        }
    }

    fn assignment(&mut self) -> Result<(String, String), (usize, &'static str)> {
        let line = self.line;
        let mut name = String::new();
        loop {
            match self.next() {
                Some('=') => break,
                Some('\n') | None => return Err((line, "has no \"=\"")),
                Some(character) => name.push(character),
            }
        }
        let name = name.trim_end();
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit());
        if !is_name {
            return Err((
                line,
                "has no variable's name before its \"=\": letters, digits and \"_\"",
            ));
        }
        Ok((name.to_owned(), self.value(line)?))
    }

    fn value(&mut self, line: usize) -> Result<String, (usize, &'static str)> {
        let mut value = String::new();
        // White space at the end counts only if something follows it or it is quoted.
        let mut kept = 0;
        while self
            .characters
            .next_if(|c| c.is_whitespace() && *c != '\n')
            .is_some()
        {}
        loop {
            match self.next() {
                None | Some('\n') => break,
                Some('\0') => return Err((line, "has a NUL character")),
                Some('\\') => match self.next() {
                    Some('\n') | None => {}
                    Some(character) => {
                        value.push(character);
                        kept = value.len();
                    }
                },
                Some(quote @ ('"' | '\'')) => {
                    self.quoted(quote, &mut value)
                        .ok_or((line, "has a quote that is never closed"))?;
                    kept = value.len();
                }
                Some(character) => {
                    value.push(character);
                    if !character.is_whitespace() {
                        kept = value.len();
                    }
                }
            }
        }
        value.truncate(kept);
        Ok(value)
    }

    fn quoted(&mut self, quote: char, value: &mut String) -> Option<()> {
        loop {
            match self.next()? {
                character if character == quote => return Some(()),
                '\\' if quote == '"' => match self.next()? {
                    '\n' => {}
                    escaped @ ('"' | '\\' | '`' | '$') => value.push(escaped),
                    other => value.extend(['\\', other]),
                },
                character => value.push(character),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn files_read_as_systemd_reads_them() {
        let text = "# comment\n; another \\\nstill\n\n  A=1\nB = two words  \nC=\"a \\\" \\$x \\n\" \nD='q\\'\n\
            E=con\\\ntinued\nF=\nG=a\\ b\nH=\"two\nlines\"\r\nI=x # y\n";
        assert_eq!(
            parse(text),
            Ok(pairs(&[
                ("A", "1"),
                ("B", "two words"),
                ("C", "a \" $x \\n"),
                ("D", "q\\"),
                ("E", "continued"),
                ("F", ""),
                ("G", "a b"),
                ("H", "two\nlines"),
                ("I", "x # y"),
            ]))
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("A=1\n\nexport\n"), Err((3, "has no \"=\"")));
        assert!(matches!(parse("A=1\n1B=2"), Err((2, _))));
        assert!(matches!(parse("export A=1"), Err((1, _))));
        assert!(matches!(parse("A=\"1\nB=2\n"), Err((1, _))));
        assert!(matches!(parse("A=a\0"), Err((1, _))));
    }

    #[test]
    fn later_values_win_and_the_user_fills_gaps() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("env");
        std::fs::write(&path, "B=file\nC=file\n").expect("written");
        let mut payload = Payload {
            command: vec!["true".to_owned()],
            environment: pairs(&[("A", "plan"), ("B", "plan"), ("HOME", "/plan")]),
            environment_files: vec![
                EnvironmentFile {
                    path,
                    optional: false,
                },
                EnvironmentFile {
                    path: directory.path().join("missing"),
                    optional: true,
                },
            ],
            working_directory: PathBuf::from("/"),
            user: crate::definition::User::Name("www".to_owned()),
            groups: Vec::new(),
            hostname: "box".to_owned(),
        };
        let mut environment = read(&payload).expect("readable");
        let identity = Identity {
            uid: 1,
            gid: 1,
            groups: Vec::new(),
            name: Some("www".to_owned()),
            home: Some(PathBuf::from("/var/www")),
            shell: None,
        };
        add_user(&mut environment, &identity);
        assert_eq!(
            environment,
            pairs(&[
                ("A", "plan"),
                ("B", "file"),
                ("C", "file"),
                ("HOME", "/plan"),
                ("LOGNAME", "www"),
                ("USER", "www"),
            ])
        );
        payload.environment_files[1].optional = false;
        assert!(matches!(read(&payload), Err(Error::Read { .. })));
    }
}
