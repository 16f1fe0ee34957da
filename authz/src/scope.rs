//! What scopes are to this server beyond their names (RFC 6749 §3.3).

/// Asked for by clients that want a refresh token; not a permission (REFRESH-01).
pub(crate) const OFFLINE_ACCESS: &str = "offline_access";
/// A longer scope is not taken apart: each name in it is looked up (RATE-05). What is offered fits (DCR-04).
pub(crate) const LONGEST_SCOPE: usize = 4096;

/// `offline_access` asks for a refresh token; it is no permission that could exceed a grant.
pub(crate) fn without_offline(scope: &str) -> String {
    let kept: Vec<&str> = scope.split(' ').filter(|name| *name != OFFLINE_ACCESS).collect();
    kept.join(" ")
}
