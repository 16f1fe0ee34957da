//! `[scopes]`, `[groups]`, `[tools]`, `[prompts]`, `[resources]` and `[profiles]`: who may be granted what, what it opens, and
//! where (POL-01 to 03).

use anyhow::{Context, anyhow, bail};
use resource::catalogue::{
    ArgumentRule, ArgumentRules, Conditions, Effect, ItemRule, Kind, Pattern, ProfileRule, Rules, ScopeRule,
    UnusableRule,
};
use shared::Scope;
use shared::catalogue::{Risk, ScopeDescription};

use super::keys::{Key, meant};
use super::limits;
use super::sources::Offering;

/// Scopes of OAuth and OpenID Connect, which no tool can need.
const RESERVED: [&str; 2] = ["offline_access", "openid"];
/// What a rule about tools or prompts can say.
const ITEM_KEYS: &[&str] = &[
    "scope",
    "effect",
    "hidden",
    "title",
    "description",
    "args",
    "limit",
    "at_once",
    "timeout",
    "longest",
    "max_arguments",
    "max_result",
];
/// What a rule about resources can say: they have no arguments.
const RESOURCE_KEYS: &[&str] = &["scope", "effect", "hidden", "title", "description"];
/// The keys of a rule about an argument.
const ARGUMENT_KEYS: &[&str] = &["in", "match", "min", "max", "absent"];

/// `[scopes."x"]`: a new scope, or another description of an existing one.
pub(super) fn scope(key: &Key<'_>, scopes: &mut Vec<ScopeRule>) -> anyhow::Result<()> {
    let name = token(key, key.name)?;
    if RESERVED.contains(&name) {
        bail!("the scope `{name}` at {} is reserved in OAuth; choose another name", key.at());
    }
    let built_in = scopes.iter().position(|rule| rule.description.name == name);
    let (mut title, mut risk, mut default) = match built_in.map(|index| scopes.swap_remove(index)) {
        Some(rule) => (Some(rule.description.title), rule.description.risk, rule.default),
        None => (None, Risk::Low, false),
    };
    let mut risk_text = None;
    for key in key.keys()? {
        match key.name {
            "title" => title = Some(key.text()?.to_owned()),
            "risk" => risk = level(&key)?,
            "risk_text" => risk_text = Some((key.text()?.to_owned(), key.at())),
            "default" => default = key.boolean()?,
            // `[scopes.docs.read]` is a table in a table.
            part if key.is_table() => {
                bail!("a name with a dot needs quotes at {}; write [scopes.\"{name}.{part}\"]", key.at())
            }
            _ => return Err(key.unknown(&["title", "risk", "risk_text", "default"])),
        }
    }
    let Some(title) = title else {
        bail!("the scope `{name}` at {} has no `title`; say in a few words what it allows", key.at());
    };
    if let (Risk::Low, Some((_, at))) = (risk, &risk_text) {
        bail!(
            "`risk_text` at {at} is never shown, because the scope `{name}` is low risk; set risk = \"high\" or remove the text"
        );
    }
    let risk_text = risk_text.map(|(text, _)| text);
    let description = ScopeDescription { name: name.to_owned(), title, risk, risk_text };
    scopes.push(ScopeRule { description, default });
    scopes.sort_by(|a, b| a.description.name.cmp(&b.description.name));
    Ok(())
}

fn level(key: &Key<'_>) -> anyhow::Result<Risk> {
    match key.text()? {
        "low" => Ok(Risk::Low),
        "high" => Ok(Risk::High),
        other => bail!("`risk` at {} is `{other}`; write \"low\" or \"high\"", key.at()),
    }
}

/// One of `[groups]`: its name and its scope.
pub(super) fn group(key: &Key<'_>, rules: &Rules) -> anyhow::Result<Scope> {
    let name = key.name;
    if !is_short_name(name) {
        bail!(
            "the group `{name}` at {} needs another name: a letter, then letters, digits, `_` or `-`, all lower case, 32 at most",
            key.at()
        );
    }
    known_scopes(&key.list()?, &format!("the group `{name}`"), rules)
}

/// A letter, then letters, digits, `_` or `-`, all lower case, at most 32.
fn is_short_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 32 && name.bytes().all(fits)
}

