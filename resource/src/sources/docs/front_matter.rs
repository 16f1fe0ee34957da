//! Front matter: a YAML mapping between two lines `---`, or a TOML table between two lines `+++`, at the very
//! beginning of a Markdown file. Anything else that looks similar is Markdown: thematic breaks, or a heading
//! with its underline.

use saphyr_parser::{Event, Parser, ScalarStyle};
use toml::de::DeTable;

/// The largest front matter in bytes; a longer one is read as text.
const LARGEST: usize = 64 << 10;
/// The deepest nesting of YAML.
const DEEPEST: usize = 64;

/// The front matter of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrontMatter {
    pub title: Option<String>,
    /// Where the document's text begins.
    pub end: usize,
}

impl FrontMatter {
    /// The front matter of a text, if there is one.
    pub(super) fn of(source: &str) -> Option<Self> {
        let yaml = line_is(source, &["---"]);
        if !yaml && !line_is(source, &["+++"]) {
            return None;
        }
        let start = next_line(source, 0);
        let ends: &[&str] = if yaml { &["---", "..."] } else { &["+++"] };
        let mut at = start;
        while !line_is(source.get(at..).filter(|rest| !rest.is_empty())?, ends) {
            at = next_line(source, at);
            if at - start > LARGEST {
                return None;
            }
        }
        let matter = &source[start..at];
        let Mapping { title } = if yaml { Mapping::of_yaml(matter)? } else { Mapping::of_toml(matter)? };
        Some(Self { title, end: next_line(source, at) })
    }
}

/// The used keys of a YAML mapping or TOML table.
struct Mapping {
    title: Option<String>,
}

impl Mapping {
    /// `None` if the text is something else. Anchors are not followed, so the size stays bounded.
    fn of_yaml(matter: &str) -> Option<Self> {
        let mut title = None;
        let (mut depth, mut mapping) = (0_usize, false);
        // The pending key of the top-level mapping.
        let mut key: Option<String> = None;
        let mut expects_key = true;
        for event in Parser::new_from_str(matter) {
            let (event, _) = event.ok()?;
            match event {
                Event::MappingStart(..) if depth == 0 => {
                    if mapping {
                        return None; // a second document
                    }
                    (mapping, depth) = (true, 1);
                    continue;
                }
                Event::Scalar(..) | Event::SequenceStart(..) | Event::Alias(_) if depth == 0 => return None,
                Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
                Event::MappingEnd | Event::SequenceEnd => depth = depth.checked_sub(1)?,
                Event::Scalar(ref text, ..) if depth == 1 && expects_key => key = Some(text.to_string()),
                Event::Scalar(ref text, style, ..) if depth == 1 && key.as_deref() == Some("title") => {
                    let plain = matches!(style, ScalarStyle::Plain);
                    let null = plain && matches!(text.as_ref(), "~" | "null" | "Null" | "NULL" | "");
                    title = (!null).then(|| text.to_string());
                }
                _ => {}
            }
            if depth > DEEPEST {
                return None;
            }
            // A value of the mapping is complete.
            let node =
                matches!(event, Event::Scalar(..) | Event::Alias(_) | Event::MappingEnd | Event::SequenceEnd);
            if node && depth == 1 {
                if !expects_key {
                    key = None;
                }
                expects_key = !expects_key;
            }
        }
        mapping.then_some(Self { title })
    }

    fn of_toml(matter: &str) -> Option<Self> {
        let table = DeTable::parse(matter).ok()?;
        let title = table.get_ref().get("title").and_then(|value| value.get_ref().as_str());
        Some(Self { title: title.map(str::to_owned) })
    }
}

/// Whether the first line is one of these, ignoring trailing white space.
fn line_is(text: &str, rules: &[&str]) -> bool {
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    rules.contains(&line.trim_end_matches([' ', '\t']))
}

