//! A complete walk of what an upstream lists: all pages, or nothing (SRC-02).

use std::collections::HashSet;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::client::{Client, Identity, NoResult, Request};
use super::failed::{Failed, shown};
use super::wire::Hear;
use crate::members::{self, Members};

const MOST_PAGES: usize = 100;
const MOST_ITEMS: usize = 5_000;
const MOST_BYTES: usize = 8 << 20;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why a walk was not completed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Incomplete {
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error("it answers `tools/list` with an error: {0}")]
    Error(String),
    #[error("its `tools/list` is not a list of tools")]
    NotAList,
    #[error("its list goes round in a circle: a page names a cursor that was named before")]
    Circle,
    #[error("its list has more than {MOST_PAGES} pages, {MOST_ITEMS} tools or {} MiB", MOST_BYTES >> 20)]
    TooMuch,
    #[error("its list did not come to an end within {} seconds", PATIENCE.as_secs())]
    TooSlow,
}

/// All tools that an upstream lists, each as it was written.
pub(crate) async fn tools(
    client: &Client,
    who: &Identity,
    hear: Hear<'_>,
) -> Result<Vec<Box<RawValue>>, Incomplete> {
    timeout(PATIENCE, pages(client, who, hear)).await.map_err(|_| Incomplete::TooSlow)?
}

async fn pages(client: &Client, who: &Identity, hear: Hear<'_>) -> Result<Vec<Box<RawValue>>, Incomplete> {
    let (mut tools, mut bytes, mut seen) = (Vec::new(), 0, HashSet::new());
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let page = page(client, who, cursor.as_deref(), MOST_BYTES - bytes, hear).await?;
        bytes += page.get().len();
        let members = Members::of(page.get()).ok_or(Incomplete::NotAList)?;
        let listed = members.get("tools").and_then(|tools| members::items(tools.get()));
        tools.extend(listed.ok_or(Incomplete::NotAList)?.into_iter().map(ToOwned::to_owned));
        if tools.len() > MOST_ITEMS || bytes > MOST_BYTES {
            return Err(Incomplete::TooMuch);
        }
        // MCP 2026-07-28 pagination: an empty string is a cursor like any other.
        match members.get("nextCursor").map(RawValue::get).filter(|cursor| *cursor != "null") {
            None => return Ok(tools),
            Some(next) if !seen.insert(next.to_owned()) => return Err(Incomplete::Circle),
            Some(next) => cursor = Some(next.to_owned()),
        }
    }
    Err(Incomplete::TooMuch)
}

async fn page(
    client: &Client,
    who: &Identity,
    cursor: Option<&str>,
    most: usize,
    hear: Hear<'_>,
) -> Result<Box<RawValue>, Incomplete> {
    let params = cursor.map(|cursor| format!(r#""cursor":{cursor}"#)).unwrap_or_default();
    let asked =
        Request { method: "tools/list", params, tool: None, most, deadline: Instant::now() + PATIENCE };
    match client.ask(who, &asked, hear).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => Err(Incomplete::Error(shown(&error.message))),
        Err(NoResult { why: Failed::TooLarge(_), .. }) => Err(Incomplete::TooMuch),
        Err(NoResult { why, .. }) => Err(why.into()),
    }
}