/// `[profiles.NAME]`: an endpoint `/mcp/NAME` with a selection of the items (POL-03).
pub(super) fn profile(key: &Key<'_>, rules: &Rules) -> anyhow::Result<ProfileRule> {
    let name = key.name;
    if !is_short_name(name) {
        bail!(
            "the profile `{name}` at {} needs another name: a letter, then letters, digits, `_` or `-`, all lower case, 32 at most",
            key.at()
        );
    }
    let mut profile = ProfileRule { at: key.at(), ..ProfileRule::default() };
    for key in key.keys()? {
        match key.name {
            "title" => profile.title = Some(key.text()?.to_owned()),
            "items" => {
                profile.items = key.one_or_list()?.iter().map(selected).collect::<anyhow::Result<_>>()?;
            }
            "scope" => {
                let scopes = known_scopes(&key.one_or_list()?, &format!("the profile `{name}`"), rules)?;
                profile.default_scope = Some(scopes);
            }
            _ => return Err(key.unknown(&["title", "items", "scope"])),
        }
    }
    if profile.items.is_empty() {
        bail!("the profile `{name}` at {} selects nothing; write items = [\"…\"]", key.at());
    }
    Ok(profile)
}

/// Which items a profile selects, of any kind.
fn selected(key: &Key<'_>) -> anyhow::Result<Pattern> {
    let text = key.text()?;
    // Every URI has a colon, and no name has.
    let pattern = if text.contains(':') {
        Pattern::parse_for_resources(text).map_err(|error| error.to_string())
    } else {
        Pattern::parse(text).map_err(|error| error.to_string())
    };
    pattern.map_err(|error| anyhow!("`{text}` at {} is not the name of an item: {error}", key.at()))
}

/// The items that a rule is about.
fn pattern(kind: Kind, key: &Key<'_>) -> anyhow::Result<Pattern> {
    let name = key.name;
    let parsed = match kind {
        Kind::Tool | Kind::Prompt => Pattern::parse(name).map_err(|error| error.to_string()),
        Kind::Resource | Kind::Template => {
            Pattern::parse_for_resources(name).map_err(|error| error.to_string())
        }
    };
    parsed
        .map_err(|error| anyhow!("`{name}` at {} is not the name of a {}: {error}", key.at(), kind.as_str()))
}

/// One of `[tools]`, `[prompts]` or `[resources]`: the items that it is about, and what is said about them.
/// `docs_read = "docs.read"` is short for a table with that scope.
pub(super) fn item(
    kind: Kind,
    key: &Key<'_>,
    rules: &Rules,
    sources: &Offering<'_>,
) -> anyhow::Result<(Pattern, ItemRule)> {
    let (name, noun) = (key.name, kind.as_str());
    let pattern = pattern(kind, key)?;
    let whose = format!("the {noun} `{name}`");
    let known_keys = if kind == Kind::Resource { RESOURCE_KEYS } else { ITEM_KEYS };
    let mut rule = ItemRule { at: Some(key.at()), ..ItemRule::default() };
    if key.is_table() {
        for key in key.keys()? {
            match key.name {
                "scope" => rule.scope = known_scopes(&key.one_or_list()?, &whose, rules)?,
                "effect" => rule.effect = Some(effect(&key)?),
                "hidden" => rule.hidden = key.boolean()?,
                "title" => rule.title = Some(key.text()?.to_owned()),
                "description" => rule.description = Some(key.prose()?.to_owned()),
                "args" if kind != Kind::Resource => rule.arguments = arguments(&key)?,
                "limit" if kind != Kind::Resource => rule.limits.rates = limits::rates(&key)?,
                "at_once" if kind != Kind::Resource => rule.limits.at_once = limits::at_once(&key)?,
                _ if kind != Kind::Resource && limits::bound(&key, &mut rule.bounds)? => {}
                _ => return Err(key.unknown(known_keys)),
            }
        }
    } else {
        rule.scope = known_scopes(&key.one_or_list()?, &whose, rules)?;
    }
    if pattern.is_exact() {
        known(kind, key, &rule, rules, sources)?;
    }
    let needs_none = kind == Kind::Tool && Rules::needs_no_scope(name);
    if rule.scope.is_empty() && !rule.hidden && !needs_none {
        // It could be understood as "needs nothing", but means "cannot be used", so it must be explicit.
        bail!("the {noun} `{name}` at {} has no scope; write scope = \"…\"", key.at());
    }
    Ok((pattern, rule))
}

