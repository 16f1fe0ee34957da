//! How answers look on a terminal.

use serde_json::Value;
use shared::{Timestamp, terminal};

use crate::output::say;

/// A member that is text, on one line; nothing if it is not there.
pub(super) fn text(value: &Value, key: &str) -> String {
    terminal::safe(value[key].as_str().unwrap_or_default()).into_owned()
}

/// A dash in place of nothing.
pub(super) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Rows under a heading, each column as wide as it needs.
pub(super) fn table(
    heading: &[&str],
    items: &[Value],
    row: impl Fn(&Value) -> Vec<String>,
) -> anyhow::Result<()> {
    let mut rows = vec![heading.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    rows.extend(items.iter().map(row));
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    say!("{}", rows.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// A moment, from Unix milliseconds; a dash in place of none.
pub(super) fn moment(value: &Value) -> String {
    value.as_i64().map_or_else(
        || "-".to_owned(),
        |at| {
            let text = Timestamp(at).to_string();
            // Nobody reads the milliseconds; the audit log has them.
            text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
        },
    )
}

/// Texts of a list, one after the other.
pub(super) fn list(value: &Value) -> String {
    let items = value.as_array().map(|items| items.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    or_dash(terminal::safe(&items.unwrap_or_default().join(", ")).into_owned())
}
