use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn pages() -> Pages {
    Pages::new().expect("the embedded templates compile")
}

/// Every sample, rendered, by a name.
fn every_sample() -> BTreeMap<&'static str, String> {
    let pages = pages();
    let mut all = BTreeMap::new();
    let mut add = |name, html: Result<String, tera::Error>| {
        all.insert(name, html.unwrap_or_else(|error| panic!("{name}: {error}")));
    };
    add("login", pages.render(&Login::sample()));
    add("login-plain", pages.render(&Login::sample_without_request()));
    add("consent", pages.render(&Consent::sample()));
    add("consent-site", pages.render(&Consent::sample_unverified_site()));
    add("consent-verified", pages.render(&Consent::sample_verified()));
    add("device", pages.render(&DeviceCode::sample()));
    add("device-linked", pages.render(&DeviceCode::sample_linked()));
    add("device-wrong", pages.render(&DeviceCode::sample_wrong()));
    add("device-consent", pages.render(&DeviceConsent::sample()));
    add("device-not-entitled", pages.render(&DeviceConsent::sample_not_entitled()));
    add("error", pages.render(&ErrorPage::sample()));
    add("error-askable", pages.render(&ErrorPage::sample_askable()));
    add("error-bare", pages.render(&ErrorPage::sample_bare()));
    add("continue", pages.render(&Continue::sample()));
    add("setup", pages.render(&Setup::sample()));
    add("enrol", pages.render(&Setup::sample_enrolment()));
    add("connect", pages.render(&Connect::sample()));
    add("connect-settled", pages.render(&Connect::sample_settled()));
    add("signed-out", pages.render(&SignedOut::sample()));
    add("signed-out-new", pages.render(&SignedOut::sample_new()));
    add("notice", pages.render(&Notice::sample()));
    all
}

/// Renders them all. With `PORTCULLIS_PAGES=dir` the pages are left there to be looked at.
#[test]
fn every_sample_renders_within_the_content_security_policy() {
    for (name, html) in every_sample() {
        if let Some(dir) = std::env::var_os("PORTCULLIS_PAGES") {
            std::fs::write(std::path::Path::new(&dir).join(format!("{name}.html")), &html)
                .expect("the directory exists");
        }
        obeys(name, &html);
        reads_in_order(name, &html);
    }
}

/// HTTP-05's policy would stop what this looks for; a page should not have it in the first place.
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

/// Headings in order, ids once, and every reference to one leads somewhere: what screen readers go by.
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

/// An error page that shows this wherever something of a request is shown.
fn hostile_error(hostile: &str) -> ErrorPage {
    let bad = || hostile.to_owned();
    ErrorPage {
        code: bad(),
        title: bad(),
        what_happened: bad(),
        received: Some(Labelled { label: bad(), value: bad() }),
        expected_label: bad(),
        expected: vec![bad()],
        next_step: bad(),
        copyable_fix: Some(bad()),
        request_id: bad(),
        ask: Some(AskForApproval {
            action: "/account/client-requests",
            csrf: bad(),
            client_id: bad(),
            redirect_uri: bad(),
            user_name: bad(),
        }),
    }
}

/// CONSENT-02: a hostile value stays text wherever a page shows it.
#[test]
fn hostile_values_stay_text() {
    const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror='y'>";
    let pages = pages();
    let bad = || HOSTILE.to_owned();
    let scope = ConsentScope { name: bad(), title: bad(), high_risk: true, ticked: true, required: true };
    let rendered = [
        pages.render(&Login {
            server_name: bad(),
            transaction: Some(bad()),
            client_name: Some(bad()),
            redirect_host: Some(bad()),
            resource_name: Some(bad()),
            fresh: true,
        }),
        pages.render(&Consent {
            transaction: bad(),
            csrf: bad(),
            client_name: bad(),
            client_id: bad(),
            client_id_host: Some(bad()),
            client_verified: false,
            client_source: bad(),
            redirect_host: bad(),
            redirect_uri: bad(),
            resource_name: bad(),
            resource: bad(),
            scopes: vec![scope.clone(), ConsentScope { required: false, ..scope.clone() }],
            user_name: bad(),
            access_lifetime: bad(),
            refresh_lifetime: bad(),
            warnings: vec![bad()],
            confirm_path: Some(bad()),
        }),
        pages.render(&DeviceCode { server_name: bad(), linked_code: Some(bad()), problem: Some(bad()) }),
        pages.render(&DeviceConsent {
            transaction: bad(),
            csrf: bad(),
            client_name: bad(),
            client_id: bad(),
            client_verified: false,
            address: bad(),
            asked: bad(),
            asked_at: bad(),
            resource_name: bad(),
            resource: bad(),
            scopes: vec![scope],
            withheld: vec![bad()],
            user_name: bad(),
            access_lifetime: bad(),
            refresh_lifetime: Some(bad()),
        }),
        pages.render(&hostile_error(HOSTILE)),
        pages.render(&Continue {
            host: bad(),
            uri: format!("https://{HOSTILE}"),
            error: bad(),
            description: bad(),
        }),
        pages.render(&Setup {
            server_name: bad(),
            heading: bad(),
            name_suggestion: bad(),
            needs_name: true,
            start_path: bad(),
            finish_path: bad(),
        }),
        pages.render(&Setup { name_suggestion: bad(), ..Setup::sample_enrolment() }),
        pages.render(&Connect {
            server_name: bad(),
            user_name: bad(),
            mcp_url: bad(),
            snippets: vec![Snippet { client: bad(), how: bad(), code: bad() }],
            passkeys: 1,
            show_nudge: true,
            sign_out_csrf: bad(),
            what: vec![UsableTool { name: bad(), title: bad() }],
        }),
        pages.render(&SignedOut { server_name: bad(), mcp_url: bad(), setup_pending: false }),
        pages.render(&Notice { title: bad(), paragraphs: vec![bad()], next_step: Some(bad()) }),
    ];
    for (number, html) in rendered.into_iter().enumerate() {
        let html = html.expect("renders");
        assert!(html.contains("&lt;script&gt;alert(1)"), "{number}: shown, as text");
        assert!(!html.contains("<script>") && !html.contains("<img"), "{number}");
        assert!(
            !html.contains("\"\"&gt;") && !html.contains("\">&lt;/script"),
            "{number}: the quote is escaped"
        );
        obeys("hostile", &html);
    }
}

/// AUTHZ-12: only https can be followed from a page; other schemes redirect at once and never reach it.
#[test]
fn continue_links_https_only() {
    let html = pages()
        .render(&Continue { uri: "javascript:alert(1)".into(), ..Continue::sample() })
        .expect("renders");
    assert!(!html.contains("href=\"javascript") && !html.contains("data-testid=\"continue\""));
}

/// §3.1 row 4: the page that refuses a redirect URI shows it and does not link it.
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

/// The policy asks for trusted types: the script must not need the sinks they guard.
#[test]
fn the_script_uses_no_markup_sink() {
    let (_, script) = asset("passkey.js").expect("exists");
    let script = std::str::from_utf8(script).expect("UTF-8");
    for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", ".style"] {
        assert!(!script.contains(sink), "{sink}");
    }
}

/// The colours of a scheme by name, as the style sheet has them.
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

/// WCAG 2.2: how far two colours are apart.
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

/// Every text on every ground it stands on: 4.5 to 1 in both schemes; the edge of a field 3 to 1.
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
