//! Golden pictures of what is printed. With `BOXD_BLESS=1` they are written instead of compared.

use std::path::Path;

/// Compares with a file below `src/cli`.
#[track_caller]
pub fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli")
        .join(name);
    if std::env::var_os("BOXD_BLESS").is_some() {
        std::fs::write(&path, text).expect("a snapshot can be written");
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        expected == text,
        "{} differs; BOXD_BLESS=1 writes it anew\n--- is\n{text}",
        path.display()
    );
}
