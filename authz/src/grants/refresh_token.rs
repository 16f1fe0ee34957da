//! Refreshing (OAuth 2.1 §4.3): each use rotates the token. A used token that is presented again ends the
//! family, unless its successor was never used (REFRESH-04…06).

use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::{Fault, ResourceUri, Scope, Secret};

use super::{Answer, Context, Minted, Refusal};
use crate::form::Params;
use crate::oxide::{self, Refusal as MachineRefusal};
use crate::scope::without_offline;
use crate::store::grants::{self, Grant, Reason};
use crate::store::refresh_tokens::{self, RefreshToken};
use crate::store::resource_servers;

/// Within this time after the rotation the predecessor is accepted, even if the leaf's tokens were used.
const RACE: Duration = Duration::from_mins(1);
/// Within this time the predecessor is accepted if nothing of the leaf was used.
const LOST_RESPONSE: Duration = Duration::from_hours(24);

/// Exchanges a refresh token for its successor and a new access token.
pub(crate) fn rotate(cx: &Context<'_>, params: &Params) -> Result<Answer, Fault> {
    let Some(presented) = params.get("refresh_token").map(Secret::presented) else {
        return Ok(Err(Refusal::RefreshTokenMissing));
    };
    // Only what is stored here is a refresh token; an access token is not found (REFRESH-09).
    let Some(token) = refresh_tokens::find(cx.tx, &presented.digest())? else {
        return Ok(Err(Refusal::RefreshTokenUnknown));
    };
    let Some(grant) = grants::find(cx.tx, &token.grant_id)? else {
        return Ok(Err(Refusal::RefreshTokenUnknown));
    };
    cx.meet(&grant);
    // Another client's token is not used up, and gets the answer of an unknown one (REFRESH-03).
    if grant.client_id != cx.client.id {
        return Ok(Err(Refusal::RefreshTokenUnknown));
    }
    let leaf = if token.rotated_at.is_none() {
        token.clone()
    } else if let Some(leaf) = refresh_tokens::leaf(cx.tx, &grant.id)? {
        leaf
    } else {
        return Ok(Err(Refusal::RefreshTokenUnknown));
    };
    if grant.revoked || cx.tx.now() >= leaf.expires_at {
        return Ok(Err(Refusal::GrantEnded));
    }
    let position = position(cx, &grant, &token, &leaf)?;
    if position == Position::Reused {
        return reuse(cx, &grant, &token, &leaf);
    }
    let Some(present) = cx.present_scope(&grant)? else { return Ok(Err(Refusal::GrantEnded)) };
    if params.get("resource").is_some_and(|r| ResourceUri::parse(r).ok().as_ref() != Some(&grant.resource)) {
        return Ok(Err(Refusal::ResourceDiffers));
    }
    let asked = match oxide::check_refresh(
        &grant,
        cx.client.id.as_str(),
        params.get("scope").map(without_offline).as_deref(),
    ) {
        Ok(asked) => asked,
        Err(MachineRefusal::InvalidScope) => return Ok(Err(Refusal::ScopeExceedsGrant)),
        Err(_) => return Ok(Err(Refusal::RefreshTokenUnknown)),
    };
    // Narrows this access token only; the grant keeps its scope (TOKEN-12).
    let scope = asked.intersection(&present);
    if scope.is_empty() {
        return Ok(Err(Refusal::ScopeExceedsGrant));
    }
    // The successor is derived from the token: presenting a token twice gives the same successor.
    let derived = |bytes: &[u8; 32]| Secret::from_bytes("rt_", bytes);
    let purpose = keys::Purpose::RefreshToken;
    let (leaf, name) = match position {
        Position::Leaf => {
            let successor = derived(&cx.authz.seal.hmac(purpose, presented.expose().as_bytes()));
            (advance(cx, &grant, &token, &successor)?, Name::RefreshRotated)
        }
        Position::Predecessor => (leaf, Name::RefreshGrace),
        Position::Reused => return reuse(cx, &grant, &token, &leaf),
    };
    // The sealing key may have been replaced since the leaf was made.
    let successors = cx.authz.seal.hmacs(purpose, presented.expose().as_bytes());
    let Some(successor) = successors.iter().map(derived).find(|s| s.digest() == leaf.digest) else {
        return Err(Fault::Corrupt("a refresh token's successor is not the one derived from it".to_owned()));
    };
    Ok(Ok(mint(cx, &grant, scope, &leaf, successor, name)?))
}

