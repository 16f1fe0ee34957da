//! Special scopes and limits of this server (RFC 6749 §3.3).

/// Requested by clients that want a refresh token; it is not a permission (REFRESH-01).
pub(crate) const OFFLINE_ACCESS: &str = "offline_access";
/// The longest scope that is parsed, in bytes, because each name in it is looked up (RATE-05). All offered
/// scopes fit (DCR-04).
pub(crate) const LONGEST_SCOPE: usize = 4096;

/// Removes `offline_access`, which requests a refresh token and is not a permission that could exceed a grant.
pub(crate) fn without_offline(scope: &str) -> String {
    let kept: Vec<&str> = scope.split(' ').filter(|name| *name != OFFLINE_ACCESS).collect();
    kept.join(" ")
}