/// Where the line after the one at `from` begins.
fn next_line(text: &str, from: usize) -> usize {
    text[from..].find('\n').map_or(text.len(), |at| from + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Titles in every string syntax of YAML and TOML.
    #[test]
    fn titles_are_read_as_yaml_and_toml_write_them() {
        for (matter, title) in [
            ("---\ntitle: The Guide\n---\n", Some("The Guide")),
            ("---\ntitle: \"The \\\"G\\\": x\"\n---\n", Some("The \"G\": x")),
            ("---\ntitle: 'It''s here'\n---\n", Some("It's here")),
            ("---\ntitle: >\n  The\n  Guide\n---\n", Some("The Guide\n")),
            ("---\ntitle: >-\n  The\n  Guide\ntags: [a]\n---\n", Some("The Guide")),
            ("---\ntitle: |\n  The Guide\n  Two\n---\n", Some("The Guide\nTwo\n")),
            ("---\ntitle: |2-\n   The\n---\n", Some(" The")),
            ("---\ntitle: Guide # the first\n---\n", Some("Guide")),
            ("---\ntitle: The\n  Guide\n---\n", Some("The Guide")),
            ("---\n\"title\": Guide\n---\n", Some("Guide")),
            ("---\n{title: Guide, x: {title: no}}\n---\n", Some("Guide")),
            ("---\nmenu:\n  title: no\nlist:\n- title: no\ntitle: Guide\n---\n", Some("Guide")),
            ("---\n? title\n: Guide\n---\n", Some("Guide")),
            ("---\nx: title\ny: no\n---\n", None),
            ("---\ntitles: no\n---\n", None),
            ("---\ntitle:\n---\n", None),
            ("---\ntitle: ~\n---\n", None),
            ("---\ntitle: [a, b]\n---\n", None),
            ("---\ntitle: Guide\n...\n", Some("Guide")),
            ("--- \t\r\ntitle: Guide\r\n---\r\n", Some("Guide")),
            ("---\ntitle: Guide\n---", Some("Guide")),
            ("+++\ntitle = \"The Guide\"\n+++\n", Some("The Guide")),
            ("+++\ntitle = \"\"\"\nThe\nGuide\"\"\"\n+++\n", Some("The\nGuide")),
            ("+++\ntitle = 'Guide' # x\n[menu]\ntitle = \"no\"\n+++\n", Some("Guide")),
            ("+++\n[menu]\ntitle = \"no\"\n+++\n", None),
        ] {
            let found = FrontMatter::of(matter).unwrap_or_else(|| panic!("{matter:?}"));
            assert_eq!(found.title.as_deref(), title, "{matter:?}");
            assert_eq!(found.end, matter.len(), "{matter:?}");
        }
    }

    /// Anything else at the beginning is text, and no text is lost.
    #[test]
    fn invalid_front_matter_is_indexed_as_text() {
        for text in [
            "",
            "---",
            "---\n",
            "---\n---\n",
            "---\n\n---\n",
            "---\nNote that this is a sentence\n---\n",
            "---\n- a\n- b\n---\n",
            "---\n[a, b]\n---\n",
            "---\nx: [\n---\n",
            "---\na: b\n c: d\n---\n",
            "---\ntitle: x\n",
            "---\ntitle: x\n----\n",
            "---\ntitle: x\n ---\n",
            "----\ntitle: x\n----\n",
            "--- x\ntitle: x\n---\n",
            " ---\ntitle: x\n---\n",
            "\n---\ntitle: x\n---\n",
            "# A\n\n---\ntitle: x\n---\n",
            "+++\nnot toml\n+++\n",
            "+++\ntitle = \"x\"\n---\n",
            "---\ntitle: x\n+++\n",
        ] {
            assert_eq!(FrontMatter::of(text), None, "{text:?}");
        }
    }

    /// DOCS-02: hostile front matter costs little.
    #[test]
    fn front_matter_is_bounded() {
        let deep = format!("---\na: {}\n---\n", "[".repeat(30_000));
        assert_eq!(FrontMatter::of(&deep), None);
        let long = format!("---\ntitle: x\n{}---\n", "# y\n".repeat(LARGEST / 4 + 1));
        assert_eq!(FrontMatter::of(&long), None);
        let bomb = "---\na: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ntitle: Guide\n---\n";
        assert_eq!(FrontMatter::of(bomb).unwrap().title.as_deref(), Some("Guide"));
    }
}
