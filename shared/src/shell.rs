//! Words for a shell: what people are given to copy is run.

/// A word as a shell takes it, whatever is in it: client ids may be other people's URLs.
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

    /// AUTHZ-02: a command that is offered for copying runs nothing that a client put into it.
    #[test]
    fn what_is_copied_is_one_word() {
        assert_eq!(word("dyn_abc-1"), "dyn_abc-1");
        assert_eq!(word("https://a.example/client.json"), "https://a.example/client.json");
        assert_eq!(word("https://a.example/$(id)"), "'https://a.example/$(id)'");
        assert_eq!(word("a;b"), "'a;b'");
        assert_eq!(word("a'b`c`"), r"'a'\''b`c`'");
        assert_eq!(word(""), "''");
    }
}
