//! The worst 16 KB that strangers can send to each endpoint: input that would be expensive if it were compared,
//! nested, decoded or verified without a bound. Used by the tests that count the work, and by
//! `benches/strangers`.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::json;
use url::form_urlencoded;

/// How an endpoint parses its body or query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestParser {
    Nothing,
    Query,
    Form,
    Json,
}

/// Every endpoint that is reached without a token.
pub const ENDPOINTS: &[(&str, &str, RequestParser)] = &[
    ("GET", "/.well-known/oauth-authorization-server", RequestParser::Nothing),
    ("GET", "/.well-known/oauth-protected-resource", RequestParser::Nothing),
    ("GET", "/.well-known/oauth-protected-resource/mcp", RequestParser::Nothing),
    ("GET", "/jwks.json", RequestParser::Nothing),
    ("GET", "/.well-known/jwks.json", RequestParser::Nothing),
    ("POST", "/token", RequestParser::Form),
    ("POST", "/revoke", RequestParser::Form),
    ("POST", "/introspect", RequestParser::Form),
    ("POST", "/device_authorization", RequestParser::Form),
    ("POST", "/register", RequestParser::Json),
    ("GET", "/register/{id}", RequestParser::Nothing),
    ("PUT", "/register/{id}", RequestParser::Json),
    ("DELETE", "/register/{id}", RequestParser::Nothing),
    ("GET", "/", RequestParser::Query),
    ("GET", "/authorize", RequestParser::Query),
    ("POST", "/authorize", RequestParser::Form),
    ("GET", "/consent", RequestParser::Query),
    ("POST", "/consent", RequestParser::Form),
    ("POST", "/consent/confirm", RequestParser::Json),
    ("POST", "/login/start", RequestParser::Json),
    ("POST", "/login/finish", RequestParser::Json),
    ("GET", "/setup", RequestParser::Query),
    ("POST", "/setup/look", RequestParser::Json),
    ("POST", "/setup/start", RequestParser::Json),
    ("POST", "/setup/finish", RequestParser::Json),
    ("GET", "/enrol", RequestParser::Query),
    ("POST", "/enrol/look", RequestParser::Json),
    ("POST", "/enrol/start", RequestParser::Json),
    ("POST", "/enrol/finish", RequestParser::Json),
    ("GET", "/account", RequestParser::Query),
    ("POST", "/account/change", RequestParser::Form),
    ("POST", "/account/change/start", RequestParser::Json),
    ("POST", "/account/passkeys/start", RequestParser::Json),
    ("POST", "/account/passkeys/confirm", RequestParser::Json),
    ("POST", "/account/passkeys/finish", RequestParser::Json),
    ("POST", "/account/client-requests", RequestParser::Form),
    ("POST", "/sign-out", RequestParser::Form),
    ("GET", "/assets/{name}", RequestParser::Nothing),
    ("GET", "/device", RequestParser::Query),
    ("POST", "/device", RequestParser::Form),
    ("POST", "/device/decision", RequestParser::Form),
    ("POST", "/mcp", RequestParser::Json),
    ("GET", "/.well-known/oauth-protected-resource/mcp/{profile}", RequestParser::Nothing),
    ("GET", "/.well-known/oauth-protected-resource/{*endpoint}", RequestParser::Nothing),
    ("GET", "/.well-known/", RequestParser::Nothing),
    ("GET", "/.well-known/{*document}", RequestParser::Nothing),
    ("GET", "/mcp/.well-known/", RequestParser::Nothing),
    ("GET", "/mcp/.well-known/{*document}", RequestParser::Nothing),
    ("POST", "/mcp/{profile}", RequestParser::Json),
    ("GET", "/mcp/{profile}/{*path}", RequestParser::Query),
    ("GET", "/healthz", RequestParser::Nothing),
    ("GET", "/readyz", RequestParser::Nothing),
];

/// A request as sent on the wire, and what is bad about it.
#[derive(Clone, Debug)]
pub struct Worst {
    pub endpoint: String,
    pub how: &'static str,
    pub method: &'static str,
    pub target: String,
    /// Lines that end in CR LF.
    pub headers: String,
    pub body: String,
}

impl Worst {
    /// The bytes for a server at this origin with this host name.
    pub fn bytes(&self, host: &str) -> String {
        format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\n{}Content-Length: {}\r\n\r\n{}",
            self.method,
            self.target,
            self.headers,
            self.body.len(),
            self.body
        )
    }
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
/// Slightly below the limits of a body and of a target.
const BODY: usize = 16_000;
const TARGET: usize = 7_900;

/// As many numbered pieces as fit.
fn filled(room: usize, mut piece: impl FnMut(usize) -> String) -> String {
    let mut text = String::new();
    for n in 0.. {
        let next = piece(n);
        if text.len() + next.len() > room {
            break;
        }
        text.push_str(&next);
    }
    text
}

