use std::collections::{BTreeMap, BTreeSet};

use html5gum::{Token, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;
use tera::Context;

use super::*;

mod statements;

fn pages() -> Pages {
    Pages::new().expect("the embedded templates compile")
}

/// A page as its template sees it.
struct Sample {
    name: &'static str,
    template: &'static str,
    context: Value,
}

fn sample<P: Page>(name: &'static str, page: &P) -> Sample {
    Sample { name, template: P::TEMPLATE, context: serde_json::to_value(page).expect("is JSON") }
}

fn samples() -> Vec<Sample> {
    vec![
        sample("login", &Login::sample()),
        sample("login-verified", &Login::sample_verified()),
        sample("login-plain", &Login::sample_without_request()),
        sample("login-account", &Login::sample_for_the_account()),
        sample("consent", &Consent::sample()),
        sample("consent-site", &Consent::sample_unverified_site()),
        sample("consent-verified", &Consent::sample_verified()),
        sample("consent-risky", &Consent::sample_risky()),
        sample("device", &DeviceCode::sample()),
        sample("device-linked", &DeviceCode::sample_linked()),
        sample("device-wrong", &DeviceCode::sample_wrong()),
        sample("device-consent", &DeviceConsent::sample()),
        sample("device-not-entitled", &DeviceConsent::sample_not_entitled()),
        sample("device-left-out", &DeviceConsent::sample_left_out()),
        sample("error-nowhere", &ErrorPage::sample_nowhere()),
        sample("error", &ErrorPage::sample()),
        sample("error-askable", &ErrorPage::sample_askable()),
        sample("error-bare", &ErrorPage::sample_bare()),
        sample("continue", &Continue::sample()),
        sample("nothing-to-allow", &NothingToAllow::sample()),
        sample("nothing-to-allow-hopeless", &NothingToAllow::sample_hopeless()),
        sample("nothing-to-allow-gone", &NothingToAllow::sample_gone()),
        sample("onward", &Onward::sample()),
        sample("setup", &Setup::sample()),
        sample("enrol", &Setup::sample_enrolment()),
        sample("enrol-signed-in", &Setup::sample_while_signed_in()),
        sample("connect", &Connect::sample()),
        sample("connect-settled", &Connect::sample_settled()),
        sample("connect-profiles", &Connect::sample_profiles()),
        sample("connect-first-administrator", &Connect::sample_first_administrator()),
        sample("connect-newcomer", &Connect::sample_newcomer()),
        sample("connect-elsewhere", &Connect::sample_elsewhere()),
        sample("connect-without-passkey", &Connect::sample_without_passkey()),
        sample("account", &Account::sample()),
        sample("account-confirmed", &Account::sample_on_loopback()),
        sample("account-stopped", &Account::sample_stopped()),
        sample("account-empty", &Account::sample_empty()),
        sample("signed-out", &SignedOut::sample()),
        sample("signed-out-new", &SignedOut::sample_new()),
        sample("signed-out-no-admin", &SignedOut::sample_without_administrator()),
        sample("notice", &Notice::sample()),
    ]
}

impl Sample {
    fn render(&self, pages: &Pages) -> String {
        let context = Context::from_serialize(&self.context).expect("is an object");
        pages.tera.render(self.template, &context).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Replaces every string on the page by this text.
    fn saying(mut self, text: &str) -> Self {
        fn replace(value: &mut Value, text: &str) {
            match value {
                // Links appear only for https, so URLs stay URLs.
                Value::String(said) if said.starts_with("https://") => *said = format!("https://{text}"),
                Value::String(said) => text.clone_into(said),
                Value::Array(values) => values.iter_mut().for_each(|value| replace(value, text)),
                Value::Object(members) => members.values_mut().for_each(|value| replace(value, text)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        replace(&mut self.context, text);
        self
    }
}

/// Renders them all. With `PORTCULLIS_PAGES=dir` the pages are written there for viewing.
#[test]
#[allow(clippy::disallowed_methods, reason = "set by hand, to look at the pages")]
fn every_sample_renders_within_the_content_security_policy() {
    let pages = pages();
    for sample in samples() {
        let (name, html) = (sample.name, sample.render(&pages));
        if let Some(dir) = std::env::var_os("PORTCULLIS_PAGES") {
            std::fs::write(std::path::Path::new(&dir).join(format!("{name}.html")), &html)
                .expect("the directory exists");
        }
        obeys(name, &html);
        reads_in_order(name, &html);
    }
}

/// Checks for markup that the content security policy of HTTP-05 would block.
fn obeys(name: &str, html: &str) {
    for leftover in ["{{", "{%", "{#", "None", "null"] {
        assert!(!html.contains(leftover), "{name}: {leftover}");
    }
    for tag in tags(html) {
        let (element, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let unquoted = outside_quotes(attributes);
        assert!(!format!(" {unquoted}").contains(" style="), "{name}: {tag}");
        assert!(
            !unquoted.split_whitespace().any(|a| a.starts_with("on") && a.contains('=')),
            "{name}: {tag}"
        );
        assert_ne!(element, "style", "{name}");
        if element == "script" {
            assert!(attributes.starts_with("src=\"/assets/"), "{name}: {tag}");
        }
    }
    let count = |what: &str| html.matches(what).count();
    assert_eq!(count("<h1"), 1, "{name}: one h1");
    assert_eq!(count("<title>"), 1, "{name}");
    assert!(!html.contains("<title> ·"), "{name}: a title of its own");
    assert!(html.contains("<html lang=\"en\">"), "{name}");
    assert!(count("data-testid=\"error\"") <= 1, "{name}: one place for errors");
    for tag in tags(html).iter().filter(|tag| tag.contains("target=") || tag.contains("href=\"http")) {
        assert!(tag.contains("rel=\"noopener noreferrer nofollow\""), "{name}: {tag}");
    }
}

/// Checks what screen readers rely on: headings in order, unique ids, and references that lead somewhere.
fn reads_in_order(name: &str, html: &str) {
    let mut rank = 0;
    let mut ids = BTreeSet::new();
    for tag in tags(html) {
        if let Some(own) = tag.strip_prefix('h').and_then(|rest| rest.get(..1)?.parse::<u8>().ok()) {
            assert!(own <= rank + 1, "{name}: h{own} after h{rank}");
            rank = own;
        }
        if let Some(id) = attribute(tag, "id") {
            assert!(ids.insert(id), "{name}: two of {id}");
        }
    }
    for tag in tags(html) {
        for reference in ["for", "aria-describedby", "aria-labelledby"] {
            for id in attribute(tag, reference).into_iter().flat_map(str::split_ascii_whitespace) {
                assert!(ids.contains(id), "{name}: {tag} names {id}");
            }
        }
        assert!(!tag.starts_with("input") || tag.contains("hidden") || labelled(html, tag), "{name}: {tag}");
        assert!(!tag.starts_with("img") || attribute(tag, "alt").is_some(), "{name}: {tag}");
        assert_eq!(attribute(tag, "tabindex").filter(|order| *order > "0"), None, "{name}: {tag}");
    }
}

/// Whether a field has a label: around it, or by its id.
fn labelled(html: &str, tag: &str) -> bool {
    let by_id =
        attribute(tag, "id").is_some_and(|id| html.contains(&format!("<label class=\"field\" for=\"{id}\"")));
    let before = html.split(tag).next().unwrap_or_default();
    by_id || attribute(tag, "aria-label").is_some() || before.rfind("<label") > before.rfind("</label")
}

fn attribute<'t>(tag: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split('"').next()
}

fn tags(html: &str) -> Vec<&str> {
    html.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag).collect()
}

fn outside_quotes(attributes: &str) -> String {
    attributes.split('"').step_by(2).collect()
}

/// CONSENT-02: hostile values stay text on every page.
#[test]
fn hostile_values_stay_text() {
    const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror='y'>";
    let pages = pages();
    for sample in samples() {
        let name = sample.name;
        let html = sample.saying(HOSTILE).render(&pages);
        assert!(html.contains("&lt;script&gt;alert(1)"), "{name}: shown, as text");
        assert!(!html.contains("<script>") && !html.contains("<img"), "{name}");
        assert!(
            !html.contains("\"\"&gt;") && !html.contains("\">&lt;/script"),
            "{name}: the quote is escaped"
        );
        obeys(name, &html);
    }
}

/// The page as a browser reads it: start tags with their attributes, end tags, and text with its white space.
fn read(html: &str) -> Vec<String> {
    let mut read: Vec<String> = Vec::new();
    let mut text = String::new();
    for token in Tokenizer::new(html) {
        let token = match token.expect("text is always read") {
            Token::String(string) => {
                text.push_str(&String::from_utf8_lossy(&string));
                continue;
            }
            Token::StartTag(tag) => {
                let attributes = tag.attributes.iter().map(|(name, value)| {
                    format!(" {}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
                });
                format!("<{}{}>", String::from_utf8_lossy(&tag.name), attributes.collect::<String>())
            }
            Token::EndTag(tag) => format!("</{}>", String::from_utf8_lossy(&tag.name)),
            Token::Comment(comment) => format!("<!--{}-->", String::from_utf8_lossy(&comment)),
            Token::Doctype(_) => "<!doctype>".to_owned(),
            Token::Error(error) => panic!("{error:?} in {html}"),
        };
        read.push(std::mem::take(&mut text));
        read.push(token);
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// CONSENT-02: for any text in any value, a browser reads the same tags and attributes as for a plain word;
    /// only the text differs.
    #[test]
    fn values_never_change_the_markup_of_a_page(
        said in prop_oneof![
            "\\PC{1,40}",
            "[<>&\"'`=/ a-z;!-]{1,40}",
            proptest::sample::select(vec![
                "</title><script>", "--><!--", "&lt;&amp;#x3c;", "]]>", "{{ csrf }}{% raw %}", "' onclick='x", "javascript:alert(1)",
                "\u{202e}\u{200b}\u{0}", "\" autofocus onfocus=\"x", "</textarea></code></bdi>", "&#0;&nbsp", "0; url=https://evil.example",
            ]).prop_map(str::to_owned),
        ]
    ) {
        const WORD: &str = "WORD";
        let pages = pages();
        // Browsers replace NUL and normalise line breaks.
        prop_assume!(!said.contains(['\0', '\r']));
        for (plain, tainted) in samples().into_iter().zip(samples()) {
            let name = plain.name;
            let expected: Vec<String> = read(&plain.saying(WORD).render(&pages));
            let expected: Vec<String> = expected.iter().map(|token| token.replace(WORD, &said)).collect();
            prop_assert_eq!(read(&tainted.saying(&said).render(&pages)), expected, "{}", name);
        }
    }
}

/// AUTHZ-12: the page links only https URIs; other schemes are redirected at once and never reach it.
#[test]
fn continue_links_https_only() {
    let html = pages()
        .render(&Continue { uri: "javascript:alert(1)".into(), ..Continue::sample() })
        .expect("renders");
    assert!(!html.contains("href=\"javascript") && !html.contains("data-testid=\"continue\""));
}

/// §3.1 row 4: the page that refuses a redirect URI shows it without a link.
#[test]
fn a_refused_redirect_uri_is_not_a_link() {
    let html = pages().render(&ErrorPage::sample()).expect("renders");
    assert!(html.contains("http://localhost:3000/oauth/return"));
    assert!(!html.contains("href=\"http"));
}

#[test]
fn the_client_name_stands_alone_for_tests_and_for_copying() {
    let html = pages().render(&Consent::sample()).expect("renders");
    assert!(html.contains(r#"<bdi data-testid="client-name">Claude Code</bdi>"#));
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).map(|value| value.to_str().expect("ASCII").to_owned())
}

#[test]
fn consent_may_post_to_itself_and_to_the_one_redirect_target() {
    let response = pages().respond(StatusCode::OK, &Consent::sample()).expect("renders");
    let policy = header(&response, "content-security-policy").expect("a policy");
    assert!(policy.contains("form-action 'self' http://localhost:53211;"), "{policy}");
    assert_eq!(header(&response, "referrer-policy").as_deref(), Some("same-origin"));
    assert_eq!(header(&response, "cross-origin-opener-policy"), None);
    assert_eq!(header(&response, "strict-transport-security"), None);
    assert_eq!(header(&response, "cache-control").as_deref(), Some("no-store"));
    assert_eq!(header(&response, "x-frame-options").as_deref(), Some("DENY"));
    assert_eq!(header(&response, "content-type").as_deref(), Some("text/html; charset=utf-8"));
}

#[test]
fn account_pages_are_alone_in_their_window_and_notices_send_no_referrer() {
    let pages = pages().https_issuer(true);
    let account = pages.respond(StatusCode::OK, &Connect::sample()).expect("renders");
    assert_eq!(header(&account, "cross-origin-opener-policy").as_deref(), Some("same-origin"));
    assert_eq!(header(&account, "referrer-policy").as_deref(), Some("same-origin"));
    assert_eq!(header(&account, "strict-transport-security").as_deref(), Some("max-age=31536000"));
    let refusal = pages.respond(StatusCode::BAD_REQUEST, &ErrorPage::sample()).expect("renders");
    assert_eq!(refusal.status(), StatusCode::BAD_REQUEST);
    assert_eq!(header(&refusal, "referrer-policy").as_deref(), Some("no-referrer"));
    assert_eq!(header(&refusal, "cross-origin-opener-policy"), None);
}

#[test]
fn answer_sources() {
    for (uri, source) in [
        ("http://127.0.0.1:4321/cb", Some("http://127.0.0.1:4321")),
        ("https://Tools.Example.net/cb?x=1", Some("https://tools.example.net")),
        ("http://[::1]:4321/cb", Some("http:")),
        ("cursor://anysphere.cursor-retrieval/oauth", Some("cursor:")),
        ("com.example.app:/cb", Some("com.example.app:")),
        ("https://a.example; script-src *", None),
        ("https://a.example,b", None),
        ("https://user@a.example/", None),
        ("https:///", None),
        ("java script:x", None),
        ("javascript:alert(1)", None),
        ("nonsense", None),
    ] {
        assert_eq!(answer_source(uri).as_deref(), source, "{uri}");
    }
}

#[test]
fn assets_are_known_by_name_only() {
    for name in ["portcullis.css", "passkey.js", "mark.svg"] {
        let response = asset_response(name).expect("exists");
        assert_eq!(header(&response, "x-content-type-options").as_deref(), Some("nosniff"));
    }
    assert!(asset("base.html").is_none() && asset("../pages.rs").is_none());
}

/// The policy requires trusted types, so the script must not use the sinks that they guard.
#[test]
fn the_script_uses_no_markup_sink() {
    let (_, script) = asset("passkey.js").expect("exists");
    let script = std::str::from_utf8(script).expect("UTF-8");
    for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", ".style"] {
        assert!(!script.contains(sink), "{sink}");
    }
}

/// The colours of a colour scheme by name, from the style sheet.
fn palette(css: &str, from: &str) -> BTreeMap<String, [u8; 3]> {
    let block = css.split(from).nth(1).and_then(|rest| rest.split('}').next()).expect("the scheme is there");
    let colour = |line: &str| {
        let (name, value) = line.trim().strip_prefix("--")?.split_once(": #")?;
        let digits = value.trim_end_matches(';');
        let channel = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        Some((name.to_owned(), [channel(0)?, channel(2)?, channel(4)?]))
    };
    block.lines().filter_map(colour).collect()
}

/// The contrast ratio of two colours (WCAG 2.2).
fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
    let luminance = |colour: [u8; 3]| {
        let [r, g, b] = colour.map(|channel| {
            let part = f64::from(channel) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// Contrast in both colour schemes: at least 4.5 to 1 for text, and 3 to 1 for field borders.
#[test]
fn text_stands_out_from_its_ground() {
    let (_, css) = asset("portcullis.css").expect("exists");
    let css = std::str::from_utf8(css).expect("UTF-8");
    for scheme in ["\n:root {", "(prefers-color-scheme: dark) {\n  :root {"] {
        let palette = palette(css, scheme);
        let apart = |a: &str, b: &str| contrast(palette[a], palette[b]);
        for (text, grounds) in [
            ("ink", &["sheet", "well", "caution-ground"][..]),
            ("quiet", &["sheet", "desk", "well", "caution-ground"]),
            ("accent", &["sheet", "well"]),
            ("accent-strong", &["sheet", "well"]),
            ("on-accent", &["accent", "accent-strong"]),
            ("caution", &["sheet", "caution-ground"]),
        ] {
            for ground in grounds {
                assert!(
                    apart(text, ground) >= 4.5,
                    "{scheme} {text} on {ground}: {:.2}",
                    apart(text, ground)
                );
            }
        }
        assert!(apart("field", "sheet") >= 3.0, "{scheme} field: {:.2}", apart("field", "sheet"));
    }
}
