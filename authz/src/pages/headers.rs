//! The headers of a page (HTTP-04, HTTP-05).

use http::{HeaderMap, HeaderValue, header};

/// The kind of page, which decides its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Without forms and ceremonies.
    Reading,
    /// Part of an authorization: sign-in and consent. Without Cross-Origin-Opener-Policy, which would cut off a
    /// client that opened this page in a popup. The consent form's answer goes to the client, so `form-action`
    /// names the client too.
    Authorization { answer_source: Option<String> },
    /// Account, administration and setup: forms in a window of their own.
    Account,
}

impl Frame {
    pub(super) fn write(&self, headers: &mut HeaderMap, hsts: bool) {
        let mut set =
            |name: &'static str, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
        set("content-type", "text/html; charset=utf-8");
        set("cache-control", "no-store");
        set("x-content-type-options", "nosniff");
        set("x-frame-options", "DENY");
        set("cross-origin-resource-policy", "same-origin");
        set("permissions-policy", "publickey-credentials-get=(self), publickey-credentials-create=(self)");
        set(
            "referrer-policy",
            match self {
                Frame::Reading => "no-referrer",
                // With `no-referrer`, browsers post forms with `Origin: null`, which the origin check would
                // refuse.
                Frame::Authorization { .. } | Frame::Account => "same-origin",
            },
        );
        if *self == Frame::Account {
            set("cross-origin-opener-policy", "same-origin");
        }
        if hsts {
            set("strict-transport-security", "max-age=31536000");
        }
        headers.insert(header::CONTENT_SECURITY_POLICY, self.content_security_policy());
    }

    /// Pages load only what this server ships, and never a client's logo (OPS-02, CIMD-10).
    fn content_security_policy(&self) -> HeaderValue {
        let form_action = match self {
            Frame::Authorization { answer_source: Some(source) } => format!("'self' {source}"),
            _ => "'self'".to_owned(),
        };
        HeaderValue::try_from(format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action {form_action}; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        ))
        .expect("a source has only the characters that answer_source let through")
    }
}

/// The CSP source that covers a redirect URI: its origin, or its scheme where CSP cannot write the origin.
///
/// `None` for what could not be one, so that no URI, however odd, adds a directive of its own. The caller has validated
/// the URI; this only refuses to trust that.
#[must_use]
pub fn answer_source(redirect_uri: &str) -> Option<String> {
    let (scheme, rest) = redirect_uri.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    let letter_first = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    if !letter_first || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    if !matches!(scheme.as_str(), "http" | "https") {
        return (!matches!(scheme.as_str(), "javascript" | "data" | "vbscript"))
            .then(|| format!("{scheme}:"));
    }
    let authority = rest.strip_prefix("//")?.split(['/', '?', '#']).next()?;
    if authority.starts_with('[') {
        // CSP's grammar has no IPv6 literals: a source with one is ignored, and the form would go nowhere.
        return Some(format!("{scheme}:"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    (!authority.is_empty() && authority.chars().all(plain))
        .then(|| format!("{scheme}://{}", authority.to_ascii_lowercase()))
}
