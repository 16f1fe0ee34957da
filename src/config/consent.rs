//! `[consent]`: how users are asked for consent.

use authz::Consent;

use super::keys::Key;

/// Reads the table.
pub(super) fn read(table: &Key<'_>, consent: &mut Consent) -> anyhow::Result<()> {
    for key in table.keys()? {
        match key.name {
            "interstitial" => consent.interstitial = key.boolean()?,
            _ => return Err(key.unknown(&["interstitial"])),
        }
    }
    Ok(())
}
