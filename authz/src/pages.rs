//! The HTML pages: templates in the binary, one typed context for each, and the headers of every page.
//!
//! A handler fills a context and calls `pages.respond(StatusCode::OK, &Login { .. })`. Templates escape every
//! value (CONSENT-02). Each context declares its page's headers, so that no handler can forget them.

mod account;
mod contexts;
mod headers;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tera::{Context, Tera};

pub use account::{
    Account, ConnectedClient, Connection, Moment, OwnPasskey, RememberedAnswer, ServerSecret, SignedInBrowser,
};
pub use contexts::{
    AskForApproval, Connect, Consent, ConsentScope, Continue, DeviceCode, DeviceConsent, ErrorPage, Labelled,
    Login, NothingToAllow, Notice, Onward, Setup, SignedInHere, SignedOut, Snippet, UsableProfile,
    UsableTool, WithheldScope,
};
pub use headers::{Frame, answer_source};

/// A page: a context and its template.
pub trait Page: Serialize {
    const TEMPLATE: &'static str;

    /// Which headers the page gets.
    fn frame(&self) -> Frame;
}

/// The templates, compiled once at start.
pub struct Pages {
    tera: Tera,
    hsts: bool,
}

impl Pages {
    /// Compiles the embedded templates. Undefined names in them are errors, and names ending in `.html` are autoescaped.
    pub fn new() -> Result<Self, tera::Error> {
        let mut tera = Tera::new();
        tera.add_raw_templates(TEMPLATES)?;
        Ok(Self { tera, hsts: false })
    }

    /// Sets whether the issuer is `https`: only then may a page send HSTS (HTTP-04).
    #[must_use]
    pub fn https_issuer(self, https: bool) -> Self {
        Self { hsts: https, ..self }
    }

    pub fn render<P: Page>(&self, page: &P) -> Result<String, tera::Error> {
        self.tera.render(P::TEMPLATE, &Context::from_serialize(page)?)
    }

    /// Renders the page as a response with the headers of HTTP-04 and HTTP-05.
    pub fn respond<P: Page>(&self, status: StatusCode, page: &P) -> Result<Response, tera::Error> {
        let mut response = Response::new(Body::from(self.render(page)?));
        *response.status_mut() = status;
        page.frame().write(response.headers_mut(), self.hsts);
        Ok(response)
    }
}

const TEMPLATES: [(&str, &str); 16] = [
    ("base.html", include_str!("../../templates/base.html")),
    ("ceremony.html", include_str!("../../templates/ceremony.html")),
    ("mark.svg", include_str!("../../templates/mark.svg")),
    ("login.html", include_str!("../../templates/login.html")),
    ("consent.html", include_str!("../../templates/consent.html")),
    ("continue.html", include_str!("../../templates/continue.html")),
    ("nothing_to_allow.html", include_str!("../../templates/nothing_to_allow.html")),
    ("onward.html", include_str!("../../templates/onward.html")),
    ("device.html", include_str!("../../templates/device.html")),
    ("device_consent.html", include_str!("../../templates/device_consent.html")),
    ("error.html", include_str!("../../templates/error.html")),
    ("setup.html", include_str!("../../templates/setup.html")),
    ("connect.html", include_str!("../../templates/connect.html")),
    ("signed_out.html", include_str!("../../templates/signed_out.html")),
    ("account.html", include_str!("../../templates/account.html")),
    ("notice.html", include_str!("../../templates/notice.html")),
];

/// A file below `/assets/`: content type and bytes.
#[must_use]
pub fn asset(name: &str) -> Option<(&'static str, &'static [u8])> {
    Some(match name {
        "portcullis.css" => ("text/css; charset=utf-8", include_bytes!("../../templates/portcullis.css")),
        "passkey.js" => ("text/javascript; charset=utf-8", include_bytes!("../../templates/passkey.js")),
        "mark.svg" => ("image/svg+xml", include_bytes!("../../templates/mark.svg")),
        _ => return None,
    })
}

/// An asset as a response. Browsers revalidate it each time, so that an upgraded server is never used with its
/// old script.
#[must_use]
pub fn asset_response(name: &str) -> Option<Response> {
    let (content_type, bytes) = asset(name)?;
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // The logo is an SVG document if it is opened directly: it may load and run nothing.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    Some(response)
}
