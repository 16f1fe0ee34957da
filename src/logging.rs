//! Logs: readable on a terminal, JSON otherwise; always on stderr. They have no secrets (HTTP-12): messages
//! come from our own code, which knows its data; libraries, which do not, are logged only from warnings on.

mod fields;

use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::environment;
use crate::output::{Format, Log};

/// Our own crates. Other crates' frames and headers are never logged, whatever `PORTCULLIS_LOG` says.
const OURS: [&str; 5] = ["portcullis", "authz", "resource", "keys", "shared"];

/// Starts logging. `PORTCULLIS_LOG` filters, as `info` or `authz=debug,info`.
pub(crate) fn start() {
    let wanted = environment::variable("PORTCULLIS_LOG").and_then(|filter| filter.into_string().ok());
    let wanted = wanted.and_then(|filter| EnvFilter::try_new(filter).ok());
    let wanted = wanted.unwrap_or_else(|| EnvFilter::new("info"));
    let format = if std::io::stderr().is_terminal() { Format::Text } else { Format::Json };
    let lines = lines(format, std::io::stderr);
    // A second call, as in tests, changes nothing.
    if Registry::default().with(lines).with(wanted).with(filter_fn(is_admitted)).try_init().is_ok() {
        std::panic::set_hook(Box::new(panicked));
    }
}

/// Writes events as lines. Paths, names and error details have other parties' text, which must neither control
/// a terminal nor look like another line. So each line is escaped after it was assembled (AUDIT-05).
fn lines<S, W, T>(format: Format, to: T) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: Write + 'static,
    T: Fn() -> W + Send + Sync + 'static,
{
    // Without colours: their escape sequences could not be distinguished from a stranger's.
    let lines = fmt::layer().with_ansi(false).with_writer(move || Log { format, to: to() });
    match format {
        Format::Text => Box::new(lines.with_target(false)),
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
            Box::new(lines.fmt_fields(fields::Fields))
        }
    }
}

/// Whether an event may be logged at all, whatever the filter.
fn is_admitted(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::WARN || OURS.contains(&crate_name)
}

/// Logs a panic in the span of its request (HTTP-10). A literal message is logged; a formatted one may have
/// data of the request, so only its place is.
pub(crate) fn panicked(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let words = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("not shown here");
    let thread = std::thread::current();
    tracing::error!(
        panic.at = place,
        panic.words = words,
        panic.thread = thread.name().unwrap_or_default(),
        "a panic; the request was answered with an error"
    );
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The log.
    #[derive(Clone, Default)]
    pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

    impl CapturedLog {
        /// What logs here, at every level.
        pub(crate) fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
            self.in_format(Format::Json)
        }

        fn in_format(&self, format: Format) -> impl Subscriber + Send + Sync + 'static {
            let log = self.clone();
            let lines = lines(format, move || log.clone());
            Registry::default().with(lines).with(EnvFilter::new("trace")).with(filter_fn(is_admitted))
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for CapturedLog {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// HTTP-12: libraries are not logged below a warning, whatever the filter.
    #[test]
    fn libraries_only_warn() {
        let log = CapturedLog::default();
        tracing::subscriber::with_default(log.subscriber(), || {
            tracing::trace!(target: "h2::codec", "headers");
            tracing::info!(target: "rmcp::service", "arguments");
            tracing::debug!(target: "authzed", "a stranger's crate");
            tracing::warn!(target: "h2::codec", "trouble");
            tracing::trace!(target: "authz::token", "own words");
        });
        let said = log.text();
        assert!(said.contains("trouble") && said.contains("own words"), "{said}");
        for silent in ["headers", "arguments", "stranger"] {
            assert!(!said.contains(silent), "{said}");
        }
    }

    /// AUDIT-05, HTTP-12: a stranger's text stays on its line and does not control a terminal.
    #[test]
    fn untrusted_text_cannot_forge_log_lines() {
        let is_dangerous = |c: &char| {
            let (c0, c1) = (*c < ' ' || *c == '\u{7f}', ('\u{80}'..='\u{9f}').contains(c));
            let bidirectional = matches!(*c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let unseen = matches!(*c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{feff}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}');
            c0 || c1 || bidirectional || unseen || matches!(*c, '\u{2028}' | '\u{2029}')
        };
        let all = (0..=0x10_ffff).filter_map(char::from_u32);
        let text: String = all.filter(is_dangerous).flat_map(|c| ['x', c]).collect();
        let error = io::Error::other(text.clone());
        for format in [Format::Text, Format::Json] {
            let log = CapturedLog::default();
            tracing::subscriber::with_default(log.in_format(format), || {
                let span =
                    tracing::error_span!(target: "portcullis", "http", http.path = %text, http.other = ?text);
                let _entered = span.enter();
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::info!(target: "portcullis", plain = text, shown = %text, debugged = ?text, "{}", text);
                tracing::warn!(target: "h2::codec", error = error, "said by a library: {}", text);
            });
            let said = log.text();
            assert_eq!(said.lines().count(), 2, "{format:?}");
            for line in said.lines() {
                assert_eq!(line.chars().find(is_dangerous), None, "{format:?}");
                if format == Format::Json {
                    let event: serde_json::Value = serde_json::from_str(line).unwrap();
                    assert_eq!(event["span"]["http.path"], text);
                }
            }
        }
    }
}
