use std::collections::{BTreeMap, BTreeSet};

use http::Request as HttpRequest;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::*;
use shared::catalogue::{Risk, ScopeDescription};

use crate::catalogue::{Rules, ScopeRule};
use crate::item::Kind;
use crate::testing::{App, bearer, post, token};

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

/// What these names need; all others are unknown.
struct Policy(BTreeMap<String, Needs>);

impl Policy {
    fn new(needs: impl IntoIterator<Item = (String, Needs)>) -> Self {
        Self(needs.into_iter().collect())
    }

    fn decide(&self, token: &Scope, entitled: &Scope, ceiling: Ceiling, name: &str) -> Decision {
        let caller = Caller { scope: token, entitled, ceiling, has_user: true };
        self.0.get(name).map_or(Decision::Unknown, |needs| decide(needs, &caller))
    }
}

fn scopes_of(all: Scope) -> Needs {
    Needs::Scopes { all, high_risk: Scope::empty() }
}

fn policy() -> Policy {
    let tool = |name: &str, needs| (name.to_owned(), needs);
    Policy::new([
        tool("whoami", Needs::User),
        tool("docs_search", scopes_of(scope("docs.read"))),
        tool("ci_trigger", scopes_of(scope("cicd.read cicd.trigger"))),
        tool("unmapped", scopes_of(Scope::empty())),
    ])
}

/// MCP-08, MCP-09, RS-11, DCR-08, CC-02: the policy as a table. `u` is a scope, `h` is high-risk; the columns
/// are what an item needs, the token's scope, the entitlement, whether the client is verified, and whether
/// there is a user.
#[test]
fn the_policy_as_a_table() {
    use Ceiling::{Any, LowRisk};
    let missing = |needed: &str| Decision::ScopeMissing { needed: scope(needed) };
    let above = |beyond: &str| Decision::AboveCeiling { beyond: scope(beyond) };
    let (allow, not_entitled) = (Decision::Allow, Decision::NotEntitled);
    let high = scope("h i");
    for (needed, token, entitled, ceiling, has_user, expected) in [
        (None, "", "", LowRisk, true, allow.clone()),
        (None, "u", "u", Any, false, Decision::NoUser),
        (Some(""), "u h", "u h", Any, true, not_entitled.clone()),
        (Some("u"), "", "", Any, true, not_entitled.clone()),
        (Some("u"), "u", "", Any, true, not_entitled.clone()),
        (Some("u"), "", "u", Any, true, missing("u")),
        (Some("u"), "u", "u", Any, true, allow.clone()),
        (Some("u"), "u", "u", LowRisk, true, allow.clone()),
        (Some("u"), "u", "u", Any, false, allow.clone()),
        (Some("u v"), "u", "u v", Any, true, missing("v")),
        (Some("u v"), "u v", "u", Any, true, not_entitled.clone()),
        (Some("h"), "h", "h", LowRisk, true, above("h")),
        (Some("h"), "", "h", LowRisk, true, above("h")),
        (Some("h"), "h", "", LowRisk, true, not_entitled.clone()),
        (Some("h"), "h", "h", Any, true, allow.clone()),
        (Some("h"), "", "h", Any, true, missing("h")),
        (Some("u h i"), "u h i", "u h i", LowRisk, true, above("h i")),
        (Some("u h"), "h", "u h", LowRisk, true, above("h")),
        (Some("u h"), "h", "u h", Any, true, missing("u")),
    ] {
        let needs = needed.map_or(Needs::User, |needed| {
            let all = scope(needed);
            let high_risk = all.intersection(&high);
            Needs::Scopes { all, high_risk }
        });
        let caller = Caller { scope: &scope(token), entitled: &scope(entitled), ceiling, has_user };
        let decided = decide(&needs, &caller);
        assert_eq!(decided, expected, "{needs:?} {caller:?}");
        assert_eq!(decided.listed(), matches!(decided, Decision::Allow | Decision::ScopeMissing { .. }));
    }
}

/// MCP-08: names are exact and case-sensitive, and an item without a rule is denied.
#[test]
fn items_without_a_rule_are_denied() {
    let all = scope("docs.read cicd.read cicd.trigger");
    for name in ["", "Docs_search", "docs_search ", "docs.search", "docs", "docs_searc", "*"] {
        assert_eq!(policy().decide(&all, &all, Ceiling::Any, name), Decision::Unknown, "{name:?}");
    }
    assert_eq!(policy().decide(&all, &all, Ceiling::Any, "unmapped"), Decision::NotEntitled);
}

