//! The sections of the documents as resources: `docs:///PATH` is a document, `docs:///PATH#HEADING` what stands under one of
//! its headings. They give away what `docs_read` gives away, so its rule is theirs, unless they have one of their own.

use std::sync::{Arc, LazyLock};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::section::Kind as Format;
use super::{Docs, ReadError, index, tools};
use crate::admission::Completing;
use crate::item::{Address, Effect, Kind, Offer, Offered, SourceName};
use crate::revision::Era;
use crate::sources::Outcome;
use crate::sources::mcp::message::RpcError;
use crate::uri::{CanonicalUri, UriTemplate};

/// How many are listed; the template reaches the others.
const LISTED: usize = 1_000;
/// How many values a completion has (MCP completion: "Maximum 100 items per response").
const COMPLETIONS: u32 = 100;
const BEGINS: &str = "docs:///";
const TEMPLATE: &str = "docs:///{+path}{#heading}";

static ANY: LazyLock<Arc<Offer>> = LazyLock::new(|| {
    let address = Address::All(UriTemplate::parse(TEMPLATE).expect("our own template is one"));
    let words = "A document, or what stands under one of its headings. docs_search finds path and heading.";
    let listed = json!({ "uriTemplate": TEMPLATE, "name": "document", "title": "Documentation", "description": words });
    Arc::new(offer(Kind::Template, TEMPLATE, address, "Documentation", &listed))
});

/// The template that reaches everything.
pub(super) fn template() -> Arc<Offer> {
    Arc::clone(&ANY)
}

impl Docs {
    /// What is offered of the documents as they are. It is made once for each change of the index.
    pub(crate) fn offered(&self) -> Arc<Offered> {
        let generation = *self.generation.borrow();
        if let Some(known) = self.offered.load().as_ref().filter(|known| known.0 == generation) {
            return Arc::clone(&known.1);
        }
        let outline = self.db.read(|c| index::outline(c, LISTED)).unwrap_or_else(|fault| {
            tracing::error!(docs.cause = %fault, "the documents cannot be listed as resources");
            Vec::new()
        });
        let always = tools::offers().chain([template()]);
        let offers = always.chain(outline.iter().filter_map(listed)).collect();
        let offered = Arc::new(Offered { source: SourceName::DOCS.into(), offers, own_secret: None });
        self.offered.store(Some(Arc::new((generation, Arc::clone(&offered)))));
        offered
    }
}

/// A document, or one of its headings, as lists show it. A path that no URI can carry in one way only is not listed.
fn listed([path, title, heading]: &[String; 3]) -> Option<Arc<Offer>> {
    let uri = uri(path, heading);
    let address = Address::One(CanonicalUri::parse(&uri).ok()?);
    let whole = heading.is_empty() || heading == title;
    let title = if whole { title.clone() } else { format!("{title}: {heading}") };
    let listed = json!({ "uri": uri, "name": path, "title": title, "mimeType": media_type(path) });
    Some(Arc::new(offer(Kind::Resource, &uri, address, &title, &listed)))
}

fn offer(kind: Kind, at_source: &str, address: Address, title: &str, listed: &Value) -> Offer {
    let name = match &address {
        Address::One(uri) => Offer::resource_name(&SourceName::DOCS.into(), uri.as_str()),
        Address::All(_) => Offer::resource_name(&SourceName::DOCS.into(), at_source),
    };
    Offer {
        kind,
        name: name.into(),
        at_source: at_source.into(),
        address: Some(address),
        title: title.to_owned(),
        listed: to_raw_value(listed).expect("a value is JSON"),
        modern_output: false,
        effect: Effect::ReadOnly,
        needs: None,
        like: Some(Offer::READS_DOCS),
        mirrored: Vec::new(),
    }
}

/// Reads what a URI stands for.
pub(super) async fn read(docs: &Arc<Docs>, uri: &str, era: Era) -> Outcome {
    let uri = uri.to_owned();
    super::off_thread(docs, move |docs| {
        let Some((path, heading)) = parts(&uri) else { return not_found(&uri, era) };
        match docs.part(&path, heading.as_deref()) {
            Ok(found) => contents(&uri, &path, &found.text, era),
            Err(ReadError::UnknownPath { .. } | ReadError::UnknownHeading { .. }) => not_found(&uri, era),
            Err(ReadError::Fault(fault)) => tools::broken(&fault),
        }
    })
    .await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Contents<'c> {
    uri: &'c str,
    mime_type: &'static str,
    text: &'c str,
}

