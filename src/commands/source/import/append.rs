//! Adds tables to the configuration file in one step: other programs see the old file or the new one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use shared::id::random_128;

use crate::config::File;

/// The file, and its new content.
pub(super) struct Target {
    path: PathBuf,
    before: String,
    after: String,
}

impl Target {
    /// Reads the configuration, and checks that it is valid with these tables.
    pub(super) fn of(file: &File, tables: &str) -> anyhow::Result<Self> {
        let Some(path) = &file.path else {
            bail!(
                "there is no configuration file to add to; create portcullis.toml, or name one with --config"
            );
        };
        let unreadable = || format!("cannot read {}", path.display());
        // Replace the file that a symbolic link points to, not the link.
        let real = fs::canonicalize(path).with_context(unreadable)?;
        let before = fs::read_to_string(&real).with_context(unreadable)?;
        let gap = if before.is_empty() || before.ends_with("\n\n") {
            ""
        } else if before.ends_with('\n') {
            "\n"
        } else {
            "\n\n"
        };
        let after = format!("{before}{gap}{tables}");
        File::parse(path, &after).context("the sources cannot be added to the configuration")?;
        Ok(Self { path: real, before, after })
    }

    /// Replaces the file.
    pub(super) fn write(self) -> anyhow::Result<PathBuf> {
        let unwritable = || format!("cannot change {}; nothing was added", self.path.display());
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let beside = folder.join(format!(".portcullis-{}.toml", random_128()));
        let replaced = self.replace(&beside, folder);
        if replaced.is_err() {
            let _ = fs::remove_file(&beside);
        }
        replaced.with_context(unwritable)?;
        Ok(self.path)
    }

    fn replace(&self, beside: &Path, folder: &Path) -> anyhow::Result<()> {
        let old = fs::metadata(&self.path)?;
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
        new.write_all(self.after.as_bytes())?;
        let made = new.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            fchown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        new.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        new.sync_all()?;
        if fs::read_to_string(&self.path)? != self.before {
            bail!("somebody changed it at the same time; run the command again");
        }
        fs::rename(beside, &self.path)?;
        fs::File::open(folder)?.sync_all()?;
        Ok(())
    }
}
