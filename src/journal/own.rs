//! What boxd's programs say of themselves: to the journal with the box's name, or to standard error.

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::name::Name;

/// Sends the messages of this process to the journal, each with the field `BOX_NAME` and as the box's unit, when it runs as a
/// service; to standard error when it does not, or when no journal listens.
pub fn init(program: &'static str, name: &Name) {
    init_with(
        program,
        &[
            ("BOX_NAME", name.as_str()),
            // journald looks the unit of a message up by its writer, which may have ended by then.
            ("OBJECT_SYSTEMD_UNIT", &name.unit()),
        ],
    );
}

/// The same for a program that is no box's.
pub fn init_for_all(program: &'static str) {
    init_with(program, &[]);
}

fn init_with(program: &'static str, fields: &[(&str, &str)]) {
    let to_journal = std::env::var_os("JOURNAL_STREAM")
        .and_then(|_| tracing_journald::layer().ok())
        .map(|layer| {
            layer
                .with_field_prefix(None)
                .with_syslog_identifier(program.to_owned())
                .with_custom_fields(fields.iter().copied())
                .boxed()
        });
    let layer = to_journal.unwrap_or_else(|| {
        tracing_subscriber::fmt::layer()
            .event_format(Line { program })
            .fmt_fields(DefaultFields::new())
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .boxed()
    });
    // A second call changes nothing: the first one counts.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

/// An error and its causes as one sentence.
pub fn chain(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // A transparent error repeats its source.
        if !sentence.ends_with(&text) {
            let _ = write!(sentence, ": {text}");
        }
        source = cause.source();
    }
    sentence
}

/// `boxd: warning: the message`.
struct Line {
    program: &'static str,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "{}: ", self.program)?;
        if *event.metadata().level() == Level::WARN {
            writer.write_str("warning: ")?;
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot mount /proc")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Inner(#[from] std::io::Error);

    #[test]
    fn a_chain_says_each_cause_once() {
        let error = Outer(Inner(std::io::Error::other("no room")));
        assert_eq!(chain(&error), "cannot mount /proc: no room");
    }
}