/// Parameters that are expensive to compare, decode or split.
fn parameters(room: usize, client_id: &str) -> Vec<(&'static str, String)> {
    let client =
        format!("client_id={}", form_urlencoded::byte_serialize(client_id.as_bytes()).collect::<String>());
    let authorization = format!(
        "{client}&response_type=code&redirect_uri=http%3A%2F%2Flocalhost%3A5123%2Fcallback&code_challenge={}&code_challenge_method=S256&token=rt_x&grant_type=refresh_token&scope=",
        "a".repeat(43)
    );
    let deep = BASE64URL_NOPAD.encode(format!("{}{}", "[".repeat(2000), "]".repeat(2000)).as_bytes());
    let members =
        BASE64URL_NOPAD.encode(format!("{{{}\"a\":1}}", filled(2500, |n| format!("\"{n}\":1,"))).as_bytes());
    let assertion = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=";
    vec![
        ("names", filled(room, |n| format!("{n:x}&"))),
        ("values", format!("{client}&{}", filled(room - 200, |n| format!("{n:x}={n}&")))),
        ("one name", filled(room, |_| "a&".to_owned())),
        ("separators", "&".repeat(room)),
        ("escapes", format!("{client}&token={}", "%41".repeat((room - 200) / 3))),
        ("scopes", format!("{authorization}{}", filled(room - authorization.len(), |n| format!("{n:x}+")))),
        ("one long value", format!("{client}&resource=https://{}", "a.".repeat((room - 200) / 2))),
        (
            "a resource in Unicode",
            format!("{client}&resource=https://{}", "%C3%A9.".repeat((room - 200) / 7)),
        ),
        ("an assertion, deep", format!("{assertion}{deep}.{deep}.AA")),
        ("an assertion, wide", format!("{assertion}{members}.{members}.AA")),
    ]
}

/// JSON that is expensive to parse.
fn documents() -> Vec<(&'static str, String)> {
    let uris: Vec<String> = (0..2000).map(|n| format!("h://{n}")).collect();
    let mut registration =
        json!({"client_name": "\u{fdfa}".repeat(256), "redirect_uris": ["http://localhost/cb"]}).to_string();
    registration.insert_str(1, &filled(BODY - 1000, |n| format!("\"{n}\":0,")));
    vec![
        ("depth", "[".repeat(BODY)),
        ("depth of objects", "{\"a\":".repeat(BODY / 5)),
        ("members", format!("{{{}\"a\":0}}", filled(BODY, |n| format!("\"{n}\":0,")))),
        ("items", json!({"redirect_uris": uris, "scopes": uris}).to_string().chars().take(BODY).collect()),
        ("items of nothing", format!("{{\"ceremony\":[{}0]}}", "0,".repeat(BODY / 2 - 20))),
        ("digits", format!("{{\"ceremony\":{}}}", "9".repeat(BODY - 20))),
        ("escapes", format!("{{\"token\":\"{}\",\"name\":\"x\"}}", "\\u0041".repeat((BODY - 40) / 6))),
        ("a name", registration),
        (
            "a text",
            json!({"token": "x".repeat(BODY - 100), "transaction": "t", "ceremony": "c", "response": {}})
                .to_string(),
        ),
    ]
}

/// Headers that are expensive to split.
fn headers() -> Vec<(&'static str, String)> {
    let room = 14_000;
    vec![
        (
            "many headers",
            filled(
                room,
                |n| if n < 90 { format!("x-{n}: {}\r\n", "v".repeat(100)) } else { "x".repeat(room) },
            ),
        ),
        ("cookies", format!("Cookie: {}\r\n", filled(room, |n| format!("{n:x}=;")))),
        ("languages and types", format!("Accept: {}\r\n", filled(room, |n| format!("a/{n:x};q=0.{n},")))),
        ("tags", format!("If-None-Match: {}\r\n", filled(room, |n| format!("\"{n:x}\",")))),
        ("hops", format!("X-Forwarded-For: {}\r\n", filled(room, |_| "1.1.1.1,".to_owned()))),
        (
            "basic",
            format!(
                "Authorization: Basic {}\r\n",
                BASE64.encode(format!("a:{}", "%41".repeat(3300)).as_bytes())
            ),
        ),
        ("bearer", format!("Authorization: Bearer {}\r\n", "a.".repeat(4000))),
        (
            "a preflight",
            format!("Access-Control-Request-Headers: {}\r\n", filled(room, |n| format!("mcp-param-{n:x},"))),
        ),
    ]
}

/// All bad requests, for a server that knows this client.
pub fn requests(origin: &str, client_id: &str) -> Vec<Worst> {
    let ours = format!("Origin: {origin}\r\nSec-Fetch-Site: same-origin\r\n");
    let mut all = Vec::new();
    for (method, path, takes) in ENDPOINTS {
        let plain = path.replace("{id}", client_id).replace("{name}", "style.css");
        let endpoint = format!("{method} {path}");
        let mut push = |how, target: String, headers: String, body: String| {
            all.push(Worst { endpoint: endpoint.clone(), how, method, target, headers, body });
        };
        for (how, query) in parameters(TARGET - plain.len(), client_id) {
            push(how, format!("{plain}?{query}"), ours.clone(), String::new());
        }
        for (how, lines) in headers() {
            push(how, plain.clone(), lines, String::new());
        }
        if *takes == RequestParser::Form {
            for (how, body) in parameters(BODY, client_id) {
                push(how, plain.clone(), format!("{ours}{FORM}"), body);
            }
        }
        if *takes == RequestParser::Json {
            for (how, body) in documents() {
                push(how, plain.clone(), format!("{ours}{JSON}"), body);
            }
        }
    }
    all
}
