//! Every sentence on a page must be true in each state in which the page is shown. Each sample is changed to
//! its neighbouring states, and each conditional sentence is checked in all of them.

use serde_json::Value;

use super::{Sample, obeys, pages, reads_in_order, samples};

/// A sentence or its markup, and the condition under which it is true.
struct Statement {
    template: &'static str,
    says: &'static str,
    holds: fn(&Value) -> bool,
}

/// Members that may be absent.
const OPTIONAL: [&str; 20] = [
    "/linked",
    "/welcome",
    "/sign_out_csrf",
    "/remembered_for",
    "/confirm_path",
    "/refresh_lifetime",
    "/client_id_host",
    "/client_source",
    "/client_claim",
    "/resource_name",
    "/linked_code",
    "/problem",
    "/received",
    "/copyable_fix",
    "/ask",
    "/signed_in",
    "/mcp_url",
    "/done",
    "/next_step",
    "/destination",
];
/// The pages in which some of these members are required.
const REQUIRED: [(&str, &str); 5] = [
    ("error.html", "/next_step"),
    ("consent.html", "/client_source"),
    ("consent.html", "/client_claim"),
    ("device_consent.html", "/client_claim"),
    ("connect.html", "/sign_out_csrf"),
];

fn some(context: &Value, member: &str) -> bool {
    !context[member].is_null()
}

fn filled(context: &Value, member: &str) -> bool {
    context[member].as_array().is_some_and(|items| !items.is_empty())
}

fn any(context: &Value, list: &str, holds: impl Fn(&Value) -> bool) -> bool {
    context[list].as_array().into_iter().flatten().any(holds)
}

fn connection(context: &Value, holds: impl Fn(&Value) -> bool + Copy) -> bool {
    any(context, "clients", |client| any(client, "connections", holds))
}

macro_rules! statements {
    ($($template:literal { $($says:literal: $holds:expr;)+ })+) => {
        vec![$($(Statement { template: $template, says: $says, holds: $holds },)+)+]
    };
}

