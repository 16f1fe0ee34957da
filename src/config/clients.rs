//! `[clients.NAME]`: clients that are set up before the server.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use authz::clients::configuration::Configured;
use authz::clients::preregistered::{Authentication, Description, Mistake, Preregistered};
use resource::catalogue::Rules;
use shared::owner::ForeignOwner;
use shared::{ClientId, Digest, Scope, Secret};

use super::keys::Key;
use super::rules::known_scopes;

const KEYS: [&str; 9] = [
    "title",
    "redirect_uris",
    "public",
    "secret_sha256",
    "secret_file",
    "jwks_file",
    "grants",
    "scope",
    "device",
];
/// The most secrets of a client (CAUTH-04).
const MOST_SECRETS: usize = 2;
/// The largest secret or key set file, in bytes.
const LONGEST_FILE: u64 = 64 * 1024;

/// The content of a client's table.
#[derive(Default)]
struct Table<'t> {
    title: Option<&'t str>,
    redirect_uris: Vec<Key<'t>>,
    public: bool,
    secrets: Vec<Digest>,
    jwks: Option<(String, Key<'t>)>,
    grants: Vec<Key<'t>>,
    scope: Scope,
    device: bool,
}

/// The clients of the file. Relative paths start at `folder`.
pub(super) fn clients(table: &Key<'_>, folder: &Path, rules: &Rules) -> anyhow::Result<Vec<Configured>> {
    let mut clients: Vec<Configured> = Vec::new();
    for key in table.keys()? {
        let client = client(&key, folder, rules)?;
        for other in &clients {
            let both = || format!("the clients `{}` and `{}` at {}", bare(other.id()), key.name, key.at());
            if client.reads_like(other) {
                bail!("{} look alike; give one of them another title", both());
            }
            if client.shares_a_secret_with(other) {
                bail!("{} have the same secret; give each client its own", both());
            }
        }
        clients.push(client);
    }
    Ok(clients)
}

/// The name in the file, from the derived id.
fn bare(id: &ClientId) -> &str {
    id.as_str().trim_start_matches("c_")
}