/// Refuses a rule about an item that there is not, or that cannot have this one.
fn known(
    kind: Kind,
    key: &Key<'_>,
    rule: &ItemRule,
    rules: &Rules,
    sources: &Offering<'_>,
) -> anyhow::Result<()> {
    match Rules::check_item(kind, key.name, rule) {
        Ok(()) => Ok(()),
        // What a server lists is not known here, nor which documents there are.
        Err(UnusableRule::NoSuchItem(kind, name)) if may_be_offered(kind, &name, sources) => Ok(()),
        Err(UnusableRule::NoSuchItem(kind, name)) => {
            undeclared(&name, key, sources)?;
            let known = rules.of(kind).iter().filter(|(pattern, _)| pattern.is_exact());
            let known: Vec<_> = known.map(|(pattern, _)| pattern.as_str()).collect();
            let noun = kind.as_str();
            if known.is_empty() {
                bail!(
                    "unknown {noun} `{name}` at {}; it must begin with the name of one of [sources] and `_`",
                    key.at()
                )
            }
            bail!("unknown {noun} `{name}` at {}; {}", key.at(), meant(&name, known))
        }
        Err(other) => Err(other).with_context(|| key.at()),
    }
}

/// Refuses a rule for a tool that a source would have to declare, and does not.
fn undeclared(name: &str, key: &Key<'_>, sources: &Offering<'_>) -> anyhow::Result<()> {
    let of = |source: &str| name.strip_prefix(source).is_some_and(|rest| rest.starts_with('_'));
    match sources.declared.values().find(|source| of(&source.source.name)) {
        Some(source) => bail!(
            "[sources.{}] declares no tool `{name}`, which has a rule at {}; it declares {}",
            source.source.name,
            key.at(),
            source.tool_names().join(", ")
        ),
        None => Ok(()),
    }
}

fn may_be_offered(kind: Kind, name: &str, sources: &Offering<'_>) -> bool {
    match kind {
        Kind::Tool
            if sources.declared.values().any(|source| source.tool_names().iter().any(|one| one == name)) =>
        {
            true
        }
        Kind::Tool | Kind::Prompt => sources.servers.values().any(|source| source.may_offer(name)),
        // Resources have the name of their source before their URI, however its other items are named.
        Kind::Resource | Kind::Template => {
            let of = |source: &str| name.strip_prefix(source).is_some_and(|rest| rest.starts_with('_'));
            name.starts_with("docs_docs:///") || sources.servers.keys().any(|source| of(source))
        }
    }
}

fn effect(key: &Key<'_>) -> anyhow::Result<Effect> {
    match key.text()? {
        "read" => Ok(Effect::ReadOnly),
        "write" => Ok(Effect::Writes),
        other => bail!("`effect` at {} is `{other}`; write \"read\" or \"write\"", key.at()),
    }
}

/// `args = { "/branch" = { … } }`: rules about arguments (POL-02).
fn arguments(table: &Key<'_>) -> anyhow::Result<ArgumentRules> {
    table.keys()?.iter().map(argument).collect()
}

fn argument(rule: &Key<'_>) -> anyhow::Result<ArgumentRule> {
    let mut conditions = Conditions::default();
    for key in rule.keys()? {
        match key.name {
            "in" => conditions.one_of = Some(key.values()?),
            "match" => conditions.matches = Some(key.text()?.to_owned()),
            "min" => conditions.min = Some(key.number()?),
            "max" => conditions.max = Some(key.number()?),
            "absent" if key.boolean()? => conditions.absent = true,
            "absent" => bail!("`absent` at {} has no effect if it is false; remove it", key.at()),
            _ => return Err(key.unknown(ARGUMENT_KEYS)),
        }
    }
    match ArgumentRule::new(rule.name, conditions) {
        Ok(rule) => Ok(rule),
        Err(error) => {
            bail!("the rule for the argument `{}` at {} cannot be used: {error}", rule.name, rule.at())
        }
    }
}

pub(super) fn known_scopes(values: &[Key<'_>], whose: &str, rules: &Rules) -> anyhow::Result<Scope> {
    let known = || rules.scopes.iter().map(|rule| rule.description.name.as_str());
    let mut scopes = Scope::empty();
    for value in values {
        let name = token(value, value.text()?)?;
        if !known().any(|known| known == name) {
            bail!(
                "{whose} at {} names an unknown scope `{name}`; {} A new one needs [scopes.\"{name}\"] with a title",
                value.at(),
                meant(name, known())
            );
        }
        scopes = scopes.union(&[name].into_iter().collect());
    }
    Ok(scopes)
}

/// A single scope token (RFC 6749 §3.3).
fn token<'n>(key: &Key<'_>, name: &'n str) -> anyhow::Result<&'n str> {
    match name.parse::<Scope>() {
        Ok(scope) if scope.iter().eq([name]) => Ok(name),
        _ => bail!(
            "`{name}` at {} is not a valid scope: use visible ASCII without spaces, quotes and backslashes",
            key.at()
        ),
    }
}

#[cfg(test)]
mod tests;
