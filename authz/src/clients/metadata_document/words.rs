//! Texts shown to users about clients that are known by a document.

use super::DocumentUrl;
use crate::store::clients::{Client, Source, Trust};

/// How an unverified client became known; follows "Not verified".
pub(crate) fn source(source: Source) -> &'static str {
    match source {
        Source::SelfRegistered => "self-registered",
        Source::Administrator | Source::Configuration => "pre-registered",
        Source::Catalogue => "built-in catalogue",
        Source::Imported => "imported document",
        Source::Fetched => "its own document, read from the network",
        Source::UnknownUrl => "its document could not be checked on this network",
    }
}

/// Who chose the client's name; follows "Not verified (…)".
pub(crate) fn claim(source: Source) -> &'static str {
    match source {
        Source::SelfRegistered => "the name is the program’s own claim",
        Source::Administrator | Source::Configuration => "not verified by an administrator",
        Source::Catalogue => "any program can claim to be this one",
        Source::Imported => "the name comes from a document that an administrator imported",
        Source::Fetched => "the name is what its own document says",
        Source::UnknownUrl => "the name is the host of its address, and anybody can claim it",
    }
}

/// Both, for an unverified client.
pub(crate) fn unproven(client: &Client) -> Option<String> {
    (client.trust != Trust::Verified).then(|| source(client.source).to_owned())
}

/// CIMD-09: the warning for a client whose record was made from its own request.
pub(crate) fn unchecked(host: &str) -> String {
    format!(
        "What {host} says of this application could not be checked on this network. All that you read of it here is its own claim."
    )
}

/// CIMD-11: the host that serves the client's document, if the client is known by one.
pub(crate) fn host(client: &Client) -> Option<String> {
    let url = DocumentUrl::parse(client.id.as_str()).ok()?;
    Some(url.host().to_owned())
}
