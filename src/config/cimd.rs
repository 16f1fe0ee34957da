//! `[cimd]`: clients whose ids are URLs of client id metadata documents (CIMD-01).

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use authz::{AllowedHost, Cimd, CimdMode, UnknownUrl};
use shared::Network;

use super::keys::Key;

const KEYS: [&str; 5] = ["mode", "unknown", "advertise", "ca", "allow"];
const ALLOW: [&str; 4] = ["host", "port", "cidr", "ca"];

/// Reads the section. Relative paths are relative to the file's folder.
pub(super) fn read(key: &Key<'_>, folder: &Path) -> anyhow::Result<Cimd> {
    let mut cimd = Cimd::default();
    let (mut ca, mut allow) = (None, Vec::new());
    for key in key.keys()? {
        match key.name {
            "mode" => cimd.mode = mode(&key)?,
            "unknown" => cimd.unknown = Some(unknown(&key)?),
            "advertise" => cimd.advertise = Some(key.boolean()?),
            "ca" => ca = Some(folder.join(key.text()?)),
            "allow" => allow = key.tables()?,
            _ => return Err(key.unknown(&KEYS)),
        }
    }
    // The common `ca` may follow them.
    for key in &allow {
        cimd.allow.push(allowed(key, folder, ca.as_ref())?);
    }
    match (cimd.mode, allow.first()) {
        (CimdMode::Fetch, None) => bail!(
            "`mode = \"fetch\"` at {} needs a list of hosts to fetch documents from; add [[cimd.allow]]",
            key.at()
        ),
        (CimdMode::Import | CimdMode::Off, Some(allow)) => {
            bail!("[[cimd.allow]] at {} has no effect without `mode = \"fetch\"` in [cimd]", allow.at())
        }
        _ => Ok(cimd),
    }
}

fn mode(key: &Key<'_>) -> anyhow::Result<CimdMode> {
    match key.text()? {
        "import" => Ok(CimdMode::Import),
        "fetch" => Ok(CimdMode::Fetch),
        "off" => Ok(CimdMode::Off),
        other => {
            bail!("`mode` at {} is `{other}`; write \"import\", \"fetch\" or \"off\"", key.at())
        }
    }
}

fn unknown(key: &Key<'_>) -> anyhow::Result<UnknownUrl> {
    match key.text()? {
        "loopback" => Ok(UnknownUrl::Loopback),
        "ask" => Ok(UnknownUrl::Ask),
        "refuse" => Ok(UnknownUrl::Refuse),
        other => {
            bail!("`unknown` at {} is `{other}`; write \"loopback\", \"ask\" or \"refuse\"", key.at())
        }
    }
}

/// One `[[cimd.allow]]` (CIMD-06).
fn allowed(key: &Key<'_>, folder: &Path, common_ca: Option<&PathBuf>) -> anyhow::Result<AllowedHost> {
    let (mut host, mut port, mut networks, mut ca) = (None, 443, Vec::new(), common_ca.cloned());
    for key in key.keys()? {
        match key.name {
            "host" => host = Some(hostname(&key)?),
            "port" => port = key.port()?,
            "cidr" => {
                for value in key.one_or_list()? {
                    networks.push(network(&value)?);
                }
            }
            "ca" => ca = Some(folder.join(key.text()?)),
            _ => return Err(key.unknown(&ALLOW)),
        }
    }
    let missing = |what: &str| anyhow!("[[cimd.allow]] at {} has no {what}", key.at());
    Ok(AllowedHost {
        host: host.ok_or_else(|| missing("`host`"))?,
        port,
        networks: if networks.is_empty() {
            return Err(missing("`cidr`: the networks that its name may resolve to, like \"10.20.0.0/16\""));
        } else {
            networks
        },
        ca: ca.ok_or_else(|| {
            missing("`ca`, and neither has [cimd]: a file with the CA certificates to trust for it")
        })?,
    })
}

/// A host as in URLs: lower case, without a port.
fn hostname(key: &Key<'_>) -> anyhow::Result<String> {
    let text = key.text()?;
    if !AllowedHost::is_host(text) {
        bail!(
            "`host` at {} is `{text}`, not a host as it stands in a URL; write it like clients.corp.example",
            key.at()
        );
    }
    Ok(text.to_owned())
}

fn network(key: &Key<'_>) -> anyhow::Result<Network> {
    let text = key.text()?;
    text.parse()
        .map_err(|why| anyhow!("`cidr` at {} is `{text}`, which is not a valid network; {why}", key.at()))
}
