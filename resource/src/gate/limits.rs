//! The gate's rate limits (RATE-01). A valid token counts for its principal. An invalid one counts only for its
//! address: a flood of invalid tokens does not slow down a valid one, even from the same address (RATE-02). So
//! an office behind one proxy keeps working while one of its computers misbehaves.

use std::sync::Arc;

use shared::rate::{self, Buckets, Origin, Tally, TooMany};
use shared::{Clock, Request};

use crate::bearer::{CheckedToken, Invalid, Principal};

/// The rate limits of the gate.
pub(crate) struct Limits {
    requests: Buckets<Principal>,
    /// Tokens that this issuer did not sign, so their sender is unknown.
    strangers: Buckets<Origin>,
    /// Tokens that were valid once. They are counted by principal as well: expired tokens are normal, and their
    /// clients must be told so even if many share an address. They are not counted as `requests`, because a
    /// thief with a revoked token must not use up the limit of the user's own client.
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

    /// Replaces the quotas (POL-04).
    pub(crate) fn set(&self, limits: &rate::Limits) {
        self.requests.set_quota(limits.mcp);
        self.strangers.set_quota(limits.mcp_address);
        self.ended.set_quota(limits.mcp);
    }

    /// Counts one request of this principal.
    ///
    /// # Errors
    /// If the principal has sent too many.
    pub(crate) fn take(&self, caller: &CheckedToken, request: &Request) -> Result<(), TooMany> {
        self.requests.take(&caller.principal(), request)
    }

    /// Counts one refused token.
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
