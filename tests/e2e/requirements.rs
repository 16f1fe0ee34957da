//! The table in `docs/conformance.md`: each requirement, and the tests whose comments name it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/conformance.md";
const BEGIN: &str = "<!-- made by tests/e2e/requirements.rs: PORTCULLIS_BLESS=1 tests/run requirements -->\n";
const END: &str = "<!-- end -->\n";
/// The folders with tests.
const FOLDERS: [&str; 8] = [
    "authz/src",
    "children/src",
    "children/tests",
    "keys/src",
    "resource/src",
    "shared/src",
    "src",
    "tests/e2e",
];

struct Section {
    title: &'static str,
    /// Each of its musts has a test.
    whole: bool,
    requirements: Vec<Requirement>,
}

struct Requirement {
    id: &'static str,
    strength: &'static str,
    words: &'static str,
}

fn sections() -> Vec<Section> {
    let mut sections = Vec::new();
    for line in include_str!("requirements.txt").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            let whole = title.strip_suffix(" !");
            let title = whole.unwrap_or(title);
            sections.push(Section { title, whole: whole.is_some(), requirements: Vec::new() });
        } else if !line.starts_with('#') && !line.is_empty() {
            let (id, rest) = line.split_once(' ').unwrap();
            let (strength, words) = rest.split_once(' ').unwrap();
            assert!(["M", "S", "O"].contains(&strength), "{line}");
            sections.last_mut().unwrap().requirements.push(Requirement { id, strength, words });
        }
    }
    sections
}

/// All tests that name a requirement, by id; each as its file and function.
fn tests() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for file in FOLDERS.iter().flat_map(|folder| files(&root.join(folder), "rs")) {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        for (test, comment) in tests_in(&fs::read_to_string(&file).unwrap()) {
            for id in ids(&comment) {
                found.entry(id).or_default().insert((name.clone(), test.clone()));
            }
        }
    }
    found
}

/// The files below a folder with this extension.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Third-party clients are not our tests.
        if path.is_dir() && !path.ends_with("e2e/clients") {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// The tests of a source file with their doc comments: functions with `#[test]` or `#[tokio::test]` and without
/// `#[ignore]`.
fn tests_in(source: &str) -> Vec<(String, String)> {
    let (mut comment, mut attributes) = (String::new(), Vec::new());
    let mut tests = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            let _ = writeln!(comment, "{words}");
        } else if line.starts_with("#[") {
            attributes.push(line);
        } else {
            let is_test = attributes.iter().any(|a| *a == "#[test]" || a.starts_with("#[tokio::test"));
            let is_ignored = attributes.iter().any(|a| a.starts_with("#[ignore"));
            let function = line.split_once("fn ").and_then(|(_, rest)| rest.split(['(', '<']).next());
            if let Some(name) = function
                && is_test
                && !is_ignored
            {
                tests.push((name.to_owned(), std::mem::take(&mut comment)));
            }
            comment.clear();
            attributes.clear();
        }
    }
    tests
}

/// The ids in a comment. `MCP-08, 09, 10` names three, `REFRESH-04…06` too.
fn ids(comment: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut prefix = "";
    let mut through = None;
    let mut last = 0;
    for (at, end) in words(comment) {
        let word = &comment[at..end];
        let between = &comment[last..at];
        if let Some((section, number)) = word.split_once('-').filter(|(s, n)| is_section(s) && is_number(n)) {
            prefix = section;
            ids.push(format!("{prefix}-{number}"));
            through = number.parse::<u32>().ok();
        } else if is_number(word) && !prefix.is_empty() && between == ", " {
            ids.push(format!("{prefix}-{word}"));
            through = word.parse().ok();
        } else if is_number(word) && !prefix.is_empty() && ["…", "..", "–"].contains(&between) {
            let (from, to) = (through.unwrap_or(0) + 1, word.parse().unwrap_or(0));
            ids.extend((from..=to).map(|number| format!("{prefix}-{number:02}")));
        } else {
            prefix = "";
        }
        last = end;
    }
    ids
}

/// The ranges of the words in a text: letters, digits and hyphens.
fn words(text: &str) -> Vec<(usize, usize)> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (c.is_ascii_alphanumeric() || c == '-', start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                words.push((from, at));
                start = None;
            }
            _ => {}
        }
    }
    words
}

fn is_section(text: &str) -> bool {
    text.len() >= 2 && text.bytes().all(|b| b.is_ascii_uppercase())
}

fn is_number(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())
}

