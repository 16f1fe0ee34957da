//! Documents of common public clients, built into the binary (CIMD-13). They need no network. If a vendor's
//! document differs from what its program sends, the entry follows the program.
//!
//! An entry may stand for a family of ids that differ in one place, written `{callback_id}`.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Document, DocumentError, DocumentUrl};

/// Stands for 12 base64url characters, the same at each occurrence in an entry.
pub(crate) const PLACEHOLDER: &str = "{callback_id}";
/// An example of a value for the placeholder.
pub(crate) const SAMPLE: &str = "AAAAAAAAAAAA";

/// One client or a family of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Its name on the command line.
    pub name: String,
    /// Where the client's requests are documented.
    pub source: String,
    /// The date of the source.
    pub date: String,
    /// A remark, such as how this entry differs from the vendor's document.
    pub note: Option<String>,
    pub document: Value,
}

static BUILT_IN: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    parse(include_bytes!("catalogue.json")).expect("a test reads the catalogue that is built in")
});

/// All built-in entries.
pub(crate) fn entries() -> &'static [Entry] {
    &BUILT_IN
}

/// The entry for a client id, with the placeholder replaced by its value in that id.
pub(crate) fn find(url: &DocumentUrl) -> Option<(&'static Entry, Document)> {
    entries().iter().find_map(|entry| {
        let document = document(entry.client_id(), &entry.document.to_string(), url)?;
        Some((entry, document.ok()?))
    })
}

/// Parses a catalogue (CIMD-13): the built-in one, or an administrator's file.
///
/// # Errors
/// What is wrong with it, in words for the author of the file.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Entry>, String> {
    let entries: Vec<Entry> =
        serde_json::from_slice(text).map_err(|e| format!("is not a valid catalogue: {e}"))?;
    for (index, entry) in entries.iter().enumerate() {
        let refused = |why: String| format!("has an entry `{}` that {why}", entry.name);
        entry.check().map_err(refused)?;
        if entries[..index].iter().any(|e| e.name == entry.name || e.client_id() == entry.client_id()) {
            return Err(refused("is listed twice".to_owned()));
        }
    }
    Ok(entries)
}

impl Entry {
    /// The client id, with the placeholder for a family.
    pub(crate) fn client_id(&self) -> &str {
        self.document["client_id"].as_str().unwrap_or_default()
    }

    /// The document's bytes, as stored.
    pub(crate) fn body(&self) -> Vec<u8> {
        self.document.to_string().into_bytes()
    }

    fn check(&self) -> Result<(), String> {
        if !self.source.starts_with("https://") || self.date.len() != "2026-11-23".len() {
            return Err("does not say where and when it was published".to_owned());
        }
        check_family(self.client_id(), &self.body()).map(|_| ()).map_err(|why| why.to_string())
    }
}

