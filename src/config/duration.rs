//! Durations as people type them: `90d`, `24h`, `30m`, `0`.

use std::time::Duration;

/// Parses a duration.
///
/// # Errors
/// If it is not a number with `d`, `h`, `m` or `s`; zero needs no unit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let seconds = |unit| match unit {
        "d" => Some(86_400),
        "h" => Some(3_600),
        "m" => Some(60),
        "s" => Some(1),
        _ => None,
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() && number.bytes().all(|b| b == b'0') { Some(1) } else { seconds(unit) };
    // Limited to ten years, far below an overflow of sums of times.
    let length = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    match length.filter(|length| *length <= 3_660 * 86_400) {
        Some(length) => Ok(Duration::from_secs(length)),
        None => Err("write a number with d, h, m or s, such as 90d or 24h, up to ten years".to_owned()),
    }
}

/// Parses a duration other than zero.
///
/// # Errors
/// As [`parse`], and if it is zero.
pub fn parse_some(text: &str) -> Result<Duration, String> {
    let length = parse(text)?;
    if length.is_zero() { Err("the duration must be more than zero".to_owned()) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit() {
        for (text, seconds) in
            [("90d", 7_776_000), ("24h", 86_400), ("30m", 1_800), ("5s", 5), ("0", 0), ("0h", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "d", "1", "-1h", "1.5h", "1h30m", "1 h", "3661d", "99999999999999999999d", "1w"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse_some("0").is_err() && parse_some("1s").is_ok());
    }
}
