//! The site's rules for redirect URIs (REDIR-05, DCR-05), asked by registration, by the authorization endpoint
//! and by the administrator's commands.

use shared::RedirectUri;
use shared::redirect_uri::Target;

use crate::store::clients::{Client, Source, Trust};

/// Private schemes without a period that known applications use (clients.md).
const SCHEMES_IN_USE: [&str; 5] =
    ["cursor://", "vscode://", "vscode-insiders://", "claude://", "windsurf://"];

/// The site's rules for redirect URIs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirects {
    app_schemes: Vec<AppScheme>,
    /// Whether unverified clients may use redirect URIs on the network and private schemes.
    remote: bool,
}

/// An entry of the list of allowed private schemes.
#[derive(Clone, PartialEq, Eq, Debug)]
enum AppScheme {
    /// All URIs that begin with `scheme://…`.
    Prefix(String),
    Exact(RedirectUri),
}

/// The text is not an entry of that list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is neither a scheme without a period, such as `cursor://`, nor a redirect URI with such a scheme")]
pub struct NotAnAppScheme;

impl Default for Redirects {
    fn default() -> Self {
        let prefix = |scheme: &str| AppScheme::Prefix(scheme.to_owned());
        Self { app_schemes: SCHEMES_IN_USE.map(prefix).into(), remote: false }
    }
}

impl AppScheme {
    fn parse(text: &str) -> Result<Self, NotAnAppScheme> {
        // A scheme is valid if a URI with it is.
        let is_prefix = text.ends_with("://");
        let sample = if is_prefix { format!("{text}x") } else { text.to_owned() };
        match RedirectUri::parse(&sample) {
            Ok(uri) if uri.target() != Target::AppScheme => Err(NotAnAppScheme),
            Ok(_) if is_prefix => Ok(Self::Prefix(text.to_owned())),
            Ok(uri) => Ok(Self::Exact(uri)),
            Err(_) => Err(NotAnAppScheme),
        }
    }

    fn fits(&self, uri: &RedirectUri) -> bool {
        match self {
            Self::Prefix(prefix) => uri.as_str().starts_with(prefix),
            Self::Exact(exact) => uri == exact,
        }
    }
}

/// Why an authorization request has no usable redirect URI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mismatch {
    /// The request names none, and the client does not have exactly one.
    Missing,
    /// The client did not register it.
    Unmatched,
    /// The client registered it and must not use it yet.
    Unusable(RedirectUri),
}

