//! The configuration of dynamic client registration.

use anyhow::anyhow;
use authz::{Redirects, Registration, RegistrationMode};

use super::keys::Key;

const KEYS: [&str; 4] = ["mode", "management", "remote_redirects", "app_schemes"];

/// `[registration]` (DCR-01, DCR-05, DCR-09, REDIR-05).
pub(super) fn read(
    table: &Key<'_>,
    registration: &mut Registration,
    redirects: &mut Redirects,
) -> anyhow::Result<()> {
    for key in table.keys()? {
        match key.name {
            "mode" => registration.mode = mode(&key)?,
            "management" => registration.management = key.boolean()?,
            "remote_redirects" => redirects.set_remote(key.boolean()?),
            "app_schemes" => redirects.set_app_schemes(app_schemes(&key, redirects)?)?,
            _ => return Err(key.unknown(&KEYS)),
        }
    }
    Ok(())
}

fn mode(key: &Key<'_>) -> anyhow::Result<RegistrationMode> {
    match key.text()? {
        "open" => Ok(RegistrationMode::Open),
        "token" => Ok(RegistrationMode::Token),
        "off" => Ok(RegistrationMode::Off),
        other => Err(anyhow!("`mode` at {} is `{other}`; write \"open\", \"token\" or \"off\"", key.at())),
    }
}

/// The entries, each checked.
fn app_schemes<'t>(key: &Key<'t>, redirects: &Redirects) -> anyhow::Result<Vec<&'t str>> {
    let mut texts = Vec::new();
    for entry in key.list()? {
        let text = entry.text()?;
        redirects.clone().set_app_schemes([text]).map_err(|why| {
            anyhow!(
                "`{text}` in `app_schemes` at {} {why}; write it like example:// or example://callback",
                entry.at()
            )
        })?;
        texts.push(text);
    }
    Ok(texts)
}
