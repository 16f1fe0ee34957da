//! Which request a line answers, found without keeping the line: some programs write `id` after a result of any size.

/// Reads a JSON object piece by piece and finds the number that its own member `id` has.
///
/// It does not check JSON. A line that is not an object, or has more than one `id`, answers nothing.
#[derive(Default)]
pub(crate) struct AnsweredId {
    depth: u64,
    state: State,
    /// The last string at depth 1, as far as it is needed: it may be a name.
    name: Text,
    /// Whether the next value is that of `id`.
    expects: bool,
    number: Text,
    found: Found,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Outside,
    Inside,
    Escaped,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Found {
    #[default]
    Nothing,
    Id(u64),
    Ambiguous,
}

/// The first bytes of a short text.
#[derive(Default)]
struct Text {
    bytes: [u8; 20],
    length: usize,
}

impl Text {
    fn clear(&mut self) {
        self.length = 0;
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    fn is(&self, text: &[u8]) -> bool {
        self.bytes.get(..self.length) == Some(text)
    }

    fn number(&self) -> Option<u64> {
        std::str::from_utf8(self.bytes.get(..self.length)?).ok()?.parse().ok()
    }
}

impl AnsweredId {
    /// Of a line that is there whole.
    pub(crate) fn of(line: &[u8]) -> Option<u64> {
        let mut id = Self::default();
        id.read(line);
        id.found()
    }

    /// What was found when the line has been read to its end.
    pub(crate) fn found(&self) -> Option<u64> {
        match self.found {
            Found::Id(id) => Some(id),
            Found::Nothing | Found::Ambiguous => None,
        }
    }

    pub(crate) fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            self.step(*byte);
        }
    }

    fn step(&mut self, byte: u8) {
        match (self.state, byte) {
            (State::Escaped, _) => self.state = State::Inside,
            (State::Inside, b'\\') => {
                self.state = State::Escaped;
                self.keep(byte);
            }
            (State::Inside, b'"') => self.state = State::Outside,
            (State::Inside, _) => self.keep(byte),
            (State::Outside, b'"') => {
                self.state = State::Inside;
                self.name.clear();
            }
            (State::Outside, b'{' | b'[') => self.depth += 1,
            (State::Outside, b'}' | b']') => {
                self.end_value();
                self.depth = self.depth.saturating_sub(1);
            }
            (State::Outside, b':') if self.depth == 1 => self.expects = self.name.is(b"id"),
            (State::Outside, b',') if self.depth == 1 => self.end_value(),
            (State::Outside, byte) if self.depth == 1 && self.expects && !byte.is_ascii_whitespace() => {
                self.number.push(byte);
            }
            (State::Outside, _) => {}
        }
    }

    /// A name with an escape in it is not `id`, however it is meant: no program writes it so.
    fn keep(&mut self, byte: u8) {
        if self.depth == 1 {
            self.name.push(byte);
        }
    }

    fn end_value(&mut self) {
        if self.depth != 1 || !self.expects {
            return;
        }
        self.expects = false;
        self.found = match (self.found, self.number.number()) {
            (Found::Nothing, Some(id)) => Found::Id(id),
            _ => Found::Ambiguous,
        };
        self.number.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRC-11: only the object's own `id` counts, wherever it stands.
    #[test]
    fn the_id_of_an_answer_is_found_in_any_place() {
        for line in [
            r#"{"jsonrpc":"2.0","id":42,"result":{"id":7}}"#,
            r#"{"result":{"id":7,"x":[{"id":8}]},"jsonrpc":"2.0","id":42}"#,
            r#" { "id" : 42 , "result" : "\"id\":7,\\" }"#,
            r#"{"result":"\\\"},{\"id\":7","id":42}"#,
        ] {
            assert_eq!(AnsweredId::of(line.as_bytes()), Some(42), "{line}");
        }
    }

    #[test]
    fn a_line_without_one_clear_id_answers_nothing() {
        for line in [
            "",
            "banner",
            r#"{"result":{"id":7}}"#,
            r#"{"id":"42"}"#,
            r#"{"id":null}"#,
            r#"{"id":-1}"#,
            r#"{"id":4.2}"#,
            r#"{"id":99999999999999999999999}"#,
            r#"{"id":1,"id":2}"#,
            r#"{"id":1,"id":1}"#,
            r#"{"\u0069d":1}"#,
            r#"["id",42]"#,
            r#"{"x":"id","y":42}"#,
            r#"{"id":{"id":42}}"#,
        ] {
            assert_eq!(AnsweredId::of(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn pieces_are_read_like_the_whole() {
        let line = br#"{"result":{"text":"a \"quoted\" {brace"},"id":42}"#;
        for at in 0..line.len() {
            let (first, second) = line.split_at(at);
            let mut id = AnsweredId::default();
            id.read(first);
            id.read(second);
            assert_eq!(id.found(), Some(42), "{at}");
        }
    }
}
