//! `kind = "rest"`: an HTTP service, and the requests that are its tools (REST-01).

use std::path::Path;

use anyhow::{anyhow, bail};
use http::{HeaderName, Method, header};
use resource::sources::declared::rest::{BodyTemplate, Operation, PathTemplate, RestSource, Slot};
use resource::sources::declared::{DeclaredKind, DeclaredSource, Projection};
use serde_json::Value;

use super::{Declared, Server, Texts, params};
use crate::config::keys::Key;

/// The keys of the source.
const KEYS: [&str; 12] = [
    "kind",
    "url",
    "ca",
    "client_cert",
    "client_key",
    "timeout",
    "authorization",
    "bearer",
    "headers",
    "plaintext",
    "networks",
    "tools",
];
/// The keys of a tool.
const TOOL_KEYS: [&str; 10] =
    ["title", "description", "method", "path", "query", "headers", "body", "params", "result", "max_size"];
/// Headers that the request itself has.
const TAKEN: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

pub(super) fn read(table: &Key<'_>, folder: &Path) -> anyhow::Result<Declared> {
    let (mut said, mut operations) = (Server::default(), Vec::new());
    for key in table.keys()? {
        match key.name {
            "tools" => operations = key.keys()?.iter().map(operation).collect::<anyhow::Result<_>>()?,
            name if KEYS.contains(&name) => said.read(&key, folder)?,
            _ => return Err(key.unknown(&KEYS)),
        }
    }
    if operations.is_empty() {
        bail!(
            "[sources.{0}] at {1} has no tools; declare one in [sources.{0}.tools.NAME]",
            table.name,
            table.at()
        );
    }
    let (own_secret, at) = (said.shown.is_of_users(), table.at());
    let reached = said.fits(table)?;
    let address = reached.address;
    if address.path.contains('?') {
        bail!("`url` of [sources.{}] at {at} has a query; write it in `query` of the tools", table.name);
    }
    let prefix = address.path.trim_end_matches('/').to_owned();
    let rest = RestSource { url: address.url, prefix, destination: address.destination, operations };
    let source = DeclaredSource {
        name: table.name.to_owned(),
        timeout: reached.timeout,
        kind: DeclaredKind::Rest(rest),
        own_secret,
    };
    Ok(Declared { source, shown: reached.shown, at })
}

/// `[sources.NAME.tools.TOOL]`.
fn operation(tool: &Key<'_>) -> anyhow::Result<Operation> {
    let mut texts = Texts::default();
    let mut path = None;
    let (mut method, mut query, mut headers, mut body) = (Method::GET, Vec::new(), Vec::new(), None);
    let (mut arguments, mut result, mut most) = (Vec::new(), Projection::default(), super::MOST);
    for key in tool.keys()? {
        match key.name {
            "title" => texts.title = Some(key.text()?.to_owned()),
            "description" => texts.description = Some(key.prose()?.to_owned()),
            "method" => method = self::method(&key)?,
            "path" => path = Some(self::path(&key)?),
            "query" => query = slots(&key)?,
            "headers" => headers = self::headers(&key)?,
            "body" => body = Some(BodyTemplate::new(key.whole()?)),
            "params" => arguments = params::read(&key)?,
            "result" => result = self::result(&key)?,
            "max_size" => most = super::size(&key)?,
            _ => return Err(key.unknown(&TOOL_KEYS)),
        }
    }
    let Some(path) = path else {
        bail!(
            "the tool `{}` at {} has no `path`; write it like path = \"/rest/api/2/issue/{{key}}\"",
            tool.name,
            tool.at()
        )
    };
    let text = texts.fits(tool)?;
    Ok(Operation { text, method, path, query, headers, body, params: arguments, result, most })
}

fn method(key: &Key<'_>) -> anyhow::Result<Method> {
    match key.text()? {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "DELETE" => Ok(Method::DELETE),
        other => bail!("`method` at {} is `{other}`; write GET, HEAD, POST, PUT, PATCH or DELETE", key.at()),
    }
}

fn path(key: &Key<'_>) -> anyhow::Result<PathTemplate> {
    let text = key.text()?;
    PathTemplate::parse(text).map_err(|why| anyhow!("`path` at {} is `{text}`: {why}", key.at()))
}

fn slots(key: &Key<'_>) -> anyhow::Result<Vec<(String, Slot)>> {
    let slot = |key: &Key<'_>| {
        let value = match key.whole()? {
            Value::String(text) => text,
            Value::Array(_) | Value::Object(_) => {
                bail!("`{}` at {} must be a string, a number, true or false", key.name, key.at())
            }
            scalar => scalar.to_string(),
        };
        Ok((key.name.to_owned(), Slot::parse(&value)))
    };
    key.keys()?.iter().map(slot).collect()
}

fn headers(key: &Key<'_>) -> anyhow::Result<Vec<(HeaderName, Slot)>> {
    let at = key.at();
    let header = |(text, slot): (String, Slot)| {
        let name = HeaderName::try_from(&text)
            .map_err(|_| anyhow!("`{text}` in `headers` at {at} is not the name of a header"))?;
        if TAKEN.contains(&name) {
            bail!("the header {name} in `headers` at {at} belongs to the request or to `bearer`; remove it");
        }
        Ok((name, slot))
    };
    slots(key)?.into_iter().map(header).collect()
}

fn result(key: &Key<'_>) -> anyhow::Result<Projection> {
    let texts = key.one_or_list()?.iter().map(Key::text).collect::<anyhow::Result<Vec<_>>>()?;
    Projection::parse(texts).map_err(|why| anyhow!("`result` at {}: {why}", key.at()))
}
