//! Shortens what is too large for a model: arrays, texts, and in the end everything.

use serde_json::Value;

/// From the largest to the smallest: elements of an array or object, characters of a text.
const STEPS: [(usize, usize); 6] = [(1000, 50_000), (200, 10_000), (50, 2000), (20, 500), (5, 200), (2, 80)];

/// A value whose JSON has at most this many bytes, and whether something was left out. The work is a constant times the size.
pub(crate) fn cut(value: Value, most: usize) -> (Value, bool) {
    if size(&value) <= most {
        return (value, false);
    }
    for (elements, characters) in STEPS {
        let shorter = shortened(&value, elements, characters);
        if size(&shorter) <= most {
            return (shorter, true);
        }
    }
    (Value::Null, true)
}

fn size(value: &Value) -> usize {
    value.to_string().len()
}

fn shortened(value: &Value, elements: usize, characters: usize) -> Value {
    match value {
        Value::Array(all) => {
            all.iter().take(elements).map(|value| shortened(value, elements, characters)).collect()
        }
        Value::Object(all) => {
            let all = all.iter().take(elements);
            all.map(|(name, value)| (name.clone(), shortened(value, elements, characters))).collect()
        }
        Value::String(text) if text.len() > characters => {
            text.chars().take(characters).chain(['…']).collect::<String>().into()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// REST-01, SQL-02: what is too large is shortened until it fits, and that is said.
    #[test]
    fn a_large_value_is_cut_until_it_fits() {
        let small = json!({ "a": [1, 2, 3] });
        assert_eq!(cut(small.clone(), 100), (small, false));
        let rows: Vec<_> = (0..5000).map(|at| json!({ "at": at, "text": "é".repeat(300) })).collect();
        for most in [1 << 20, 100_000, 10_000, 2000, 100] {
            let (shorter, truncated) = cut(json!(rows), most);
            assert!(truncated && shorter.to_string().len() <= most, "{most}");
        }
        assert_eq!(cut(json!("x".repeat(9)), 3), (Value::Null, true));
    }
}
