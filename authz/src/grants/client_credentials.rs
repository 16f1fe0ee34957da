//! Tokens for a client in its own name (OAuth 2.1 §4.2): without a user, and without refresh tokens.

use shared::audit::{self, Event, Name};
use shared::{AccessToken, Fault, Jti, Scope};

use super::{Answer, Context, GrantType, Minted, Refusal};
use crate::form::Params;
use crate::scope::without_offline;
use crate::store::{client_grants, clients};

/// Issues an access token without a refresh token (REFRESH-01).
pub(crate) fn issue(cx: &Context<'_>, params: &Params) -> Result<Answer, Fault> {
    // There is no user who could have chosen the resource (CC-01).
    let Some(asked) = params.get("resource") else { return Ok(Err(Refusal::ResourceMissing)) };
    let Some(resource) = cx.authz.asked_resource(cx.tx, Some(asked))?.map(|endpoint| endpoint.resource)
    else {
        return Ok(Err(Refusal::ResourceUnknown));
    };
    let asked = match params.get("scope").map(without_offline).map(|scope| scope.parse::<Scope>()) {
        None => cx.client.scope.clone(),
        Some(Ok(scope)) if scope.is_subset(&cx.client.scope) => scope,
        Some(_) => return Ok(Err(Refusal::ScopeExceedsRegistration)),
    };
    // Scopes that were removed from the configuration are not granted.
    let scope = asked.intersection(&cx.authz.grantable());
    if scope.is_empty() {
        return Ok(Err(Refusal::ScopeExceedsRegistration));
    }
    clients::touch(cx.tx, &cx.client.id)?;
    let grant = client_grants::live(cx.tx, &cx.client.id, &resource)?;
    let now = cx.tx.now().seconds();
    let lifetime = i64::try_from(cx.authz.config.tokens.access.as_secs()).unwrap_or(3600);
    let claims = AccessToken {
        iss: cx.authz.issuer.to_string(),
        // AT-03: without a user, the subject is the client.
        sub: cx.client.id.to_string(),
        aud: resource,
        client_id: cx.client.id.clone(),
        exp: now + lifetime,
        iat: now,
        nbf: None,
        jti: Jti::random(0),
        scope: scope.clone(),
        grant_id: grant,
        auth_time: None,
        acr: None,
        amr: None,
    };
    audit::append(cx.tx, record(cx, &claims))?;
    Ok(Ok(Minted { claims, refresh_token: None, scope }))
}

fn record(cx: &Context<'_>, claims: &AccessToken) -> Event {
    Event::allowed(Name::TokenIssued)
        .by_client(&cx.client.id)
        .subject(&claims.sub)
        .client(&cx.client.id)
        .grant(&claims.grant_id)
        .jti(claims.jti.as_str())
        .resource(&claims.aud)
        .scope(&claims.scope)
        .request(cx.request)
        .detail("grant_type", GrantType::ClientCredentials.name())
        .detail("aud", claims.aud.as_str())
        .detail("exp", claims.exp)
        .detail("auth_method", cx.client.auth_method.as_str())
        .detail("dpop", false)
}
