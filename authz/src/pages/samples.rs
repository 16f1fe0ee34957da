//! A realistic sample of every page.

mod account;
mod ways_in;

use super::*;

fn text(words: &str) -> String {
    words.to_owned()
}

impl Login {
    pub(crate) fn sample() -> Self {
        Self {
            server_name: text("portcullis.lab.internal"),
            transaction: Some(text("txn_6q3mzk2c")),
            client_name: Some(text("Claude Code")),
            client_source: Some(text("self-registered")),
            client_claim: Some(text("the name is the program’s own claim")),
            client_verified: false,
            signed_out_meanwhile: false,
            redirect_host: Some(text("this computer")),
            resource_name: Some(text("Engineering tools")),
            fresh: true,
            destination: None,
        }
    }

    pub(crate) fn sample_verified() -> Self {
        Self {
            client_source: None,
            client_claim: None,
            client_verified: true,
            signed_out_meanwhile: true,
            ..Self::sample()
        }
    }

    pub(crate) fn sample_for_the_account() -> Self {
        Self { destination: Some("account"), ..Self::sample_without_request() }
    }

    pub(crate) fn sample_without_request() -> Self {
        Self {
            transaction: None,
            client_name: None,
            redirect_host: None,
            resource_name: None,
            fresh: false,
            ..Self::sample()
        }
    }
}

impl Consent {
    pub(crate) fn sample() -> Self {
        let scope = |name: &str, title: &str, high_risk: bool| ConsentScope {
            name: text(name),
            title: text(title),
            high_risk,
            risk_text: text("It starts work on the build machines."),
            ticked: !high_risk,
            required: false,
            opens: (!high_risk).then(|| text("Search and Read")),
        };
        Self {
            transaction: text("txn_6q3mzk2c"),
            csrf: text("csrf_p0x1"),
            client_name: text("Claude Code"),
            client_id: text("https://claude.ai/oauth/claude-code-client-metadata"),
            client_id_host: Some(text("claude.ai")),
            client_verified: false,
            client_source: text("built-in catalogue"),
            client_claim: text("any program can claim to be this one"),
            redirect_host: text("this computer"),
            redirect_uri: text("http://localhost:53211/callback"),
            resource_name: text("Engineering tools"),
            resource: text("https://portcullis.lab.internal/mcp"),
            scopes: vec![
                scope("docs.read", "Search and read the team’s documents", false),
                scope("jira.read", "Read tickets", false),
                scope("cicd.trigger", "Start pipelines", true),
            ],
            not_entitled: vec![],
            above_ceiling: vec![],
            user_name: text("alice"),
            access_lifetime: text("15 minutes"),
            refresh_lifetime: Some(text("30 days")),
            remembered_for: None,
            warnings: vec![],
            confirm_path: Some(text("/consent/confirm")),
            sign_out_csrf: Some(text("csrf_p0x2")),
        }
    }

    pub(crate) fn sample_unverified_site() -> Self {
        Self {
            client_name: text("Prompt Studio for Very Large and Long-Named Engineering Organisations"),
            client_id: text("cl_1c9w7zr8d0aq4m6e"),
            client_id_host: None,
            client_source: text("self-registered"),
            client_claim: text("the name is the program’s own claim"),
            redirect_host: text("studio.tools.example.net"),
            redirect_uri: text(
                "https://studio.tools.example.net/integrations/portcullis/oauth/callback?tenant=engineering",
            ),
            warnings: vec![text(
                "The answer leaves this computer: studio.tools.example.net will be able to act as you. Refuse unless you know it.",
            )],
            scopes: vec![ConsentScope {
                name: text("docs.read"),
                title: text("Search and read the team’s documents"),
                high_risk: false,
                risk_text: text(""),
                ticked: true,
                required: true,
                opens: None,
            }],
            not_entitled: vec![text("Write tickets")],
            above_ceiling: vec![text("Start pipelines")],
            refresh_lifetime: None,
            confirm_path: None,
            sign_out_csrf: None,
            ..Self::sample()
        }
    }

