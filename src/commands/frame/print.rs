//! Formatting of answers for a terminal.

use std::fmt::Display;

use shared::{Timestamp, terminal};

use crate::output::say;

/// Text on one line, without characters that a terminal would act on.
pub(crate) fn safe(text: &str) -> String {
    terminal::safe(text).into_owned()
}

/// A dash instead of empty text.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Optional text.
pub(crate) fn optional(text: Option<&str>) -> String {
    or_dash(safe(text.unwrap_or_default()))
}

/// Rows under a heading, with columns as wide as needed.
pub(crate) fn table<T>(heading: &[&str], items: &[T], row: impl Fn(&T) -> Vec<String>) -> anyhow::Result<()> {
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

/// No name makes a column of a table wider, because strangers choose some of them. `show` and `--json` have all of it.
const WIDEST: usize = 48;

/// The beginning of a name that a stranger may have chosen.
pub(crate) fn short(name: &str) -> String {
    match name.char_indices().nth(WIDEST) {
        None => safe(name),
        Some(_) => safe(&name.chars().take(WIDEST - 1).chain(['…']).collect::<String>()),
    }
}

/// A time, from Unix milliseconds.
pub(crate) fn moment(at: i64) -> String {
    let text = Timestamp(at).to_string();
    // Milliseconds are omitted; the audit log has them.
    text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// An optional time.
pub(crate) fn moment_if(at: Option<i64>) -> String {
    at.map_or_else(|| "-".to_owned(), moment)
}

/// The texts of a list.
pub(crate) fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    or_dash(safe(&items.join(", ")))
}

/// When something ends.
pub(crate) fn ends(at: Option<i64>) -> String {
    at.map_or_else(|| "does not end".to_owned(), |at| format!("ends {}", moment(at)))
}
