//! `boxctl security`: how far a box is open, beside the defaults of others.

use std::process::ExitCode;

use super::definitions;
use super::table::{self, Cell, Side};
use super::terminal::{Look, Paint, harmless, say};
use super::{Error, names};
use crate::plan::assessment::{Assessment, Wall, assess};
use crate::running;

/// Judges a box as it runs, or as it would be started.
pub fn security(source: &str, json: bool, look: Look) -> Result<ExitCode, Error> {
    let running = match names::source(source)? {
        names::Source::Name(name) => running::find(&name)?,
        names::Source::File(_) => None,
    };
    let (plan, runs) = match running {
        Some(running) => (running.plan, true),
        None => (definitions::planned(&definitions::read(source)?)?, false),
    };
    let assessment = assess(&plan);
    say(&if json {
        format!("{}\n", serde_json::to_string_pretty(&assessment)?)
    } else {
        page(&assessment, runs, look)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn page(assessment: &Assessment, runs: bool, look: Look) -> String {
    let paint = match assessment.score {
        0..=30 => Paint::Good,
        31..=60 => Paint::Warning,
        _ => Paint::Bad,
    };
    let mut text = format!(
        "box {}, {}: {} of 100 points open\n\n",
        assessment.name,
        if runs {
            "as it runs"
        } else {
            "as it would start"
        },
        look.paint(paint, &assessment.score.to_string())
    );
    let mut headings = vec![("WALL", Side::Left), ("OPEN", Side::Right)];
    headings.extend(assessment.peers.iter().map(|peer| (peer.name, Side::Right)));
    headings.extend([("MOST", Side::Right), ("THIS BOX", Side::Left)]);
    let row = |wall: &Wall| {
        let mut cells = vec![
            Cell::new(Some(wall.what.to_owned())),
            Cell::painted(
                &wall.points.to_string(),
                (wall.points == 0).then_some(Paint::Good),
            ),
        ];
        cells.extend(
            wall.peers
                .iter()
                .map(|points| Cell::new(Some(points.to_string()))),
        );
        cells.push(Cell::new(Some(wall.of.to_string())));
        cells.push(Cell::new(Some(harmless(&wall.state))));
        cells
    };
    let mut rows: Vec<Vec<Cell>> = assessment.walls.iter().map(row).collect();
    let mut sum = vec![
        Cell::new(Some("together".to_owned())),
        Cell::painted(&assessment.score.to_string(), Some(paint)),
    ];
    sum.extend(
        assessment
            .peers
            .iter()
            .map(|peer| Cell::new(Some(peer.score.to_string()))),
    );
    sum.extend([
        Cell::new(Some("100".to_owned())),
        Cell::new(Some("less is more closed".to_owned())),
    ]);
    rows.push(sum);
    text += &table::render(&headings, &rows, look);
    text += "\nThe others are as they are by default, a security module of the host's included where they bring a \
             profile for one.\n";
    if !assessment.relaxations.is_empty() {
        text += &format!("\n{}\n", look.paint(Paint::Strong, "Beyond its profile"));
        for one in &assessment.relaxations {
            text += &format!(
                "  {} {}\n      {}\n",
                one.key,
                harmless(&one.value),
                one.opens
            );
        }
    }
    if !assessment.remarks.is_empty() {
        text += &format!("\n{}\n", look.paint(Paint::Strong, "Remarks"));
        for remark in &assessment.remarks {
            text += &format!("  {}\n", harmless(remark));
        }
    }
    text
}
