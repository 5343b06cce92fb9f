//! The caller's terminal while a command of a box has it: raw, and as it was before whatever happens.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What the caller's terminal is called, `TERM` of environ(7), if it has a name that can be one.
pub fn callers() -> Option<String> {
    let name = std::env::var("TERM").ok()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
    (!name.is_empty() && name.bytes().all(allowed)).then_some(name)
}

/// What a panic must put back: this program ends at a panic without unwinding, so [`Drop`] would not.
static TO_RESTORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// A terminal in raw mode, cfmakeraw(3), until this is dropped.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Puts the terminal into raw mode.
    pub fn new(terminal: impl AsFd) -> Result<Raw, Errno> {
        let terminal = rustix::io::fcntl_dupfd_cloexec(&terminal, 3)?;
        let before = tcgetattr(&terminal)?;
        restore_at_panic(
            rustix::io::fcntl_dupfd_cloexec(&terminal, 3)?,
            before.clone(),
        );
        let raw = Raw { terminal, before };
        raw.set()?;
        Ok(raw)
    }

    /// Makes it raw once more: a shell puts its own modes back when this program is stopped.
    pub fn again(&self) {
        let _ = self.set();
    }

    fn set(&self) -> Result<(), Errno> {
        let mut modes = self.before.clone();
        modes.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Drain, &modes)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore_at_panic(terminal: OwnedFd, before: Termios) {
    static HOOK: Once = Once::new();
    *TO_RESTORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal, before));
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            next(panic);
        }));
    });
}

fn restore() {
    let before = TO_RESTORE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some((terminal, modes)) = before {
        let _ = tcsetattr(&terminal, OptionalActions::Drain, &modes);
    }
}

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    #[test]
    fn the_terminal_is_given_back_as_it_was() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        unlockpt(&master).expect("unlocked");
        let terminal = ioctl_tiocgptpeer(&master, flags).expect("its other side");
        let modes = || tcgetattr(&terminal).expect("modes").local_modes;
        let before = modes();
        assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
        let raw = Raw::new(&terminal).expect("raw");
        assert!(!modes().intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        drop(raw);
        assert_eq!(modes(), before);
    }
}
