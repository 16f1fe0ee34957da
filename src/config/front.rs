//! The configuration of connections: TLS, proxies, other origins, limits.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use shared::Network;
use shared::rate::{Limits, Quota};
use url::Url;

use super::keys::Key;
use crate::front::config::TlsFiles;
use crate::front::listen::Budget;
use crate::front::proxies::ClientHeader;

/// `[tls]`: relative paths are relative to the file's folder.
pub(super) fn tls(table: &Key<'_>, folder: &Path, tls: &mut TlsFiles) -> anyhow::Result<()> {
    for key in table.keys()? {
        match key.name {
            "cert" => tls.cert = Some(folder.join(key.text()?)),
            "key" => tls.key = Some(folder.join(key.text()?)),
            _ => return Err(key.unknown(&["cert", "key"])),
        }
    }
    match (&tls.cert, &tls.key) {
        (Some(_), Some(_)) => Ok(()),
        (None, _) => bail!("[tls] at {} has no `cert`; add the certificate file", table.at()),
        (_, None) => bail!("[tls] at {} has no `key`; add the certificate's private key file", table.at()),
    }
}

/// `trusted_proxies`: addresses and networks.
pub(super) fn networks(key: &Key<'_>) -> anyhow::Result<Vec<Network>> {
    let one = |value: &Key<'_>| {
        let text = value.text()?;
        Network::or_address(text).map_err(|why| {
            anyhow!("`{text}` in `{}` at {} is not a valid network; {why}", key.name, value.at())
        })
    };
    key.list()?.iter().map(one).collect()
}

/// `forwarded_header`: how those proxies name who asks.
pub(super) fn naming(key: &Key<'_>) -> anyhow::Result<ClientHeader> {
    let text = key.text()?;
    let known = [ClientHeader::XForwardedFor, ClientHeader::Forwarded];
    known.into_iter().find(|naming| naming.as_str().eq_ignore_ascii_case(text)).with_context(|| {
        format!("`{}` at {} is `{text}`; write \"X-Forwarded-For\" or \"Forwarded\"", key.name, key.at())
    })
}

/// `allowed_origins`: pages that may call `/mcp` from a browser. Each by name (OPS-03), of any scheme (MCP-14).
pub(super) fn origins(key: &Key<'_>) -> anyhow::Result<Vec<String>> {
    let one = |value: &Key<'_>| {
        let text = value.text()?;
        match origin(text) {
            Ok(()) => Ok(text.to_owned()),
            Err(why) => bail!("`{text}` in `{}` at {} {why}", key.name, value.at()),
        }
    };
    key.list()?.iter().map(one).collect()
}

/// Checks that a text is an origin as browsers send it; the error says what it is instead.
fn origin(text: &str) -> Result<(), String> {
    const LIKE: &str = "write each one out, like https://inspector.example.internal or app://obsidian.md";
    if text.eq_ignore_ascii_case("null") {
        let why = "is what every sandboxed page sends, so it cannot be allowed";
        return Err(why.to_owned());
    }
    if text.contains('*') {
        return Err(format!("is a pattern; {LIKE}"));
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return Err(format!("is not an origin; {LIKE}"));
    };
    if matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        let sent = Url::parse(text).ok().map(|url| url.origin().ascii_serialization());
        return match sent {
            Some(sent) if sent == text => Ok(()),
            Some(sent) => Err(format!("is not how a browser writes this origin; write {sent}")),
            None => Err(format!("is not an origin; {LIKE}")),
        };
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    // Applications choose the authority: `app://obsidian.md`, `tauri://localhost`; for some it is empty.
    let is_authority = authority.bytes().all(|b| b.is_ascii_graphic() && !b"/\\?#@\"<>^`{|},".contains(&b));
    if is_scheme && is_authority { Ok(()) } else { Err(format!("is not an origin; {LIKE}")) }
}

/// `memory`: the memory budget of connections (RATE-07).
pub(super) fn memory(key: &Key<'_>) -> anyhow::Result<Budget> {
    let budget = key.size().map(Budget::of)?;
    if budget.bytes() < Budget::LEAST.bytes() {
        bail!(
            "`{}` at {} is too small: one address may use a quarter of it; write \"{} MiB\" or more",
            key.name,
            key.at(),
            Budget::LEAST.bytes() >> 20
        );
    }
    Ok(budget)
}

/// `[rate]`: how many per minute, or "off" (RATE-01).
pub(super) fn limits(table: &Key<'_>, limits: &mut Limits) -> anyhow::Result<()> {
    for key in table.keys()? {
        let Some(quota) = limits.named(key.name) else { return Err(key.unknown(Limits::NAMES)) };
        *quota = match key.number_or_text()? {
            Ok(0) => {
                bail!("`{}` at {} would refuse every request; write \"off\" for no limit", key.name, key.at())
            }
            Ok(count) => quota.of(count),
            Err("off") => Quota::OFF,
            Err(other) => bail!(
                "`{}` at {} is `{other}`; write a number per minute, or \"off\" for no limit",
                key.name,
                key.at()
            ),
        };
    }
    Ok(())
}