    pub(crate) fn sample_verified() -> Self {
        Self {
            client_verified: true,
            client_source: text("pre-registered"),
            remembered_for: Some(text("180 days")),
            ..Self::sample()
        }
    }

    /// No scope is ticked initially.
    pub(crate) fn sample_risky() -> Self {
        let mut sample = Self::sample();
        sample.scopes.retain(|scope| scope.high_risk);
        sample
    }
}

impl DeviceCode {
    pub(crate) fn sample() -> Self {
        Self {
            server_name: text("portcullis.lab.internal"),
            linked_code: None,
            typed: text(""),
            problem: None,
        }
    }

    pub(crate) fn sample_linked() -> Self {
        Self { linked_code: Some(text("WDJB-MJHT")), ..Self::sample() }
    }

    pub(crate) fn sample_wrong() -> Self {
        Self {
            typed: text("BCDF-GHJL"),
            problem: Some(text(
                "No device is waiting with this code. Check the code on the device: it is valid for ten minutes and works once.",
            )),
            ..Self::sample()
        }
    }
}

impl DeviceConsent {
    pub(crate) fn sample() -> Self {
        let scope = |name: &str, title: &str| ConsentScope {
            name: text(name),
            title: text(title),
            high_risk: false,
            risk_text: text(""),
            ticked: true,
            required: false,
            opens: Some(text("Search and Read")),
        };
        Self {
            transaction: text("d_6q3mzk2c"),
            csrf: text("csrf_p0x1"),
            client_name: text("Lab console"),
            client_id: text("c_9w7zr8d0aq4m6e1c"),
            client_verified: true,
            client_claim: text("not verified by an administrator"),
            address: text("10.20.4.17"),
            asked: text("2 minutes ago"),
            asked_at: text("2026-11-23T12:00:00.000Z"),
            resource_name: text("Engineering tools"),
            resource: text("https://portcullis.lab.internal/mcp"),
            scopes: vec![
                scope("docs.read", "Search and read the team’s documents"),
                scope("jira.read", "Read tickets"),
            ],
            not_entitled: vec![],
            high_risk: vec![],
            user_name: text("alice"),
            sign_out_csrf: Some(text("csrf_p0x2")),
            access_lifetime: text("15 minutes"),
            refresh_lifetime: Some(text("24 hours")),
        }
    }

    pub(crate) fn sample_not_entitled() -> Self {
        Self {
            scopes: vec![],
            not_entitled: vec![text("Read tickets")],
            refresh_lifetime: None,
            ..Self::sample()
        }
    }

    pub(crate) fn sample_left_out() -> Self {
        Self {
            client_verified: false,
            not_entitled: vec![text("Write tickets")],
            high_risk: vec![text("Start pipelines")],
            ..Self::sample()
        }
    }
}

impl ErrorPage {
    pub(crate) fn sample_nowhere() -> Self {
        let (title, what) = ("Page not found", "This address does not exist on this server.");
        let next = "Start from the home page, or from your application.";
        Self::new("not_found", "r_6q3mzk2c", title, what, next).linking_home()
    }

    pub(crate) fn sample() -> Self {
        Self {
            code: text("invalid_request"),
            title: text("The redirect URI does not match"),
            what_happened: text(
                "“Claude Code” asked for its answer at an address that it did not register, so nothing was sent there.",
            ),
            received: Some(Labelled {
                label: text("Redirect URI received"),
                value: text("http://localhost:3000/oauth/return"),
            }),
            expected_label: text("Redirect URIs registered"),
            expected: vec![text("http://localhost/callback"), text("http://127.0.0.1/callback")],
            next_step: text(
                "Remove the server from your application and add it again, so that it registers the address it uses now. In Claude Code:",
            ),
            linked: None,
            copyable_fix: Some(text(
                "claude mcp remove portcullis\nclaude mcp add --transport http portcullis https://portcullis.lab.internal/mcp",
            )),
            request_id: text("r_yuq3mzk2c4k7m2p9xw5tn6d7ab"),
            ask: None,
        }
    }

