//! The screen: what is known of the boxes over time, and how it is drawn.

use std::collections::{BTreeMap, VecDeque};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table};

use crate::cli::terminal::harmless;
use crate::cli::text;
use crate::status::stats::{Stats, Usage};

/// So many looks are remembered.
const REMEMBERED: usize = 120;

/// Columns of the graph in a line.
const GRAPH: usize = 12;

/// Rows of the panel of one box.
const PANEL: u16 = 6;

/// From this share of the time on, waiting is worth a look: percent.
const MUCH: f64 = 10.0;

/// What may be pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Leave.
    Quit,
    /// The box above.
    Up,
    /// The box below.
    Down,
    /// Another order.
    Sort(Order),
}

/// Which box comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// That which uses most processor time.
    #[default]
    Cpu,
    /// That which has most memory.
    Memory,
    /// That which reads and writes most.
    Io,
    /// That which has most processes and threads.
    Tasks,
    /// That which waits most.
    Pressure,
    /// By name.
    Name,
}

impl Order {
    fn word(self) -> &'static str {
        match self {
            Order::Cpu => "CPU",
            Order::Memory => "memory",
            Order::Io => "IO",
            Order::Tasks => "tasks",
            Order::Pressure => "pressure",
            Order::Name => "name",
        }
    }
}

/// What bytes of a terminal mean; those that mean nothing are left out.
pub fn understand(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let (key, length) = match (first, tail) {
            (0x1b, [b'[' | b'O', b'A', ..]) => (Some(Key::Up), 3),
            (0x1b, [b'[' | b'O', b'B', ..]) => (Some(Key::Down), 3),
            // Any other sequence ends with a letter or a tilde.
            (0x1b, [b'[' | b'O', sequence @ ..]) => {
                let end = sequence
                    .iter()
                    .position(|byte| (0x40..=0x7e).contains(byte));
                (None, 2 + end.map_or(sequence.len(), |end| end + 1))
            }
            // Escape alone, Ctrl-C, Ctrl-D.
            (0x1b, []) | (0x03 | 0x04 | b'q' | b'Q', _) => (Some(Key::Quit), 1),
            (b'k', _) => (Some(Key::Up), 1),
            (b'j', _) => (Some(Key::Down), 1),
            (b'c', _) => (Some(Key::Sort(Order::Cpu)), 1),
            (b'm', _) => (Some(Key::Sort(Order::Memory)), 1),
            (b'i', _) => (Some(Key::Sort(Order::Io)), 1),
            (b't', _) => (Some(Key::Sort(Order::Tasks)), 1),
            (b'p', _) => (Some(Key::Sort(Order::Pressure)), 1),
            (b'n', _) => (Some(Key::Sort(Order::Name)), 1),
            _ => (None, 1),
        };
        keys.extend(key);
        rest = &rest[length.min(rest.len())..];
    }
    keys
}

/// A box over time.
#[derive(Debug, Default)]
struct Seen {
    last: Stats,
    /// Hundredths of a percent of one processor.
    cpu: VecDeque<u64>,
    /// Bytes.
    memory: VecDeque<u64>,
    /// Bytes per second.
    read: u64,
    /// Bytes per second.
    written: u64,
}

impl Seen {
    fn cpu(&self) -> u64 {
        self.cpu.back().copied().unwrap_or(0)
    }

    fn pressure(&self) -> f64 {
        let pressure = &self.last.pressure;
        [pressure.cpu, pressure.memory, pressure.io]
            .into_iter()
            .flatten()
            .map(|stall| stall.some.avg10)
            .fold(0.0, f64::max)
    }
}

/// All that is drawn.
#[derive(Debug)]
pub struct Screen {
    color: bool,
    order: Order,
    /// The box whose panel is shown; the first one where it has ended.
    selected: Option<String>,
    /// When it was looked last: microseconds since the epoch.
    at: u64,
    boxes: BTreeMap<String, Seen>,
}

impl Screen {
    /// Nothing is known yet.
    pub fn new(color: bool) -> Screen {
        Screen {
            color,
            order: Order::default(),
            selected: None,
            at: 0,
            boxes: BTreeMap::new(),
        }
    }