/// MCP-09: a scope in the token that the user has lost is not enough.
#[test]
fn a_scope_in_the_token_needs_the_users_entitlement_too() {
    let decided = policy().decide(&scope("docs.read"), &Scope::empty(), Ceiling::Any, "docs_search");
    assert_eq!(decided, Decision::NotEntitled);
    let half =
        policy().decide(&scope("cicd.read cicd.trigger"), &scope("cicd.read"), Ceiling::Any, "ci_trigger");
    assert_eq!(half, Decision::NotEntitled);
    assert!(!half.listed());
}

/// RS-11, MCP-10: entitled but not granted: the missing scopes are requested, and the item is listed.
#[test]
fn an_entitled_user_is_told_which_scope_is_missing() {
    let entitled = scope("cicd.read cicd.trigger docs.read");
    let decided = policy().decide(&scope("cicd.read"), &entitled, Ceiling::Any, "ci_trigger");
    assert_eq!(decided, Decision::ScopeMissing { needed: scope("cicd.trigger") });
    assert!(decided.listed());
}

/// MCP-08: `whoami` needs only a valid token.
#[test]
fn whoami_needs_no_scope() {
    assert_eq!(
        policy().decide(&Scope::empty(), &Scope::empty(), Ceiling::LowRisk, "whoami"),
        Decision::Allow
    );
}

proptest! {
    /// Deny by default: only token and entitlement together allow, and a wider one never denies.
    #[test]
    fn a_scope_must_be_in_the_token_and_the_entitlement(token in "[a-c ]{0,8}", entitled in "[a-c ]{0,8}", needed in "[a-c ]{0,6}") {
        let (token, entitled, needed) = (scope(&token), scope(&entitled), scope(&needed));
        let policy = Policy::new([("t".to_owned(), scopes_of(needed.clone()))]);
        let allowed = policy.decide(&token, &entitled, Ceiling::Any, "t") == Decision::Allow;
        let both = token.intersection(&entitled);
        prop_assert_eq!(allowed, !needed.is_empty() && needed.is_subset(&both));
        if allowed {
            let wider = policy.decide(&token.union(&scope("d")), &entitled.union(&scope("d")), Ceiling::Any, "t");
            prop_assert_eq!(wider, Decision::Allow);
        }
    }
}

/// Scopes, tools and groups of generated organisations. Tool names that differ in one letter, case or separator
/// are different tools.
const SCOPES: [&str; 6] = ["ci.run", "db.read", "db.write", "docs.read", "jira.read", "jira.write"];
const TOOLS: [&str; 6] = ["a", "A", "a_b", "a-b", "docs_read", "docs_search"];
const STRANGERS: [&str; 6] = ["", "a ", "aa", "DOCS_READ", "docs_searc", "*"];

/// A user in an organisation, with a token, who names a tool.
#[derive(Clone, Debug)]
struct Case {
    everyone: Scope,
    groups: Vec<Scope>,
    /// The user's groups.
    member: Vec<bool>,
    /// The scopes of each tool; other tools do not exist.
    tools: BTreeMap<&'static str, Scope>,
    /// Granted earlier; the user may have lost some of it since.
    token: Scope,
    high_risk: Scope,
    ceiling: Ceiling,
    named: &'static str,
}

impl Case {
    fn any() -> impl Strategy<Value = Case> {
        let tools = subsequence(TOOLS.as_slice(), 0..=TOOLS.len());
        let needs =
            proptest::collection::vec(prop_oneof![4 => scopes(1..=2), 1 => scopes(0..=3)], TOOLS.len());
        let tools = (tools, needs).prop_map(|(names, needs)| names.into_iter().zip(needs).collect());
        let named = prop_oneof![3 => select(TOOLS.as_slice()), 1 => select(STRANGERS.as_slice())];
        let groups = proptest::collection::vec((scopes(0..=4), any::<bool>()), 0..=4);
        let ceiling = prop_oneof![Just(Ceiling::Any), Just(Ceiling::LowRisk)];
        (scopes(0..=2), groups, tools, scopes(0..=6), named, scopes(0..=2), ceiling).prop_map(
            |(everyone, groups, tools, token, named, high_risk, ceiling)| {
                let (groups, member) = groups.into_iter().unzip();
                Case { everyone, groups, member, tools, token, high_risk, ceiling, named }
            },
        )
    }

    /// The user's entitlement: everyone's scope, and that of each of their groups.
    fn entitled(&self) -> Scope {
        let groups = self.groups.iter().zip(&self.member).filter(|(_, member)| **member);
        groups.fold(self.everyone.clone(), |all, (group, _)| all.union(group))
    }

