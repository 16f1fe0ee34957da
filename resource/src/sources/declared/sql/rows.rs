//! The rows of a result, within bounds (SQL-02).

use serde_json::{Value, json};

use crate::sources::declared::cut::cut;

/// The largest integer that every JSON reader holds exactly.
const EXACT: u64 = (1 << 53) - 1;

/// How much comes back at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// Rows, as far as they were read.
#[derive(Debug)]
pub(super) struct Rows {
    columns: Vec<String>,
    taken: Vec<Value>,
    bytes: usize,
    truncated: bool,
    caps: Caps,
}

impl Rows {
    pub(super) fn new(columns: Vec<String>, caps: Caps) -> Self {
        Self { columns, taken: Vec::new(), bytes: 0, truncated: false, caps }
    }

    /// Takes a row; false if it was one too many, and no more are wanted.
    pub(super) fn push(&mut self, row: Vec<Value>) -> bool {
        let row = Value::Array(row);
        let size = row.to_string().len() + 1;
        if self.taken.len() < self.caps.rows && self.bytes + size <= self.caps.bytes {
            self.bytes += size;
            self.taken.push(row);
            return true;
        }
        self.truncated = true;
        if self.taken.is_empty() && self.caps.rows > 0 {
            // Of a first row that is too large, what fits.
            self.taken.push(cut(row, self.caps.bytes).0);
        }
        false
    }

    pub(super) fn into_data(self) -> Value {
        json!({ "columns": self.columns, "rows": self.taken, "truncated": self.truncated })
    }
}

/// The schema of every result.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "columns": { "type": "array", "items": { "type": "string" }, "description": "The names of the columns." },
            "rows": {
                "type": "array",
                "items": { "type": ["array", "null"] },
                "description": "The rows, each with the values in the order of the columns. Numbers that JSON cannot hold exactly are strings.",
            },
            "truncated": { "type": "boolean", "description": "Whether there are more rows, or parts were left out." },
        },
        "required": ["columns", "rows", "truncated"],
        "additionalProperties": false,
    })
}

/// An integer: a string if JSON readers would round it.
pub(super) fn integer(number: i64) -> Value {
    if number.unsigned_abs() <= EXACT { number.into() } else { number.to_string().into() }
}

/// A number with a fraction: a string if JSON has none such.
pub(super) fn real(number: f64) -> Value {
    serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
}

/// Bytes, in base64.
pub(super) fn bytes(bytes: &[u8]) -> Value {
    data_encoding::BASE64.encode(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQL-02: a number that JSON cannot hold exactly is a string.
    #[test]
    fn numbers_are_exact_or_strings() {
        assert_eq!(integer(9_007_199_254_740_991), json!(9_007_199_254_740_991_i64));
        assert_eq!(integer(9_007_199_254_740_992), json!("9007199254740992"));
        assert_eq!(integer(i64::MIN), json!("-9223372036854775808"));
        assert_eq!(
            (real(1.5), real(f64::NAN), real(f64::INFINITY)),
            (json!(1.5), json!("NaN"), json!("inf"))
        );
        assert_eq!(bytes(&[0, 255]), json!("AP8="));
    }

    /// SQL-02: rows and bytes are bounded, and that is said.
    #[test]
    fn rows_are_bounded() {
        let caps = Caps { rows: 3, bytes: 100 };
        let mut rows = Rows::new(vec!["a".to_owned()], caps);
        assert!((0..3).all(|at| rows.push(vec![json!(at)])) && !rows.push(vec![json!(3)]));
        let data = rows.into_data();
        assert_eq!(data, json!({ "columns": ["a"], "rows": [[0], [1], [2]], "truncated": true }));
        let mut rows = Rows::new(vec!["a".to_owned()], caps);
        assert!(!rows.push(vec![json!("x".repeat(10_000))]));
        let data = rows.into_data();
        assert!(data["truncated"] == true && data.to_string().len() < 300, "{data}");
    }
}
