//! The built-in documentation source: a folder of Markdown, HTML and plain text that can be searched and read.
//!
//! A scan copies every document into its own index (`docs.db`), which can be deleted at any time. Searching and
//! reading use only the index: no path from a caller reaches the file system. The scan opens files beneath a
//! handle to the folder, so `..`, absolute paths and links cannot lead outside, even if they change while it
//! runs.

mod folder;
mod front_matter;
mod html;
mod index;
mod markdown;
mod outline;
mod query;
pub(crate) mod resources;
mod scan;
mod searching;
mod section;
mod snippet;
pub(crate) mod tools;
mod watch;
mod words;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use shared::db::OpenError;
use shared::{Clock, Db, Fault};

pub use folder::Folder;
pub use scan::Changes;
pub use watch::Watch;

use crate::admission::{Ask, AskKind};
use crate::item::{Offered, SourceName};
use crate::sources::Outcome;
use query::Query;
use searching::Stop;

/// The default number of hits.
const HITS: u32 = 8;
const MAX_HITS: u32 = 50;
/// The default number of characters of a page.
const PAGE: usize = 20_000;
const MAX_PAGE: usize = 60_000;
/// The default number of documents in a listing.
const LISTED: u32 = 200;
const MAX_LISTED: u32 = 1_000;

/// A folder of documents and its index.
pub struct Docs {
    db: Db,
    folder: Folder,
    clock: Clock,
    /// Held during a scan, so that only one runs.
    scanned: Mutex<scan::Scanned>,
    generation: tokio::sync::watch::Sender<u64>,
    /// What is offered of the index, and of which generation.
    offered: ArcSwapOption<(u64, Arc<Offered>)>,
    searches: searching::SearchSlots,
}

/// A section that matches a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    pub path: String,
    pub title: String,
    /// The headings above it, "Guide > Install > Linux"; empty before the first one.
    pub heading: String,
    /// About 300 characters around the match, with the matched words in `**`.
    pub snippet: String,
    /// Larger is better; comparable only within one answer.
    pub score: f64,
    /// The line of the file where the section begins, for formats in which lines are meaningful.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// A part of a document, counted in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    pub path: String,
    pub title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heading: Option<String>,
    pub text: String,
    pub offset: usize,
    pub total: usize,
    /// Where to continue; `None` at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<usize>,
}

/// A list of documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    pub documents: Vec<Listed>,
    /// The total number, listed here or not.
    pub total: u64,
}

/// A document in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub path: String,
    pub title: String,
}

/// Why the documents could not be opened, scanned or searched.
#[derive(Debug, thiserror::Error)]
pub enum DocsError {
    #[error("--docs {}: {problem}; give an existing folder that this user can read", .path.display())]
    Folder { path: PathBuf, problem: String },
    #[error("the search index {} could not be opened: {source}", .path.display())]
    Index { path: PathBuf, source: OpenError },
    #[error("{} contains something other than a search index; it was not changed", .0.display())]
    NotAnIndex(PathBuf),
    #[error("the search takes too long; use fewer or longer words")]
    TooLong,
    #[error("the search index: {0}")]
    Fault(#[from] Fault),
}

/// Why a document could not be read. The message is for the caller.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("no document {path:?}{}", index::or_instead(.nearest))]
    UnknownPath { path: String, nearest: Vec<String> },
    #[error("{path} has no heading {heading:?}; its headings are: {}", .headings.join(", "))]
    UnknownHeading { path: String, heading: String, headings: Vec<String> },
    #[error("the search index: {0}")]
    Fault(#[from] Fault),
}

impl Docs {
    /// Opens the index of a folder and updates it.
    ///
    /// An index that is damaged, or was made by another version or for another folder, is made again. Waits for
    /// the disk: never call this or [`Docs::scan`] from an async task.
    ///
    /// # Errors
    /// [`DocsError::Folder`] if the folder cannot be listed; errors of the index.
    pub fn open(index: &Path, folder: Folder, clock: &Clock) -> Result<Self, DocsError> {
        folder.root()?;
        let db = index::open(index, &folder.origin(), clock)?;
        let docs = Self::new(db, folder, clock);
        let (folder, why) = match docs.scan() {
            Ok(_) => return Ok(docs),
            Err(DocsError::Fault(Fault::Corrupt(why))) => (docs.folder.clone(), why),
            Err(error) => return Err(error),
        };
        // Close it before its file is deleted, because SQLite cleans up by name.
        drop(docs);
        index::discard(index, &why)?;
        let docs = Self::new(index::open(index, &folder.origin(), clock)?, folder, clock);
        docs.scan()?;
        Ok(docs)
    }

    fn new(db: Db, folder: Folder, clock: &Clock) -> Self {
        let (generation, _) = tokio::sync::watch::channel(0);
        let (offered, searches) = (ArcSwapOption::empty(), searching::SearchSlots::among(db.readers()));
        let scanned = Mutex::default();
        Self { db, folder, clock: clock.clone(), scanned, generation, offered, searches }
    }