fn statements() -> Vec<Statement> {
    statements! {
        "login.html" {
            "Not verified (": |c| some(c, "client_name") && some(c, "client_source");
            "Verified by your administrator": |c| some(c, "client_name") && c["client_verified"] == true;
            "You were signed out meanwhile": |c| c["signed_out_meanwhile"] == true;
            "Signing in does not allow anything yet": |c| some(c, "client_name");
            "needs a passkey used now": |c| c["fresh"] == true;
            "data-destination=": |c| some(c, "destination");
        }
        "consent.html" {
            "Verified by your administrator": |c| c["client_verified"] == true;
            "Not verified (": |c| c["client_verified"] == false;
            "Known as": |c| some(c, "client_id_host");
            "data-testid=\"sign-out\"": |c| some(c, "sign_out_csrf");
            "What you allow is remembered for": |c| some(c, "remembered_for");
            "except for what is high risk": |c| some(c, "remembered_for") && some(c, "confirm_path");
            "High risk.": |c| any(c, "scopes", |scope| scope["high_risk"] == true);
            "Your passkey will be asked for": |c| some(c, "confirm_path")
                && any(c, "scopes", |scope| scope["high_risk"] == true && scope["required"] == false);
            ">Tick something to allow access.": |c| !any(c, "scopes", |scope| scope["ticked"] == true || scope["required"] == true);
            ">Untick what it does not need.": |c| any(c, "scopes", |scope| scope["ticked"] == true || scope["required"] == true)
                && any(c, "scopes", |scope| scope["required"] == false);
            "Opens: ": |c| any(c, "scopes", |scope| some(scope, "opens"));
            "Nothing works without it": |c| any(c, "scopes", |scope| scope["required"] == true);
            "you are not entitled to it": |c| filled(c, "not_entitled");
            "this application is not verified": |c| filled(c, "above_ceiling");
            "An administrator can change that": |c| filled(c, "not_entitled") || filled(c, "above_ceiling");
            "can be renewed for up to": |c| some(c, "refresh_lifetime");
        }
        "device_consent.html" {
            "Verified by your administrator": |c| c["client_verified"] == true;
            "Not verified:": |c| c["client_verified"] == false;
            "data-testid=\"sign-out\"": |c| some(c, "sign_out_csrf");
            "consent-approve": |c| filled(c, "scopes");
            "Allowing needs JavaScript": |c| filled(c, "scopes");
            "It asked for this": |c| filled(c, "not_entitled") || filled(c, "high_risk");
            "you are not entitled to it": |c| filled(c, "not_entitled");
            "left out, because it is high risk": |c| filled(c, "high_risk");
            "How long": |c| filled(c, "scopes");
        }
        "nothing_to_allow.html" {
            "It asks for:": |c| filled(c, "scopes");
            "no longer exists on this server": |c| !filled(c, "scopes");
            "What they can run on the server": |c| some(c, "copyable_fix");
            "data-testid=\"sign-out\"": |c| some(c, "sign_out_csrf");
        }
        "setup.html" {
            "Signed in as": |c| some(c, "signed_in");
            "data-testid=\"sign-out\"": |c| some(c, "signed_in");
            "Your name here": |c| c["needs_name"] == true;
        }
        "connect.html" {
            "The MCP servers are on other machines": |c| !some(c, "mcp_url");
            "Nothing yet.": |c| c["elsewhere"] == false && !filled(c, "what");
            "Addresses with fewer tools": |c| filled(c, "profiles");
            "You are the administrator": |c| c["welcome"] == "administrator";
            "made, and you are signed in": |c| c["welcome"] == "user";
            ">High risk</span>": |c| any(c, "what", |tool| tool["high_risk"] == true)
                || any(c, "profiles", |profile| any(profile, "what", |tool| tool["high_risk"] == true));
            "Add a second passkey": |c| c["passkeys"] == 1;
            "If you lose it, you cannot sign in": |c| c["passkeys"] == 1;
            "You have no passkey": |c| c["passkeys"] == 0;
            "passkey-add\"": |c| c["passkeys"] != 0;
        }
        "error.html" {
            ">home page</a>": |c| some(c, "linked");
        }
        "signed_out.html" {
            "There is no administrator yet": |c| c["setup_pending"] == true;
            "passkey-login": |c| c["can_sign_in"] == true;
            "needs JavaScript": |c| c["can_sign_in"] == true;
            "For your MCP client": |c| some(c, "mcp_url");
        }
        "account.html" {
            "Each change here needs your passkey": |c| c["always_confirm"] == true;
            "No applications are connected": |c| !filled(c, "clients");
            "Verified by your administrator": |c| any(c, "clients", |client| client["verified"] == true);
            "Not verified (": |c| any(c, "clients", |client| client["verified"] == false);
            "An administrator has disabled this application": |c| any(c, "clients", |client| client["disabled"] == true);
            "<dt>It may</dt>": |c| any(c, "clients", |client| client["disabled"] == false && filled(client, "connections"));
            "<dt>It was allowed</dt>": |c| any(c, "clients", |client| client["disabled"] == true && filled(client, "connections"));
            "Nothing at the moment": |c| connection(c, |connection| !filled(connection, "scopes"));
            "With the tools": |c| connection(c, |connection| some(connection, "opens"));
            "has since removed it from you": |c| connection(c, |connection| filled(connection, "not_now"));
            "may come back without asking you": |c| any(c, "remembered", |answer| some(answer, "counts_for"));
            "asks you each time anyway": |c| any(c, "remembered", |answer| !some(answer, "counts_for"));
            "every application asks you each time": |c| !filled(c, "remembered");
            "<strong>This browser</strong>": |c| any(c, "browsers", |browser| browser["this"] == true);
            "Sign out everywhere else": |c| c["browsers"].as_array().is_some_and(|browsers| browsers.len() > 1);
            "<strong>suspended</strong>": |c| any(c, "passkeys", |passkey| passkey["suspended"] == true);
            "It is the last one you can sign in with": |c| any(c, "passkeys", |passkey| passkey["removable"] == false && passkey["suspended"] == false);
            "You can remove it once you have another passkey": |c| any(c, "passkeys", |passkey| passkey["removable"] == false && passkey["suspended"] == true);
        }
    }
}

