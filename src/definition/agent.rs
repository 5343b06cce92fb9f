//! `/etc/boxd.toml`: how boxd itself behaves.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::diagnostics::{Diagnostics, Problem};
use super::layers::{LoadError, read};
use super::section::{Item, Problems, Section};
use super::tree;
use super::values::login_name;

/// Where they stand.
pub const SETTINGS: &str = "/etc/boxd.toml";

const ADDRESS: &str =
    "expected an address of this host alone and a port, as in \"127.0.0.1:9400\" or \"[::1]:9400\"";

const GROUP: &str = "expected the name of a group of this host, as in \"prometheus\"";

/// What may be set, with the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// What follows a change of a definition.
    pub apply: Apply,
    /// Who is told what boxes use.
    pub metrics: Metrics,
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Where they are served beside the socket: to everybody on this host, and nobody else.
    pub address: Option<SocketAddr>,
    /// Whose members may connect to the socket beside root.
    pub group: Option<String>,
}

/// `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Apply {
    /// It is applied at once.
    #[default]
    Auto,
    /// It is said what would be done, and somebody says `boxctl apply`.
    Plan,
}

/// The settings of this host. A file that is not there or empty leaves all as it is by default.
///
/// # Errors
///
/// The file cannot be read, or has problems.
pub fn settings() -> Result<Settings, LoadError> {
    settings_in(Path::new(SETTINGS))
}

fn settings_in(path: &Path) -> Result<Settings, LoadError> {
    let source = match read(path) {
        Ok(Some(source)) => source,
        Ok(None) => return Ok(Settings::default()),
        Err(LoadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Settings::default());
        }
        Err(error) => return Err(error),
    };
    let parsed = tree::parse(0, &source.text);
    let problems = Problems::default();
    let mut whole = Section::whole(parsed.table, &problems);
    let settings = Settings {
        apply: whole
            .read("apply", |item| {
                item.choice(&[("auto", Apply::Auto), ("plan", Apply::Plan)])
            })
            .unwrap_or_default(),
        metrics: metrics(whole.section("metrics", "[metrics]")),
    };
    whole.finish();
    let problems: Vec<Problem> = parsed
        .problems
        .into_iter()
        .chain(problems.into_inner())
        .collect();
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(Diagnostics::new(vec![source], problems).into())
    }
}

fn metrics(mut section: Section<'_>) -> Metrics {
    let metrics = Metrics {
        address: section.read("address", address),
        group: section.read("group", |item| {
            item.parsed(GROUP, |text| login_name(text, GROUP))
        }),
    };
    section.finish();
    metrics
}

/// An address that no other host reaches: what is served there has neither a password nor encryption.
fn address(item: Item<'_>) -> Option<SocketAddr> {
    item.parsed(ADDRESS, |text| {
        let address: SocketAddr = text.parse().map_err(|_| ADDRESS)?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{ADDRESS}: metrics for other hosts go through a proxy, which asks who they are and encrypts"
            ));
        }
        match address.port() {
            0 => Err("expected a port from 1 to 65535".to_owned()),
            _ => Ok(address),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("boxd.toml");
        std::fs::write(&path, text).expect("written");
        settings_in(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_few_and_checked() {
        let none = settings_in(Path::new("/nonexistent/boxd.toml")).expect("the defaults");
        assert_eq!(none.apply, Apply::Auto);
        assert_eq!(of("").expect("the defaults"), none);
        assert_eq!(of("apply = 'plan'").expect("read").apply, Apply::Plan);
        let said = of("apply = 'later'\naply = 'auto'\n").expect_err("two problems");
        assert!(said.contains("boxd.toml:1:9"), "{said}");
        assert!(said.contains("`aply`"), "{said}");
    }

    #[test]
    fn metrics_are_for_this_host_alone() {
        let of = |text: &str| of(&format!("[metrics]\n{text}\n"));
        let set = of("address = '[::1]:9400'\ngroup = 'prometheus'").expect("read");
        assert_eq!(
            set.metrics.address,
            Some(([0, 0, 0, 0, 0, 0, 0, 1], 9400).into())
        );
        assert_eq!(set.metrics.group.as_deref(), Some("prometheus"));
        assert_eq!(of("").expect("read"), Settings::default());
        for (text, words) in [
            ("address = '0.0.0.0:9400'", "through a proxy"),
            ("address = '[::ffff:127.0.0.1]:9400'", "through a proxy"),
            ("address = '192.0.2.1:9400'", "through a proxy"),
            ("address = '127.0.0.1:0'", "a port from 1 to 65535"),
            ("address = 'localhost:9400'", "as in \"127.0.0.1:9400\""),
            ("address = 9400", "`metrics.address` is an integer"),
            ("group = 'a:b'", "a group of this host"),
            ("adress = '127.0.0.1:9400'", "did you mean `address`?"),
        ] {
            let said = of(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
            assert!(said.contains("boxd.toml:2:"), "{text}: {said}");
        }
    }
}