    pub(crate) fn sample_askable() -> Self {
        Self {
            code: text("invalid_client"),
            title: text("This application is not known on this server"),
            what_happened: text(
                "Its client ID is a URL on reports.example.net, and this server has no metadata document for it. Nothing was sent.",
            ),
            received: Some(Labelled {
                label: text("Client ID received"),
                value: text("https://reports.example.net/oauth/client.json"),
            }),
            expected: vec![],
            next_step: text(
                "An administrator can approve it. Send a request here, and start again from your application when it is approved.",
            ),
            copyable_fix: None,
            ask: Some(AskForApproval {
                action: "/account/client-requests",
                csrf: text("csrf_p0x1"),
                client_id: text("https://reports.example.net/oauth/client.json"),
                redirect_uri: text("https://reports.example.net/oauth/callback"),
                user_name: text("alice"),
            }),
            ..Self::sample()
        }
    }

    pub(crate) fn sample_bare() -> Self {
        Self {
            code: text("invalid_client"),
            title: text("This server does not know the program that sent you"),
            what_happened: text("The request has no client_id, so no answer can be sent."),
            received: None,
            expected: vec![],
            next_step: text("Remove the server from your MCP client, add it again, and connect once more."),
            copyable_fix: None,
            ..Self::sample()
        }
    }
}

impl NothingToAllow {
    pub(crate) fn sample() -> Self {
        let scope = |name: &str, title: &str, why: &str| WithheldScope {
            name: text(name),
            title: text(title),
            why: text(why),
        };
        Self {
            transaction: text("txn_6q3mzk2c"),
            csrf: text("csrf_p0x1"),
            client_name: text("Claude Code"),
            redirect_host: text("this computer"),
            redirect_uri: text("http://localhost:53211/callback"),
            resource_name: text("Engineering tools"),
            user_name: text("ines"),
            sign_out_csrf: Some(text("csrf_p0x2")),
            scopes: vec![
                scope(
                    "jira.write",
                    "Write tickets",
                    "Only members of the group engineers may use this, and you are not in it.",
                ),
                scope(
                    "cicd.trigger",
                    "Start pipelines",
                    "You may use this, but it is high risk and this application is not verified.",
                ),
            ],
            administrators: text("ada or bob"),
            copyable_fix: Some(text(
                "portcullis user groups u_2k7f6m4w5x3y2z7a6b5c4d3e2f --add engineers\nportcullis client verify dyn_1c9w7zr8d0aq4m6e",
            )),
        }
    }

    pub(crate) fn sample_hopeless() -> Self {
        let scope = WithheldScope {
            name: text("docs.archive"),
            title: text("Read what is kept for the record"),
            why: text("No group may use this."),
        };
        Self {
            scopes: vec![scope],
            administrators: text("your administrator"),
            copyable_fix: None,
            ..Self::sample()
        }
    }
}

impl NothingToAllow {
    /// The requested scopes were removed from the configuration.
    pub(crate) fn sample_gone() -> Self {
        Self { scopes: vec![], sign_out_csrf: None, copyable_fix: None, ..Self::sample() }
    }
}

impl Onward {
    pub(crate) fn sample() -> Self {
        Self {
            client_name: text("Prompt Studio"),
            uri: text(
                "https://studio.tools.example.net/callback?code=ac_x&state=x&iss=https%3A%2F%2Fportcullis.lab.internal",
            ),
        }
    }
}

impl Continue {
    pub(crate) fn sample() -> Self {
        Self {
            host: text("studio.tools.example.net"),
            uri: text(
                "https://studio.tools.example.net/callback?error=invalid_scope&state=x&iss=https%3A%2F%2Fportcullis.lab.internal",
            ),
            error: text("invalid_scope"),
            description: text("it asked for a scope that this server does not have"),
        }
    }
}

impl Notice {
    pub(crate) fn sample() -> Self {
        Self {
            title: text("You are signed out"),
            paragraphs: vec![
                text("This browser no longer holds a session here."),
                text("Programs you allowed keep working."),
            ],
            next_step: Some(text("To end them too, sign in and withdraw what you allowed.")),
        }
    }
}
