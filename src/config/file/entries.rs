//! Every top-level key of the file: how to read it, and whether a reload applies a change (POL-04). A new key
//! needs an entry here and a field in its module's configuration.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use resource::catalogue::Kind;
use shared::Issuer;

use super::super::keys::Key;
use super::super::remote::Remote;
use super::super::signing::Signing;
use super::super::sources::Offering;
use super::super::{audit, cimd, clients, consent, front, limits, registration, rules, sources, tokens};
use super::File;
use crate::front::address::Listen;

/// A top-level key.
pub(super) struct Entry {
    name: &'static str,
    /// When it is read.
    pub(super) turn: ReadOrder,
    taken_up: AppliedWhen,
    /// Whether its value is the same in two files.
    same: fn(&File, &File) -> bool,
    /// Reads it; relative paths start at the file's folder.
    pub(super) read: fn(&Key<'_>, &Path, &mut File) -> anyhow::Result<()>,
}

/// The order in which keys are read: keys that refer to others are read after them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ReadOrder {
    /// In the order of the file.
    First,
    Scopes,
    Groups,
    Items,
    Profiles,
    Remote,
    Clients,
}

/// When a change of a key is applied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AppliedWhen {
    AtStart,
    AtReload,
}

/// The entry with this name.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// All names.
pub(super) fn names() -> Vec<&'static str> {
    ENTRIES.iter().map(|entry| entry.name).collect()
}

/// The keys of this kind whose values differ between two files.
pub(super) fn differing(taken_up: AppliedWhen, one: &File, other: &File) -> Vec<&'static str> {
    let entries = ENTRIES.iter().filter(|entry| entry.taken_up == taken_up && !(entry.same)(one, other));
    entries.map(|entry| entry.name).collect()
}

/// Makes an entry: its name, the fields that it sets, and the function that reads it.
macro_rules! entry {
    ($taken_up:ident, $turn:ident, $name:literal, [$($($field:ident).+),+], $read:expr) => {
        Entry {
            name: $name,
            turn: ReadOrder::$turn,
            taken_up: AppliedWhen::$taken_up,
            same: |one, other| true $(&& one.$($field).+ == other.$($field).+)+,
            read: $read,
        }
    };
}

