//! The polls of a device (RFC 8628 §3.4, §3.5, DEV-01).

use std::time::Duration;

use shared::audit::{self, Event, Name};
use shared::catalogue::Risk;
use shared::{Fault, GrantId, ResourceUri, Scope, Secret, Timestamp};

use super::{Answer, Context, GrantType, Refusal};
use crate::Authz;
use crate::form::Params;
use crate::store::devices::{self, Device, Stage};
use crate::store::grants::{self, Reason};

/// Added to the interval of a client that polls too fast (RFC 8628 §3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// A poll may be this much too early, to allow for network delays.
const JITTER: Duration = Duration::from_millis(500);

/// The scopes that a device can be granted: low-risk ones only.
pub(crate) fn grantable(authz: &Authz) -> Scope {
    let scopes = authz.catalogue.scopes();
    scopes.iter().filter(|scope| scope.risk == Risk::Low).map(|scope| scope.name.as_str()).collect()
}

/// Answers a poll; with tokens once.
pub(crate) fn redeem(cx: &Context<'_>, params: &Params) -> Result<Answer, Fault> {
    let Some(presented) = params.get("device_code") else { return Ok(Err(Refusal::DeviceCodeMissing)) };
    let device = devices::find(cx.tx, &Secret::presented(presented).digest())?;
    // Another client's code gets the same answer as an unknown one (TOKEN-08).
    let Some(device) = device.filter(|device| device.client_id == cx.client.id) else {
        return Ok(Err(Refusal::DeviceCodeUnknown));
    };
    if params.get("resource").is_some_and(|r| ResourceUri::parse(r).ok().as_ref() != Some(&device.resource)) {
        return Ok(Err(Refusal::ResourceDiffers));
    }
    let grant = match &device.stage {
        Stage::Spent { grant, at } => return again(cx, &device, grant, *at),
        Stage::Denied => return Ok(Err(Refusal::DeviceDenied)),
        _ if cx.tx.now() >= device.expires_at => return Ok(Err(Refusal::DeviceExpired)),
        Stage::Waiting => return wait(cx, &device),
        Stage::Approved(grant) => grant,
    };
    // Check again, because the grant may have changed since the user decided.
    let present = match grants::find(cx.tx, grant)? {
        Some(grant) => {
            cx.meet(&grant);
            cx.present_scope(&grant)?.map(|scope| (grant, scope))
        }
        None => None,
    };
    let granted = present.map(|(grant, scope)| (grant, scope.intersection(&grantable(cx.authz))));
    let Some((grant, scope)) = granted.filter(|(_, scope)| !scope.is_empty()) else {
        return Ok(Err(Refusal::DevicePolicy));
    };
    if !devices::spend(cx.tx, &device.code)? {
        return Err(Fault::Corrupt("a device code was spent while it was approved".to_owned()));
    }
    Ok(Ok(cx.first_tokens(&grant, scope, GrantType::DeviceCode)?))
}

/// Not decided yet. A poll that comes too soon adds five seconds to the interval.
fn wait(cx: &Context<'_>, device: &Device) -> Result<Answer, Fault> {
    let early = device.polled_at.is_some_and(|polled| cx.tx.now() + JITTER < polled + device.interval);
    let interval = if early { device.interval + SLOWER } else { device.interval };
    devices::polled(cx.tx, &device.code, interval)?;
    Ok(Err(if early { Refusal::DeviceSlowDown } else { Refusal::DevicePending }))
}

/// Handles a spent code. A poll that races the one which got the tokens is refused without consequences. A
/// later poll means that another party may have got the tokens, so they are revoked, as with a code used twice
/// (RFC 6749 §4.1.2).
fn again(cx: &Context<'_>, device: &Device, grant: &GrantId, spent_at: Timestamp) -> Result<Answer, Fault> {
    if cx.tx.now() < spent_at + device.interval {
        return Ok(Err(Refusal::DeviceCodeSpent));
    }
    let grant = grants::find(cx.tx, grant)?;
    if let Some(grant) = &grant {
        cx.meet(grant);
    }
    if let Some(grant) = grant.filter(|grant| !grant.revoked) {
        cx.revoke(&grant, Reason::CodeReplayed)?;
        let event = Event::denied(Name::CodeReplay, "device_code_replayed");
        audit::append(cx.tx, cx.about(event, &grant))?;
    }
    Ok(Err(Refusal::DeviceCodeSpent))
}
