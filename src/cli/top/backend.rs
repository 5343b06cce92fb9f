//! What ratatui draws on: standard output, by the few sequences of ECMA-48 that every terminal obeys.

use std::io::{self, Write as _};

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};

/// The terminal of standard output, on its other screen until this is dropped.
#[derive(Debug)]
pub struct Tty {
    /// What is yet to be written: a frame goes out as one.
    pending: String,
}

impl Tty {
    /// Goes to the other screen, and hides the cursor.
    pub fn enter() -> io::Result<Tty> {
        let mut tty = Tty {
            pending: "\x1b[?1049h\x1b[?25l\x1b[2J".to_owned(),
        };
        tty.flush()?;
        Ok(tty)
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.pending = "\x1b[0m\x1b[?25h\x1b[?1049l".to_owned();
        // A terminal that has gone needs nothing.
        let _ = self.flush();
    }
}

impl Backend for Tty {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut at = None;
        let mut style = None;
        for (x, y, cell) in content {
            if at != Some((x, y)) {
                self.pending += &format!("\x1b[{};{}H", y + 1, x + 1);
            }
            let now = (cell.fg, cell.modifier);
            if style != Some(now) {
                self.pending += &sequence(cell.fg, cell.modifier);
                style = Some(now);
            }
            self.pending += cell.symbol();
            at = Some((x + 1, y));
        }
        self.pending += "\x1b[0m";
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.pending += "\x1b[?25l";
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.pending += "\x1b[?25h";
        Ok(())
    }

    /// It is hidden, and nobody asks.
    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        self.pending += &format!("\x1b[{};{}H", y + 1, x + 1);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.clear_region(ClearType::All)
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        self.pending += match region {
            ClearType::All => "\x1b[2J",
            ClearType::AfterCursor => "\x1b[0J",
            ClearType::BeforeCursor => "\x1b[1J",
            ClearType::CurrentLine => "\x1b[2K",
            ClearType::UntilNewLine => "\x1b[0K",
        };
        Ok(())
    }

    fn size(&self) -> io::Result<Size> {
        let size = rustix::termios::tcgetwinsize(io::stdout())?;
        // A terminal that does not know has the size terminals had.
        Ok(match (size.ws_col, size.ws_row) {
            (0, _) | (_, 0) => Size::new(80, 24),
            (columns, rows) => Size::new(columns, rows),
        })
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize {
            columns_rows: self.size()?,
            pixels: Size::ZERO,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.pending.as_bytes())?;
        self.pending.clear();
        out.flush()
    }
}

/// SGR: only what the screen uses.
fn sequence(color: Color, modifier: Modifier) -> String {
    let mut codes = vec!["0"];
    for (flag, code) in [
        (Modifier::BOLD, "1"),
        (Modifier::DIM, "2"),
        (Modifier::REVERSED, "7"),
    ] {
        if modifier.contains(flag) {
            codes.push(code);
        }
    }
    codes.extend(match color {
        Color::Red => Some("31"),
        Color::Green => Some("32"),
        Color::Yellow => Some("33"),
        Color::Cyan => Some("36"),
        _ => None,
    });
    format!("\x1b[{}m", codes.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_in_a_row_are_written_without_moving_between_them() {
        let mut tty = Tty {
            pending: String::new(),
        };
        let plain = Cell::new("a");
        let mut red = Cell::new("b");
        red.fg = Color::Red;
        red.modifier = Modifier::BOLD;
        let cells = [(0, 0, &plain), (1, 0, &plain), (2, 0, &red), (0, 2, &plain)];
        tty.draw(cells.into_iter()).expect("drawn");
        assert_eq!(
            tty.pending,
            "\x1b[1;1H\x1b[0maa\x1b[0;1;31mb\x1b[3;1H\x1b[0ma\x1b[0m"
        );
        // What a dropped one writes is the terminal's to see, not the tests'.
        std::mem::forget(tty);
    }
}
