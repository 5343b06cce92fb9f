//! `boxctl top`: what running boxes use, as it changes.

mod backend;
mod screen;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Error;
use super::show::Clock;
use super::terminal::Color;
use crate::enter::terminal::Raw;
use crate::status::stats;
use backend::Tty;
use screen::{Key, Screen};

/// Most that is read of the keyboard at once: a paste is no command.
const KEYS: usize = 64;

/// Shows the screen until it is left. `every` is the pause between two looks.
pub fn top(every: Duration, color: Color) -> Result<ExitCode, Error> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Error::NoTerminal);
    }
    let look = super::terminal::Look::of_stdout(color);
    let mut screen = Screen::new(look.color);
    screen.update(stats::stats(&[], Clock::system().now)?);
    // Given back in the other order: first the screen, then the modes.
    let raw = Raw::new(io::stdin()).map_err(io::Error::from)?;
    let mut terminal = Terminal::new(Tty::enter()?)?;
    let result = run(&mut screen, &mut terminal, every);
    drop(terminal);
    drop(raw);
    result
}

fn run(
    screen: &mut Screen,
    terminal: &mut Terminal<Tty>,
    every: Duration,
) -> Result<ExitCode, Error> {
    let mut next = Instant::now() + every;
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        let left = next.saturating_duration_since(Instant::now());
        for key in keys(left)? {
            if screen.press(key) {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if Instant::now() >= next {
            screen.update(stats::stats(&[], Clock::system().now)?);
            next = Instant::now() + every;
        }
    }
}

/// What was pressed within a time; all at once that is there.
fn keys(within: Duration) -> io::Result<Vec<Key>> {
    let timeout = Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: within.subsec_nanos().into(),
    };
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(0) => return Ok(Vec::new()),
        // The window has another size, mostly: it is drawn anew.
        Err(Errno::INTR) => return Ok(Vec::new()),
        other => other?,
    };
    let mut bytes = [0; KEYS];
    let length = rustix::io::read(&stdin, &mut bytes)?;
    if length == 0 {
        // Nobody can press anything any more.
        return Ok(vec![Key::Quit]);
    }
    Ok(screen::understand(&bytes[..length]))
}