fn table(sections: &[Section], tests: &BTreeMap<String, BTreeSet<(String, String)>>) -> String {
    let mut page = String::new();
    for section in sections {
        let _ = writeln!(page, "## {}\n\n| ID | | Requirement | Tests |\n|---|---|---|---|", section.title);
        for requirement in &section.requirements {
            let named = tests.get(requirement.id).map(|tests| {
                let one = |(file, test): &(String, String)| format!("[`{test}`](../{file})");
                tests.iter().map(one).collect::<Vec<_>>().join("<br>")
            });
            let Requirement { id, strength, words } = requirement;
            let _ = writeln!(page, "| {id} | {strength} | {words} | {} |", named.as_deref().unwrap_or("–"));
        }
        page.push('\n');
    }
    page
}

/// The page matches the comments.
#[test]
fn the_page_is_what_the_tests_name() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the table's beginning");
    let (_, after) = rest.split_once(END).expect("the page has the table's end");
    let made = format!("{before}{BEGIN}\n{}{END}{after}", table(&sections(), &tests()));
    if std::env::var_os("PORTCULLIS_BLESS").is_some() {
        fs::write(&path, made).unwrap();
    } else {
        let lines = page.lines().zip(made.lines());
        let differs = lines.into_iter().find(|(old, new)| old != new);
        assert!(page == made, "{PAGE} is old: PORTCULLIS_BLESS=1 tests/run requirements\n{differs:?}");
    }
}

/// In a complete section every must has a test.
#[test]
fn every_must_has_a_test() {
    let tests = tests();
    let missing: Vec<_> = sections()
        .iter()
        .filter(|section| section.whole)
        .flat_map(|section| &section.requirements)
        .filter(|requirement| requirement.strength != "S" && !tests.contains_key(requirement.id))
        .map(|requirement| requirement.id)
        .collect();
    assert_eq!(missing, [""; 0], "no test's comment names these");
}

/// Each must that a test names can be found by its id in a file that is not a test, at the branch that holds it.
#[test]
fn every_tested_must_is_cited_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code: String = FOLDERS
        .iter()
        .filter(|folder| **folder != "tests/e2e")
        .flat_map(|folder| files(&root.join(folder), "rs"))
        .chain(files(&root.join("templates"), "js"))
        .filter(|file| !is_test_file(file))
        .map(|file| without_tests(&fs::read_to_string(file).unwrap()).to_owned())
        .collect();
    let tests = tests();
    let missing: Vec<_> = sections()
        .iter()
        .flat_map(|section| &section.requirements)
        .filter(|requirement| requirement.strength != "S" && tests.contains_key(requirement.id))
        .filter(|requirement| !code.contains(requirement.id))
        .map(|requirement| requirement.id)
        .collect();
    assert_eq!(missing, [""; 0], "name these in a comment at the branch that holds them");
}

/// Whether a file holds nothing but tests and what they need.
fn is_test_file(file: &Path) -> bool {
    let of_tests = |name: &str| ["tests", "testing"].contains(&name.trim_end_matches(".rs"));
    file.components().any(|part| part.as_os_str().to_str().is_some_and(of_tests))
}

/// A source file up to its tests.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// Ids in test comments exist.
#[test]
fn tests_name_requirements_that_exist() {
    let known: BTreeSet<_> =
        sections().iter().flat_map(|section| &section.requirements).map(|r| r.id.to_owned()).collect();
    let ours: BTreeSet<_> = known.iter().map(|id| id.split_once('-').unwrap().0.to_owned()).collect();
    let unknown: Vec<_> = tests()
        .into_keys()
        .filter(|id| ours.contains(id.split_once('-').unwrap().0) && !known.contains(id))
        .collect();
    assert_eq!(unknown, [""; 0], "no requirement has this id");
}

#[test]
fn ids_are_read_as_people_write_them() {
    let read = |text| ids(text).join(" ");
    assert_eq!(read(" TOKEN-05: one wins"), "TOKEN-05");
    assert_eq!(read(" MCP-08, 09, 10, whoever asks"), "MCP-08 MCP-09 MCP-10");
    assert_eq!(read(" REFRESH-04…06 (RFC 6749 §4.1.2)"), "REFRESH-04 REFRESH-05 REFRESH-06");
    assert_eq!(read(" DCR-05, REDIR-09, 03: 20 of 30"), "DCR-05 REDIR-09 REDIR-03");
    assert_eq!(read(" SHA-256 and X-25 and a-01"), "");
}

#[test]
fn only_tests_count() {
    let source = "/// A-01\n#[test]\nfn one() {}\n/// A-02\nfn two() {}\n/// A-03\n#[tokio::test]\n#[ignore]\nasync fn three() {}\n/// A-04\n#[tokio::test(start_paused = true)]\nasync fn four() {}\n";
    let names: Vec<_> = tests_in(source).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["one", "four"]);
}