    fn policy(&self) -> Policy {
        let needs = |(name, needs): (&&str, &Scope)| {
            let high_risk = needs.intersection(&self.high_risk);
            ((*name).to_owned(), Needs::Scopes { all: needs.clone(), high_risk })
        };
        Policy::new(self.tools.iter().map(needs))
    }

    fn decide(&self, token: &Scope) -> Decision {
        self.policy().decide(token, &self.entitled(), self.ceiling, self.named)
    }
}

fn scopes(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Scope> {
    subsequence(SCOPES.as_slice(), count).prop_map(|names| names.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// MCP-08, MCP-09, MCP-10, DCR-08: random callers and tools, against a model that only uses sets.
    #[test]
    fn lists_and_calls_agree(case in Case::any()) {
        let (decision, entitled) = (case.decide(&case.token), case.entitled());
        let set = |scope: &Scope| scope.iter().map(str::to_owned).collect::<BTreeSet<_>>();
        let mut reachable = set(&entitled);
        if case.ceiling == Ceiling::LowRisk {
            reachable.retain(|scope| !case.high_risk.contains(scope));
        }
        let effective: BTreeSet<_> = set(&case.token).intersection(&reachable).cloned().collect();
        let needed = case.tools.get(case.named).map(set);

        // The effective permission is exactly token, entitlement and ceiling; an empty need is never satisfied.
        let may = needed.as_ref().is_some_and(|needed| !needed.is_empty() && needed.is_subset(&effective));
        prop_assert_eq!(decision == Decision::Allow, may);

        // Listed is what the user is entitled to through this client, for any token.
        let open = |needed: &BTreeSet<String>, all: &BTreeSet<String>| !needed.is_empty() && needed.is_subset(all);
        prop_assert_eq!(decision.listed(), needed.as_ref().is_some_and(|needed| open(needed, &reachable)));

        // A call is refused as unknown exactly if nothing would allow it to the user, whether it is forbidden
        // or does not exist.
        let unknown = matches!(decision, Decision::NotEntitled | Decision::Unknown);
        prop_assert_eq!(unknown, !needed.as_ref().is_some_and(|needed| open(needed, &set(&entitled))));
        prop_assert_eq!(decision == Decision::Unknown, needed.is_none());

        // Above the ceiling: another client could be granted it; the decision names what this one cannot.
        if let Decision::AboveCeiling { beyond } = &decision {
            prop_assert!(!beyond.is_empty() && beyond.is_subset(&case.high_risk));
            let trusted = Case { ceiling: Ceiling::Any, ..case.clone() };
            prop_assert_eq!(trusted.decide(&entitled), Decision::Allow);
        }

        // A client that follows the challenge is allowed, and is asked for no scope that it has or does not
        // need.
        if let Decision::ScopeMissing { needed: lacking } = &decision {
            prop_assert!(!lacking.is_empty() && lacking.intersection(&case.token).is_empty());
            prop_assert!(lacking.is_subset(&case.tools[case.named]));
            let stepped_up = case.token.union(lacking);
            prop_assert_eq!(case.decide(&stepped_up), Decision::Allow);
        }

        // Other tools do not influence the decision.
        let mut alone = case.clone();
        alone.tools.retain(|name, _| *name == case.named);
        prop_assert_eq!(alone.decide(&case.token), decision);
    }
}

/// The same through the gate, for every token and entitlement: a listed item can be called or stepped up to,
/// and any other gets the answer of one that does not exist, byte for byte except id and name.
#[tokio::test]
async fn the_gate_answers_as_the_policy_says() {
    const HELD: [&str; 3] = ["docs.archive", "docs.read", "docs.secret"];
    let mut rules = Rules::default();
    rules.need("docs_read", "docs.archive docs.secret");
    let app = App::ruled(&rules);
    let subset = |bits: usize| -> Scope {
        HELD.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, name)| *name).collect()
    };
    let ask = async |credentials: &str, id: usize, method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let request: HttpRequest<_> = post()
            .header("authorization", credentials)
            .header("mcp-protocol-version", "2025-11-25")
            .body(body.into())
            .unwrap();
        app.send(request).await
    };
    let mut seen = BTreeMap::new();
    for (held, entitled) in (0..64).map(|case| (subset(case & 7), subset(case >> 3))) {
        app.stage.entitle(&entitled.to_string());
        let credentials = bearer(&token(&held.to_string()));
        let list = ask(&credentials, 1, "tools/list", json!({})).await.json();
        let list = list["result"]["tools"].as_array().unwrap();
        let listed = |name: &str| list.iter().any(|tool| tool["name"] == name);

        let mut answers = BTreeMap::new();
        for (id, name) in ["nothing_here", "docs_read", "docs_search", "whoami"].into_iter().enumerate() {
            let mut answer =
                ask(&credentials, id, "tools/call", json!({ "name": name, "arguments": {} })).await;
            // It depends on the length of the name.
            answer.headers.remove("content-length");
            let caller = Caller { scope: &held, entitled: &entitled, ceiling: Ceiling::Any, has_user: true };
            let snapshot = app.resource.registry().snapshot();
            let item = snapshot.find(Kind::Tool, name);
            let decision = item.map_or(Decision::Unknown, |item| super::decide(&item.needs, &caller));
            assert_eq!(listed(name), decision.listed(), "{name} {held} {entitled}");
            let text = String::from_utf8(answer.body).unwrap();
            let blank = text.replace(name, "NAME").replace(&format!("\"id\":{id}"), "\"id\":ID");
            *seen.entry((name, decision.as_str())).or_insert(0) += 1;
            match decision {
                Decision::Allow => assert!(answer.status == 200 && text.contains("result"), "{text}"),
                Decision::ScopeMissing { .. } => assert_eq!(answer.status, 403),
                Decision::AboveCeiling { .. } => panic!("nothing is above the ceiling of this client"),
                Decision::NoUser => panic!("there is a user"),
                Decision::Hidden | Decision::ArgumentDenied { .. } => panic!("no rule says so"),
                Decision::NotEntitled | Decision::Unknown => {
                    answers.insert(name, (answer.status, format!("{:?}", answer.headers), blank));
                }
            }
        }
        let unknown = answers["nothing_here"].clone();
        assert!(answers.values().all(|answer| *answer == unknown), "{answers:#?}");
    }
    // Every possible decision occurred.
    let seen: Vec<_> = seen.into_iter().map(|((name, decision), count)| (name, decision, count)).collect();
    assert_eq!(
        seen,
        [
            ("docs_read", "allow", 4),
            ("docs_read", "not_entitled", 48),
            ("docs_read", "scope_missing", 12),
            ("docs_search", "allow", 16),
            ("docs_search", "not_entitled", 32),
            ("docs_search", "scope_missing", 16),
            ("nothing_here", "unknown", 64),
            ("whoami", "allow", 64),
        ]
    );
}

