//! What the file says about the way in: limits.

use anyhow::bail;
use shared::rate::{Limits, Quota};

use super::keys::Key;

/// `[rate]`: how many a minute, or "off" (RATE-01).
pub(super) fn limits(table: &Key<'_>, limits: &mut Limits) -> anyhow::Result<()> {
    for key in table.keys()? {
        let Some(quota) = limits.named(key.name) else { return Err(key.unknown(Limits::NAMES)) };
        *quota = match key.number_or_text()? {
            Ok(0) => bail!("`{}` at {} would let nobody in; write \"off\" for no limit", key.name, key.at()),
            Ok(count) => quota.of(count),
            Err("off") => Quota::OFF,
            Err(other) => bail!(
                "`{}` at {} is `{other}`; write how many a minute, or \"off\" for no limit",
                key.name,
                key.at()
            ),
        };
    }
    Ok(())
}