/// The neighbouring states: a flag is flipped, a list emptied, or a member removed.
fn changes(sample: &Sample) -> Vec<(String, Value)> {
    fn walk(value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        match value {
            Value::Bool(flag) => found.push((path.to_owned(), (!flag).into())),
            Value::Array(items) => {
                found.push((path.to_owned(), Value::Array(Vec::new())));
                for (index, item) in items.iter().enumerate() {
                    walk(item, &format!("{path}/{index}"), found);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    walk(member, &format!("{path}/{name}"), found);
                }
            }
            Value::Null | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    walk(&sample.context, "", &mut found);
    let there = |path: &&str| sample.context.pointer(path).is_some_and(|member| !member.is_null());
    let may_go = |path: &&str| !REQUIRED.contains(&(sample.template, *path));
    let optional = OPTIONAL.into_iter().filter(there).filter(may_go);
    found.extend(optional.map(|path| (path.to_owned(), Value::Null)));
    found
}

fn check(pages: &super::Pages, sample: &Sample, statements: &[Statement]) {
    let html = sample.render(pages);
    obeys(sample.name, &html);
    reads_in_order(sample.name, &html);
    for statement in statements.iter().filter(|statement| statement.template == sample.template) {
        let holds = (statement.holds)(&sample.context);
        assert_eq!(
            html.contains(statement.says),
            holds,
            "{}: {:?} in {}",
            sample.name,
            statement.says,
            sample.context
        );
    }
}

/// CONSENT-01, CONSENT-04, CONSENT-05, CONSENT-08: no page makes a false statement, in any sample or
/// neighbouring state.
#[test]
fn every_statement_holds_in_every_state() {
    let (pages, statements) = (pages(), statements());
    for sample in samples() {
        check(&pages, &sample, &statements);
        for (path, value) in changes(&sample) {
            let mut context = sample.context.clone();
            *context.pointer_mut(&path).expect("it was found there") = value;
            check(&pages, &Sample { name: sample.name, template: sample.template, context }, &statements);
        }
    }
}

/// CONSENT-05, CONSENT-09: without its script a page cannot allow anything, says why, and can still refuse.
#[test]
fn without_its_script_a_page_only_refuses() {
    let pages = pages();
    for sample in samples() {
        let html = sample.render(&pages);
        if html.contains("consent-approve") {
            let asleep = "data-testid=\"consent-approve\" aria-describedby=\"hint\" disabled>";
            assert_eq!(html.matches(asleep).count(), 1, "{}", sample.name);
            assert!(html.contains("<noscript>") && html.contains("refusing does not"), "{}", sample.name);
            assert!(html.contains("value=\"deny\" data-testid=\"consent-deny\">"), "{}", sample.name);
        }
    }
}

/// Each statement is seen both true and false; otherwise the test would prove nothing.
#[test]
fn every_statement_is_seen_both_ways() {
    for statement in statements() {
        let mut seen = [false; 2];
        for sample in samples().into_iter().filter(|sample| sample.template == statement.template) {
            seen[usize::from((statement.holds)(&sample.context))] = true;
            for (path, value) in changes(&sample) {
                let mut context = sample.context.clone();
                *context.pointer_mut(&path).expect("it was found there") = value;
                seen[usize::from((statement.holds)(&context))] = true;
            }
        }
        assert_eq!(seen, [true; 2], "{}: {}", statement.template, statement.says);
    }
}
