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

/// The same for comments, documentation and names of tests, whose words are these.
const HARD_IN_PROSE: [(&str, &str); 9] = [
    ("whoever", "the caller, the user, the holder …"),
    ("whatever reason", "any reason"),
    ("of whatever kind", "of any kind"),
    ("nobody's", "say who, or that no user may use it"),
    ("anew", "again, or new"),
    ("any more", "no longer"),
    ("makes no sense", "could not be read"),
    ("so many", "at most this many"),
    ("so often", "at most this often"),
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

/// The comments of a source file, and the names of its tests as words, each with its line.
fn prose(source: &str) -> Vec<(usize, String)> {
    let (mut found, mut is_test) = (Vec::new(), false);
    for (at, line) in source.lines().enumerate() {
        let line = line.trim();
        let comment = line.find("//").filter(|at| *at == 0 || line[..*at].ends_with("; "));
        if let Some(comment) = comment {
            found.push((at + 1, line[comment..].trim_start_matches(['/', '!', ' ']).to_owned()));
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        } else if let Some((_, function)) = line.split_once("fn ") {
            if is_test {
                found.push((at + 1, function.split(['(', '<']).next().unwrap().replace('_', " ")));
            }
            is_test = false;
        }
    }
    found
}

/// What is hard to read in a sentence: a phrase of the list, or something that "is no" something.
fn hard(text: &str) -> Option<&'static str> {
    // Code in backticks is not prose.
    let text = text.split('`').step_by(2).collect::<String>().to_lowercase();
    let text = format!(" {} ", text.replace(['.', ',', ';', ':', '(', ')'], " "));
    let phrase = HARD_IN_PROSE.iter().find(|(phrase, _)| text.contains(&format!(" {phrase} ")));
    let plain = ["there is no ", "there are no ", "is no longer ", "are no longer ", "the answer is no "];
    let rest = plain.iter().fold(text.clone(), |text, plain| text.replace(plain, ""));
    let negated = rest.contains(" is no ") || rest.contains(" are no ");
    phrase.map(|(_, instead)| *instead).or(negated.then_some("is not a valid …, or: … is refused"))
}

/// Comments, documentation and names of tests are plain English. The changelog tells of the past and stays.
#[test]
fn comments_are_plain() {
    let mut found = Vec::new();
    let folders = ["src", "authz", "resource", "shared", "keys", "children", "tests/e2e", "benches"];
    let sources = folders.iter().flat_map(|folder| every_file(&root().join(folder), "rs"));
    let words = sources.flat_map(|path| {
        let source = fs::read_to_string(&path).unwrap();
        prose(&source).into_iter().map(move |(line, text)| (path.clone(), line, text)).collect::<Vec<_>>()
    });
    let pages = every_file(&root().join("docs"), "md").into_iter();
    let pages = pages.chain(["README.md", "SECURITY.md", "ARCHITECTURE.md"].map(|name| root().join(name)));
    // A line of a table of code, and the made table of requirements, are not sentences of ours.
    let pages = pages.filter(|path| !path.ends_with("conformance.md")).flat_map(|path| {
        let page = fs::read_to_string(&path).unwrap();
        let lines = page.lines().enumerate().map(|(at, line)| (path.clone(), at + 1, line.to_owned()));
        lines.collect::<Vec<_>>()
    });
    for (path, line, text) in words.chain(pages) {
        let own = path.ends_with("tests/e2e/messages.rs");
        if let Some(instead) = hard(&text).filter(|_| !own) {
            let path = path.strip_prefix(root()).unwrap().display();
            found.push(format!("{path}:{line}: {text}\n    write: {instead}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The files below a folder with this extension, tests too, but not third parties' and not what was built.
fn every_file(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("e2e/clients") && !path.ends_with("target") {
            found.extend(every_file(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

#[test]
fn prose_is_comments_and_names_of_tests() {
    let source = "//! One.\nlet a = 1; // two\nlet b = \"https://three\";\n/// Four.\n#[test]\nfn five_is_no_six() {}\nfn seven() {}";
    let texts: Vec<_> = prose(source).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["One.", "two", "Four.", "five is no six"]);
    for bad in
        ["five is no six", "Whoever asks, waits.", "Made anew.", "for whatever reason", "so many of them"]
    {
        assert!(hard(bad).is_some(), "{bad}");
    }
    for good in
        ["There is no session.", "It is no longer valid.", "whatever the header says", "a renewed key"]
    {
        assert_eq!(hard(good), None, "{good}");
    }
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
