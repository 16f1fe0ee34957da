//! Client ids that are URLs (Client ID Metadata Document §3).

use shared::ClientId;
use shared::percent::is_percent_encoded;
use url::Url;

/// The URL of a client id metadata document, which is also the client id. It is kept as the text that was sent:
/// two different texts are two clients (CIMD-03).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DocumentUrl {
    id: ClientId,
    url: Url,
}

/// Why a text that looks like a URL is not a valid client id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("is longer than 512 bytes, or contains characters other than visible ASCII")]
    Characters,
    #[error("is not https")]
    NotHttps,
    #[error("has a fragment")]
    Fragment,
    #[error("has a query")]
    Query,
    #[error("has a user name")]
    UserInfo,
    #[error("has no path")]
    NoPath,
    /// The URL is not in its normal form: dot segments, capital letters in the host, a default port, or an IP
    /// address in another notation.
    #[error("is not in normalized form")]
    NotPlain,
}

impl DocumentUrl {
    /// Whether a client id looks like a URL. Ids issued by this server never do (AT-03).
    pub(crate) fn is_meant(client_id: &str) -> bool {
        client_id.contains("://") || client_id.to_ascii_lowercase().starts_with("https:")
    }

    /// Parses a client id that is a URL (CIMD-03).
    ///
    /// # Errors
    /// See [`UrlError`].
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let id = ClientId::parse(text).ok_or(UrlError::Characters)?;
        let after_scheme = text.strip_prefix("https://").ok_or(UrlError::NotHttps)?;
        if text.contains('#') {
            return Err(UrlError::Fragment);
        }
        if text.contains('?') {
            return Err(UrlError::Query);
        }
        let (authority, path) = after_scheme.split_once('/').ok_or(UrlError::NoPath)?;
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        if path.is_empty() {
            return Err(UrlError::NoPath);
        }
        let url = Url::parse(text).map_err(|_| UrlError::NotPlain)?;
        // If the parser normalised anything, its text differs from the one that was sent.
        if !is_percent_encoded(text) || url.as_str() != text || url.host_str().is_none_or(str::is_empty) {
            return Err(UrlError::NotPlain);
        }
        Ok(Self { id, url })
    }

    /// The client id.
    pub(crate) fn id(&self) -> &ClientId {
        &self.id
    }

    /// The text of the URL.
    pub(crate) fn as_str(&self) -> &str {
        self.id.as_str()
    }

    /// The host that serves the document. It is shown to users (CIMD-11).
    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.url.port().unwrap_or(443)
    }

    /// The path and query of the request.
    pub(crate) fn path(&self) -> &str {
        self.url.path()
    }

    /// The value of the `Host` header: the host, and the port unless it is the default.
    pub(crate) fn authority(&self) -> &str {
        self.url.authority()
    }
}

/// The host of a client id that looks like a URL, even a malformed one, for display.
pub(crate) fn host_for_people(client_id: &str) -> String {
    let after_scheme = client_id.split_once("://").map_or(client_id, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use UrlError as E;

    /// CIMD-03: accepted URLs.
    #[test]
    fn valid_client_id_urls_are_accepted() {
        for good in [
            "https://claude.ai/oauth/claude-code-client-metadata",
            "https://app.corp.example:8443/client.json",
            "https://10.0.0.7/client.json",
            "https://[fd00::1]/client.json",
            "https://a.example/%41/b",
        ] {
            let url = DocumentUrl::parse(good).unwrap_or_else(|why| panic!("{good} {why}"));
            assert_eq!(url.as_str(), good);
            assert!(DocumentUrl::is_meant(good));
        }
        let url = DocumentUrl::parse("https://app.corp.example:8443/client.json").unwrap();
        assert_eq!((url.host(), url.port(), url.path()), ("app.corp.example", 8443, "/client.json"));
        assert_eq!(url.authority(), "app.corp.example:8443");
    }

    /// CIMD-03: every refusal, including each unusual notation of an IP address (CIMD-06).
    #[test]
    fn invalid_client_id_urls_are_refused() {
        for (bad, why) in [
            ("http://a.example/c", E::NotHttps),
            ("HTTPS://a.example/c", E::NotHttps),
            ("https:a.example/c", E::NotHttps),
            ("ftp://a.example/c", E::NotHttps),
            ("https://a.example/c#f", E::Fragment),
            ("https://a.example/c#", E::Fragment),
            ("https://a.example/c?v=1", E::Query),
            ("https://a.example/c?", E::Query),
            ("https://u@a.example/c", E::UserInfo),
            ("https://u:p@a.example/c", E::UserInfo),
            ("https://@a.example/c", E::UserInfo),
            ("https://a.example", E::NoPath),
            ("https://a.example/", E::NoPath),
            ("https:///c", E::NotPlain),
            ("https://a.example/x/../c", E::NotPlain),
            ("https://a.example/./c", E::NotPlain),
            ("https://a.example/x/%2e%2E/c", E::NotPlain),
            ("https://a.example/x/.%2e/c", E::NotPlain),
            ("https://a.example/..", E::NotPlain),
            ("https://A.example/c", E::NotPlain),
            ("https://a.example:443/c", E::NotPlain),
            ("https://a.example:08443/c", E::NotPlain),
            ("https://a.example:/c", E::NotPlain),
            ("https://a.example:99999/c", E::NotPlain),
            ("https://a.example\\c/d", E::NotPlain),
            ("https://2130706433/c", E::NotPlain),
            ("https://0x7f.1/c", E::NotPlain),
            ("https://0177.0.0.1/c", E::NotPlain),
            ("https://127.1/c", E::NotPlain),
            ("https://[::ffff:127.0.0.1]/c", E::NotPlain),
            ("https://[0:0:0:0:0:0:0:1]/c", E::NotPlain),
            ("https://b\u{fc}cher.example/c", E::Characters),
            ("https://a.example/ c", E::Characters),
            ("https://a.example/\tc", E::Characters),
        ] {
            assert_eq!(DocumentUrl::parse(bad), Err(why), "{bad}");
            assert!(DocumentUrl::is_meant(bad), "{bad}");
        }
        let long = format!("https://a.example/{}", "x".repeat(512));
        assert_eq!(DocumentUrl::parse(&long), Err(E::Characters));
        for other in ["dyn_abc", "c_abc", "reports", ""] {
            assert!(!DocumentUrl::is_meant(other), "{other}");
        }
    }

    #[test]
    fn a_refused_url_still_names_its_host() {
        assert_eq!(host_for_people("https://a.example/c"), "a.example");
        assert_eq!(host_for_people("http://u:p@b.example\\x"), "b.example");
        assert_eq!(host_for_people("https:c"), "https:c");
    }

    proptest! {
        /// CIMD-03: an accepted URL is unchanged by parsing, so browsers and servers read the same host in it.
        #[test]
        fn an_accepted_url_has_one_reading(text in "https://[a-zA-Z0-9.:@\\[\\]%/?#\\\\-]{0,40}") {
            if let Ok(url) = DocumentUrl::parse(&text) {
                prop_assert_eq!(url.as_str(), &text);
                let parsed = Url::parse(&text).unwrap();
                prop_assert_eq!(parsed.as_str(), &text);
                prop_assert!(parsed.username().is_empty() && parsed.password().is_none());
                prop_assert!(parsed.query().is_none() && parsed.fragment().is_none());
                prop_assert!(parsed.path().len() > 1);
                let port = parsed.port().map_or_else(String::new, |port| format!(":{port}"));
                prop_assert_eq!(format!("{}{port}", parsed.host_str().unwrap()), host_for_people(&text));
            }
        }
    }
}
