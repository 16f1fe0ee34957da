//! How often the gate answers (RATE-01). A good token counts for its principal. A bad one counts for the address that sent
//! it, and for nothing else: whoever floods the endpoint with junk slows down no good token, not even one that is sent from
//! the same address (RATE-02). An office behind one proxy keeps working while somebody in it misbehaves.

use std::sync::Arc;

use shared::rate::{self, Buckets, Origin, Tally, TooMany};
use shared::{Clock, Request};

use crate::bearer::{Checked, Invalid, Principal};

/// The limits of the endpoint.
pub(crate) struct Limits {
    requests: Buckets<Principal>,
    /// Tokens that this issuer never signed, so nobody is known who sent them.
    strangers: Buckets<Origin>,
    /// Tokens that were good once. They are counted by principal as well: an expired token is ordinary, and a client that
    /// sends one must be told so, however many others sit behind its address. They are not counted as `requests`: whoever
    /// holds a stolen token that was revoked must not use up what the user's own client may do.
    ended: Buckets<(Origin, Principal)>,
}

impl Limits {
    pub(crate) fn new(limits: &rate::Limits, clock: &Clock, tally: &Arc<Tally>) -> Self {
        Self {
            requests: Buckets::new("mcp", limits.mcp, clock, tally),
            strangers: Buckets::new("mcp_address", limits.mcp_address, clock, tally),
            ended: Buckets::new("mcp", limits.mcp, clock, tally),
        }
    }

    /// Other quotas from now on (POL-04).
    pub(crate) fn set(&self, limits: &rate::Limits) {
        self.requests.set_quota(limits.mcp);
        self.strangers.set_quota(limits.mcp_address);
        self.ended.set_quota(limits.mcp);
    }

    /// Counts one request of this principal.
    ///
    /// # Errors
    /// If the principal has sent too many.
    pub(crate) fn take(&self, caller: &Checked, request: &Request) -> Result<(), TooMany> {
        self.requests.take(&caller.principal(), request)
    }

    /// Counts one token that was refused.
    ///
    /// # Errors
    /// If too many were sent. Then the refusal is only counted (AUDIT-06).
    pub(crate) fn refused(&self, invalid: &Invalid, request: &Request) -> Result<(), TooMany> {
        match &invalid.verified {
            Some(verified) => {
                let principal = Principal::of(&verified.verified().token);
                self.ended.take(&(request.into(), principal), request)
            }
            None => self.strangers.take(&request.into(), request),
        }
    }
}
