//! What a source file refers to: the modules it declares, its imports, and the paths it names.

use std::collections::BTreeMap;

#[derive(Default)]
pub struct Source {
    /// The files that it declares with `mod`.
    pub modules: Vec<String>,
    /// Its imports and re-exports, by their name in this file.
    pub uses: BTreeMap<String, Vec<String>>,
    /// Paths outside of imports.
    pub paths: Vec<Vec<String>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    /// `::`
    Then,
    Sign(char),
}

use Token::{Sign, Then, Word};

impl Source {
    /// Parses a file, without the parts for tests.
    pub fn read(text: &str) -> Self {
        let tokens = without_tests(&tokens(text));
        let mut source = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            at = source.take(&tokens, at);
        }
        source
    }

    /// Parses the item at `at`; returns the index of the next one.
    fn take(&mut self, tokens: &[Token], at: usize) -> usize {
        match &tokens[at..] {
            [Word(word), Word(name), Sign(';'), ..] if word == "mod" => {
                self.modules.push(name.clone());
                at + 3
            }
            [Word(word), Word(_) | Sign('{'), ..] if word == "use" => {
                let length = tokens[at..].iter().position(|token| *token == Sign(';')).unwrap();
                self.import(&tokens[at + 1..at + length], &[]);
                at + length
            }
            [Word(_), Then, ..] => {
                let (path, length) = path(&tokens[at..]);
                self.paths.push(path);
                at + length
            }
            _ => at + 1,
        }
    }

    /// Parses one tree of imports below a path.
    fn import(&mut self, tree: &[Token], above: &[String]) {
        let (path, length) = path(tree);
        let mut whole = [above, &path].concat();
        match &tree[length..] {
            [Sign('{'), inner @ .., Sign('}')] => {
                for branch in split(inner) {
                    self.import(branch, &whole);
                }
            }
            // A glob import names at least the module itself.
            [Sign('*')] => self.paths.push(whole),
            rest => {
                if whole.last().is_some_and(|last| last == "self") {
                    whole.pop();
                }
                let name = match rest {
                    [Word(_), Word(name)] => Some(name.clone()),
                    _ => whole.last().cloned(),
                };
                // Two imports as `_` have the same name, and both count.
                match name.filter(|name| name != "_") {
                    Some(name) => drop(self.uses.insert(name, whole)),
                    None => self.paths.push(whole),
                }
            }
        }
    }
}

/// The path at the beginning, and its number of tokens, including a final `::` before something else.
fn path(tokens: &[Token]) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    let mut length = 0;
    while let Some(Word(word)) = tokens.get(length) {
        path.push(word.clone());
        length += 1;
        if tokens.get(length) != Some(&Then) {
            break;
        }
        length += 1;
    }
    (path, length)
}

/// The branches of a tree of imports.
fn split(inner: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    let branches = inner.split(|token| {
        match token {
            Sign('{') => depth += 1,
            Sign('}') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Sign(',')
    });
    branches.filter(|branch| !branch.is_empty()).collect()
}

/// Removes every item under `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let word = |text: &str| Word(text.to_owned());
    let mark = [Sign('#'), Sign('['), word("cfg"), Sign('('), word("test"), Sign(')'), Sign(']')];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&mark) {
            at += mark.len() + item(&tokens[at + mark.len()..]);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The number of tokens of the first item: to its semicolon, or to the end of its braces. After an import in
/// braces, a separate semicolon may follow, which has no effect.
fn item(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Sign('{' | '(' | '[') => depth += 1,
            Sign(')' | ']') => depth -= 1,
            Sign('}') => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            Sign(';') if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The tokens of a text, without comments and literals.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if let Some(length) = unspoken(rest) {
            length
        } else if word > 0 {
            tokens.push(Word(rest[..word].to_owned()));
            word
        } else if rest.starts_with("::") {
            tokens.push(Then);
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(Sign(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the comment, string, character or lifetime at the beginning of the text.
fn unspoken(text: &str) -> Option<usize> {
    let through =
        |start: usize, end: &str| text[start..].find(end).map_or(text.len(), |at| start + at + end.len());
    if text.starts_with("//") {
        return Some(through(0, "\n"));
    }
    if text.starts_with("/*") {
        return Some(through(2, "*/"));
    }
    let bare = text.strip_prefix('b').unwrap_or(text);
    let prefix = text.len() - bare.len();
    if let Some(raw) = bare.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            return Some(through(prefix + hashes + 2, &format!("\"{}", "#".repeat(hashes))));
        }
    }
    if bare.starts_with('"') {
        return Some(prefix + quoted(bare, '"'));
    }
    let inner = bare.strip_prefix('\'')?;
    let mut letters = inner.chars();
    // `'a'` and `'\n'` are characters, `'a` is a lifetime.
    match (letters.next()?, letters.next()) {
        ('\\', _) | (_, Some('\'')) => Some(prefix + quoted(bare, '\'')),
        _ => Some(prefix + 1),
    }
}

/// The length of a quoted text, with both quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
