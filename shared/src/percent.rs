//! Strict percent-encoding (RFC 3986 §2.1): a `%` must begin an encoded byte. Parsers disagree about any other
//! `%`: some keep it, others decode or drop it.

/// Whether every `%` is followed by two hexadecimal digits.
pub fn is_percent_encoded(text: &str) -> bool {
    let begins_byte = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    text.match_indices('%').all(|(at, _)| begins_byte(&text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_sign_begins_a_byte() {
        for good in ["", "a", "%41", "x%2F%c3%A9", "100%25"] {
            assert!(is_percent_encoded(good), "{good}");
        }
        for bad in ["%", "%4", "%zz", "%4g", "a%", "%%41", "%u0041", "%\u{ff11}1", "%41%"] {
            assert!(!is_percent_encoded(bad), "{bad}");
        }
    }
}
