//! The response for an active token (RFC 7662 §2.2).

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use serde::Serialize;
use shared::token_status::Ceiling;
use shared::{AccessToken, ClientId, Fault, Scope};

use crate::Authz;

/// The approximate length of a response in bytes.
const LENGTH: usize = 512;

/// The last response about one token. It is valid while the user's entitlement and the client's ceiling stay
/// the same.
#[derive(Default)]
pub(crate) struct Answers(ArcSwapOption<Answer>);

struct Answer {
    entitled: Arc<Scope>,
    ceiling: Ceiling,
    /// `None` if no scope is left.
    json: Option<Bytes>,
}

impl Answers {
    /// The response for a token whose user is entitled to this scope and whose client has this ceiling; `None`
    /// if no scope is left (INTRO-06).
    pub(super) fn about(
        &self,
        authz: &Authz,
        token: &AccessToken,
        entitled: &Arc<Scope>,
        ceiling: Ceiling,
    ) -> Result<Option<Bytes>, Fault> {
        if let Some(last) = &*self.0.load()
            && last.ceiling == ceiling
            && Arc::ptr_eq(&last.entitled, entitled)
        {
            return Ok(last.json.clone());
        }
        let granted = below(authz, ceiling, entitled);
        let json = token.scope.intersects(&granted).then(|| json(token, &granted)).transpose()?;
        let answer = Answer { entitled: Arc::clone(entitled), ceiling, json: json.clone() };
        self.0.store(Some(Arc::new(answer)));
        Ok(json)
    }
}

/// The part of a scope that a client with this ceiling can be granted (DCR-08).
fn below(authz: &Authz, ceiling: Ceiling, entitled: &Scope) -> Scope {
    if ceiling == Ceiling::Any {
        entitled.clone()
    } else {
        entitled.intersection(&authz.grantable_to(ceiling))
    }
}

/// The response for an active token (INTRO-02).
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "the names are the RFC's")]
struct Active<'a> {
    active: bool,
    /// The part of the token's scope that is valid now (INTRO-06).
    scope: &'a Scope,
    client_id: &'a ClientId,
    token_type: &'static str,
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    sub: &'a str,
    aud: &'a str,
    iss: &'a str,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amr: Option<&'a [String]>,
    grant_id: &'a str,
    /// So that a resource server can tell a missing scope from one that the user cannot have.
    entitled_scope: &'a Scope,
}

fn json(token: &AccessToken, entitled: &Scope) -> Result<Bytes, Fault> {
    let narrowed;
    let scope = if token.scope.is_subset(entitled) {
        &token.scope
    } else {
        narrowed = token.scope.intersection(entitled);
        &narrowed
    };
    let active = Active {
        active: true,
        scope,
        client_id: &token.client_id,
        token_type: "Bearer",
        exp: token.exp,
        iat: token.iat,
        nbf: token.nbf,
        sub: &token.sub,
        aud: token.aud.as_str(),
        iss: &token.iss,
        jti: token.jti.as_str(),
        auth_time: token.auth_time,
        acr: token.acr.as_deref(),
        amr: token.amr.as_deref(),
        grant_id: token.grant_id.as_str(),
        entitled_scope: entitled,
    };
    let mut json = Vec::with_capacity(LENGTH);
    serde_json::to_writer(&mut json, &active).map_err(|error| Fault::Corrupt(error.to_string()))?;
    Ok(json.into())
}
