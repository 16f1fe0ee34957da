//! What is said of a token that is good (RFC 7662 §2.2).

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use serde::Serialize;
use shared::token_status::Ceiling;
use shared::{AccessToken, ClientId, Fault, Scope};

use crate::Authz;

/// About how long an answer is, in bytes.
const LENGTH: usize = 512;

/// The last answer about one token, for as long as what it was made from stays the same.
#[derive(Default)]
pub(crate) struct Answers(ArcSwapOption<Answer>);

struct Answer {
    entitled: Arc<Scope>,
    ceiling: Ceiling,
    /// `None` if nothing of the token's scope is left.
    json: Option<Bytes>,
}

impl Answers {
    /// What is said of the token while its user is entitled to this and its client may be granted no more than that;
    /// `None` if nothing of its scope is left (INTRO-06).
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

/// What of it can be granted to a client of this ceiling (DCR-08).
fn below(authz: &Authz, ceiling: Ceiling, entitled: &Scope) -> Scope {
    if ceiling == Ceiling::Any {
        entitled.clone()
    } else {
        entitled.intersection(&authz.grantable_to(ceiling))
    }
}

/// What is said of a good token (INTRO-02).
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "the names are the RFC's")]
struct Active<'a> {
    active: bool,
    /// What of the token's scope counts now (INTRO-06).
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
    /// So that a scope that is missing can be told from one that cannot be had.
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
