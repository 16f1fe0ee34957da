//! The lists of items: what the caller can have through this client, each as its source defined it (MCP-10).

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use shared::Digest;

use super::GateContext;
use super::answer::Answer;
use super::call::unknown_cursor;
use super::era::Era;
use super::lifecycle::FRESH_MS;
use super::refusal::Refusal;
use crate::bearer::CheckedToken;
use crate::item::{Item, Kind};
use crate::members::{Edit, Members};
use crate::policy;

/// How many items a page has: many clients never ask for a second one (SRC-02).
const PAGE: usize = 1_000;

/// The answer to the request with this id for a list.
pub(super) fn list(
    id: &Value,
    era: Era,
    (at, caller): (&GateContext, &CheckedToken),
    kind: Kind,
    cursor: Option<&str>,
) -> Result<Answer, Refusal> {
    let after = match cursor {
        Some(cursor) => Some(read_cursor(kind, cursor).ok_or_else(unknown_cursor)?),
        None => None,
    };
    let mut items = visible(at, caller, kind)
        .skip_while(|item| after.as_deref().is_some_and(|after| *item.offer.name <= *after));
    let mut members = format!("\"{}\":[", member(kind)).into_bytes();
    let mut last = None;
    for (nth, item) in items.by_ref().take(PAGE).enumerate() {
        if nth > 0 {
            members.push(b',');
        }
        let listed = item.listed.get();
        match era {
            Era::Legacy(_) if item.offer.modern_output => {
                members.extend_from_slice(without_output(listed).as_bytes());
            }
            _ => members.extend_from_slice(listed.as_bytes()),
        }
        last = Some(item);
    }
    members.push(b']');
    if let (Some(last), Some(_)) = (last, items.next()) {
        members.extend_from_slice(format!(",\"nextCursor\":\"{}\"", cursor_after(last)).as_bytes());
    }
    if era == Era::Modern {
        members.extend_from_slice(format!(",\"ttlMs\":{FRESH_MS},\"cacheScope\":\"private\"").as_bytes());
    }
    Ok(Answer::result(id, era, &members))
}

/// The items of a kind that the caller sees at an endpoint, in the order of their names.
pub(super) fn visible<'a>(
    at: &'a GateContext,
    caller: &'a CheckedToken,
    kind: Kind,
) -> impl Iterator<Item = &'a Item> {
    let items = at.snapshot.items_at(&at.profile, kind).map(|item| &**item);
    items.filter(|item| policy::decide(&item.needs, &caller.caller()).listed())
}

/// The member of a list's result that holds its items.
fn member(kind: Kind) -> &'static str {
    match kind {
        Kind::Tool => "tools",
        Kind::Prompt => "prompts",
        Kind::Resource => "resources",
        Kind::Template => "resourceTemplates",
    }
}

/// A cursor says after which item the next page begins, so that it needs no memory here and holds when items come or go.
fn cursor_after(item: &Item) -> String {
    let mut cursor = check(item.offer.kind, &item.offer.name).to_vec();
    cursor.extend_from_slice(item.offer.name.as_bytes());
    BASE64URL_NOPAD.encode(&cursor)
}

fn read_cursor(kind: Kind, cursor: &str) -> Option<String> {
    let decoded = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
    let (said, name) = decoded.split_first_chunk()?;
    let name = std::str::from_utf8(name).ok()?;
    (*said == check(kind, name)).then(|| name.to_owned())
}

/// Tells a cursor of ours from other text. Everybody can make one; it opens nothing.
fn check(kind: Kind, name: &str) -> [u8; 4] {
    let digest = Digest::of(format!("{} {name}", kind.as_str()).as_bytes()).0;
    [digest[0], digest[1], digest[2], digest[3]]
}

/// A definition for clients that know output schemas of objects only (SRC-06).
fn without_output(listed: &str) -> String {
    let edit = |name: &str| if name == "outputSchema" { Edit::Drop } else { Edit::Keep };
    Members::of(listed).map_or_else(|| listed.to_owned(), |members| format!("{{{}}}", members.edited(edit)))
}
