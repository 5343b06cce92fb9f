//! A generator's messages. It runs before the journal can be relied on, so systemd.generator(7) sends it to the
//! kernel's log.

use std::fs::OpenOptions;
use std::io::{self, Write};

/// Longest record of the kernel's log that is kept whole, with its prefix; printk's `PRINTKRB_RECORD_MAX`.
const RECORD_MAX: usize = 900;

/// The level of an error, sd-daemon(3).
const ERROR: &str = "<3>";

/// Writes one message where it will be found: the kernel's log if the service manager called, standard error
/// if a person did. There is nobody to report to if that fails.
pub fn log(message: &str) {
    let by_manager = std::env::var_os("SYSTEMD_SCOPE").is_some();
    let written = if by_manager {
        let record = record(message);
        OpenOptions::new()
            .write(true)
            .open("/dev/kmsg")
            .and_then(|mut kmsg| kmsg.write_all(record.as_bytes()))
    } else {
        Err(io::ErrorKind::NotFound.into())
    };
    if written.is_err() {
        let _ = writeln!(io::stderr(), "boxd-generator: {message}");
    }
}

/// One write is one record.
fn record(message: &str) -> String {
    let mut line = format!(
        "{ERROR}boxd-generator: {}",
        message.replace(char::is_control, " ")
    );
    if line.len() > RECORD_MAX {
        let end = (0..=RECORD_MAX)
            .rev()
            .find(|end| line.is_char_boundary(*end))
            .unwrap_or(0);
        line.truncate(end);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_record() {
        assert_eq!(record("two\nlines"), "<3>boxd-generator: two lines\n");
        let long = record(&"é".repeat(2000));
        assert!(long.len() <= RECORD_MAX + 1 && long.ends_with("é\n"));
    }
}
