//! The fields of a span as one JSON object; later fields are appended. tracing-subscriber's own format parses and
//! rewrites the object for each added field, twice in every request.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};

/// Writes the fields. A changed field appears twice; JSON parsers take the last, which is the newest.
#[derive(Debug)]
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        writer.write_char('{')?;
        let mut members = Members { writer: &mut writer, is_first: true, written: Ok(()) };
        fields.record(&mut members);
        members.written?;
        writer.write_char('}')
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let text = &mut current.fields;
        if text.pop().is_none() {
            text.push('{');
        }
        let is_first = text.len() == 1;
        let mut members = Members { writer: text, is_first, written: Ok(()) };
        fields.record(&mut members);
        members.written?;
        text.push('}');
        Ok(())
    }
}

struct Members<'w, W> {
    writer: &'w mut W,
    is_first: bool,
    written: fmt::Result,
}

impl<W: Write> Members<'_, W> {
    fn member(&mut self, field: &Field, write: impl FnOnce(&mut W) -> fmt::Result) {
        let comma = if std::mem::take(&mut self.is_first) { "" } else { "," };
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.written = self
            .written
            .and_then(|()| self.writer.write_str(comma))
            .and_then(|()| string(self.writer, name))
            .and_then(|()| self.writer.write_char(':'))
            .and_then(|()| write(self.writer));
    }
}

impl<W: Write> Visit for Members<'_, W> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |writer| string(writer, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.member(field, |writer| {
            writer.write_char('"')?;
            write!(Escaped(writer), "{value:?}")?;
            writer.write_char('"')
        });
    }
}

/// A text as a JSON string.
fn string(writer: &mut impl Write, text: &str) -> fmt::Result {
    writer.write_char('"')?;
    Escaped(writer).write_str(text)?;
    writer.write_char('"')
}

/// Writes text as part of a JSON string.
struct Escaped<'w, W>(&'w mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\') {
            return self.0.write_str(text);
        }
        let quoted = serde_json::to_string(text).map_err(|_| fmt::Error)?;
        self.0.write_str(quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::logging::tests::CapturedLog;

    /// HTTP-12: each line has all fields of its span, also fields that were added later and values that JSON
    /// escapes.
    #[test]
    fn a_line_has_all_fields_of_its_span() {
        let log = CapturedLog::default();
        tracing::subscriber::with_default(log.subscriber(), || {
            let span = tracing::error_span!(
                target: "portcullis", "http",
                text = "a\"b\\c\u{1}d\u{e9}", shown = %"/x", number = -7, count = 7_u64, yes = true,
                later = tracing::field::Empty, last = tracing::field::Empty
            );
            span.in_scope(|| tracing::info!(target: "portcullis", "before"));
            span.record("later", "\u{2028}").record("last", 1.5).record("shown", "/y");
            span.in_scope(|| tracing::info!(target: "portcullis", "after"));
            let bare = tracing::error_span!(target: "portcullis", "bare", later = tracing::field::Empty);
            bare.record("later", 1);
            bare.in_scope(|| tracing::info!(target: "portcullis", "bare"));
        });
        let said = log.text();
        let spans: Vec<Value> =
            said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["span"].take()).collect();
        let mut expected = json!({
            "name": "http", "text": "a\"b\\c\u{1}dé", "shown": "/x", "number": -7, "count": 7, "yes": true,
        });
        assert_eq!(spans[0], expected);
        for (name, value) in [("later", json!("\u{2028}")), ("last", json!("1.5")), ("shown", json!("/y"))] {
            expected[name] = value;
        }
        assert_eq!(spans[1], expected);
        assert_eq!(spans[2], json!({ "name": "bare", "later": 1 }));
    }
}