impl Redirects {
    /// Replaces the built-in list of private schemes.
    ///
    /// # Errors
    /// If an entry is malformed.
    pub fn set_app_schemes<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Result<(), NotAnAppScheme> {
        self.app_schemes = texts.into_iter().map(AppScheme::parse).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Sets whether unverified clients may use redirect URIs on the network.
    pub fn set_remote(&mut self, remote: bool) {
        self.remote = remote;
    }

    /// Whether any client may use this redirect URI: private schemes without an owner must be listed
    /// (REDIR-05).
    pub(crate) fn admit(&self, uri: &RedirectUri) -> bool {
        uri.target() != Target::AppScheme || self.app_schemes.iter().any(|listed| listed.fits(uri))
    }

    /// Whether an unverified client may use it (DCR-05): only on the user's own computer and for a known
    /// receiver. A link from a stranger must not send a code over the network.
    pub(crate) fn admit_unverified(&self, uri: &RedirectUri) -> bool {
        match uri.target() {
            Target::Loopback => true,
            Target::AppScheme => self.admit(uri),
            Target::PrivateScheme | Target::Remote => self.remote,
        }
    }

    /// Whether this client may use it: on the user's own computer always; elsewhere only with an
    /// administrator's consent (DCR-05, CIMD-09).
    pub(crate) fn admit_client(&self, client: &Client, uri: &RedirectUri) -> bool {
        if client.trust == Trust::Verified || self.admit_unverified(uri) {
            return self.admit(uri);
        }
        let said_so = match client.source {
            // An administrator saw these URIs during the import.
            Source::Imported => true,
            Source::Catalogue => uri.target().is_local(),
            // The administrator allowed the host that serves the document and no other (CIMD-06).
            Source::Fetched => uri.target() == Target::Remote && uri.has_origin_of(client.id.as_str()),
            Source::SelfRegistered | Source::Administrator | Source::Configuration | Source::UnknownUrl => {
                false
            }
        };
        said_so && self.admit(uri)
    }

    /// The trust of a client that is not verified (DCR-08): `Known` if its usable redirect URIs reach only the
    /// user's own computer. Unusable ones are ignored.
    pub(crate) fn trust(&self, uris: &[RedirectUri]) -> Trust {
        let mut usable = uris.iter().filter(|uri| self.admit_unverified(uri)).peekable();
        if usable.peek().is_some() && usable.all(stays_here) { Trust::Known } else { Trust::Unverified }
    }

    /// The trust of a client whose document was not reviewed: that of a registration (DCR-08).
    pub(crate) fn trust_unread(&self, client: &Client) -> Trust {
        let mut usable = client.redirect_uris.iter().filter(|uri| self.admit_client(client, uri)).peekable();
        if usable.peek().is_some() && usable.all(stays_here) { Trust::Known } else { Trust::Unverified }
    }

    /// The redirect URI of a request: only one that the client registered and may use (REDIR-01, REDIR-02).
    pub(crate) fn choose(&self, client: &Client, asked: Option<&str>) -> Result<RedirectUri, Mismatch> {
        let uri = match asked {
            // RFC 6749 §3.1.2.3: it may be omitted if exactly one is registered.
            None => match client.redirect_uris.as_slice() {
                [only] => only.clone(),
                _ => return Err(Mismatch::Missing),
            },
            Some(asked) => RedirectUri::parse(asked)
                .ok()
                .filter(|uri| client.redirect_uris.iter().any(|registered| registered.matches(uri)))
                .ok_or(Mismatch::Unmatched)?,
        };
        if self.admit_client(client, &uri) { Ok(uri) } else { Err(Mismatch::Unusable(uri)) }
    }
}

/// Whether a response to it reaches only the user's own computer, and a known receiver there.
fn stays_here(uri: &RedirectUri) -> bool {
    matches!(uri.target(), Target::Loopback | Target::AppScheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> RedirectUri {
        RedirectUri::parse(text).unwrap()
    }

    /// REDIR-05: the built-in list, another list, and an empty one.
    #[test]
    fn shared_app_schemes_are_listed() {
        let mut redirects = Redirects::default();
        let cursor = uri("cursor://anysphere.cursor-mcp/oauth/callback");
        let zed = uri("zed://mcp/cb");
        assert!(redirects.admit(&cursor) && redirects.admit_unverified(&cursor));
        assert!(!redirects.admit(&zed) && !redirects.admit(&uri("cursory://x")));
        redirects.set_app_schemes(["zed://mcp/cb"]).unwrap();
        assert!(
            redirects.admit(&zed) && !redirects.admit(&uri("zed://mcp/cb2")) && !redirects.admit(&cursor)
        );
        redirects.set_app_schemes([]).unwrap();
        assert!(!redirects.admit(&zed) && !redirects.admit(&cursor));
        for other in ["http://localhost/", "https://a.example/", "com.example.app:/cb"] {
            assert!(redirects.admit(&uri(other)), "{other}");
        }
        for bad in [
            "cursor",
            "cursor:",
            "cursor:/",
            "https://",
            "http://",
            "javascript://",
            "com.example://",
            "",
            "://",
            "a b://",
        ] {
            assert_eq!(redirects.set_app_schemes([bad]), Err(NotAnAppScheme), "{bad}");
        }
    }

    /// DCR-05, DCR-08: trust depends on the usable redirect URIs only.
    #[test]
    fn trust_follows_the_usable_redirect_uris() {
        let mut redirects = Redirects::default();
        let trust = |redirects: &Redirects, uris: &[&str]| {
            redirects.trust(&uris.iter().map(|text| uri(text)).collect::<Vec<_>>())
        };
        for (uris, usual, remote) in [
            (&["http://127.0.0.1/", "cursor://x/cb"][..], Trust::Known, Trust::Known),
            (&["http://127.0.0.1/", "https://vscode.dev/redirect"], Trust::Known, Trust::Unverified),
            (&["http://127.0.0.1/", "com.example.app:/cb"], Trust::Known, Trust::Unverified),
            (&["https://a.example/cb"], Trust::Unverified, Trust::Unverified),
            (&["com.example.app:/cb"], Trust::Unverified, Trust::Unverified),
            (&["zed://cb"], Trust::Unverified, Trust::Unverified),
            (&[], Trust::Unverified, Trust::Unverified),
        ] {
            redirects.set_remote(false);
            assert_eq!(trust(&redirects, uris), usual, "{uris:?}");
            redirects.set_remote(true);
            assert_eq!(trust(&redirects, uris), remote, "{uris:?}");
        }
    }
}
