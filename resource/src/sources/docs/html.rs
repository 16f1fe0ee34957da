//! HTML to text: headings, paragraphs and lines, without scripts, styles and tags.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};

use super::outline::Outline;

/// Builds the outline of a page; returns its text with Markdown headings.
pub(super) fn outline(source: &str, outline: &mut Outline) -> String {
    let mut text = String::new();
    each_block(source, |block| match block {
        Piece::Title(title) => outline.title(title),
        Piece::Heading(level, heading) => {
            outline.heading(level, heading, text.len());
            text.extend(std::iter::repeat_n('#', usize::from(level)));
            text.extend([" ", heading, "\n\n"]);
        }
        Piece::Text(paragraph) => {
            outline.block(paragraph, text.len());
            text.extend([paragraph, "\n\n"]);
        }
    });
    text
}

/// A piece of a page or a fragment.
pub(super) enum Piece<'t> {
    Title(&'t str),
    Heading(u8, &'t str),
    Text(&'t str),
}

pub(super) fn each_block(source: &str, mut each: impl FnMut(Piece<'_>)) {
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true); // the content of <script> is not markup
    let mut line = Line::default();
    for token in Tokenizer::new_with_emitter(source, emitter) {
        let Ok(token) = token; // reading from memory cannot fail
        match token {
            Token::StartTag(tag) => line.tag(&String::from_utf8_lossy(&tag.name), true, &mut each),
            Token::EndTag(tag) => line.tag(&String::from_utf8_lossy(&tag.name), false, &mut each),
            Token::String(text) => line.push(&String::from_utf8_lossy(&text)),
            _ => {}
        }
    }
    line.end(&mut each);
}

/// The text since the last block boundary.
#[derive(Default)]
struct Line {
    text: String,
    inside: Inside,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Inside {
    #[default]
    Body,
    Title,
    Heading(u8),
    Preformatted,
    /// A script or style sheet.
    Unseen,
}

impl Line {
    fn push(&mut self, text: &str) {
        match self.inside {
            Inside::Unseen => {}
            Inside::Preformatted => self.text.push_str(text),
            _ => {
                for c in text.chars() {
                    let c = if c.is_whitespace() { ' ' } else { c };
                    if c != ' ' || !(self.text.is_empty() || self.text.ends_with(' ')) {
                        self.text.push(c);
                    }
                }
            }
        }
    }

    fn tag(&mut self, name: &str, opens: bool, each: &mut impl FnMut(Piece<'_>)) {
        let inside = match name {
            "script" | "style" => Inside::Unseen,
            "title" => Inside::Title,
            "pre" => Inside::Preformatted,
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => Inside::Heading(name.as_bytes()[1] - b'0'),
            "td" | "th" => return self.push(" "),
            _ if is_inline(name) => return,
            // Other elements, such as a paragraph inside a heading or a list in a cell, only end a line.
            _ => return self.end(each),
        };
        self.end(each);
        self.inside = if opens { inside } else { Inside::Body };
    }

    fn end(&mut self, each: &mut impl FnMut(Piece<'_>)) {
        let text = std::mem::take(&mut self.text);
        let text = match self.inside {
            Inside::Preformatted => text.trim_end().trim_start_matches('\n'),
            _ => text.trim(),
        };
        if text.is_empty() {
            return;
        }
        each(match self.inside {
            Inside::Title => Piece::Title(text),
            Inside::Heading(level) => Piece::Heading(level, text),
            _ => Piece::Text(text),
        });
    }
}

fn is_inline(name: &str) -> bool {
    matches!(
        name,
        "a" | "abbr"
            | "b"
            | "bdi"
            | "bdo"
            | "big"
            | "cite"
            | "code"
            | "data"
            | "del"
            | "dfn"
            | "em"
            | "font"
            | "i"
            | "img"
            | "ins"
            | "kbd"
            | "label"
            | "mark"
            | "q"
            | "rp"
            | "rt"
            | "ruby"
            | "s"
            | "samp"
            | "small"
            | "span"
            | "strike"
            | "strong"
            | "sub"
            | "sup"
            | "time"
            | "tt"
            | "u"
            | "var"
            | "wbr"
    )
}