    /// What was seen at another look.
    pub fn update(&mut self, usage: Usage) {
        let passed = usage.at.saturating_sub(self.at);
        self.at = usage.at;
        let mut before = std::mem::take(&mut self.boxes);
        for now in usage.boxes {
            let same = before
                .remove(&now.name)
                // Another box of the name has counters of its own.
                .filter(|seen| seen.last.started == now.started);
            let mut seen = same.unwrap_or_else(|| Seen {
                last: now.clone(),
                ..Seen::default()
            });
            let per_second = |now: Option<u64>, before: Option<u64>, scale: u64| {
                let more = now.unwrap_or(0).saturating_sub(before.unwrap_or(0));
                let rate = u128::from(more) * u128::from(scale) / u128::from(passed.max(1));
                u64::try_from(rate).unwrap_or(u64::MAX)
            };
            remember(&mut seen.cpu, per_second(now.cpu, seen.last.cpu, 10_000));
            remember(&mut seen.memory, now.memory.unwrap_or(0));
            seen.read = per_second(now.io_read, seen.last.io_read, 1_000_000);
            seen.written = per_second(now.io_written, seen.last.io_written, 1_000_000);
            seen.last = now;
            self.boxes.insert(seen.last.name.clone(), seen);
        }
    }

    /// Whether the screen is left.
    pub fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Quit => return true,
            Key::Sort(order) => self.order = order,
            Key::Up | Key::Down => {
                let names: Vec<String> = self
                    .sorted()
                    .iter()
                    .map(|seen| seen.last.name.clone())
                    .collect();
                let at = self.index(&names);
                let next = match key {
                    Key::Up => at.saturating_sub(1),
                    _ => (at + 1).min(names.len().saturating_sub(1)),
                };
                self.selected = names.get(next).cloned();
            }
        }
        false
    }

    fn index(&self, names: &[String]) -> usize {
        let selected = self.selected.as_ref();
        names
            .iter()
            .position(|name| Some(name) == selected)
            .unwrap_or(0)
    }

    fn sorted(&self) -> Vec<&Seen> {
        let mut all: Vec<&Seen> = self.boxes.values().collect();
        let by = |key: fn(&Seen) -> u64| move |a: &&Seen, b: &&Seen| key(b).cmp(&key(a));
        // Stable: those that are equal stay in the order of their names.
        match self.order {
            Order::Cpu => all.sort_by(by(Seen::cpu)),
            Order::Memory => all.sort_by(by(|seen| seen.last.memory.unwrap_or(0))),
            Order::Io => all.sort_by(by(|seen| seen.read.saturating_add(seen.written))),
            Order::Tasks => all.sort_by(by(|seen| seen.last.tasks.unwrap_or(0))),
            Order::Pressure => all.sort_by(|a, b| b.pressure().total_cmp(&a.pressure())),
            Order::Name => {}
        }
        all
    }

    /// Draws all of it.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let all = self.sorted();
        let names: Vec<String> = all.iter().map(|seen| seen.last.name.clone()).collect();
        let selected = self.index(&names);
        let panel = match all.is_empty() || frame.area().height < 2 * PANEL {
            true => 0,
            false => PANEL,
        };
        let [head, table, graphs, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(panel),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head(&all)), head);
        if all.is_empty() {
            frame.render_widget(Paragraph::new("No box runs."), table);
        } else {
            self.table(frame, table, &all, selected);
        }
        if panel > 0
            && let Some(seen) = all.get(selected)
        {
            self.panel(frame, graphs, seen);
        }
        let keys = format!(
            "q leave   ↑↓ choose   order: c CPU  m memory  i IO  t tasks  p pressure  n name   (now {})",
            self.order.word()
        );
        frame.render_widget(
            Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)),
            foot,
        );
    }

    fn style(&self, color: Color) -> Style {
        match self.color {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    fn head(&self, all: &[&Seen]) -> Line<'static> {
        let boxes = if all.len() == 1 { "box" } else { "boxes" };
        let cpu: u64 = all.iter().map(|seen| seen.cpu()).sum();
        let memory: u64 = all.iter().filter_map(|seen| seen.last.memory).sum();
        let tasks: u64 = all.iter().filter_map(|seen| seen.last.tasks).sum();
        Line::from(vec![
            Span::styled("boxctl top", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!(
                "   {} {boxes}   CPU {}   memory {}   tasks {tasks}",
                all.len(),
                percent(cpu),
                text::size(memory)
            )),
        ])
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect, all: &[&Seen], selected: usize) {
        let headings = [
            "NAME",
            "CPU",
            "",
            "MEMORY",
            "LIMIT",
            "TASKS",
            "READ/s",
            "WRITE/s",
            "WAITS CPU",
            "MEM",
            "IO",
        ];
        // Numbers stand on the right, so their headings do.
        let right = |text: &str, width: usize| format!("{text:>width$}");
        let widths = [14, 7, GRAPH, 8, 6, 6, 8, 8, 9, 6, 6];
        // What is left out first where there is no room: the graph, then the limit.
        let mut shown = [true; 11];
        for column in [2, 4] {
            let there = widths.iter().zip(&shown).filter(|(_, shown)| **shown);
            let wide = there.map(|(width, _)| width + 1).sum::<usize>() - 1;
            shown[column] = wide <= usize::from(area.width);
        }
        let head = headings.iter().zip(widths).map(|(heading, width)| {
            Cell::from(match *heading {
                "NAME" | "" => (*heading).to_owned(),
                heading => right(heading, width),
            })
        });
        let head = head
            .zip(shown)
            .filter_map(|(cell, shown)| shown.then_some(cell));
        let visible = usize::from(area.height.saturating_sub(1)).max(1);
        let first = (selected + 1).saturating_sub(visible);
        let rows = all
            .iter()
            .enumerate()
            .skip(first)
            .take(visible)
            .map(|(index, seen)| {
                let last = &seen.last;
                let number = |number: Option<u64>, show: fn(u64) -> String, width: usize| {
                    Cell::from(right(&number.map_or_else(|| "-".to_owned(), show), width))
                };
                let share =
                    |stall: Option<crate::cgroup::pressure::Stall>, width: usize| match stall {
                        None => Cell::from(right("-", width)),
                        Some(stall) => {
                            let share = stall.some.avg10;
                            let cell = Cell::from(right(&format!("{share:.1}%"), width));
                            match share >= MUCH {
                                true => cell.style(self.style(Color::Yellow)),
                                false => cell,
                            }
                        }
                    };
                let cells = [
                    Cell::from(harmless(&last.name)),
                    Cell::from(right(&percent(seen.cpu()), widths[1])),
                    Cell::from(graph(&seen.cpu)).style(self.style(Color::Green)),
                    number(last.memory, text::size, widths[3]),
                    number(last.limits.memory, text::size, widths[4]),
                    number(last.tasks, |tasks| tasks.to_string(), widths[5]),
                    number(last.io_read.map(|_| seen.read), text::size, widths[6]),
                    number(last.io_written.map(|_| seen.written), text::size, widths[7]),
                    share(last.pressure.cpu, widths[8]),
                    share(last.pressure.memory, widths[9]),
                    share(last.pressure.io, widths[10]),
                ];
                let cells = cells.into_iter().zip(shown);
                let row = Row::new(cells.filter_map(|(cell, shown)| shown.then_some(cell)));
                match index == selected {
                    true => row.style(Style::new().add_modifier(Modifier::REVERSED)),
                    false => row,
                }
            });
        let columns = widths
            .into_iter()
            .zip(shown)
            .filter(|(_, shown)| *shown)
            .map(|(width, _)| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)));
        let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD));
        frame.render_widget(
            Table::new(rows, columns).header(head).column_spacing(1),
            area,
        );
    }

    /// The graphs of the box that is chosen.
    fn panel(&self, frame: &mut Frame<'_>, area: Rect, seen: &Seen) {
        let [left, right] =
            Layout::horizontal([Constraint::Ratio(1, 2), Constraint::Ratio(1, 2)]).areas(area);
        let name = harmless(&seen.last.name);
        let cpu = format!(" {name}: CPU {} ", percent(seen.cpu()));
        let memory = format!(
            " {name}: memory {}{} ",
            text::size(seen.last.memory.unwrap_or(0)),
            seen.last
                .limits
                .memory
                .map_or(String::new(), |limit| format!(" of {}", text::size(limit)))
        );
        let limit = seen.last.limits.memory;
        // What hardly does anything has low bars.
        let busy = seen.cpu.iter().max().copied().unwrap_or(0).max(1000);
        for (area, title, history, most, color) in [
            (left, cpu, &seen.cpu, Some(busy), Color::Green),
            (right, memory, &seen.memory, limit, Color::Cyan),
        ] {
            let block = Block::new().borders(Borders::ALL).title(title);
            let columns = usize::from(block.inner(area).width);
            let shown: Vec<u64> = history
                .iter()
                .skip(history.len().saturating_sub(columns))
                .copied()
                .collect();
            let mut graph = Sparkline::default()
                .block(block)
                .data(shown)
                .style(self.style(color));
            if let Some(most) = most {
                graph = graph.max(most);
            }
            frame.render_widget(graph, area);
        }
    }
}

