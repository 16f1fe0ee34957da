//! Logs: readable on a terminal, JSON otherwise; always on stderr. No secret gets there (HTTP-12): what is said is said
//! by our own code, which knows what it holds; libraries, which do not, are heard only when they warn.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::environment;
use crate::output::Log;

/// Our own crates. Whatever `PORTCULLIS_LOG` asks of others, frames and headers with all that they hold say, is not said.
const OURS: [&str; 5] = ["portcullis", "authz", "resource", "keys", "shared"];

/// Starts logging. `PORTCULLIS_LOG` filters, as `info` or `authz=debug,info`.
pub(crate) fn start() {
    let wanted = environment::variable("PORTCULLIS_LOG").and_then(|filter| filter.into_string().ok());
    let wanted = wanted.and_then(|filter| EnvFilter::try_new(filter).ok());
    let wanted = wanted.unwrap_or_else(|| EnvFilter::new("info"));
    let lines = fmt::layer().with_writer(Log::default);
    let lines: Box<dyn Layer<_> + Send + Sync> = if std::io::stderr().is_terminal() {
        Box::new(lines.with_target(false))
    } else {
        Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false))
    };
    // A second call, as in tests, leaves the first one's choice in place.
    if Registry::default().with(lines).with(wanted).with(filter_fn(is_admitted)).try_init().is_ok() {
        std::panic::set_hook(Box::new(panicked));
    }
}

/// Whether this may be said at all, whatever is wanted.
fn is_admitted(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::WARN || OURS.contains(&crate_name)
}

/// Logs a panic, in the span of the request that it ended (HTTP-10). Its words are told if they stand in the source; if
/// they were put together, they may hold anything of the request, and where it happened must do.
pub(crate) fn panicked(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let words = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("not told here");
    let thread = std::thread::current();
    tracing::error!(
        panic.at = place,
        panic.words = words,
        panic.thread = thread.name().unwrap_or_default(),
        "a panic; what it was about is answered with an error"
    );
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::Subscriber;

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        /// What logs here, at every level.
        pub(crate) fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
            let log = self.clone();
            let lines = fmt::layer().json().flatten_event(true).with_writer(move || log.clone());
            Registry::default().with(lines).with(EnvFilter::new("trace")).with(filter_fn(is_admitted))
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// HTTP-12: libraries are not heard below a warning, however much is asked for.
    #[test]
    fn libraries_only_warn() {
        let log = Log::default();
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
}
