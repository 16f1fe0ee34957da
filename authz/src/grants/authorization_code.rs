//! Redeems an authorization code (OAuth 2.1 §4.1.3): find it, check everything, only then spend it.

use shared::audit::{self, Event, Name};
use shared::{Fault, ResourceUri, Secret};

use super::{Answer, Context, GrantType, Refusal};
use crate::form::Params;
use crate::oxide::{self, CodeMismatch, Redemption};
use crate::store::codes;
use crate::store::grants::{self, Reason};

/// Exchanges a code for tokens.
pub(crate) fn redeem(cx: &Context<'_>, params: &Params) -> Result<Answer, Fault> {
    let Some(presented) = params.get("code") else { return Ok(Err(Refusal::CodeMissing)) };
    let verifier = match params.get("code_verifier") {
        None => return Ok(Err(Refusal::VerifierMissing)),
        Some(verifier) if oxide::is_verifier(verifier) => verifier,
        Some(_) => return Ok(Err(Refusal::VerifierMalformed)),
    };
    let Some(code) = codes::find(cx.tx, &Secret::presented(presented).digest())? else {
        return Ok(Err(Refusal::CodeUnknown));
    };
    let Some(grant) = grants::find(cx.tx, &code.grant_id)? else {
        return Ok(Err(Refusal::CodeUnknown));
    };
    cx.meet(&grant);
    // Up to `spend` nothing is used up, so a client can correct its request and use the code again (TOKEN-07).
    // Another client's code, an expired and a destroyed one get the same answer as an unknown one (TOKEN-08). A
    // spent code is checked further: only a request that is right in everything else is a replay (TOKEN-06).
    let dead = !code.spent && (code.destroyed || cx.tx.now() >= code.expires_at);
    // TOKEN-09: the code belongs to the client that authenticated.
    if grant.client_id != cx.client.id || dead {
        return Ok(Err(Refusal::CodeUnknown));
    }
    // Not required, but if it is sent, it must be the one of the authorization request (TOKEN-10).
    if params.get("redirect_uri").is_some_and(|uri| uri != code.redirect_uri.as_str()) {
        return Ok(Err(Refusal::RedirectUriDiffers));
    }
    if params.get("resource").is_some_and(|r| ResourceUri::parse(r).ok().as_ref() != Some(&grant.resource)) {
        return Ok(Err(Refusal::ResourceDiffers));
    }
    let redemption =
        Redemption { client_id: cx.client.id.as_str(), code: presented, code_verifier: verifier };
    match oxide::check_code(&grant, &code, &redemption) {
        Ok(()) => {}
        Err(CodeMismatch::Grant) => return Ok(Err(Refusal::CodeUnknown)),
        Err(CodeMismatch::Verifier) => {
            codes::count_failure(cx.tx, &code.digest)?;
            let event = Event::denied(Name::PkceFailed, "verifier_wrong");
            audit::append(cx.tx, event.client(&cx.client.id).grant(&grant.id).request(cx.request))?;
            return Ok(Err(Refusal::VerifierWrong));
        }
    }
    let scope = cx.present_scope(&grant)?;
    if !code.spent && scope.is_none() {
        return Ok(Err(Refusal::CodeUnknown));
    }
    if !codes::spend(cx.tx, &code.digest)? {
        // A second fully valid use means that the code leaked, so its tokens are revoked too (RFC 6749 §4.1.2).
        cx.revoke(&grant, Reason::CodeReplayed)?;
        let event = Event::denied(Name::CodeReplay, "code_replayed");
        audit::append(cx.tx, cx.about(event, &grant))?;
        return Ok(Err(Refusal::CodeReplayed));
    }
    let Some(scope) = scope else { return Ok(Err(Refusal::CodeUnknown)) };
    Ok(Ok(cx.first_tokens(&grant, scope, GrantType::AuthorizationCode)?))
}
