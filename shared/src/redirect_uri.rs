//! Redirect URIs (RFC 6749 §3.1.2, RFC 8252): which may be registered, and how they are compared.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::percent::is_percent_encoded;

/// A redirect URI in the exact text of its registration or request. Never normalised (REDIR-01).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedirectUri(String);

crate::db::text_column!(RedirectUri);

/// The kind of a redirect URI, on which its client's trust depends (DCR-05, AUTHZ-12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The user's own computer: `http` to `127.0.0.1`, `[::1]` or `localhost`.
    Loopback,
    /// An application on the user's own computer, by a scheme without a period, which any application can
    /// claim. The site lists those that it allows (REDIR-05).
    AppScheme,
    /// An application on the user's own computer, by a reverse-DNS scheme.
    PrivateScheme,
    /// A web server: `https`.
    Remote,
}

impl Target {
    /// Whether a response to it only reaches the user's own computer.
    pub fn is_local(self) -> bool {
        self != Self::Remote
    }
}

/// Why a text is not an acceptable redirect URI (REDIR-03, 04, 06).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RedirectUriError {
    #[error("is longer than 512 bytes")]
    TooLong,
    #[error("contains a character that is not plain ASCII, or a backslash, a space or a control character")]
    Characters,
    #[error("contains a % that is not followed by two hexadecimal digits")]
    PercentEncoding,
    #[error("is not an absolute URI")]
    NotAbsolute,
    #[error("has a fragment")]
    Fragment,
    #[error("has a user name")]
    UserInfo,
    #[error("contains a wildcard")]
    Wildcard,
    #[error("has dot segments in its path")]
    DotSegments,
    #[error("has port 0")]
    PortZero,
    #[error("is http to another computer; use https, or http to 127.0.0.1, [::1] or localhost")]
    PlainHttp,
    #[error("has a forbidden scheme")]
    Scheme,
    #[error("has a scheme that is not allowed; an application's own looks like com.example.app:/callback")]
    SchemeForm,
    #[error("has a query parameter that the response uses, such as code or state")]
    ReservedParameter,
}

impl RedirectUriError {
    /// Whether the URI is only unsupported and not dangerous, so that it can be dropped from a list that has
    /// others (DCR-05).
    pub fn is_merely_unsupported(self) -> bool {
        self == Self::SchemeForm
    }
}

/// Schemes that browsers handle themselves, and that do not lead to an application (REDIR-04).
const DANGEROUS_SCHEMES: [&str; 10] =
    ["javascript", "data", "vbscript", "file", "blob", "about", "view-source", "ftp", "ws", "wss"];

/// Parameters that the authorization response adds (REDIR-06).
const RESERVED: [&str; 8] =
    ["code", "state", "iss", "error", "error_description", "error_uri", "id_token", "access_token"];

impl RedirectUri {
    /// Checks a redirect URI for registration (REDIR-03).
    ///
    /// # Errors
    /// See [`RedirectUriError`].
    pub fn parse(text: &str) -> Result<Self, RedirectUriError> {
        use RedirectUriError as E;
        if text.len() > 512 {
            return Err(E::TooLong);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            return Err(E::Characters);
        }
        if !is_percent_encoded(text) {
            return Err(E::PercentEncoding);
        }
        let url = Url::parse(text).map_err(|_| E::NotAbsolute)?;
        // The parser normalises; the stored text must not need that.
        let scheme = text.split(':').next().unwrap_or_default();
        if scheme != url.scheme() {
            return Err(E::Scheme);
        }
        if text.contains('#') {
            return Err(E::Fragment);
        }
        if text.contains('*') {
            return Err(E::Wildcard);
        }
        let (rest, query) = text.split_once('?').map_or((text, ""), |(rest, query)| (rest, query));
        if has_dot_segment(rest) {
            return Err(E::DotSegments);
        }
        if form_urlencoded_names(query).any(|name| RESERVED.contains(&name.as_str())) {
            return Err(E::ReservedParameter);
        }
        // All parsers must see the same authority, so it must start right after `scheme://`.
        let after_scheme = &text[scheme.len() + 1..];
        match scheme {
            "http" | "https" => {
                if !after_scheme.starts_with("//") || after_scheme.starts_with("///") {
                    return Err(E::NotAbsolute);
                }
                Self::check_web(text, &url)?;
            }
            _ if DANGEROUS_SCHEMES.contains(&scheme) => return Err(E::Scheme),
            // RFC 8252 §7.1: reverse-DNS form and a single slash.
            _ if scheme.contains('.') => {
                let named = !scheme.starts_with('.') && !scheme.ends_with('.');
                if !named || !after_scheme.starts_with('/') || after_scheme.starts_with("//") {
                    return Err(E::SchemeForm);
                }
            }
            _ => {
                let authority = split_web(text).ok_or(E::SchemeForm)?.0;
                if !after_scheme.starts_with("//") || authority.is_empty() {
                    return Err(E::SchemeForm);
                }
                if authority.contains('@') {
                    return Err(E::UserInfo);
                }
            }
        }
        Ok(Self(text.to_owned()))
    }

