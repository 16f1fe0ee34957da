//! `[audit]`: what is recorded, and where the end of the log is kept.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::keys::Key;

/// Reads the table: whether the argument values that rules look at are recorded, and the file on another disk or machine
/// that says where the log ended (AUDIT-03).
pub(super) fn read(
    table: &Key<'_>,
    folder: &Path,
    record_values: &mut bool,
    mirror: &mut Option<PathBuf>,
) -> anyhow::Result<()> {
    for key in table.keys()? {
        match key.name {
            "rule_values" => *record_values = key.boolean()?,
            "mirror" => *mirror = Some(file(&key, folder)?),
            _ => return Err(key.unknown(&["mirror", "rule_values"])),
        }
    }
    Ok(())
}

fn file(key: &Key<'_>, folder: &Path) -> anyhow::Result<PathBuf> {
    let text = key.text()?;
    if text.is_empty() || text.ends_with('/') {
        bail!("`mirror` at {} must name a file, like /mnt/witness/portcullis.head", key.at());
    }
    // Relative paths must name the same file from everywhere.
    Ok(std::path::absolute(folder.join(text))?)
}
