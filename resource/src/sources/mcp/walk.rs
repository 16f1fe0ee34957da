//! A complete walk of what an upstream lists: all pages of a list, or nothing of it (SRC-02).

use std::collections::HashSet;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::METHOD_NOT_FOUND;
use super::failed::{Failed, shown};
use super::link::Link;
use super::message::RpcError;
use super::request::{Identity, NoResult, Request};
use super::speaks::Capabilities;
use super::wire::Hear;
use crate::item::Kind;
use crate::members::{self, Members};

const MOST_PAGES: usize = 100;
const MOST_ITEMS: usize = 5_000;
const MOST_BYTES: usize = 8 << 20;

/// Why a listing was not completed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Incomplete {
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error("it answers `{0}` with an error: {words}", words = shown(&.1.message))]
    Error(&'static str, RpcError),
    #[error("its `{0}` is not a list of {1}s")]
    NotAList(&'static str, &'static str),
    #[error("its `{0}` goes round in a circle: a page names a cursor that was named before")]
    Circle(&'static str),
    #[error("its `{0}` has more than {MOST_PAGES} pages, {MOST_ITEMS} {1}s or {MIB} MiB", MIB = MOST_BYTES >> 20)]
    TooMuch(&'static str, &'static str),
    #[error("its `{0}` did not come to an end within {1} seconds")]
    TooSlow(&'static str, u64),
}

/// A list that an upstream may have.
#[derive(Clone, Copy)]
struct List {
    kind: Kind,
    method: &'static str,
    /// The member of a page that holds its items.
    member: &'static str,
    /// When its walk takes too long.
    deadline: Instant,
}

fn list_of(kind: Kind, deadline: Instant) -> List {
    let (method, member) = match kind {
        Kind::Tool => ("tools/list", "tools"),
        Kind::Prompt => ("prompts/list", "prompts"),
        Kind::Resource => ("resources/list", "resources"),
        Kind::Template => ("resources/templates/list", "resourceTemplates"),
    };
    List { kind, method, member, deadline }
}

/// All items of a kind that an upstream lists, each as it was written, if it takes no longer than `patience`.
pub(crate) async fn items(
    link: &Link,
    who: &Identity,
    kind: Kind,
    patience: Duration,
    hear: Hear<'_>,
) -> Result<Vec<Box<RawValue>>, Incomplete> {
    let list = list_of(kind, Instant::now() + patience);
    let walked = timeout_at(list.deadline, walk(link, who, list, hear)).await;
    walked.map_err(|_| Incomplete::TooSlow(list.method, patience.as_secs()))?
}

async fn walk(
    link: &Link,
    who: &Identity,
    list: List,
    hear: Hear<'_>,
) -> Result<Vec<Box<RawValue>>, Incomplete> {
    let declared = declared(list.kind, link.capabilities(who).await?);
    // A server that says nothing of its tools may still have some; of the other lists it must speak.
    if !declared && list.kind != Kind::Tool {
        return Ok(Vec::new());
    }
    match pages(link, who, list, hear).await {
        // Not every server with resources has templates.
        Err(Incomplete::Error(_, error))
            if error.code == METHOD_NOT_FOUND && (!declared || list.kind == Kind::Template) =>
        {
            Ok(Vec::new())
        }
        walked => walked,
    }
}

fn declared(kind: Kind, capabilities: Capabilities) -> bool {
    match kind {
        Kind::Tool => capabilities.tools.declared,
        Kind::Prompt => capabilities.prompts.declared,
        Kind::Resource | Kind::Template => capabilities.resources.declared,
    }
}

async fn pages(
    link: &Link,
    who: &Identity,
    list: List,
    hear: Hear<'_>,
) -> Result<Vec<Box<RawValue>>, Incomplete> {
    let (method, one) = (list.method, list.kind.as_str());
    let (mut items, mut bytes, mut seen) = (Vec::new(), 0, HashSet::new());
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let page = page(link, who, list, cursor.as_deref(), MOST_BYTES - bytes, hear).await?;
        bytes += page.get().len();
        let not_a_list = || Incomplete::NotAList(method, one);
        let members = Members::of(page.get()).ok_or_else(not_a_list)?;
        let listed = members.get(list.member).and_then(|items| members::items(items.get()));
        let listed = listed.ok_or_else(not_a_list)?;
        if items.len() + listed.len() > MOST_ITEMS || bytes > MOST_BYTES {
            return Err(Incomplete::TooMuch(method, one));
        }
        items.extend(listed.into_iter().map(ToOwned::to_owned));
        // MCP 2026-07-28 pagination: an empty string is a cursor like any other.
        match members.get("nextCursor").map(RawValue::get).filter(|cursor| *cursor != "null") {
            None => return Ok(items),
            Some(next) if !seen.insert(next.to_owned()) => return Err(Incomplete::Circle(method)),
            Some(next) => cursor = Some(next.to_owned()),
        }
    }
    Err(Incomplete::TooMuch(method, one))
}

async fn page(
    link: &Link,
    who: &Identity,
    list: List,
    cursor: Option<&str>,
    most: usize,
    hear: Hear<'_>,
) -> Result<Box<RawValue>, Incomplete> {
    let params = cursor.map(|cursor| format!(r#""cursor":{cursor}"#)).unwrap_or_default();
    let asked =
        Request { method: list.method, params, item: None, most, memory: None, deadline: list.deadline };
    match link.ask(who, &asked, hear).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => Err(Incomplete::Error(list.method, error)),
        Err(NoResult { why: Failed::TooLarge(_), .. }) => {
            Err(Incomplete::TooMuch(list.method, list.kind.as_str()))
        }
        Err(NoResult { why, .. }) => Err(match unknown_method(&why) {
            Some(error) => Incomplete::Error(list.method, error.clone()),
            None => why.into(),
        }),
    }
}

/// 2026-07-28: an unknown method is answered with HTTP 404 and the error.
fn unknown_method(why: &Failed) -> Option<&RpcError> {
    match why {
        Failed::Status(refusal) => refusal.error.as_ref().filter(|error| error.code == METHOD_NOT_FOUND),
        _ => None,
    }
}