fn contents(uri: &str, path: &str, text: &str, era: Era) -> Outcome {
    let contents = [Contents { uri, mime_type: media_type(path), text }];
    let contents = serde_json::to_string(&contents).expect("text is JSON");
    // The folder may change at any time.
    let hints = if era == Era::Modern { r#","ttlMs":0,"cacheScope":"private""# } else { "" };
    let members = format!("\"contents\":{contents}{hints}").into_bytes();
    Outcome::Result { members, meta: String::new(), is_error: false, links: Vec::new() }
}

/// The error of each revision for a resource that is not there.
fn not_found(uri: &str, era: Era) -> Outcome {
    let code = if era == Era::Modern { -32602 } else { -32002 };
    let data: Option<Box<RawValue>> = to_raw_value(&json!({ "uri": uri })).ok();
    Outcome::Refused(RpcError { code, message: "Resource not found".to_owned(), data })
}

/// Which paths and headings go on from what is typed.
pub(super) async fn complete(docs: &Arc<Docs>, completing: &Arc<Completing>) -> Outcome {
    let completing = Arc::clone(completing);
    super::off_thread(docs, move |docs| {
        let typed = completing.argument["value"].as_str().unwrap_or_default();
        let values = match completing.argument["name"].as_str() {
            Some("path") => docs.list(Some(typed), Some(COMPLETIONS)).map(|found| {
                (found.documents.into_iter().map(|document| document.path).collect(), found.total)
            }),
            Some("heading") => headings(docs, &completing, typed).map_err(Into::into),
            _ => Ok((Vec::new(), 0)),
        };
        match values {
            Ok((values, total)) => completed(&values, total),
            Err(error) => tools::broken(&error),
        }
    })
    .await
}

fn headings(docs: &Docs, completing: &Completing, typed: &str) -> Result<(Vec<String>, u64), shared::Fault> {
    let context = completing.context.as_ref();
    let path = context.and_then(|context| context["arguments"]["path"].as_str()).unwrap_or_default();
    let mut headings = docs.db.read(|c| index::headings(c, path))?;
    headings.retain(|heading| heading.starts_with(typed));
    let total = headings.len() as u64;
    headings.truncate(COMPLETIONS as usize);
    Ok((headings, total))
}

fn completed(values: &[String], total: u64) -> Outcome {
    let completion = json!({ "values": values, "total": total, "hasMore": total > values.len() as u64 });
    let members = format!("\"completion\":{completion}").into_bytes();
    Outcome::Result { members, meta: String::new(), is_error: false, links: Vec::new() }
}

/// What a reader is given of it: of an HTML page its text.
fn media_type(path: &str) -> &'static str {
    if Format::of(path) == Some(Format::Markdown) { "text/markdown" } else { "text/plain" }
}

fn uri(path: &str, heading: &str) -> String {
    let mut uri = format!("{BEGINS}{}", encoded(path, b"/"));
    if !heading.is_empty() {
        uri.push('#');
        // RFC 3986 §3.5: both stand for themselves in a fragment.
        uri.push_str(&encoded(heading, b"/?"));
    }
    uri
}

/// The path and the heading that a URI names.
fn parts(uri: &str) -> Option<(String, Option<String>)> {
    let uri = CanonicalUri::parse(uri).ok()?;
    let rest = uri.as_str().strip_prefix(BEGINS)?;
    let (path, heading) = match rest.split_once('#') {
        Some((path, heading)) => (path, Some(heading)),
        None => (rest, None),
    };
    let heading = heading.filter(|heading| !heading.is_empty()).map(decoded);
    Some((decoded(path)?, heading.map_or(Some(None), |heading| heading.map(Some))?))
}

/// Percent-encodes everything but unreserved characters and these (RFC 3986 §2.1).
fn encoded(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
    encoded
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = rest.get(..2)?;
            bytes.extend(data_encoding::HEXUPPER.decode(digits).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// DOCS-01, SRC-04: whatever a path and a heading look like, their URI names them and nothing else, or is none.
        #[test]
        fn a_uri_names_its_section(path in "[a-z]{1,3}(/[^/\\\\\u{0}-\u{1f}]{1,6}){0,3}", heading in "\\PC{0,8}") {
            let uri = uri(&path, &heading);
            if let Ok(canonical) = CanonicalUri::parse(&uri) {
                prop_assert_eq!(canonical.as_str(), &uri);
                let heading = (!heading.is_empty()).then_some(heading);
                prop_assert_eq!(parts(&uri), Some((path, heading)));
            } else {
                let ambiguous = path.split('/').any(|part| part == "." || part == "..");
                let separators = [&path, &heading].iter().any(|text| text.contains(['\\', '\u{7f}']));
                prop_assert!(ambiguous || separators || uri.len() > crate::uri::LONGEST);
            }
        }
    }
}
