//! A parsed document: headings, and under each some pieces small enough for a search result.

use std::borrow::Cow;

use super::outline::{Outline, Section};
use super::{html, markdown};

/// The format of a document, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Markdown,
    Html,
    Text,
}

impl Kind {
    /// `None` for other files: pictures, programs, keys.
    pub(super) fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let Some((_, extension)) = name.rsplit_once('.') else {
            // README, LICENSE, CHANGELOG
            return name.chars().all(|c| c.is_ascii_uppercase() || "_-".contains(c)).then_some(Self::Text);
        };
        match extension.to_ascii_lowercase().as_str() {
            "md" | "markdown" | "mdown" | "mkd" | "mdx" => Some(Self::Markdown),
            "html" | "htm" | "xhtml" => Some(Self::Html),
            "txt" | "text" | "rst" | "adoc" | "asciidoc" | "org" => Some(Self::Text),
            _ => None,
        }
    }
}

/// A document in the index.
#[derive(Debug)]
pub(super) struct Document {
    pub title: String,
    /// The text for readers: the file itself, or the text of an HTML page.
    pub text: String,
    pub sections: Vec<Section>,
}

impl Document {
    pub(super) fn parse(path: &str, kind: Kind, source: &str) -> Self {
        let source = &*line_feeds(source);
        let mut outline = Outline::default();
        let (text, lines) = match kind {
            Kind::Markdown => {
                markdown::outline(source, &mut outline);
                (source.to_owned(), true)
            }
            Kind::Html => (html::outline(source, &mut outline), false),
            Kind::Text => {
                paragraphs(source, &mut outline);
                (source.to_owned(), true)
            }
        };
        let (title, mut sections) = outline.finish();
        if lines {
            number_lines(source, &mut sections);
        }
        let title = title.unwrap_or_else(|| stem(path).to_owned());
        Self { title, text, sections }
    }
}

/// Replaces lone carriage returns, which end a line too (CommonMark §2.1). The length stays the same, so
/// positions stay valid.
fn line_feeds(source: &str) -> Cow<'_, str> {
    let mut bytes = source.bytes().peekable();
    let mut alone = false;
    while let Some(byte) = bytes.next() {
        alone |= byte == b'\r' && bytes.peek() != Some(&b'\n');
    }
    if !alone {
        return Cow::Borrowed(source);
    }
    let mut chars = source.chars().peekable();
    let mut text = String::with_capacity(source.len());
    while let Some(c) = chars.next() {
        text.push(if c == '\r' && chars.peek() != Some(&'\n') { '\n' } else { c });
    }
    Cow::Owned(text)
}

/// Plain text: the pieces between empty lines.
fn paragraphs(text: &str, outline: &mut Outline) {
    let mut start = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            outline.block(&text[start..at], start);
            start = at + line.len();
        }
        at += line.len();
    }
    outline.block(&text[start..], start);
}

fn number_lines(text: &str, sections: &mut [Section]) {
    let (mut at, mut line) = (0, 1_u32);
    for section in sections {
        let between = text.as_bytes().get(at..section.start).unwrap_or_default();
        let newlines = between.split(|b| *b == b'\n').count() - 1;
        line = line.saturating_add(u32::try_from(newlines).unwrap_or(u32::MAX));
        at = at.max(section.start);
        section.line = Some(line);
    }
}

fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::super::outline::{CHUNK, MAX_HEADINGS};
    use super::*;

    fn shape(document: &Document) -> Vec<(&str, Option<u32>, &str)> {
        document.sections.iter().map(|s| (s.heading.as_str(), s.line, s.body.as_str())).collect()
    }

    #[test]
    fn markdown_has_headings_lines_and_no_markup() {
        let source = "---\ntitle: \"The Guide\"\n---\nIntro *here*.\n\n# Guide\n\n## Install {#i}\n\n- one\n- two [link](x.md)\n\n```sh\nrun --it\n```\n\n<div>raw <b>html</b><script>evil()</script></div>\n\n# Next\n\n| a | b |\n|---|---|\n| c | d |\n";
        let document = Document::parse("x/guide.md", Kind::Markdown, source);
        assert_eq!(document.title, "The Guide");
        assert_eq!(
            shape(&document),
            [
                ("", Some(4), "Intro here."),
                ("Guide", Some(6), ""),
                ("Guide > Install", Some(8), "one\ntwo link\nrun --it\nraw html"),
                ("Next", Some(19), "a b\nc d"),
            ]
        );
    }

    #[test]
    fn html_loses_scripts_and_keeps_headings() {
        let source = "<!doctype html><title>A &amp; B</title><style>p{}</style><h1>Top</h1><p>One\n two<br>three<script>let x = '<p>no</p>';</script><h2>Sub<em>ject</em></h2><ul><li>x<li>y</ul><pre>  a\n  b</pre>";
        let document = Document::parse("x.html", Kind::Html, source);
        assert_eq!(document.title, "A & B");
        assert_eq!(
            shape(&document),
            [("Top", None, "One two\nthree"), ("Top > Subject", None, "x\ny\n  a\n  b"),]
        );
        assert_eq!(document.text, "# Top\n\nOne two\n\nthree\n\n## Subject\n\nx\n\ny\n\n  a\n  b\n\n");
        for section in &document.sections {
            assert!(document.text[section.start..].starts_with('#'));
        }
    }

    #[test]
    fn text_is_cut_at_paragraphs_and_never_too_long() {
        let source = format!("first\nline\n\n\n{}\n\n{}", "word ".repeat(300), "漢".repeat(5000));
        let document = Document::parse("notes/todo.txt", Kind::Text, &source);
        assert_eq!(document.title, "todo");
        assert!(document.sections.iter().all(|s| s.body.chars().count() <= CHUNK));
        assert_eq!(document.sections[0].line, Some(1));
        assert_eq!(document.sections[1].line, Some(7));
        let kept: usize = document.sections.iter().map(|s| s.body.matches('漢').count()).sum();
        assert_eq!(kept, 5000);
    }

    #[test]
    fn hostile_documents_are_bounded() {
        let headings = Document::parse("x.md", Kind::Markdown, &"# a\n".repeat(100_000));
        assert!(headings.sections.len() <= MAX_HEADINGS + 1_000, "{}", headings.sections.len());
        for source in ["[".repeat(50_000), "> ".repeat(50_000), "<div ".repeat(50_000), "*a_".repeat(50_000)]
        {
            for kind in [Kind::Markdown, Kind::Html] {
                let _ = Document::parse("x", kind, &source);
            }
        }
        let empty = Document::parse("a.md", Kind::Markdown, "");
        assert!(empty.sections.is_empty() && empty.title == "a");
    }

    #[test]
    fn only_document_file_names_are_indexed() {
        for path in ["a/b.md", "README", "x.HTML", "y.tar.txt", "CODE_OF-CONDUCT"] {
            assert!(Kind::of(path).is_some(), "{path}");
        }
        for path in ["id_rsa", "a.png", "key.pem", "a.md/x.sqlite", "Makefile", ".env"] {
            assert!(Kind::of(path).is_none(), "{path}");
        }
    }
}