    fn check_web(text: &str, url: &Url) -> Result<(), RedirectUriError> {
        use RedirectUriError as E;
        let (authority, _) = split_web(text).ok_or(E::NotAbsolute)?;
        if authority.contains('@') {
            return Err(E::UserInfo);
        }
        let (host, port) = split_port(authority);
        if port.is_some_and(|port| port.is_empty() || port.trim_start_matches('0').is_empty()) {
            return Err(E::PortZero);
        }
        // Unusual spellings of a host (2130706433, 0x7f.1, Example.COM) would match nothing later.
        if url.host_str() != Some(host) {
            return Err(E::NotAbsolute);
        }
        if url.scheme() == "http" && !is_loopback_host(host) {
            return Err(E::PlainHttp);
        }
        Ok(())
    }

    /// The text, exactly as registered or requested.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request for `asked` matches this registered URI: the exact text, except that on loopback the
    /// port may differ (REDIR-01, REDIR-02).
    pub fn matches(&self, asked: &Self) -> bool {
        self == asked
            || self.without_loopback_port().is_some_and(|bare| Some(bare) == asked.without_loopback_port())
    }

    /// Host and remainder of an `http` loopback URI, without its port.
    fn without_loopback_port(&self) -> Option<(&str, &str)> {
        if !self.0.starts_with("http://") {
            return None;
        }
        let (authority, rest) = split_web(&self.0)?;
        let (host, port) = split_port(authority);
        let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        (port_fits && is_loopback_host(host)).then_some((host, rest))
    }

    /// The URI as a client would register it: on loopback the port differs each time (RFC 8252 §7.3).
    #[must_use]
    pub fn without_port(&self) -> Self {
        match self.without_loopback_port() {
            Some((host, rest)) => Self(format!("http://{host}{rest}")),
            None => self.clone(),
        }
    }

    /// Its kind.
    pub fn target(&self) -> Target {
        match self.scheme() {
            "http" if self.without_loopback_port().is_some() => Target::Loopback,
            // `http` elsewhere is refused by `parse`; if it were not, it would be remote.
            "http" | "https" => Target::Remote,
            scheme if scheme.contains('.') => Target::PrivateScheme,
            _ => Target::AppScheme,
        }
    }

    fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// The host, or the scheme of an application's URI, for display.
    pub fn host_for_people(&self) -> String {
        match split_web(&self.0) {
            Some((authority, _)) if self.0.starts_with("http") => authority.to_owned(),
            _ => self.scheme().to_owned(),
        }
    }

    /// Whether it has the `https` origin of this URL.
    pub fn has_origin_of(&self, url: &str) -> bool {
        let origin =
            |text: &str| Url::parse(text).ok().filter(|url| url.scheme() == "https").map(|url| url.origin());
        origin(&self.0).is_some_and(|own| Some(own) == origin(url))
    }

    /// This URI with response parameters appended, form-encoded; a registered query stays (AUTHZ-09).
    pub fn with_parameters(&self, parameters: &[(&str, &str)]) -> String {
        let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let separator = match self.0.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        format!("{}{separator}{encoded}", self.0)
    }
}

fn form_urlencoded_names(query: &str) -> impl Iterator<Item = String> {
    url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name.into_owned())
}

/// Authority and remainder of `scheme://authority/…`.
fn split_web(text: &str) -> Option<(&str, &str)> {
    let rest = text.split_once("://")?.1;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_host = authority.find(']').map_or(0, |at| at + 1);
    match authority[after_host..].find(':') {
        Some(colon) => (&authority[..after_host + colon], Some(&authority[after_host + colon + 1..])),
        None => (authority, None),
    }
}

fn is_loopback_host(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "[::1]" | "localhost")
}

fn has_dot_segment(before_query: &str) -> bool {
    let path = before_query.to_ascii_lowercase().replace("%2e", ".");
    path.split(['/', ':']).any(|segment| matches!(segment, "." | ".."))
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
