//! Shell quoting: users run the commands that they are given to copy.

/// Quotes a word for a shell, whatever its content: client ids may be other parties' URLs.
pub fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.:/@".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AUTHZ-02: a command offered for copying does not execute text from a client.
    #[test]
    fn a_quoted_argument_is_one_shell_word() {
        assert_eq!(word("dyn_abc-1"), "dyn_abc-1");
        assert_eq!(word("https://a.example/client.json"), "https://a.example/client.json");
        assert_eq!(word("https://a.example/$(id)"), "'https://a.example/$(id)'");
        assert_eq!(word("a;b"), "'a;b'");
        assert_eq!(word("a'b`c`"), r"'a'\''b`c`'");
        assert_eq!(word(""), "''");
    }
}
