//! `docs_search` and `docs_read`: the documentation, found and read.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::gate::arguments::integer;
use crate::gate::tools::Said;
use crate::sources::docs::{Docs, DocsError, Hit, Page, ReadError};

pub(crate) const SEARCH: (&str, &str, &str) = (
    "docs_search",
    "Search the documentation",
    "Searches this organisation's documentation by words and returns the best matching sections, best \
     first, each with its path, heading and a snippet. Use a few specific words rather than a sentence. \
     Then call docs_read with a path (and heading) from the results to read the whole section.",
);

pub(crate) const READ: (&str, &str, &str) = (
    "docs_read",
    "Read a document",
    "Returns the text of a document, or of the section under one of its headings. Take the path from \
     docs_search. Long documents come in parts: when next_offset is present, call again with it as offset.",
);

pub(crate) fn search_schemas() -> [Value; 2] {
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

pub(crate) fn read_schemas() -> [Value; 2] {
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

/// Answers off the async threads: a search reads the disk.
pub(crate) async fn search(docs: &Arc<Docs>, arguments: &Map<String, Value>) -> Result<Said, String> {
    let query = text(arguments, "query").unwrap_or_default();
    let limit = number(arguments, "limit").and_then(|limit| u32::try_from(limit).ok());
    let path = text(arguments, "path");
    let (docs, asked) = (Arc::clone(docs), query.clone());
    let search = move || docs.search(&asked, limit, path.as_deref());
    match tokio::task::spawn_blocking(search).await {
        Ok(Ok(hits)) => Ok(found(&query, &hits)),
        Ok(Err(DocsError::Fault(fault))) => Err(broken(&fault)),
        Ok(Err(error)) => Err(broken(&error)),
        Err(panic) => Err(broken(&panic)),
    }
}

fn found(query: &str, hits: &[Hit]) -> Said {
    let mut text = match hits.len() {
        0 => format!("Nothing matches \"{query}\". Try fewer or other words, or leave path out."),
        1 => format!("1 section matches \"{query}\":"),
        many => format!("{many} sections match \"{query}\", best first:"),
    };
    for (at, hit) in hits.iter().enumerate() {
        let heading = if hit.heading.is_empty() { &hit.title } else { &hit.heading };
        let _ = write!(text, "\n\n{}. {} (path: {})\n{}", at + 1, heading, hit.path, hit.snippet.trim());
    }
    Said { text, data: json!({ "hits": hits }) }
}

/// As [`search`].
pub(crate) async fn read(docs: &Arc<Docs>, arguments: &Map<String, Value>) -> Result<Said, String> {
    let path = text(arguments, "path").unwrap_or_default();
    let heading = text(arguments, "heading").filter(|heading| !heading.is_empty());
    let size = |name| number(arguments, name).and_then(|size| usize::try_from(size).ok());
    let (offset, limit) = (size("offset"), size("limit"));
    let docs = Arc::clone(docs);
    let read = move || docs.read(&path, heading.as_deref(), offset, limit);
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(page)) => Ok(shown(&page)),
        Ok(Err(ReadError::Fault(fault))) => Err(broken(&fault)),
        // What there is instead: the model can use it.
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(broken(&panic)),
    }
}

fn shown(page: &Page) -> Said {
    let mut text = page.text.clone();
    if let Some(next) = page.next_offset {
        let _ = write!(
            text,
            "\n\n[Characters {} to {next} of {}. Call docs_read with offset {next} for more.]",
            page.offset, page.total
        );
    }
    Said { text, data: json!(page) }
}

/// Logged here, once; the caller learns nothing about our disk.
fn broken(cause: &dyn std::fmt::Display) -> String {
    tracing::error!(docs.cause = %cause, "the documentation could not be read");
    "The documentation cannot be read at the moment. Try again, or tell an administrator.".to_owned()
}

fn text(arguments: &Map<String, Value>, name: &str) -> Option<String> {
    arguments.get(name)?.as_str().map(str::to_owned)
}

fn number(arguments: &Map<String, Value>, name: &str) -> Option<i64> {
    arguments.get(name).and_then(integer)
}
