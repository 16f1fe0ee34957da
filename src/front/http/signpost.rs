//! Short pages for people who opened an address that leads nowhere for them: another host name, plain http, an address for
//! MCP clients. They need no template and no authorization server, so every way of serving has them.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

/// A page that says where to go.
pub(crate) struct Signpost<'a> {
    pub(crate) title: &'a str,
    /// Sentences before the link.
    pub(crate) words: &'a str,
    /// The words between `words` and the link, and the link itself: `Open`, `https://…`.
    pub(crate) then: &'a str,
    pub(crate) link: &'a str,
    /// What follows the link.
    pub(crate) end: &'a str,
}

/// No script, no picture, no form; only the style in the page itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{max-width:36rem;margin:12vh auto;padding:0 1.25rem;font:1rem/1.6 system-ui,sans-serif;\
    color:#1b2024;background:#fffefb;overflow-wrap:anywhere}a{color:#0c5f57}\
    @media(prefers-color-scheme:dark){body{color:#e9e7e2;background:#191d20}a{color:#74cbbf}}";

impl Signpost<'_> {
    /// The page as HTML.
    pub(crate) fn html(&self) -> String {
        let [title, words, then, end] = [self.title, self.words, self.then, self.end].map(escaped);
        let link = escaped(self.link);
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\">\
             <title>{title} · Portcullis</title><style>{STYLE}</style></head>\
             <body><main><h1>{title}</h1><p data-testid=\"error\">{words} {then} <a href=\"{link}\">{link}</a>{end}</p></main></body></html>\n"
        )
    }

    /// The page in the place of an answer in JSON. Status and headers stay, the challenge of a 401 among them.
    pub(super) fn instead_of(&self, mut response: Response) -> Response {
        *response.body_mut() = Body::from(self.html());
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The whole answer to plain http on a port that speaks TLS, as bytes on the wire.
pub(in crate::front) fn plain_http(address: &str) -> String {
    let page = Signpost {
        title: "This port accepts only https",
        words: "Your request was not encrypted, so it was not answered.",
        then: "Open",
        link: address,
        end: " instead.",
    };
    let (html, status) = (page.html(), StatusCode::BAD_REQUEST);
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\
         content-security-policy: {POLICY}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
         referrer-policy: no-referrer\r\ncross-origin-resource-policy: same-origin\r\nconnection: close\r\n\r\n{html}",
        html.len()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP-08: whatever an address contains, the page has one link to it and no other markup of it.
    #[test]
    fn an_address_stays_text() {
        let page = Signpost {
            title: "T & C",
            words: "Words.",
            then: "Open",
            link: "https://a.example/\"><script>",
            end: ".",
        };
        let html = page.html();
        assert!(html.contains("href=\"https://a.example/&quot;&gt;&lt;script&gt;\""), "{html}");
        assert!(!html.contains("<script") && html.contains("T &amp; C"), "{html}");
    }
}
