//! The consent page (CONSENT-01), and the page shown if nothing can be allowed (AUTHZ-13).

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use shared::catalogue::{Risk, ScopeDescription};
use shared::{Fault, Scope, shell};

use super::{Question, SignIn, confirm, csrf_token, remembered};
use crate::Authz;
use crate::clients::metadata_document::words;
use crate::grants::GrantType;
use crate::opened;
use crate::pages::{self, ConsentScope, WithheldScope};
use crate::session;
use crate::store::clients::{Source, Trust};
use crate::store::users;

/// The consent page, with an error message if the last answer failed.
pub(super) fn question(
    authz: &Authz,
    question: &Question,
    status: StatusCode,
    problem: Option<&str>,
) -> Result<Response, Fault> {
    let Question { sign_in: SignIn { transaction, decider, .. }, client, offer } = question;
    let lifetimes = authz.config.refresh_lifetimes(client.trust);
    let on_this_computer = transaction.redirect_uri.target().is_local();
    let scopes = described(authz, &offer.scope).into_iter().map(|scope| ConsentScope {
        high_risk: scope.risk == Risk::High,
        ticked: scope.risk == Risk::Low,
        required: false,
        risk_text: risk_text(&scope),
        opens: opened::by_scope(authz, &transaction.resource, &scope.name),
        name: scope.name,
        title: scope.title,
    });
    let now = authz.clock.now();
    let remembered_for = authz.db.read(|conn| remembered::would_last(authz, conn, question, now))?;
    let mut warnings: Vec<String> = problem.iter().map(ToString::to_string).collect();
    if client.source == Source::UnknownUrl {
        warnings.push(words::unchecked(&client.name));
    }
    if on_this_computer && (client.trust != Trust::Verified || client.source.is_by_document()) {
        warnings.push(
            "Any program on this computer can claim this name. Allow it only if you started it just now."
                .to_owned(),
        );
    }
    if !on_this_computer && client.trust == Trust::Unverified {
        let host = transaction.redirect_uri.host_for_people();
        warnings.push(format!(
            "Nobody on this site has checked who runs {host}. Allow it only if you just came from there."
        ));
    }
    let titles = |scope: &Scope| described(authz, scope).into_iter().map(|scope| scope.title);
    let page = pages::Consent {
        transaction: transaction.id.clone(),
        csrf: csrf_token(authz, transaction, decider),
        client_name: client.name.clone(),
        client_id: client.id.to_string(),
        client_verified: client.trust == Trust::Verified,
        client_id_host: words::host(client),
        client_source: words::source(client.source).to_owned(),
        client_claim: words::claim(client.source).to_owned(),
        redirect_host: destination(question),
        redirect_uri: transaction.redirect_uri.to_string(),
        resource_name: resource_name(authz, question),
        resource: transaction.resource.to_string(),
        scopes: scopes.collect(),
        not_entitled: titles(&offer.not_entitled).collect(),
        above_ceiling: titles(&offer.above_ceiling).collect(),
        user_name: decider.user.name.clone(),
        access_lifetime: in_words(authz.config.tokens.access),
        refresh_lifetime: GrantType::RefreshToken.is_allowed(client).then(|| in_words(lifetimes.family)),
        remembered_for: remembered_for.map(in_words),
        warnings,
        confirm_path: (!offer.high_risk.is_empty()).then(|| confirm::PATH.to_owned()),
        sign_out_csrf: session::sign_out_csrf(authz, &question.browser, decider),
    };
    Ok(authz.page(status, &page))
}

/// The warning for a high-risk scope. Only the site knows what a scope can do, so the default makes no claim.
pub(crate) fn risk_text(scope: &ScopeDescription) -> String {
    let default = "Allow it only if you know what it is needed for.";
    scope.risk_text.clone().unwrap_or_else(|| default.to_owned())
}

