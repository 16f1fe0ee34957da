//! A request to an upstream, as far as it is the same whatever it is sent over, and who asks.

use std::fmt::Write;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use shared::Secret;
use shared::outbound::memory::HeldMemory;
use tokio::time::Instant;

use super::failed::Failed;
use crate::revision::{CAPABILITIES_META, MODERN, VERSION_META};

/// A request, as far as it is the same in all revisions.
pub(crate) struct Request<'r> {
    pub(crate) method: &'static str,
    /// Its parameters without `_meta`, as members without the braces.
    pub(crate) params: String,
    /// What it is about, if somebody asked for it. It is sent once, and can be cancelled.
    pub(crate) item: Option<Headers<'r>>,
    pub(crate) most: usize,
    /// Where the memory of its answer is counted, if somebody asked for it.
    pub(crate) memory: Option<Arc<HeldMemory>>,
    pub(crate) deadline: Instant,
}

/// The headers of a request that repeat what it says of its item.
#[derive(Default)]
pub(crate) struct Headers<'r> {
    /// The name or URI of the item, for the methods whose requests repeat it.
    pub(crate) name: Option<&'r str>,
    /// Arguments that its definition wants repeated.
    pub(crate) mirrored: Vec<(HeaderName, HeaderValue)>,
}

/// The caller of a request, as the upstream is told.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    /// Sessions are not shared between different keys.
    pub(crate) key: Option<String>,
    /// The credentials, sent with every request over HTTP.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The credentials in the environment of a program.
    pub(crate) variables: Vec<(String, Secret)>,
    /// The version of the credentials.
    pub(crate) version: u64,
    /// Whose request it is; `None` if it is the gateway's own.
    pub(crate) caller: Option<Caller>,
}

/// Who shares a program with whom is decided by this (SRC-07).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: String,
    pub(crate) session: Option<String>,
}

/// Why there is no result, and whether the request was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NoResult {
    pub(crate) sent: bool,
    pub(crate) why: Failed,
}

impl Request<'_> {
    /// Its parameters as a server of this kind of revision wants them, with this progress token.
    pub(super) fn written(&self, is_modern: bool, progress: Option<u64>) -> String {
        let progress = progress.map(|token| format!(r#""progressToken":{token}"#));
        let meta = if is_modern { Some(modern_meta(progress.as_deref())) } else { progress };
        let mut params = format!("{{{}", self.params);
        if let Some(meta) = meta {
            let comma = if self.params.is_empty() { "" } else { "," };
            let _ = write!(params, r#"{comma}"_meta":{{{meta}}}"#);
        }
        params.push('}');
        params
    }
}

/// What every request of that revision says of itself. No capability is declared: nothing can be asked back.
fn modern_meta(progress: Option<&str>) -> String {
    let more = progress.map(|progress| format!(",{progress}")).unwrap_or_default();
    format!(
        r#""{VERSION_META}":"{MODERN}","io.modelcontextprotocol/clientInfo":{},"{CAPABILITIES_META}":{{}}{more}"#,
        client_info()
    )
}

pub(super) fn client_info() -> &'static str {
    concat!(r#"{"name":"portcullis","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#)
}
