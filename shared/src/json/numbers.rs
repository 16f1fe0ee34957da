//! Whether numbers stay what they are when they are read and written again. Integers are read as 64 bits and all others in
//! double precision, and what is passed on must be what was decided about (MCP-07).

use serde_json::Value;

/// The first number of a JSON text that would be written again as another one.
pub(super) fn first_changed(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = after_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let more = bytes[at..]
                    .iter()
                    .take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
                let number = &text[at..at + more.count()];
                if !survives(number) {
                    return Some(number);
                }
                at += number.len();
            }
            _ => at += 1,
        }
    }
    None
}

/// The place after the string that goes on here.
fn after_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// No double has more significant digits.
const MOST_DIGITS: usize = 767;

fn survives(number: &str) -> bool {
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return true;
    }
    let Some(read) = number.parse::<f64>().ok().filter(|read| read.is_finite()) else { return false };
    let written = Decimal::of(number);
    if written.digits.is_empty() {
        return true;
    }
    if written == Decimal::of(&Value::from(read).to_string()) {
        return true;
    }
    // Each digit of a large integer matters to its sender. A double may be written with as many digits as somebody
    // likes, if they are its own.
    let is_integer = number.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let count = written.digits.len();
    !is_integer
        && count <= MOST_DIGITS
        && (written == Decimal::of(&format!("{read:.*e}", count - 1)) || is_rounded_up(read, &written))
}

/// Whether a double that lies halfway between two decimals of this length was written as the one farther from zero.
fn is_rounded_up(read: f64, written: &Decimal) -> bool {
    let exact = Decimal::of(&format!("{read:.*e}", MOST_DIGITS - 1));
    let Some(below) = exact.digits.strip_suffix('5') else { return false };
    let above = below.parse::<u64>().ok().and_then(|below| below.checked_add(1));
    exact.negative == written.negative
        && exact.exponent.checked_add(1) == Some(written.exponent)
        && above.is_some_and(|above| above.to_string() == written.digits)
}

/// A number without what may be written in several ways: `digits` times ten to the power of `exponent`.
#[derive(PartialEq, Eq, Debug)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(number: &str) -> Self {
        let (negative, number) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number),
        };
        let (mantissa, power) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, fraction].concat();
        let significant = digits.trim_end_matches('0');
        let zeros = digits.len() - significant.len();
        let significant = significant.trim_start_matches('0').to_owned();
        if significant.is_empty() {
            return Self { negative, digits: significant, exponent: 0 };
        }
        let length = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let power: i64 = power.parse().unwrap_or(i64::MAX);
        let exponent = power.saturating_sub(length(fraction.len())).saturating_add(length(zeros));
        Self { negative, digits: significant, exponent }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// MCP-07: numbers that 64 bits or double precision hold exactly enough to be written again, in every way to write them.
    #[test]
    fn numbers_without_loss_are_accepted() {
        for good in [
            "0",
            "-0",
            "7",
            "-7",
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "0.1",
            "1.50",
            "1e3",
            "1.0E+3",
            "1e22",
            "-2.5e-7",
            "0.30000000000000004",
            "1e0000000000000000000000001",
            "0e99",
            "0.000",
            "5e-324",
            "1.7976931348623157e308",
            "100000000000000000000",
            "0.10000000000000001",
            "-142236972034056.12",
            "-142236972034056.13",
            "0.10000000000000000555",
        ] {
            assert!(survives(good), "{good}");
        }
        for bad in [
            "18446744073709551616",
            "-9223372036854775809",
            "12345678901234567890123",
            "3.00000000000000000000001",
            "0.99999999999999999999",
            "1e400",
            "-1e400",
            "1e-400",
            "0.1000000000000000055",
            "9007199254740993.0",
            "1e99999999999999999999",
        ] {
            assert!(!survives(bad), "{bad}");
        }
    }

    /// MCP-07: numbers are found wherever they are, and nothing in a string is one.
    #[test]
    fn numbers_are_found_in_a_text() {
        let text = r#"{"a\"1e400":"18446744073709551616\\","b":[1,{"c":18446744073709551616}]}"#;
        assert_eq!(first_changed(text), Some("18446744073709551616"));
        assert_eq!(first_changed(r#"{"1e400":"\\\"3.00000000000000000000001","b":[1,2.5,"x"]}"#), None);
    }

    proptest! {
        /// MCP-07: what survives is written again as the same number, and every number of 64 bits survives.
        #[test]
        fn accepted_numbers_can_be_written_again(integer in any::<i64>(), double in any::<f64>(), text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?") {
            prop_assert!(survives(&integer.to_string()));
            prop_assert!(!double.is_finite() || survives(&Value::from(double).to_string()));
            if survives(&text) {
                // A number that is written again is read as the same double.
                let read = |text: &str| text.parse::<f64>().unwrap();
                let again = serde_json::from_str::<Value>(&text).unwrap().to_string();
                prop_assert_eq!(read(&text).to_bits(), read(&again).to_bits(), "{}", text);
            }
        }
    }
}
