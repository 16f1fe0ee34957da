//! What a conversation with an upstream begins with, whatever it is held over: the question that tells the eras apart
//! (SRC-07), and `initialize` in the older revisions.

use serde_json::value::RawValue;

use super::failed::{Failed, shown};
use super::message::{Answered, RpcError};
use super::request::client_info;
use super::speaks::{Capabilities, SpokenEra};
use super::{HEADER_MISMATCH, METHOD_NOT_FOUND, MISSING_CAPABILITY, UNSUPPORTED_VERSION};
use crate::members::Members;
use crate::revision::{LEGACY, MODERN, legacy};

/// The most bytes of the answers to a probe and to `initialize`.
pub(super) const MOST_LIFECYCLE: usize = 256 * 1024;
/// The question that only servers of the newer revisions know.
pub(super) const DISCOVER: &str = "server/discover";

/// The parameters of `initialize`, as members without the braces. No capability is declared: a server that is shared cannot
/// say whose its requests are (SRC-06).
pub(super) fn initialize() -> String {
    format!(r#""protocolVersion":"{}","capabilities":{{}},"clientInfo":{}"#, LEGACY[0], client_info())
}

/// Errors that only a server of the newer revisions makes.
pub(super) fn speaks_modern(error: &RpcError) -> bool {
    matches!(error.code, HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION)
}

/// What an error says that answers the question.
pub(super) fn told_by(error: &RpcError) -> SpokenEra {
    if modern_by(error) { SpokenEra::Modern(Capabilities::default()) } else { SpokenEra::Legacy }
}

/// Whether such a server speaks the revision that is spoken here.
fn modern_by(error: &RpcError) -> bool {
    let supports = |data: &RawValue| {
        let supported = Members::of(data.get())?.get("supported")?;
        serde_json::from_str::<Vec<String>>(supported.get()).ok()
    };
    match error.code {
        UNSUPPORTED_VERSION => {
            let supported = error.data.as_deref().and_then(supports).unwrap_or_default();
            supported.is_empty() || supported.iter().any(|version| version == MODERN)
        }
        _ => speaks_modern(error),
    }
}

/// What a result says that answers the question.
pub(super) fn discovered(result: &RawValue) -> Result<SpokenEra, Failed> {
    let unreadable = || Failed::Unreadable("it answers `server/discover` with something else".to_owned());
    let result = Members::of(result.get()).ok_or_else(unreadable)?;
    let versions: Vec<String> = result
        .get("supportedVersions")
        .and_then(|versions| serde_json::from_str(versions.get()).ok())
        .ok_or_else(unreadable)?;
    if versions.iter().any(|version| version == MODERN) {
        return Ok(SpokenEra::Modern(Capabilities::of(&result)));
    }
    if versions.iter().any(|version| legacy(version).is_some()) {
        return Ok(SpokenEra::Legacy);
    }
    Err(Failed::Unreadable("it speaks no revision of MCP that is known here".to_owned()))
}

/// The revision that `initialize` was answered with, among those that are `known`, and what the server offers.
pub(super) fn agreed(
    answered: &Answered,
    known: impl Fn(&str) -> Option<&'static str>,
) -> Result<(&'static str, Capabilities), Failed> {
    let result = match answered {
        Ok(result) => Members::of(result.get()),
        Err(error) if error.code == METHOD_NOT_FOUND => {
            return Err(Failed::Unreadable("it knows neither `server/discover` nor `initialize`".to_owned()));
        }
        Err(error) => {
            let words = shown(&error.message);
            return Err(Failed::Unreadable(format!("it refuses `initialize`: {words}")));
        }
    };
    let unreadable = || Failed::Unreadable("it answers `initialize` with something else".to_owned());
    let result = result.ok_or_else(unreadable)?;
    let said = result.text("protocolVersion").ok_or_else(unreadable)?;
    let version = known(&said).ok_or_else(|| {
        Failed::Unreadable(format!(
            "it wants MCP {}; known here are {MODERN} and {}",
            shown(&said),
            LEGACY.join(", ")
        ))
    })?;
    Ok((version, Capabilities::of(&result)))
}
