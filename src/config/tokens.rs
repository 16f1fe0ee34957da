//! `[tokens]`: the lifetime of access tokens (standards §1).

use std::time::Duration;

use anyhow::bail;
use authz::{ACCESS_TOKEN_LIFETIMES, Tokens};

use super::keys::Key;

/// Reads the table.
pub(super) fn read(table: &Key<'_>, tokens: &mut Tokens) -> anyhow::Result<()> {
    for key in table.keys()? {
        match key.name {
            "access" => tokens.access = lifetime(&key)?,
            _ => return Err(key.unknown(&["access"])),
        }
    }
    Ok(())
}

fn lifetime(key: &Key<'_>) -> anyhow::Result<Duration> {
    let lifetime = key.duration()?;
    if !ACCESS_TOKEN_LIFETIMES.contains(&lifetime) {
        let (shortest, longest) = ACCESS_TOKEN_LIFETIMES.into_inner();
        bail!(
            "`{}` at {} is {} seconds; an access token lives {} to {} seconds (1m to 1h)",
            key.name,
            key.at(),
            lifetime.as_secs(),
            shortest.as_secs(),
            longest.as_secs()
        );
    }
    Ok(lifetime)
}
