//! A table of one line a row, without frames.

use super::terminal::{Look, Paint, columns, cut};

/// Which side of its column a cell stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    /// A cell of this text; no text shows as `-`.
    pub fn new(text: Option<String>) -> Cell {
        Cell {
            text: text
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| "-".to_owned()),
            paint: None,
        }
    }

    /// A cell in a colour.
    pub fn painted(text: &str, paint: Option<Paint>) -> Cell {
        Cell {
            text: text.to_owned(),
            paint,
        }
    }
}

/// The lines of a table, the headings first. Every column is as wide as its widest cell; the last one takes
/// what the terminal leaves and is cut there.
pub fn render(headings: &[(&str, Side)], rows: &[Vec<Cell>], look: Look) -> String {
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, (heading, _))| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| columns(&cell.text))
                .chain([columns(heading)])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut result = String::new();
    let head: Vec<Cell> = headings
        .iter()
        .map(|(heading, _)| Cell::painted(heading, Some(Paint::Strong)))
        .collect();
    for row in std::iter::once(&head).chain(rows) {
        line(&mut result, row, headings, &widths, look);
    }
    result
}

fn line(
    result: &mut String,
    row: &[Cell],
    headings: &[(&str, Side)],
    widths: &[usize],
    look: Look,
) {
    const GAP: &str = "  ";
    let mut used = 0;
    for (column, (cell, ((_, side), width))) in
        row.iter().zip(headings.iter().zip(widths)).enumerate()
    {
        if column > 0 {
            result.push_str(GAP);
            used += GAP.len();
        }
        let last = column + 1 == row.len();
        let text = match look.width {
            Some(available) => cut(&cell.text, available.saturating_sub(used)),
            None => cell.text.clone(),
        };
        let padding = " ".repeat(width.saturating_sub(columns(&text)));
        let painted = match cell.paint {
            Some(paint) => look.paint(paint, &text),
            None => text,
        };
        match side {
            Side::Right => {
                result.push_str(&padding);
                result.push_str(&painted);
            }
            Side::Left => {
                result.push_str(&painted);
                if !last {
                    result.push_str(&padding);
                }
            }
        }
        used += width;
    }
    result.push('\n');
}
