//! Recorded calls under other rules: which would be decided differently (POL-06). Uses the gate's own decision
//! function.

use serde_json::{Map, Value};
use shared::token_status::Ceiling;
use shared::{ResourceUri, Scope};

use crate::argument_rules::{ArgumentRules, NOT_IN_SCHEMA};
use crate::item::{Kind, SourceName};
use crate::policy::{self, Caller, Decision};
use crate::registry::{RequestedItem, Snapshot};

/// A recorded call.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its endpoint.
    pub resource: ResourceUri,
    pub kind: Kind,
    /// The name of a tool or prompt, or the URI of a resource.
    pub name: String,
    /// The source that it went to. It owns a URI that it had shown to the caller and that is in no list.
    pub source: Option<String>,
    /// The token's scope.
    pub token: Scope,
    pub ceiling: Ceiling,
    /// Whether there was a user; otherwise a client in its own name.
    pub has_user: bool,
    /// The recorded decision.
    pub decision: String,
    /// The argument rule that did not hold.
    pub rule: Option<String>,
    /// The argument values that the rules looked at, if they were recorded.
    pub values: Option<Map<String, Value>>,
}

/// The result for a recorded call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replayed {
    Same,
    /// Another decision, as recorded keywords.
    Changed {
        before: String,
        after: String,
    },
    /// Undecided: the argument values were not recorded.
    Undecided,
}

/// A decision, or the argument rules on which it still depends.
enum Verdict {
    Word(&'static str),
    Arguments(ArgumentRules),
}

/// Compares the decisions of two snapshots about a call, each with the user's entitlement under it.
pub(crate) fn compare(call: &Recorded, now: (&Snapshot, &Scope), other: (&Snapshot, &Scope)) -> Replayed {
    let (before, after) = (verdict(call, now), verdict(call, other));
    if let (Verdict::Arguments(before), Verdict::Arguments(after)) = (&before, &after)
        && before == after
    {
        return Replayed::Same;
    }
    let recorded = Some(call.decision.as_str()).filter(|word| ["allow", "argument_denied"].contains(word));
    let before = match before {
        Verdict::Word(word) => Some(word.to_owned()),
        Verdict::Arguments(rules) => by_arguments(call, &rules).or(recorded).map(str::to_owned),
    };
    let after = match after {
        Verdict::Word(word) => Some(word),
        Verdict::Arguments(rules) => by_arguments(call, &rules),
    };
    match (before, after) {
        (Some(before), Some(after)) if before == after => Replayed::Same,
        (Some(before), Some(after)) => Replayed::Changed { before, after: after.to_owned() },
        _ => Replayed::Undecided,
    }
}

fn verdict(call: &Recorded, (snapshot, entitled): (&Snapshot, &Scope)) -> Verdict {
    let profile = snapshot.profile_of(&call.resource);
    let shown_by = call.source.as_deref().filter(|_| call.kind == Kind::Resource).map(SourceName::from);
    let sought = RequestedItem { shown_by, ..RequestedItem::new(call.kind, call.name.as_str()) };
    let Some(item) = profile.and_then(|profile| snapshot.seek_at(profile, &sought)) else {
        return Verdict::Word(Decision::Unknown.as_str());
    };
    let caller = Caller { scope: &call.token, entitled, ceiling: call.ceiling, has_user: call.has_user };
    match policy::decide(&item.needs, &caller) {
        Decision::Allow if !item.arguments.is_empty() => Verdict::Arguments(item.arguments.clone()),
        decided => Verdict::Word(decided.as_str()),
    }
}

/// The result of argument rules, if the values were recorded.
fn by_arguments(call: &Recorded, rules: &ArgumentRules) -> Option<&'static str> {
    if call.rule.as_deref() == Some(NOT_IN_SCHEMA) {
        return Some("argument_denied");
    }
    let holds = rules.hold_for(call.values.as_ref()?)?;
    Some(if holds { "allow" } else { "argument_denied" })
}
