//! Public documents (META-08): prepared bytes and headers, made again only when their content changes.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::secret::Digest;

/// A document that anyone may read and caches may keep.
#[derive(Clone, Debug)]
pub struct Document {
    body: Bytes,
    etag: HeaderValue,
    headers: HeaderMap,
}

impl Document {
    /// A document that caches may keep for `max_age`. Its entity tag is a digest of its bytes.
    ///
    /// # Panics
    /// Never: all header values are visible ASCII.
    pub fn new(body: impl Into<Bytes>, content_type: &'static str, max_age: Duration) -> Self {
        let body = body.into();
        let tag = format!("\"{}\"", BASE64URL_NOPAD.encode(&Digest::of(&body).0));
        let etag = HeaderValue::try_from(tag).expect("base64url is visible ASCII");
        let cache = format!("public, max-age={}", max_age.as_secs());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::try_from(cache).expect("digits are visible ASCII"));
        headers.insert(ETAG, etag.clone());
        headers.insert(
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("cross-origin"),
        );
        // Every response has these; here they cost nothing (HTTP-04).
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        Self { body, etag, headers }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// The response to GET and HEAD: the document, or 304 (RFC 9110 §13.1.2). For HEAD, hyper omits the body
    /// and keeps its length.
    pub fn answer(&self, asked: &HeaderMap) -> Response {
        let unchanged = self.matches(asked);
        let mut response =
            Response::new(if unchanged { Body::empty() } else { Body::from(self.body.clone()) });
        *response.headers_mut() = self.headers.clone();
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    }

    /// Whether any of the listed tags matches, by weak comparison (RFC 9110 §13.1.2).
    fn matches(&self, asked: &HeaderMap) -> bool {
        let tag = self.etag.as_bytes();
        let listed =
            asked.get_all(IF_NONE_MATCH).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
        listed
            .map(<[u8]>::trim_ascii)
            .any(|listed| listed == b"*" || listed.strip_prefix(b"W/").unwrap_or(listed) == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(tags: &[&str]) -> HeaderMap {
        tags.iter().map(|tag| (IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap())).collect()
    }

    /// META-08: a document says how long it may be cached; a client that lists its tag gets 304.
    #[test]
    fn a_matching_etag_gets_304() {
        let document = Document::new("{}", "application/json", Duration::from_mins(5));
        let whole = document.answer(&HeaderMap::new());
        assert_eq!(whole.status(), StatusCode::OK);
        assert_eq!(whole.headers()[CACHE_CONTROL], "public, max-age=300");
        let etag = whole.headers()[ETAG].to_str().unwrap().to_owned();
        for listed in
            [&[etag.as_str()][..], &["*"], &["\"x\"", &format!("W/{etag}")], &[&format!("\"x\", {etag}")]]
        {
            let answer = document.answer(&asking(listed));
            assert_eq!(
                (answer.status(), &answer.headers()[ETAG]),
                (StatusCode::NOT_MODIFIED, &etag.parse().unwrap())
            );
        }
        for listed in [&["\"x\""][..], &[""], &[&etag[1..]], &["\"*\""]] {
            assert_eq!(document.answer(&asking(listed)).status(), StatusCode::OK, "{listed:?}");
        }
        let other = Document::new("{ }", "application/json", Duration::from_mins(5));
        assert_ne!(other.answer(&HeaderMap::new()).headers()[ETAG], etag);
    }
}
