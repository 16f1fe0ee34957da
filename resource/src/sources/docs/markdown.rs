//! Markdown to text: headings and blocks, with code, without markup.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::front_matter::FrontMatter;
use super::html::{self, Piece};
use super::outline::Outline;

/// Builds the outline of a Markdown text.
pub(super) fn outline(source: &str, outline: &mut Outline) {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES;
    // pulldown-cmark treats any two thematic breaks as front matter and drops the text between them.
    let begin = match FrontMatter::of(source) {
        Some(matter) => {
            if let Some(title) = &matter.title {
                outline.title(title);
            }
            matter.end
        }
        None => 0,
    };
    let mut block = Block { text: String::new(), start: begin };
    for (event, range) in Parser::new_ext(&source[begin..], options).into_offset_iter() {
        let range = begin + range.start..begin + range.end;
        match event {
            Event::Start(tag) if is_block(tag.to_end()) => {
                block.end(outline, range.start);
                if let Tag::Heading { .. } | Tag::HtmlBlock = tag {
                    block.start = range.start;
                }
            }
            Event::End(TagEnd::Heading(level)) => {
                outline.heading(level as u8, &std::mem::take(&mut block.text), block.start);
                block.start = range.end;
            }
            Event::End(TagEnd::HtmlBlock) => {
                let source = std::mem::take(&mut block.text);
                html::each_block(&source, |piece| match piece {
                    Piece::Heading(level, heading) => outline.heading(level, heading, block.start),
                    Piece::Title(text) | Piece::Text(text) => outline.block(text, block.start),
                });
                block.start = range.end;
            }
            Event::End(tag) if is_block(tag) => block.end(outline, range.end),
            Event::End(TagEnd::TableCell) | Event::SoftBreak => block.text.push(' '),
            Event::HardBreak => block.text.push('\n'),
            Event::InlineHtml(tag) if tag.starts_with("<br") => block.text.push('\n'),
            Event::Text(text) | Event::Code(text) | Event::Html(text) => block.text.push_str(&text),
            _ => {}
        }
    }
    block.end(outline, source.len());
}

struct Block {
    text: String,
    start: usize,
}

impl Block {
    fn end(&mut self, outline: &mut Outline, next: usize) {
        outline.block(&std::mem::take(&mut self.text), self.start);
        self.start = next;
    }
}

fn is_block(tag: TagEnd) -> bool {
    !matches!(
        tag,
        TagEnd::Emphasis
            | TagEnd::Strong
            | TagEnd::Strikethrough
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::Link
            | TagEnd::Image
            | TagEnd::TableCell
    )
}