/// The page shown if nothing can be allowed: why, and who can change that. The user can send `access_denied` to
/// the client, or reload the page after an administrator has helped.
pub(super) fn nothing_to_allow(authz: &Authz, question: &Question) -> Result<Response, Fault> {
    let Question { sign_in: SignIn { transaction, decider, .. }, client, offer } = question;
    let groups = authz.status.groups();
    let mut commands = Vec::new();
    let mut scopes = Vec::new();
    for scope in described(authz, &offer.not_entitled) {
        let having: Vec<&str> =
            groups.iter().filter(|(_, may)| may.contains(&scope.name)).map(|(name, _)| name).collect();
        let why = match having.as_slice() {
            [] => "No group may use this.".to_owned(),
            [only] => format!("Only members of the group {only} may use this, and you are not in it."),
            [first @ .., last] => {
                format!(
                    "Only members of the groups {} and {last} may use this, and you are in none of them.",
                    first.join(", ")
                )
            }
        };
        if let Some(group) = having.first() {
            // By id, because the text is part of a command and a name is chosen by its user.
            commands.push(format!("portcullis user groups {} --add {group}", decider.user.id));
        }
        scopes.push(WithheldScope { name: scope.name, title: scope.title, why });
    }
    if !offer.above_ceiling.is_empty() {
        commands.push(format!("portcullis client verify {}", shell::word(client.id.as_str())));
    }
    for scope in described(authz, &offer.above_ceiling) {
        let why = "You may use this, but it is high risk and this application is not verified.".to_owned();
        scopes.push(WithheldScope { name: scope.name, title: scope.title, why });
    }
    commands.dedup();
    let administrators = authz.db.read(users::administrators)?;
    let page = pages::NothingToAllow {
        transaction: transaction.id.clone(),
        csrf: csrf_token(authz, transaction, decider),
        client_name: client.name.clone(),
        redirect_host: destination(question),
        redirect_uri: transaction.redirect_uri.to_string(),
        resource_name: resource_name(authz, question),
        user_name: decider.user.name.clone(),
        sign_out_csrf: session::sign_out_csrf(authz, &question.browser, decider),
        scopes,
        administrators: named(&administrators),
        copyable_fix: (!commands.is_empty()).then(|| commands.join("\n")),
    };
    Ok(authz.page(StatusCode::OK, &page))
}

/// The first few names, as text.
fn named(administrators: &[String]) -> String {
    match administrators {
        [] => "your administrator".to_owned(),
        [only] => only.clone(),
        [one, other] => format!("{one} or {other}"),
        [one, other, third] => format!("{one}, {other} or {third}"),
        [one, other, ..] => format!("{one}, {other} or another administrator"),
    }
}

fn described(authz: &Authz, chosen: &Scope) -> Vec<ScopeDescription> {
    authz.catalogue.scopes().into_iter().filter(|scope| chosen.contains(&scope.name)).collect()
}

fn resource_name(authz: &Authz, question: &Question) -> String {
    let resource = &question.transaction.resource;
    authz.resource(resource).map_or_else(|| resource.to_string(), |endpoint| endpoint.name)
}

fn destination(question: &Question) -> String {
    let uri = &question.transaction.redirect_uri;
    if uri.target().is_local() { "this computer".to_owned() } else { uri.host_for_people() }
}

/// A duration, as it follows "lasts".
pub(crate) fn in_words(lifetime: Duration) -> String {
    let seconds = lifetime.as_secs();
    let minutes = seconds / 60;
    let (count, unit) = match minutes {
        // Seconds are shown only for short durations.
        0..5 if !seconds.is_multiple_of(60) => (seconds, "second"),
        0..120 => (minutes, "minute"),
        120..2880 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_read_like_words() {
        let words = |secs| in_words(Duration::from_secs(secs));
        assert_eq!(words(60), "1 minute");
        assert_eq!(words(61), "61 seconds");
        assert_eq!(words(90), "90 seconds");
        assert_eq!(words(120), "2 minutes");
        assert_eq!(words(900), "15 minutes");
        assert_eq!(words(3600), "60 minutes");
        assert_eq!(words(86_400), "24 hours");
        assert_eq!(words(30 * 86_400), "30 days");
    }

    /// AUTHZ-13: the administrators are named, and a long list is shortened to one line.
    #[test]
    fn administrators_are_named() {
        let words = |names: &[&str]| named(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(words(&[]), "your administrator");
        assert_eq!(words(&["ada"]), "ada");
        assert_eq!(words(&["ada", "bob", "cleo"]), "ada, bob or cleo");
        assert_eq!(words(&["ada", "bob", "cleo", "dora"]), "ada, bob or another administrator");
    }
}
