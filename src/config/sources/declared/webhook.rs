//! `kind = "webhook"`: a receiver, and the messages that are its tools (HOOK-01).

use std::path::Path;

use anyhow::bail;
use resource::sources::declared::webhook::{Message, WebhookSource};
use resource::sources::declared::{DeclaredKind, DeclaredSource};

use super::{Declared, Server, Texts, params};
use crate::config::keys::Key;

/// The keys of the source.
const KEYS: [&str; 10] =
    ["kind", "url", "ca", "client_cert", "client_key", "timeout", "networks", "secret", "status", "tools"];
/// The keys of a tool.
const TOOL_KEYS: [&str; 3] = ["title", "description", "params"];

pub(super) fn read(table: &Key<'_>, folder: &Path) -> anyhow::Result<Declared> {
    let (mut said, mut messages, mut status) = (Server::default(), Vec::new(), None);
    for key in table.keys()? {
        match key.name {
            "tools" => messages = key.keys()?.iter().map(message).collect::<anyhow::Result<_>>()?,
            "status" => status = Some(self::status(&key)?),
            name if KEYS.contains(&name) => said.read(&key, folder)?,
            _ => return Err(key.unknown(&KEYS)),
        }
    }
    if messages.is_empty() {
        bail!(
            "[sources.{0}] at {1} has no tools; declare one in [sources.{0}.tools.NAME]",
            table.name,
            table.at()
        );
    }
    // The secret signs, and is not sent.
    said.address.sends_nothing();
    let at = table.at();
    let reached = said.fits(table)?;
    let address = reached.address;
    if reached.shown.is_empty() {
        bail!(
            "[sources.{}] at {at} has no `secret` to sign its messages with; write secret = \"secret:NAME\", and run `portcullis secret set NAME`",
            table.name
        );
    }
    let (url, path, destination) = (address.url, address.path, address.destination);
    let hook = WebhookSource { url, path, destination, messages, status };
    let source = DeclaredSource {
        name: table.name.to_owned(),
        timeout: reached.timeout,
        kind: DeclaredKind::Webhook(hook),
        own_secret: false,
    };
    Ok(Declared { source, shown: reached.shown, at })
}

/// `[sources.NAME.tools.TOOL]`.
fn message(tool: &Key<'_>) -> anyhow::Result<Message> {
    let (mut texts, mut arguments) = (Texts::default(), Vec::new());
    for key in tool.keys()? {
        match key.name {
            "title" => texts.title = Some(key.text()?.to_owned()),
            "description" => texts.description = Some(key.prose()?.to_owned()),
            "params" => arguments = params::read(&key)?,
            _ => return Err(key.unknown(&TOOL_KEYS)),
        }
    }
    Ok(Message { text: texts.fits(tool)?, params: arguments })
}

/// A path on the receiver's host.
fn status(key: &Key<'_>) -> anyhow::Result<String> {
    let text = key.text()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    if !text.starts_with('/') || text.starts_with("//") || !text.bytes().all(plain) || text.contains("..") {
        bail!("`status` at {} is `{text}`, not a path; write it like \"/hooks/status\"", key.at());
    }
    Ok(text.to_owned())
}