/// DCR-08, MCP-10: for an unverified client a high-risk tool is not listed; a call of it gets an error that
/// says who can help, and never a challenge that leads back here. `whoami` reports it too.
#[tokio::test]
async fn a_call_above_the_ceiling_says_who_can_help() {
    let mut rules = Rules::default();
    let description = ScopeDescription {
        name: "docs.secret".to_owned(),
        title: "Read secrets".to_owned(),
        risk: Risk::High,
        risk_text: None,
    };
    rules.scopes.push(ScopeRule { description, default: false });
    rules.need("docs_read", "docs.read docs.secret");
    let app = App::ruled(&rules);
    app.stage.entitle("docs.read docs.secret");
    let token = token("docs.read docs.secret");
    let ask = async |version: &str, method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request = post().header("authorization", bearer(&token)).header("mcp-protocol-version", version);
        app.send(request.body(body.into()).unwrap()).await
    };
    let call = json!({ "name": "docs_read", "arguments": { "path": "notes.txt" } });
    let allowed = ask("2025-11-25", "tools/call", call.clone()).await.json();
    assert_eq!(allowed["result"]["isError"], false, "{allowed}");

    app.stage.distrust();
    let refused = ask("2025-11-25", "tools/call", call).await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (200, ""));
    let result = &refused.json()["result"];
    assert_eq!(result["isError"], true, "{result}");
    let words = result["content"][0]["text"].as_str().unwrap();
    assert!(words.contains("docs.secret") && !words.contains("docs.read"), "{words}");
    assert!(words.contains(&format!("portcullis client verify {}", token.client_id)), "{words}");
    let denied = app.records("mcp.denied");
    assert_eq!((denied.len(), &denied[0]["reason"]), (1, &json!("above_ceiling")));
    assert_eq!(denied[0]["detail"]["scopes_needed"], json!(["docs.read", "docs.secret"]));
    assert_eq!(app.records("mcp.call").len(), 1, "what was refused was not made");

    let list = ask("2025-11-25", "tools/list", json!({})).await.json();
    let names: Vec<_> =
        list["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["docs_search", "whoami"]);
    let whoami = json!({ "name": "whoami", "arguments": {} });
    let known = ask("2025-11-25", "tools/call", whoami).await.json();
    assert_eq!(known["result"]["structuredContent"]["withheld"], json!(["docs.secret"]));
}
