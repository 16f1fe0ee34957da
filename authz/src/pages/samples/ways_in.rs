//! Samples of the pages that people begin at: setup, enrolment, home.

use super::*;

impl Setup {
    pub(crate) fn sample() -> Self {
        Self {
            server_name: text("portcullis.lab.internal"),
            heading: text("Become the first administrator"),
            name_suggestion: text("admin"),
            needs_name: true,
            look_path: text("/setup/look"),
            start_path: text("/setup/start"),
            finish_path: text("/setup/finish"),
            signed_in: None,
        }
    }

    pub(crate) fn sample_enrolment() -> Self {
        Self {
            heading: text("Make your passkey"),
            name_suggestion: text("bob"),
            needs_name: false,
            look_path: text("/enrol/look"),
            start_path: text("/enrol/start"),
            finish_path: text("/enrol/finish"),
            ..Self::sample()
        }
    }

    pub(crate) fn sample_while_signed_in() -> Self {
        let alice = SignedInHere { user_name: text("alice"), sign_out_csrf: text("csrf_p0x2") };
        Self { signed_in: Some(alice), ..Self::sample_enrolment() }
    }
}

impl Connect {
    pub(crate) fn sample() -> Self {
        let snippet = |client: &str, how: &str, code: &str| Snippet {
            client: text(client),
            how: text(how),
            code: text(code),
        };
        let tool =
            |name: &str, title: &str| UsableTool { name: text(name), title: text(title), high_risk: false };
        Self {
            server_name: text("portcullis.lab.internal"),
            user_name: text("alice"),
            mcp_url: Some(text("https://portcullis.lab.internal/mcp")),
            elsewhere: false,
            snippets: vec![
                snippet(
                    "Claude Code",
                    "Run in a terminal:",
                    "claude mcp add --transport http portcullis https://portcullis.lab.internal/mcp",
                ),
                snippet(
                    "VS Code",
                    "Put into .vscode/mcp.json:",
                    "{\n  \"servers\": {\n    \"portcullis\": {\n      \"type\": \"http\",\n      \"url\": \"https://portcullis.lab.internal/mcp\"\n    }\n  }\n}",
                ),
                snippet(
                    "Codex",
                    "Run in a terminal:",
                    "codex mcp add portcullis --url https://portcullis.lab.internal/mcp",
                ),
            ],
            passkeys: 1,
            show_nudge: true,
            sign_out_csrf: text("csrf_p0x1"),
            welcome: None,
            what: vec![tool("docs_search", "Search the documents"), tool("jira_search", "Find tickets")],
            profiles: vec![],
        }
    }

    pub(crate) fn sample_settled() -> Self {
        Self { passkeys: 2, show_nudge: false, what: vec![], ..Self::sample() }
    }

    pub(crate) fn sample_profiles() -> Self {
        let tool = UsableTool { name: text("ci_run"), title: text("Run the pipeline"), high_risk: true };
        let profile = UsableProfile {
            name: text("CI"),
            url: text("https://portcullis.lab.internal/mcp/ci"),
            what: vec![tool],
        };
        Self { profiles: vec![profile], ..Self::sample() }
    }

    pub(crate) fn sample_first_administrator() -> Self {
        Self { welcome: Some("administrator"), ..Self::sample() }
    }

    pub(crate) fn sample_newcomer() -> Self {
        Self { welcome: Some("user"), ..Self::sample() }
    }

    /// An administrator removed the last passkey while its session continues.
    pub(crate) fn sample_without_passkey() -> Self {
        Self { passkeys: 0, ..Self::sample() }
    }

    pub(crate) fn sample_elsewhere() -> Self {
        Self { mcp_url: None, elsewhere: true, snippets: vec![], what: vec![], ..Self::sample_settled() }
    }
}

impl SignedOut {
    pub(crate) fn sample() -> Self {
        Self {
            server_name: text("portcullis.lab.internal"),
            mcp_url: Some(text("https://portcullis.lab.internal/mcp")),
            setup_pending: false,
            can_sign_in: true,
        }
    }

    /// Users were added before the first administrator.
    pub(crate) fn sample_without_administrator() -> Self {
        Self { setup_pending: true, ..Self::sample() }
    }

    pub(crate) fn sample_new() -> Self {
        Self { setup_pending: true, can_sign_in: false, ..Self::sample() }
    }
}
