//! The keys by which an operator detaches.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// All of them within this time, as systemd-nspawn(1) and machinectl(1) have it.
const WITHIN: Duration = Duration::from_secs(1);

/// Most keys.
const KEYS_MAX: usize = 16;

/// What to write.
const EXPECTED: &str = "expected keys with commas between them, as in \"ctrl-],ctrl-],ctrl-]\" or \
                        \"ctrl-p,ctrl-q\", or \"none\"";

/// Keys that detach when they are typed one after the other; none if nothing does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl Default for Keys {
    /// Three times Ctrl-], as systemd has it.
    fn default() -> Keys {
        Keys(vec![0x1d; 3])
    }
}

/// What a key is as a byte, as docker-attach(1) writes keys.
fn key(text: &str) -> Option<u8> {
    let (control, name) = match text.strip_prefix("ctrl-") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let &[byte] = name.as_bytes() else {
        return None;
    };
    match (control, byte) {
        (false, b' '..=b'~') => Some(byte),
        (true, b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'['..=b'_') => Some(byte & 0x1f),
        _ => None,
    }
}

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Keys, String> {
        if text == "none" {
            return Ok(Keys(Vec::new()));
        }
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.filter(|keys| keys.len() <= KEYS_MAX)
            .map(Keys)
            .ok_or_else(|| EXPECTED.to_owned())
    }
}

impl fmt::Display for Keys {
    /// For people: `^] three times`, `^P ^Q`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |byte: u8| match byte {
            0..0x20 => format!("^{}", char::from(byte | 0x40)),
            byte => char::from(byte).to_string(),
        };
        match &*self.0 {
            [first, second, third] if first == second && second == third => {
                write!(f, "{} three times", name(*first))
            }
            keys => {
                let names: Vec<String> = keys.iter().map(|byte| name(*byte)).collect();
                f.write_str(&names.join(" "))
            }
        }
    }
}

impl Keys {
    /// Whether there are any.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing was typed yet.
    pub fn watch(&self) -> Watch {
        Watch {
            keys: self.clone(),
            typed: VecDeque::new(),
        }
    }
}

/// Looks at what is typed.
#[derive(Debug)]
pub struct Watch {
    keys: Keys,
    /// The last ones.
    typed: VecDeque<(u8, Instant)>,
}

impl Watch {
    /// What of these bytes, typed now, is the box's, and whether the operator detaches with the rest. All keys are the
    /// box's at once but the last of a whole sequence, since only with that it is known to be one.
    pub fn look_at<'a>(&mut self, bytes: &'a [u8], now: Instant) -> (&'a [u8], bool) {
        for (index, byte) in bytes.iter().enumerate() {
            if self.keys.is_none() {
                break;
            }
            if self.typed.len() == self.keys.0.len() {
                self.typed.pop_front();
            }
            self.typed.push_back((*byte, now));
            let is_whole = self.typed.iter().map(|(byte, _)| byte).eq(&self.keys.0);
            let is_quick = self
                .typed
                .front()
                .is_some_and(|(_, first)| now.duration_since(*first) <= WITHIN);
            if is_whole && is_quick {
                return (&bytes[..index], true);
            }
        }
        (bytes, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_docker_has_them() {
        assert_eq!("ctrl-],ctrl-],ctrl-]".parse(), Ok(Keys::default()));
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(Keys(vec![0x10, 0x11])));
        assert_eq!("ctrl-@,a".parse(), Ok(Keys(vec![0, b'a'])));
        assert_eq!("none".parse(), Ok(Keys(Vec::new())));
        for bad in [
            "",
            "ctrl-",
            "ctrl-1",
            "ab",
            "a,,b",
            "é",
            "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q",
        ] {
            assert_eq!(bad.parse::<Keys>(), Err(EXPECTED.to_owned()), "{bad}");
        }
        assert_eq!(Keys::default().to_string(), "^] three times");
        assert_eq!(Keys(vec![0x10, b'q']).to_string(), "^P q");
    }

    #[test]
    fn a_whole_sequence_detaches_and_nothing_else_does() {
        let now = Instant::now();
        let mut watch = Keys::default().watch();
        assert_eq!(
            watch.look_at(b"ls\x1d\x1dx\x1d", now),
            (&b"ls\x1d\x1dx\x1d"[..], false)
        );
        // In parts, and with more behind it.
        assert_eq!(watch.look_at(b"\x1d", now), (&b"\x1d"[..], false));
        assert_eq!(watch.look_at(b"\x1dmore", now), (&b""[..], true));

        let mut watch = Keys::default().watch();
        watch.look_at(b"\x1d\x1d", now);
        let later = now + WITHIN + Duration::from_millis(1);
        assert_eq!(
            watch.look_at(b"\x1d", later),
            (&b"\x1d"[..], false),
            "too slow"
        );
        assert_eq!(watch.look_at(b"\x1d\x1d", later), (&b"\x1d"[..], true));

        let mut watch = Keys(Vec::new()).watch();
        assert_eq!(
            watch.look_at(b"\x1d\x1d\x1d", now),
            (&b"\x1d\x1d\x1d"[..], false)
        );
    }
}