/// Where a token stands in its family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    Leaf,
    /// The leaf's direct predecessor. Its response may have been lost.
    Predecessor,
    /// Any other token: two parties use this family.
    Reused,
}

fn position(
    cx: &Context<'_>,
    grant: &Grant,
    token: &RefreshToken,
    leaf: &RefreshToken,
) -> Result<Position, Fault> {
    let Some(rotated_at) = token.rotated_at else { return Ok(Position::Leaf) };
    let age = cx.tx.now().since(rotated_at);
    let direct = token.generation + 1 == leaf.generation;
    let leaf_used = grant.seen_generation.is_some_and(|seen| seen >= leaf.generation);
    // The rotation is dated in the future: the clock was set back, so its age is unknown.
    let known_age = rotated_at <= cx.tx.now();
    let accepted = known_age && (age < RACE || (!leaf_used && age < LOST_RESPONSE));
    let predecessor = direct && accepted && !is_strict(cx, grant)?;
    Ok(if predecessor { Position::Predecessor } else { Position::Reused })
}

/// Whether a predecessor is never accepted: the site configured it so, or the resource server checks tokens
/// without introspection, so that this server would not learn that the leaf's tokens are in use.
fn is_strict(cx: &Context<'_>, grant: &Grant) -> Result<bool, Fault> {
    if cx.authz.config.strict_refresh || cx.authz.catalogue.endpoint(&grant.resource).is_some() {
        return Ok(cx.authz.config.strict_refresh);
    }
    let server = resource_servers::serving(cx.tx, &grant.resource)?;
    Ok(server.is_some_and(|(_, introspects)| !introspects))
}

/// REFRESH-02: a used token gets a successor, which ends with the family at the latest.
fn advance(
    cx: &Context<'_>,
    grant: &Grant,
    token: &RefreshToken,
    successor: &Secret,
) -> Result<RefreshToken, Fault> {
    if !refresh_tokens::rotate(cx.tx, &token.digest)? {
        return Err(Fault::Corrupt("a refresh token was rotated twice in one transaction".to_owned()));
    }
    let idle = cx.authz.config.refresh_lifetimes(cx.client.trust).idle;
    let leaf = RefreshToken {
        digest: successor.digest(),
        grant_id: grant.id.clone(),
        generation: token.generation + 1,
        expires_at: (cx.tx.now() + idle).min(grant.expires_at),
        rotated_at: None,
    };
    refresh_tokens::insert(cx.tx, &leaf)?;
    Ok(leaf)
}

/// REFRESH-05: ends the whole family and records it.
fn reuse(
    cx: &Context<'_>,
    grant: &Grant,
    token: &RefreshToken,
    leaf: &RefreshToken,
) -> Result<Answer, Fault> {
    cx.revoke(grant, Reason::RefreshReused)?;
    let event = Event::denied(Name::RefreshReuse, "rotated_token_presented");
    audit::append(
        cx.tx,
        cx.about(event, grant)
            .detail("family", grant.id.as_str())
            .detail("generation", token.generation)
            .detail("leaf_generation", leaf.generation)
            .detail("leaf_seen", grant.seen_generation.is_some_and(|seen| seen >= leaf.generation)),
    )?;
    Ok(Err(Refusal::RefreshTokenReused))
}

fn mint(
    cx: &Context<'_>,
    grant: &Grant,
    scope: Scope,
    leaf: &RefreshToken,
    successor: Secret,
    name: Name,
) -> Result<Minted, Fault> {
    cx.touch(grant)?;
    let claims = cx.claims(grant, scope.clone(), leaf.generation);
    audit::append(
        cx.tx,
        cx.about(Event::allowed(name), grant)
            .jti(claims.jti.as_str())
            .resource(&grant.resource)
            .scope(&scope)
            .detail("family", grant.id.as_str())
            .detail("generation", leaf.generation)
            .detail("grace_use", name == Name::RefreshGrace)
            .detail("exp", claims.exp),
    )?;
    Ok(Minted { claims, refresh_token: Some(successor), scope })
}