fn remember(history: &mut VecDeque<u64>, value: u64) {
    history.push_back(value);
    if history.len() > REMEMBERED {
        history.pop_front();
    }
}

/// `12.3%` of hundredths of a percent.
fn percent(hundredths: u64) -> String {
    format!("{}.{}%", hundredths / 100, hundredths % 100 / 10)
}

/// The last values as bars, the highest of them full; at least a hundredth of a processor, so that rest is flat.
fn graph(history: &VecDeque<u64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const FLAT: u64 = 100;
    let shown = history.iter().skip(history.len().saturating_sub(GRAPH));
    let most = shown.clone().max().copied().unwrap_or(0).max(FLAT);
    let bar = |value: &u64| {
        let level = u128::from(*value) * 7 / u128::from(most);
        BARS[usize::try_from(level).unwrap_or(7).min(7)]
    };
    let bars: String = shown.map(bar).collect();
    format!("{bars:>GRAPH$}")
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cgroup::pressure::{Pressure, Share, Stall};
    use crate::cli::golden;
    use crate::status::{Limits, VERSION};

    fn usage(second: u64) -> Usage {
        let waits = |avg10| {
            Some(Stall {
                some: Share {
                    avg10,
                    ..Share::default()
                },
                full: None,
            })
        };
        let web = Stats {
            name: "web".to_owned(),
            started: 7,
            cpu: Some(second * second * 10_000),
            memory: Some((second + 10) << 20),
            tasks: Some(3),
            io_read: Some(second * 4096),
            io_written: Some(0),
            pressure: Pressure {
                cpu: waits(0.5),
                memory: waits(25.0),
                io: None,
            },
            limits: Limits {
                memory: Some(64 << 20),
                ..Limits::default()
            },
            ..Stats::default()
        };
        let db = Stats {
            name: "db".to_owned(),
            started: 7,
            cpu: Some(second * 5_000),
            ..Stats::default()
        };
        Usage {
            version: VERSION,
            at: second * 1_000_000,
            boxes: vec![db, web],
        }
    }

    fn picture(screen: &Screen, columns: u16, rows: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal");
        terminal.draw(|frame| screen.draw(frame)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let mut text = String::new();
        for y in 0..rows {
            let line: String = (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    #[test]
    fn boxes_are_drawn_with_their_past() {
        let mut screen = Screen::new(true);
        assert!(picture(&screen, 80, 24).contains("No box runs."));
        for second in 1..=30 {
            screen.update(usage(second));
        }
        let mut pictures = picture(&screen, 110, 16);
        screen.press(Key::Down);
        screen.press(Key::Sort(Order::Name));
        pictures += &picture(&screen, 80, 24);
        golden::compare("top/snapshots/pictures", &pictures);
        // However small, nothing panics.
        for (columns, rows) in [(1, 1), (10, 3), (200, 60)] {
            picture(&screen, columns, rows);
        }
    }

    #[test]
    fn a_box_that_was_started_anew_begins_anew() {
        let mut screen = Screen::new(false);
        screen.update(usage(10));
        let mut next = usage(11);
        next.boxes[1].started = 8;
        next.boxes[1].cpu = Some(1);
        screen.update(next);
        assert_eq!(screen.boxes["web"].cpu.len(), 1);
        assert_eq!(screen.boxes["web"].cpu(), 0);
        assert_eq!(screen.boxes["db"].cpu(), 50);
        screen.update(Usage {
            boxes: Vec::new(),
            ..usage(12)
        });
        assert!(screen.boxes.is_empty());
    }

    #[test]
    fn keys_are_understood_and_others_are_not() {
        assert_eq!(
            understand(b"\x1b[A\x1bOBm"),
            [Key::Up, Key::Down, Key::Sort(Order::Memory)]
        );
        assert_eq!(understand(b"\x1b[15~q"), [Key::Quit]);
        assert_eq!(understand(b"\x1b"), [Key::Quit]);
        assert_eq!(understand(b"\x03"), [Key::Quit]);
        assert!(understand(b"\x1b[1;5").is_empty());
        assert!(understand("ä7 ".as_bytes()).is_empty());
        let mut screen = Screen::new(false);
        assert!(screen.press(Key::Quit));
        assert!(!screen.press(Key::Up), "without boxes");
    }
}