const ENTRIES: &[Entry] = &[
    entry!(AtStart, First, "issuer", [issuer], |key, _, file| issuer(key).map(|it| file.issuer = Some(it))),
    entry!(AtStart, First, "listen", [front.listen], |key, _, file| {
        listen(key).map(|it| file.front.listen = Some(it))
    }),
    entry!(AtStart, First, "tls", [front.tls], |key, folder, file| {
        front::tls(key, folder, &mut file.front.tls)
    }),
    entry!(AtStart, First, "trusted_proxies", [front.proxies.networks], |key, _, file| {
        front::networks(key).map(|it| file.front.proxies.networks = it)
    }),
    entry!(AtStart, First, "forwarded_header", [front.proxies.naming], |key, _, file| {
        front::naming(key).map(|it| file.front.proxies.naming = it)
    }),
    entry!(AtStart, First, "allowed_origins", [resource.allowed_origins], |key, _, file| {
        front::origins(key).map(|it| file.resource.allowed_origins = it)
    }),
    entry!(AtStart, First, "memory", [front.memory], |key, _, file| {
        front::memory(key).map(|it| file.front.memory = it)
    }),
    entry!(AtStart, First, "data_dir", [data_dir], |key, folder, file| {
        key.text().map(|it| file.data_dir = Some(folder.join(it)))
    }),
    entry!(AtStart, First, "docs", [resource.docs], |key, folder, file| {
        key.text().map(|it| file.resource.docs = Some(folder.join(it)))
    }),
    entry!(AtStart, First, "device", [authz.device], |key, _, file| {
        key.boolean().map(|it| file.authz.device = it)
    }),
    entry!(AtStart, First, "consent", [authz.consent], |key, _, file| {
        consent::read(key, &mut file.authz.consent)
    }),
    entry!(AtReload, Groups, "groups", [groups], |key, _, file| groups(key, file)),
    entry!(AtReload, Scopes, "scopes", [rules.scopes], |key, _, file| {
        key.keys()?.iter().try_for_each(|key| rules::scope(key, &mut file.rules.scopes))
    }),
    entry!(AtReload, Items, "tools", [rules.tools], |key, _, file| items(Kind::Tool, key, file)),
    entry!(AtReload, Items, "prompts", [rules.prompts], |key, _, file| items(Kind::Prompt, key, file)),
    entry!(AtReload, Items, "resources", [rules.resources], |key, _, file| items(Kind::Resource, key, file)),
    entry!(AtReload, Profiles, "profiles", [rules.profiles], |key, _, file| profiles(key, file)),
    entry!(AtReload, First, "audit", [rules.record_values], |key, folder, file| {
        audit::read(key, folder, &mut file.rules.record_values, &mut file.audit_mirror)
    }),
    // A key of [audit] that a reload does not apply.
    entry!(AtStart, First, "audit.mirror", [audit_mirror], |key, _, _| Err(key.unknown(&names()))),
    entry!(AtReload, First, "sources", [sources, declared], |key, folder, file| {
        sources::read(key, folder).map(|it| (file.sources, file.declared) = (it.servers, it.declared))
    }),
    entry!(AtReload, Clients, "clients", [clients], |key, folder, file| {
        clients::clients(key, folder, &file.rules).map(|it| file.clients = it)
    }),
    entry!(AtStart, First, "registration", [authz.registration, authz.redirects], |key, _, file| {
        registration::read(key, &mut file.authz.registration, &mut file.authz.redirects)
    }),
    entry!(AtStart, First, "cimd", [authz.cimd], |key, folder, file| {
        cimd::read(key, folder).map(|it| file.authz.cimd = it)
    }),
    entry!(AtReload, Items, "limits", [rules.limits], |key, _, file| {
        limits::read(key, &Offering { servers: &file.sources, declared: &file.declared })
            .map(|it| file.rules.limits = it)
    }),
    entry!(AtReload, First, "rate", [limits], |key, _, file| front::limits(key, &mut file.limits)),
    entry!(AtStart, First, "keys", [signing], |key, folder, file| {
        Signing::read(key, folder).map(|it| file.signing = it)
    }),
    entry!(AtStart, First, "tokens", [authz.tokens], |key, _, file| {
        tokens::read(key, &mut file.authz.tokens)
    }),
    entry!(AtStart, First, "origin", [origin], |key, _, file| issuer(key).map(|it| file.origin = Some(it))),
    entry!(AtStart, Remote, "remote", [remote], |key, folder, file| {
        Remote::read(key, folder, &file.rules).map(|it| file.remote = it)
    }),
];

fn issuer(key: &Key<'_>) -> anyhow::Result<String> {
    let text = key.text()?;
    Issuer::parse(text).with_context(|| key.at())?;
    Ok(text.to_owned())
}

fn listen(key: &Key<'_>) -> anyhow::Result<String> {
    let text = key.text()?;
    let usage =
        || anyhow!("`listen` at {} is `{text}`, not HOST:PORT; write it like localhost:8080", key.at());
    Listen::parse(text).map_err(|_| usage())?;
    Ok(text.to_owned())
}

/// `[groups]`.
fn groups(table: &Key<'_>, file: &mut File) -> anyhow::Result<()> {
    for key in table.keys()? {
        let members = rules::group(&key, &file.rules)?;
        if let Some(other) = file.groups.keys().find(|other| authz::look_alike(other, key.name)) {
            bail!("the groups `{other}` and `{}` at {} look alike; rename one", key.name, key.at());
        }
        file.groups.insert(key.name.to_owned(), members);
    }
    Ok(())
}

/// `[tools]`, `[prompts]` or `[resources]`.
fn items(kind: Kind, table: &Key<'_>, file: &mut File) -> anyhow::Result<()> {
    let sources = Offering { servers: &file.sources, declared: &file.declared };
    for key in table.keys()? {
        let (pattern, rule) = rules::item(kind, &key, &file.rules, &sources)?;
        file.rules.of_mut(kind).set(pattern, rule);
    }
    Ok(())
}

/// `[profiles]`.
fn profiles(table: &Key<'_>, file: &mut File) -> anyhow::Result<()> {
    for key in table.keys()? {
        let profile = rules::profile(&key, &file.rules)?;
        file.rules.profiles.insert(key.name.to_owned(), profile);
    }
    Ok(())
}
