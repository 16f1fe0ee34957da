//! Plain English in messages and comments, and quotations of messages in the documentation.

use std::fs;
use std::path::{Path, PathBuf};

/// Phrases that make a message hard to read, and what to write instead.
const HARD: [(&str, &str); 12] = [
    ("is no ", "is not a valid …"),
    ("are no ", "are not valid …"),
    ("whoever", "the person who …"),
    ("whatever", "name what it is"),
    ("vouches", "verified by an administrator"),
    ("nobody's", "say who"),
    ("makes no sense", "could not be read (and where)"),
    (" anew", "again, or new"),
    ("has run out", "has expired"),
    ("any more", "no longer"),
    ("all the same", "anyway"),
    ("must be ours", "say what must listen, or belong"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder with this extension, without tests.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test =
            path.file_stem().is_some_and(|name| ["tests", "testing", "samples"].iter().any(|t| name == *t));
        if is_test {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// The string literals of a source file up to its tests, each with its line. What only programmers read is left out:
/// reasons of attributes and of `expect`.
fn literals(source: &str) -> Vec<(usize, String)> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let (mut found, mut rest, mut line) = (Vec::new(), source, 1);
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        if rest.starts_with("//") {
            taken = rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("'\"'") {
            taken = 3;
        } else if c == '"' {
            let end = end_of_literal(&rest[1..]);
            let before = source[..source.len() - rest.len()].trim_end();
            if !before.ends_with("reason =") && !before.ends_with(".expect(") {
                found.push((line, joined(&rest[1..=end])));
            }
            taken = end + 2;
        }
        let taken = taken.min(rest.len());
        line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    found
}

/// The index of the closing quotation mark of a literal.
fn end_of_literal(rest: &str) -> usize {
    let mut escaped = false;
    rest.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
    .unwrap_or(rest.len())
}

/// A literal's text: lines that continue are one, and white space is one space.
fn joined(literal: &str) -> String {
    let lines = literal.split("\\\n").map(str::trim_start);
    let text = lines.collect::<Vec<_>>().concat().replace("\\\"", "\"").replace("\\n", "\n");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All messages in sources and templates, each with its place.
fn messages() -> Vec<(String, String)> {
    let mut said = Vec::new();
    for folder in ["src", "authz/src", "resource/src", "shared/src", "keys/src"] {
        for path in files(&root().join(folder), "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            let found = literals(&fs::read_to_string(&path).unwrap());
            let words = found.into_iter().filter(|(_, text)| text.contains(' '));
            said.extend(words.map(|(line, text)| (format!("{name}:{line}"), text)));
        }
    }
    for extension in ["html", "js"] {
        for path in files(&root().join("templates"), extension) {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
            for (at, line) in lines {
                said.push((format!("{name}:{}", at + 1), untagged(line)));
            }
        }
    }
    said
}

/// A line of a template without tags.
fn untagged(line: &str) -> String {
    let mut text = String::new();
    for (at, piece) in line.split('<').enumerate() {
        text.push_str(if at == 0 { piece } else { piece.split_once('>').map_or("", |(_, text)| text) });
    }
    text
}

/// The messages quoted in the first column of a table row, split at `…`.
fn quoted(row: &str) -> Vec<String> {
    let first = row.trim_start_matches('|').split(" | ").next().unwrap().trim();
    if first.starts_with('*') || first.starts_with("---") {
        return Vec::new();
    }
    let in_ticks: Vec<&str> = first.split('`').skip(1).step_by(2).collect();
    let messages = if in_ticks.is_empty() { first.split(" / ").collect() } else { in_ticks };
    let pieces = messages.into_iter().flat_map(|message| message.split('…'));
    pieces
        .map(|piece| piece.trim_matches([' ', ':', ';', ',']).to_owned())
        .filter(|piece| piece.contains(' '))
        .collect()
}

/// Users search the troubleshooting page for the words on the screen, so each message that it quotes must
/// exist.
#[test]
fn the_troubleshooting_page_quotes_what_is_said() {
    let said: Vec<String> = messages().into_iter().map(|(_, text)| text).collect();
    let said = said.join("\n").replace("{called}", "issuer");
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let sections = page.split("\n## ").filter(|section| !section.starts_with("A client says"));
    let rows = sections.flat_map(|section| section.lines().filter(|line| line.starts_with('|')).skip(1));
    let missing: Vec<String> = rows.flat_map(quoted).filter(|piece| !said.contains(piece.as_str())).collect();
    assert!(missing.is_empty(), "nothing says {missing:#?}");
}

/// Messages are plain English and do not name requirements.
#[test]
fn messages_are_plain() {
    let table = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let mut hard = Vec::new();
    for (place, text) in messages() {
        let lower = text.to_lowercase().replace("there is no ", "").replace("is no longer", "");
        for (phrase, instead) in HARD {
            if lower.contains(phrase) {
                hard.push(format!("{place}: {text}\n    write: {instead}"));
            }
        }
        if text.split([' ', '(', ')', ',', '.']).any(|word| is_requirement(word, &table)) {
            hard.push(format!("{place}: {text}\n    leave the requirement out"));
        }
    }
    assert!(hard.is_empty(), "{}", hard.join("\n"));
}

/// Whether a word is the name of a requirement, such as the one of this: `AUTHZ-03`.
fn is_requirement(word: &str, table: &str) -> bool {
    let Some((section, number)) = word.rsplit_once('-') else {
        return false;
    };
    let is_number = number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit());
    is_number && table.contains(&format!("\n## {section}: "))
}

#[test]
fn literals_are_read_as_the_compiler_reads_them() {
    let source = "// \"no\"\nlet a = \"one two\"; let b = '\"'; f(\"x \\\"y\\\" \\\n    z\")\n#[expect(x, reason = \"no\")]\n#[cfg(test)]\nmod tests {\n\"no\"";
    let found = literals(source);
    assert_eq!(found, [(2, "one two".to_owned()), (2, "x \"y\" z".to_owned())]);
    assert_eq!(
        quoted("| `a message … that varies`, `and another` | do |"),
        ["a message", "that varies", "and another"]
    );
}
