//! Samples of the account page.

use super::text;
use crate::pages::*;

fn moment(words: &str) -> Moment {
    Moment { words: text(words), exact: text("2026-11-23T12:00:00.000Z") }
}

fn connection(scopes: &[&str], connected: &str, last_used: Option<&str>) -> Connection {
    Connection {
        scopes: scopes.iter().map(|title| text(title)).collect(),
        not_now: vec![],
        opens: (!scopes.is_empty()).then(|| text("Search the documents and Find tickets")),
        resource_name: Some(text("Engineering tools")),
        resource: text("https://portcullis.lab.internal/mcp"),
        connected: moment(connected),
        last_used: last_used.map(moment),
        address: last_used.map(|_| text("10.20.4.17")),
        ends: text("27 days"),
    }
}

fn passkey(digest: &str, this: bool) -> OwnPasskey {
    OwnPasskey {
        id: text(digest),
        digest: text(digest),
        label: Some(text(if this { "Ada’s blue security key" } else { "Made in Chrome on Android" })),
        added: moment("41 days ago"),
        last_used: Some(moment("2 hours ago")),
        copyable: !this,
        suspended: false,
        this,
        removable: true,
    }
}

fn secret(source: &str, opens: Option<&str>, given: Option<&str>) -> ServerSecret {
    let opens = opens.map(text);
    ServerSecret { source: text(source), opens, given: given.map(moment), moved: false, wanted: true }
}

impl Account {
    pub(crate) fn sample() -> Self {
        let read = "Search and read the team’s documents";
        let browser = |id: &str, this: bool, seen: &str| SignedInBrowser {
            id: text(id),
            this,
            signed_in: moment("3 hours ago"),
            seen: moment(seen),
            address: Some(text("10.20.4.17")),
            name: this.then(|| text("Firefox on Linux")),
        };
        Self {
            user_name: text("alice"),
            csrf: text("csrf_p0x1"),
            sign_out_csrf: text("csrf_p0x2"),
            confirm_path: text("/account/change/start"),
            always_confirm: false,
            done: Some(text("Application disconnected. Its requests are refused from now on.")),
            clients: vec![
                ConnectedClient {
                    client_id: text("https://claude.ai/oauth/claude-code-client-metadata"),
                    name: text("Claude Code"),
                    verified: false,
                    source: text("built-in catalogue"),
                    claim: text("any program can claim to be this one"),
                    disabled: false,
                    connections: vec![
                        connection(&[read, "Read tickets"], "2 hours ago", Some("12 minutes ago")),
                        connection(&[read], "3 days ago", Some("3 days ago")),
                    ],
                    more: 4,
                },
                ConnectedClient {
                    client_id: text("cl_1c9w7zr8d0aq4m6e"),
                    name: text("Prompt Studio for Very Large and Long-Named Engineering Organisations"),
                    verified: true,
                    source: text("pre-registered"),
                    claim: text("not verified by an administrator"),
                    disabled: false,
                    connections: vec![connection(&[read], "just now", None)],
                    more: 0,
                },
            ],
            remembered: vec![
                RememberedAnswer {
                    client_id: text("cl_1c9w7zr8d0aq4m6e"),
                    name: text("Prompt Studio for Very Large and Long-Named Engineering Organisations"),
                    resource: text("https://portcullis.lab.internal/mcp"),
                    resource_name: Some(text("Engineering tools")),
                    scopes: vec![text(read)],
                    given: moment("20 days ago"),
                    counts_for: Some(text("160 days")),
                },
                RememberedAnswer {
                    client_id: text("dyn_9w7zr8d0aq4m6e1c"),
                    name: text("Laptop tool"),
                    resource: text("https://wiki.lab.internal/mcp"),
                    resource_name: None,
                    scopes: vec![text(read), text("Read tickets")],
                    given: moment("50 days ago"),
                    counts_for: None,
                },
            ],
            browsers: vec![
                browser("8d3f0c1a9b7e6d52", true, "just now"),
                browser("1f0c9d3a5b7e6d88", false, "40 minutes ago"),
            ],
            passkeys: vec![
                passkey("9f86d081", true),
                OwnPasskey { suspended: true, last_used: None, ..passkey("2c26b46b", false) },
            ],
            secrets: vec![
                secret(
                    "jira",
                    Some("Find tickets, Read a ticket and Comment on a ticket"),
                    Some("20 days ago"),
                ),
                secret("github", Some("Search code"), None),
                ServerSecret { moved: true, ..secret("ci", Some("Start pipelines"), Some("2 months ago")) },
                ServerSecret { wanted: false, ..secret("old-wiki", None, Some("90 days ago")) },
            ],
        }
    }

    pub(crate) fn sample_on_loopback() -> Self {
        Self { always_confirm: true, ..Self::sample() }
    }

    /// An administrator disabled one application, and another one's scope was taken from the user.
    pub(crate) fn sample_stopped() -> Self {
        let mut sample = Self::sample();
        sample.clients[0].disabled = true;
        let lost = &mut sample.clients[1].connections[0];
        lost.not_now = std::mem::take(&mut lost.scopes);
        sample.passkeys[1].removable = false;
        sample
    }

    pub(crate) fn sample_empty() -> Self {
        let mut sample = Self { done: None, clients: vec![], remembered: vec![], ..Self::sample() };
        sample.secrets.clear();
        sample.browsers.truncate(1);
        sample.passkeys.truncate(1);
        sample.passkeys[0].removable = false;
        sample
    }
}