/// Why a document or a family's document is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DocumentRefusal {
    #[error("has a `client_id` that {0}")]
    Url(#[from] super::UrlError),
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// Checks a document under its client id; a family's is checked with one sample id.
pub(crate) fn check_family(client_id: &str, body: &[u8]) -> Result<Document, DocumentRefusal> {
    let url = DocumentUrl::parse(&client_id.replace(PLACEHOLDER, SAMPLE))?;
    if !client_id.contains(PLACEHOLDER) {
        return Ok(Document::parse(&url, body)?);
    }
    let body = String::from_utf8_lossy(body).replace(PLACEHOLDER, SAMPLE);
    Ok(Document::parse(&url, body.as_bytes())?)
}

/// The document for one id, made from the document of `client_id`; `None` if the id is not in that family.
pub(crate) fn document(
    client_id: &str,
    body: &str,
    url: &DocumentUrl,
) -> Option<Result<Document, DocumentError>> {
    let stands_for = stands_for(client_id, url.as_str())?;
    Some(if stands_for.is_empty() {
        Document::parse(url, body.as_bytes())
    } else {
        Document::parse(url, body.replace(PLACEHOLDER, stands_for).as_bytes())
    })
}

/// Whether `id` is `client_id`, or a member of that family.
pub(crate) fn is_member(client_id: &str, id: &str) -> bool {
    stands_for(client_id, id).is_some()
}

/// The value of the placeholder of `client_id` in `id`; empty if there is no placeholder and the two are equal;
/// `None` if `id` does not match.
fn stands_for<'i>(client_id: &str, id: &'i str) -> Option<&'i str> {
    let Some((before, after)) = client_id.split_once(PLACEHOLDER) else {
        return (client_id == id).then_some("");
    };
    let stands_for = id.strip_prefix(before)?.strip_suffix(after)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    (stands_for.len() == SAMPLE.len() && stands_for.bytes().all(fits)).then_some(stands_for)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::RedirectUri;

    use super::*;
    use crate::clients::redirects::Redirects;
    use crate::store::clients::{AuthMethod, Source};

    fn url(text: &str) -> DocumentUrl {
        DocumentUrl::parse(text).unwrap()
    }

    fn answers_at(client_id: &str, redirect_uri: &str) -> bool {
        let (_, document) = find(&url(client_id)).unwrap_or_else(|| panic!("{client_id}"));
        let asked = RedirectUri::parse(redirect_uri).unwrap();
        document.redirect_uris.iter().any(|registered| registered.matches(&asked))
    }

    /// CIMD-13: every entry is a valid document, names its source and date, and redirects only to the user's
    /// own computer.
    #[test]
    fn the_catalogue_is_sound() {
        assert!(entries().len() >= 9);
        for entry in entries() {
            let document = check_family(entry.client_id(), &entry.body()).unwrap();
            assert_eq!(document.auth_method, AuthMethod::None, "{}", entry.name);
            assert!(document.redirect_uris.iter().all(|uri| Redirects::default().admit_unverified(uri)));
            assert!(document.grant_types.iter().any(|grant| grant == "refresh_token"));
        }
    }

    /// CIMD-13: every entry accepts the request that its program was observed to send, even if the vendor's
    /// document differs, and refuses similar ones. An entry without a row here fails.
    #[test]
    #[allow(clippy::too_many_lines, reason = "one table of programs, best read in one piece")]
    fn entries_know_what_the_programs_send() {
        let codex = "https://chatgpt.com/oauth/codex/4-bzS8rt42zJ/client.json";
        let table: [(&str, &str, &[&str], &[&str]); 9] = [
            (
                "claude-code",
                "https://claude.ai/oauth/claude-code-client-metadata",
                &[
                    "http://localhost:57470/callback",
                    "http://localhost:3118/callback",
                    "http://127.0.0.1:57470/callback",
                    "http://localhost/callback",
                    "claude://claude.ai/mcp-auth-callback/sdk",
                ],
                &[
                    "http://localhost:57470/",
                    "http://localhost:57470/callback/",
                    "http://[::1]:57470/callback",
                    "claude://claude.ai/mcp-auth-callback",
                    "https://claude.ai/api/mcp/auth_callback",
                ],
            ),
            (
                "codex",
                codex,
                &[
                    "http://127.0.0.1:4711/callback/4-bzS8rt42zJ",
                    "http://localhost:4711/callback/4-bzS8rt42zJ",
                ],
                &["http://127.0.0.1:4711/callback", "http://127.0.0.1:4711/callback/AAAAAAAAAAAA"],
            ),
            (
                "codex-shared",
                "https://chatgpt.com/oauth/codex/client.json",
                &["http://127.0.0.1:4711/callback", "http://localhost:4711/callback"],
                &["http://127.0.0.1:4711/", "http://127.0.0.1:4711/callback/4-bzS8rt42zJ"],
            ),
            (
                "copilot-cli",
                "https://github.com/copilot/cli/client-metadata.json",
                &[
                    "http://127.0.0.1:60005/callback",
                    "http://127.0.0.1:60005/",
                    "http://127.0.0.1:33418/",
                    "http://127.0.0.1/callback",
                ],
                &["http://localhost:60005/callback", "http://127.0.0.1:60005/callback/x"],
            ),
            (
                "goose",
                "https://goose-docs.ai/oauth/client-metadata.json",
                &["http://127.0.0.1:3334/oauth_callback", "http://localhost:40000/oauth_callback"],
                &["http://127.0.0.1:3334/callback", "http://localhost:3334"],
            ),
            (
                "opencode",
                "https://opencode.ai/oauth/opencode/client.json",
                &[
                    "http://127.0.0.1:19876/mcp/oauth/callback",
                    "http://127.0.0.1:19876/callback",
                    "http://localhost:19876/callback",
                ],
                &["http://127.0.0.1:19876/mcp/oauth", "https://opencode.ai/mcp/oauth/callback"],
            ),
            (
                "vscode",
                "https://vscode.dev/oauth/client-metadata.json",
                &[
                    "http://127.0.0.1:33418/",
                    "http://127.0.0.1:59656/",
                    "http://127.0.0.1/",
                    "http://127.0.0.1:33418",
                ],
                &[
                    "https://vscode.dev/redirect",
                    "http://localhost:33418/",
                    "http://127.0.0.1:33418/callback",
                ],
            ),
            (
                "vscode-insiders",
                "https://insiders.vscode.dev/oauth/client-metadata.json",
                &["http://127.0.0.1:33418/", "http://127.0.0.1:59656/", "http://127.0.0.1:33418"],
                &["https://insiders.vscode.dev/redirect", "http://localhost:33418/"],
            ),
            (
                "zed",
                "https://zed.dev/oauth/client-metadata.json",
                &["http://127.0.0.1:27523/callback", "http://127.0.0.1:50000/callback"],
                &["http://127.0.0.1:27523/", "http://localhost:27523/callback"],
            ),
        ];
        let names: Vec<&str> = entries().iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, table.map(|(name, ..)| name), "one row for each entry");
        let redirects = Redirects::default();
        for (name, client_id, sent, near) in table {
            let url = url(client_id);
            let (entry, document) = find(&url).unwrap_or_else(|| panic!("{client_id}"));
            let client = document.client(&url, Source::Catalogue);
            assert_eq!(entry.name, name);
            for asked in sent {
                let answered = redirects.choose(&client, Some(asked)).map(|uri| uri.to_string());
                assert_eq!(answered.as_deref(), Ok(*asked), "{name}");
            }
            for asked in near {
                assert!(redirects.choose(&client, Some(asked)).is_err(), "{name} {asked}");
            }
        }
    }

    /// CIMD-13, REDIR-01: members of a family do not share redirect URIs, and other ids are not members.
    #[test]
    fn a_placeholder_stands_for_one_id() {
        let codex = "https://chatgpt.com/oauth/codex/4-bzS8rt42zJ/client.json";
        for other in [
            "http://127.0.0.1:1/callback/AAAAAAAAAAAA",
            "http://127.0.0.1:1/callback",
            "http://127.0.0.1:1/callback/4-bzS8rt42zJ/x",
            "http://127.0.0.1:1/callback/%7Bcallback_id%7D",
        ] {
            assert!(!answers_at(codex, other), "{other}");
        }
        for stranger in [
            "https://chatgpt.com/oauth/codex/4-bzS8rt42z/client.json",
            "https://chatgpt.com/oauth/codex/4-bzS8rt42zJJ/client.json",
            "https://chatgpt.com/oauth/codex/4-bzS8rt42z%/client.json",
            "https://chatgpt.com/oauth/codex/a/b/c/d/e/f/client.json",
            "https://chatgpt.com/oauth/codex/4-bzS8rt42zJ/client.jsonx",
            "https://chatgpt.com.evil.example/oauth/codex/4-bzS8rt42zJ/client.json",
            "https://evil.example/oauth/claude-code-client-metadata",
            "https://claude.ai/oauth/claude-code-client-metadata/",
        ] {
            assert!(DocumentUrl::parse(stranger).ok().is_none_or(|url| find(&url).is_none()), "{stranger}");
        }
    }

    /// CIMD-13: errors in an administrator's catalogue.
    #[test]
    fn a_bad_catalogue_is_refused_as_a_whole() {
        let good = json!({"name": "reports", "source": "https://wiki.corp.example/reports", "date": "2026-11-01",
            "document": {"client_id": "https://reports.corp.example/client.json", "client_name": "Reports",
                "redirect_uris": ["http://localhost/cb"]}});
        let parsed = |entries: Value| parse(entries.to_string().as_bytes());
        assert_eq!(parsed(json!([good])).unwrap()[0].name, "reports");
        assert!(parsed(json!([good, good])).unwrap_err().contains("twice"));
        assert!(parsed(good.clone()).unwrap_err().contains("is not a valid catalogue"));
        for (member, value, says) in [
            ("source", json!("wiki"), "where and when"),
            ("date", json!("yesterday"), "where and when"),
            ("made_up", json!(1), "made_up"),
            ("document", json!({}), "client_id"),
            ("document", json!({"client_id": "https://a.example/c"}), "redirect_uris"),
        ] {
            let mut bad = good.clone();
            bad[member] = value;
            assert!(parsed(json!([bad.clone()])).unwrap_err().contains(says), "{bad}");
        }
    }
}