fn client(key: &Key<'_>, folder: &Path, rules: &Rules) -> anyhow::Result<Configured> {
    let whose = || format!("the client `{}` at {}", key.name, key.at());
    if ClientId::configured(key.name).is_none() {
        bail!(
            "{} needs another name: a letter, then letters, digits, `_` or `-`, all lower case, 32 at most; its `title` is what people read",
            whose()
        );
    }
    let table = Table::read(key, folder, rules)?;
    if table.secrets.len() > MOST_SECRETS {
        bail!(
            "{} has more than two secrets; keep at most two (the old and the new one during a change)",
            whose()
        );
    }
    let authentication = match (table.public, !table.secrets.is_empty(), &table.jwks) {
        (true, false, None) => Authentication::Public,
        (false, true, None) => Authentication::Secret,
        (false, false, Some((set, _))) => Authentication::Keys(set.clone()),
        (false, false, None) => bail!(
            "{} has no authentication method; write public = true, secret_sha256, secret_file or jwks_file",
            whose()
        ),
        _ => bail!("{} has two authentication methods; keep one of public, a secret and jwks_file", whose()),
    };
    let texts =
        |keys: &[Key<'_>]| keys.iter().map(|key| Ok(key.text()?.to_owned())).collect::<anyhow::Result<_>>();
    let description = Description {
        name: table.title.unwrap_or(key.name).to_owned(),
        redirect_uris: texts(&table.redirect_uris)?,
        authentication,
        grants: texts(&table.grants)?,
        device: table.device,
        scope: table.scope.clone(),
    };
    let wanted = Preregistered::new(&description).map_err(|mistake| {
        anyhow!("the client `{}` at {}: {mistake}", key.name, table.place(&mistake, key))
    })?;
    if wanted.is_named_like_us() {
        bail!("{} looks like this server's name; give it another title", whose());
    }
    Configured::new(key.name, wanted, table.secrets).ok_or_else(|| anyhow!("{} cannot have an id", whose()))
}

impl<'t> Table<'t> {
    fn read(client: &Key<'t>, folder: &Path, rules: &Rules) -> anyhow::Result<Self> {
        let mut table = Self::default();
        for key in client.keys()? {
            match key.name {
                "title" => table.title = Some(key.text()?),
                "redirect_uris" => table.redirect_uris = key.one_or_list()?,
                "public" => table.public = key.boolean()?,
                "secret_sha256" => table.add(key.one_or_list()?, digest)?,
                "secret_file" => table.add(key.one_or_list()?, |key| secret_file(key, folder))?,
                "jwks_file" => table.jwks = Some((jwks_file(&key, folder)?, key)),
                "grants" => table.grants = key.one_or_list()?,
                "scope" => {
                    let whose = format!("the client `{}`", client.name);
                    table.scope = known_scopes(&key.one_or_list()?, &whose, rules)?;
                }
                "device" => table.device = key.boolean()?,
                "secret" | "client_secret" => bail!(
                    "`{}` at {} would be visible to everybody who reads this file; write secret_sha256, which `portcullis client new-secret` prints, or secret_file",
                    key.name,
                    key.at()
                ),
                _ => return Err(key.unknown(&KEYS)),
            }
        }
        Ok(table)
    }

    fn add(
        &mut self,
        keys: Vec<Key<'t>>,
        digest: impl Fn(&Key<'t>) -> anyhow::Result<Digest>,
    ) -> anyhow::Result<()> {
        for key in keys {
            let digest = digest(&key)?;
            if !self.secrets.contains(&digest) {
                self.secrets.push(digest);
            }
        }
        Ok(())
    }

    /// The place of a mistake, as exactly as possible.
    fn place(&self, mistake: &Mistake, client: &Key<'_>) -> String {
        let with = |keys: &[Key<'_>], wrong: &str| {
            keys.iter().find(|key| key.text().is_ok_and(|text| text == wrong)).map(Key::at)
        };
        let place = match mistake {
            Mistake::RedirectUri(uri, _) => with(&self.redirect_uris, uri),
            Mistake::Grant(grant) => with(&self.grants, grant),
            Mistake::Keys(_) => self.jwks.as_ref().map(|(_, key)| key.at()),
            _ => None,
        };
        place.unwrap_or_else(|| client.at())
    }
}

fn digest(key: &Key<'_>) -> anyhow::Result<Digest> {
    Digest::from_hex(key.text()?).ok_or_else(|| {
        anyhow!(
            "`secret_sha256` at {} is not a SHA-256 digest: write the 64 hexadecimal digits that `portcullis client new-secret` prints",
            key.at()
        )
    })
}

/// The digest of the secret in a file that only its owner can read.
fn secret_file(key: &Key<'_>, folder: &Path) -> anyhow::Result<Digest> {
    let path = folder.join(key.text()?);
    let text = read(key, &path, |path, metadata| {
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            bail!("{0} can be read by others (mode {mode:o}); run: chmod 600 {0}", path.display());
        }
        // Root can read it anyhow.
        if let Some(owner) = ForeignOwner::of(metadata).filter(|_| metadata.uid() != 0) {
            bail!("{} {owner}", path.display());
        }
        Ok(())
    })?;
    let secret = Secret::presented(text.trim_end());
    if !secret.is_ours("cs_") {
        bail!(
            "{} at {} does not contain a client secret: cs_ and 43 characters, as `portcullis client new-secret` prints it",
            path.display(),
            key.at()
        );
    }
    Ok(secret.digest())
}

/// Public keys in a file that other users cannot change.
fn jwks_file(key: &Key<'_>, folder: &Path) -> anyhow::Result<String> {
    read(key, &folder.join(key.text()?), |path, metadata| {
        let mode = metadata.mode() & 0o7777;
        if mode & 0o002 != 0 {
            bail!("{0} can be changed by everybody (mode {mode:o}); run: chmod o-w {0}", path.display());
        }
        Ok(())
    })
}

fn read(
    key: &Key<'_>,
    path: &Path,
    check: impl Fn(&Path, &fs::Metadata) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let unreadable = || format!("cannot read {}, set by `{}` at {}", path.display(), key.name, key.at());
    let file = shared::file::open(path).with_context(unreadable)?;
    let metadata = file.metadata().with_context(unreadable)?;
    if !metadata.is_file() {
        bail!("{} at {} is not a file", path.display(), key.at());
    }
    check(path, &metadata)?;
    let mut text = String::new();
    file.take(LONGEST_FILE).read_to_string(&mut text).with_context(unreadable)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