    /// A number that increases whenever a scan has changed the index.
    pub fn generation(&self) -> tokio::sync::watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The best matching sections. Any text is a query; one without words finds nothing.
    ///
    /// All words must occur in a section; if that finds nothing, any word is enough.
    ///
    /// # Errors
    /// [`DocsError::TooLong`], or the index's fault.
    pub fn search(
        &self,
        query: &str,
        limit: Option<u32>,
        path_prefix: Option<&str>,
    ) -> Result<Vec<Hit>, DocsError> {
        self.search_until(&Stop::at_the_limit(), query, limit, path_prefix)
    }

    /// The same until it is stopped.
    fn search_until(
        &self,
        stop: &Stop,
        query: &str,
        limit: Option<u32>,
        path_prefix: Option<&str>,
    ) -> Result<Vec<Hit>, DocsError> {
        let limit = limit.unwrap_or(HITS).clamp(1, MAX_HITS) as usize;
        let query = Query::parse(query);
        for expression in [query.all(), query.any()].into_iter().flatten() {
            let asked = stop.clone();
            let hits = self.db.read_until(
                move || asked.is_due(),
                |c| index::search(c, stop, &expression, &query, limit, path_prefix.unwrap_or("")),
            )?;
            match hits {
                Some(hits) if !hits.is_empty() => return Ok(hits),
                Some(_) if !stop.is_due() => {}
                _ => return Err(DocsError::TooLong),
            }
        }
        Ok(Vec::new())
    }

    /// A document, or the text under one of its headings.
    ///
    /// # Errors
    /// A path or heading that is not in the index, with existing ones instead.
    pub fn read(
        &self,
        path: &str,
        heading: Option<&str>,
        offset: Option<usize>,
        limit: Option<usize>,
    ) -> Result<Page, ReadError> {
        let Part { title, heading, text } = self.part(path, heading)?;
        let offset = offset.unwrap_or(0);
        let total = text.chars().count();
        let page: String = text.chars().skip(offset).take(limit.unwrap_or(PAGE).clamp(1, MAX_PAGE)).collect();
        let end = offset.saturating_add(page.chars().count());
        let next_offset = (end < total).then_some(end);
        Ok(Page { path: path.to_owned(), title, heading, text: page, offset, total, next_offset })
    }

    /// All of a document, or of what stands under one of its headings.
    fn part(&self, path: &str, heading: Option<&str>) -> Result<Part, ReadError> {
        let Some(document) = self.db.read(|c| index::document(c, path))? else {
            let nearest = self.db.read(|c| index::nearest(c, path))?;
            return Err(ReadError::UnknownPath { path: clipped(path), nearest });
        };
        let Some(wanted) = heading else {
            return Ok(Part { title: document.title, heading: None, text: document.text });
        };
        match document.under(wanted) {
            Some((heading, text)) => {
                let (heading, text) = (Some(heading.to_owned()), text.into_owned());
                Ok(Part { title: document.title, heading, text })
            }
            None => Err(document.unknown_heading(path, clipped(wanted))),
        }
    }

    /// The documents whose paths begin with `path_prefix`, sorted by path.
    ///
    /// # Errors
    /// A fault of the index.
    pub fn list(&self, path_prefix: Option<&str>, limit: Option<u32>) -> Result<Listing, DocsError> {
        let limit = limit.unwrap_or(LISTED).clamp(1, MAX_LISTED);
        Ok(self.db.read(|c| index::list(c, path_prefix.unwrap_or(""), limit))?)
    }
}

/// What is offered before anything was read; it does not depend on the documents.
pub(crate) fn always_offered() -> Arc<Offered> {
    let offers = tools::offers().chain([resources::template()]).collect();
    Arc::new(Offered { source: SourceName::DOCS.into(), offers, own_secret: None })
}

/// Does with an item what is asked.
pub(crate) async fn run(docs: &Arc<Docs>, ask: &Ask) -> Outcome {
    match ask.what() {
        AskKind::Tool(_, arguments) => tools::run(docs, ask, arguments).await,
        AskKind::Resource(_, uri) => resources::read(docs, uri, ask.era()).await,
        AskKind::Completion(_, completing) => resources::complete(docs, completing).await,
        AskKind::Prompt(..) => Outcome::Error,
    }
}

/// Reads the index where it stops nobody else.
async fn off_thread(docs: &Arc<Docs>, reads: impl FnOnce(&Docs) -> Outcome + Send + 'static) -> Outcome {
    let docs = Arc::clone(docs);
    match tokio::task::spawn_blocking(move || reads(&docs)).await {
        Ok(outcome) => outcome,
        Err(panic) => tools::broken(&panic),
    }
}

/// A document, or a part of it.
struct Part {
    title: String,
    heading: Option<String>,
    text: String,
}

/// A caller's text, shortened for a message.
fn clipped(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
