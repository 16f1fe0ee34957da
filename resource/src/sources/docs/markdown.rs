//! Markdown: headings and the text of its blocks, code included, markup not.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::html;
use super::section::Outline;

/// Tells the outline of a Markdown text.
pub(super) fn outline(source: &str, outline: &mut Outline) {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let mut block = Block { text: String::new(), start: 0 };
    for (event, range) in Parser::new_ext(source, options).into_offset_iter() {
        match event {
            Event::Start(tag) if is_block(tag.to_end()) => {
                block.end(outline, range.start);
                if let Tag::Heading { .. } | Tag::HtmlBlock | Tag::MetadataBlock(_) = tag {
                    block.start = range.start;
                }
            }
            Event::End(TagEnd::Heading(level)) => {
                outline.heading(level as u8, &std::mem::take(&mut block.text), block.start);
                block.start = range.end;
            }
            Event::End(TagEnd::MetadataBlock(_)) => {
                if let Some(title) = title_line(&std::mem::take(&mut block.text)) {
                    outline.title(title);
                }
                block.start = range.end;
            }
            Event::End(TagEnd::HtmlBlock) => {
                block.text = html::plain(&block.text);
                block.end(outline, range.end);
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

/// The `title` of front matter, YAML (`title: x`) or TOML (`title = "x"`).
fn title_line(matter: &str) -> Option<&str> {
    let value = matter.lines().find_map(|line| line.strip_prefix("title"))?.trim_start();
    Some(value.strip_prefix([':', '='])?.trim().trim_matches(['"', '\'']))
}
