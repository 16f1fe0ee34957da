//! The outline of a document, built by its parser: headings, and pieces small enough for a search result.

/// The most characters of a piece.
pub(super) const CHUNK: usize = 2_000;
/// The most headings of a document; later text belongs to the last one.
pub(super) const MAX_HEADINGS: usize = 10_000;
const MAX_HEADING_CHARS: usize = 200;

#[derive(Debug)]
pub(super) struct Section {
    pub heading: String,
    /// Where it begins in the document's text.
    pub start: usize,
    pub line: Option<u32>,
    pub body: String,
}

/// Collects what a parser finds in a document, in order.
#[derive(Default)]
pub(super) struct Outline {
    title: Option<String>,
    first_heading: Option<String>,
    headings: Vec<(u8, String)>,
    count: usize,
    sections: Vec<Section>,
    open: Option<Open>,
}

/// The current piece.
struct Open {
    start: usize,
    body: String,
    chars: usize,
    /// It directly follows a heading, so it is kept even if it is empty.
    headed: bool,
}

impl Outline {
    /// The document's own title, which takes precedence over headings.
    pub(super) fn title(&mut self, title: &str) {
        let title = one_line(title);
        if !title.is_empty() {
            self.title = Some(title);
        }
    }

    pub(super) fn heading(&mut self, level: u8, text: &str, start: usize) {
        let text = one_line(text);
        self.count += 1;
        if text.is_empty() || self.count > MAX_HEADINGS {
            return self.block(&text, start);
        }
        self.close();
        self.first_heading.get_or_insert_with(|| text.clone());
        self.headings.retain(|(above, _)| *above < level);
        self.headings.push((level, text));
        self.open = Some(Open { start, body: String::new(), chars: 0, headed: true });
    }

    /// A paragraph, a list item, a table row, or a code block.
    pub(super) fn block(&mut self, text: &str, start: usize) {
        let mut rest = text.trim_end().trim_start_matches(['\n', '\r']);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cut(rest));
            self.piece(piece, start);
            rest = after.trim_start();
        }
    }

    fn piece(&mut self, text: &str, start: usize) {
        let chars = text.chars().count();
        if self.open.as_ref().is_some_and(|open| open.chars > 0 && open.chars + chars > CHUNK) {
            self.close();
        }
        let open =
            self.open.get_or_insert_with(|| Open { start, body: String::new(), chars: 0, headed: false });
        if !open.body.is_empty() {
            open.body.push('\n');
        }
        open.body.push_str(text);
        open.chars += chars + 1;
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take()
            && (open.headed || !open.body.is_empty())
        {
            let heading = self.headings.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" > ");
            self.sections.push(Section { heading, start: open.start, line: None, body: open.body });
        }
    }

    pub(super) fn finish(mut self) -> (Option<String>, Vec<Section>) {
        self.close();
        (self.title.or(self.first_heading), self.sections)
    }
}

/// Where to end a piece: at its end if it is short, otherwise after a line, a sentence or a word, or anywhere.
fn cut(text: &str) -> usize {
    let Some((end, _)) = text.char_indices().nth(CHUNK) else { return text.len() };
    let head = &text[..end];
    let after =
        |found: Option<(usize, &str)>| found.map(|(at, what)| at + what.len()).filter(|at| *at > end / 2);
    after(head.rmatch_indices('\n').next())
        .or_else(|| after(head.rmatch_indices(['。', '！', '？']).next()))
        .or_else(|| after(head.rmatch_indices(". ").next()))
        .or_else(|| after(head.rmatch_indices(char::is_whitespace).next()))
        .unwrap_or(end)
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MAX_HEADING_CHARS).collect()
}
