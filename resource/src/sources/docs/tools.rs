//! The tools `docs_search` and `docs_read`.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::searching::Stop;
use super::{Docs, DocsError, Hit, Page, ReadError};
use crate::admission::Ask;
use crate::item::{Arguments, Offer};
use crate::sources::Outcome;
use crate::sources::own::{OwnTool, answered, problem};
use crate::sources::schema::integer;

const SEARCH: (&str, &str, &str) = (
    "docs_search",
    "Search the documentation",
    "Searches this organisation's documentation by words and returns the best matching sections, best \
     first, each with its path, heading and a snippet. Use a few specific words rather than a sentence. \
     Then call docs_read with a path (and heading) from the results to read the whole section.",
);

const READ: (&str, &str, &str) = (
    "docs_read",
    "Read a document",
    "Returns the text of a document, or of the section under one of its headings. Take the path from \
     docs_search. Long documents come in parts: when next_offset is present, call again with it as offset.",
);

/// What is done when a tool is called.
type ToolAction = fn(&Docs, &Arguments, &Stop) -> Outcome;

static TOOLS: LazyLock<[(OwnTool, ToolAction); 2]> = LazyLock::new(|| {
    [(OwnTool::new(SEARCH, None, search_schemas()), search), (OwnTool::new(READ, None, read_schemas()), read)]
});
/// The two tools.
pub(super) fn offers() -> impl Iterator<Item = Arc<Offer>> {
    TOOLS.iter().map(|(tool, _)| tool.offer())
}

/// Runs off the async threads, because a search reads the disk.
pub(super) async fn run(docs: &Arc<Docs>, ask: &Ask, arguments: &Arc<Arguments>) -> Outcome {
    let item = ask.what().item();
    let Some((tool, does)) = TOOLS.iter().find(|(tool, _)| tool.name() == &*item.offer.name) else {
        return Outcome::Error;
    };
    if let Err(wrong) = tool.check(arguments) {
        return problem(&wrong);
    }
    let place = if tool.name() == SEARCH.0 { docs.searches.take(ask.asker()).await } else { None };
    // If this future is dropped, nobody waits for the answer.
    let left = CancellationToken::new();
    let _leaving = left.clone().drop_guard();
    let arguments = Arc::clone(arguments);
    super::off_thread(docs, move |docs| {
        let _place = place;
        does(docs, &arguments, &Stop::when_left(left))
    })
    .await
}

fn search_schemas() -> [Value; 2] {
    let hit = json!({
        "type": "object",
        "properties": {
            "path": { "type": "string" },
            "title": { "type": "string" },
            "heading": { "type": "string", "description": "The headings above the match; empty before the first." },
            "snippet": { "type": "string", "description": "Text around the match, matching words between **." },
            "score": { "type": "number", "description": "Larger is better, within one answer." },
            "line": { "type": "integer", "description": "Where the section begins in the file." },
        },
        "required": ["path", "title", "heading", "snippet", "score"],
    });
    [
        json!({
            "type": "object",
            "properties": {
                "query": {
                    "type": "string", "minLength": 1, "maxLength": 1000,
                    "description": "The words to look for. Sections with all of them come first.",
                },
                "limit": {
                    "type": "integer", "minimum": 1, "maximum": 50, "default": 8,
                    "description": "How many sections to return at most.",
                },
                "path": {
                    "type": "string", "maxLength": 1000,
                    "description": "Only documents whose path begins with this, for example guides/.",
                },
            },
            "required": ["query"],
            "additionalProperties": false,
        }),
        json!({
            "type": "object",
            "properties": { "hits": { "type": "array", "items": hit } },
            "required": ["hits"],
        }),
    ]
}

fn read_schemas() -> [Value; 2] {
    [
        json!({
            "type": "object",
            "properties": {
                "path": {
                    "type": "string", "minLength": 1, "maxLength": 1000,
                    "description": "The document's path, as docs_search gave it.",
                },
                "heading": {
                    "type": "string", "maxLength": 1000,
                    "description": "Only what stands under this heading, as docs_search gave it.",
                },
                "offset": {
                    "type": "integer", "minimum": 0, "default": 0,
                    "description": "The character to begin at: next_offset of the answer before.",
                },
                "limit": {
                    "type": "integer", "minimum": 1, "maximum": 60_000, "default": 20_000,
                    "description": "How many characters to return at most.",
                },
            },
            "required": ["path"],
            "additionalProperties": false,
        }),
        json!({
            "type": "object",
            "properties": {
                "path": { "type": "string" },
                "title": { "type": "string" },
                "heading": { "type": "string" },
                "text": { "type": "string" },
                "offset": { "type": "integer" },
                "total": { "type": "integer", "description": "How many characters there are in all." },
                "next_offset": { "type": "integer", "description": "Where to go on; absent at the end." },
            },
            "required": ["path", "title", "text", "offset", "total"],
        }),
    ]
}

fn search(docs: &Docs, arguments: &Arguments, stop: &Stop) -> Outcome {
    let query = text(arguments, "query").unwrap_or_default();
    let limit = number(arguments, "limit").and_then(|limit| u32::try_from(limit).ok());
    match docs.search_until(stop, query, limit, text(arguments, "path")) {
        Ok(hits) => found(query, &hits),
        Err(DocsError::TooLong) => problem("This search takes too long. Use fewer or longer words."),
        Err(DocsError::Fault(fault)) => broken(&fault),
        Err(error) => broken(&error),
    }
}

#[derive(Serialize)]
struct Hits<'h> {
    hits: &'h [Hit],
}

fn found(query: &str, hits: &[Hit]) -> Outcome {
    let mut text = match hits.len() {
        0 => format!("Nothing matches \"{query}\". Try fewer or other words, or leave path out."),
        1 => format!("1 section matches \"{query}\":"),
        many => format!("{many} sections match \"{query}\", best first:"),
    };
    for (at, hit) in hits.iter().enumerate() {
        let heading = if hit.heading.is_empty() { &hit.title } else { &hit.heading };
        let _ = write!(text, "\n\n{}. {} (path: {})\n{}", at + 1, heading, hit.path, hit.snippet.trim());
    }
    answered(&text, &Hits { hits })
}

fn read(docs: &Docs, arguments: &Arguments, _stop: &Stop) -> Outcome {
    let path = text(arguments, "path").unwrap_or_default();
    let heading = text(arguments, "heading").filter(|heading| !heading.is_empty());
    let size = |name| number(arguments, name).and_then(|size| usize::try_from(size).ok());
    match docs.read(path, heading, size("offset"), size("limit")) {
        Ok(page) => shown(&page),
        Err(ReadError::Fault(fault)) => broken(&fault),
        // The model can use the suggestions.
        Err(error) => problem(&error.to_string()),
    }
}

fn shown(page: &Page) -> Outcome {
    let Some(next) = page.next_offset else { return answered(&page.text, page) };
    let text = format!(
        "{}\n\n[Characters {} to {next} of {}. Call docs_read with offset {next} for more.]",
        page.text, page.offset, page.total
    );
    answered(&text, page)
}

/// Logged here; the caller gets no details.
pub(super) fn broken(cause: &dyn std::fmt::Display) -> Outcome {
    tracing::error!(docs.cause = %cause, "the documentation could not be read");
    problem("The documentation cannot be read right now. Try again, or tell an administrator.")
}

fn text<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    arguments.get(name)?.as_str()
}

fn number(arguments: &Arguments, name: &str) -> Option<i64> {
    arguments.get(name).and_then(integer)
}
