//! The credentials for a source: the gateway's own, the user's, or an identity token (SRC-10). They contain
//! nothing that a client sent (RS-15).

use std::fmt::Write;

use http::{HeaderName, HeaderValue, header};
use keys::identity::{Claims, Identities};
use keys::secrets::{Secrets, Server, StoredSecret};
use shared::{Digest, Fault, Issuer, Secret, Timestamp};

use super::mcp::request::{Caller, Identity};
use crate::bearer::CallerIdentity;
use crate::item::SourceName;

/// The header for the identity token if the source also has a static credential.
const IDENTITY_HEADER: HeaderName = HeaderName::from_static("portcullis-identity");
/// The subject of the gateway's own requests. No user has this id.
const GATEWAY: &str = "gateway";

/// A credential, and how the source gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    pub carrier: Carrier,
    pub kept: SecretLocation,
}

/// What carries a credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// A header of each request.
    Header {
        name: HeaderName,
        /// Whether the value starts with `Bearer`.
        bearer: bool,
    },
    /// A variable in the environment of a program.
    Variable(String),
}

/// Where a secret is while the server runs.
#[derive(Clone, Debug)]
pub enum SecretLocation {
    /// Here: it came out of a file or the environment.
    Here(Secret),
    /// In the sealed store, under this name.
    Stored(String),
    /// In the sealed store, each user's own secret.
    OfUser,
}

impl PartialEq for SecretLocation {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Here(one), Self::Here(other)) => one.digest() == other.digest(),
            (Self::Stored(one), Self::Stored(other)) => one == other,
            (Self::OfUser, Self::OfUser) => true,
            (Self::Here(_) | Self::Stored(_) | Self::OfUser, _) => false,
        }
    }
}

impl Eq for SecretLocation {}

/// The credentials for one source.
pub(crate) struct Credentials {
    source: SourceName,
    /// The source's address: a user's secret is sent to no other.
    target: String,
    shown: Vec<Credential>,
    /// What stands in the place of a user's secret where nobody asks.
    lists_with: Option<SecretLocation>,
    store: Option<Secrets>,
    /// The page where users give their secrets.
    page: String,
    tells: Option<Tells>,
}

/// A source that is told who asks.
struct Tells {
    identities: Identities,
    issuer: Issuer,
    audience: String,
}

/// Who makes a request, and so holds a secret or none.
#[derive(Clone, Copy)]
enum Holder<'h> {
    /// The gateway itself.
    Gateway,
    /// A program in its own name.
    Program,
    User(&'h str),
}

/// Why a request cannot be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum MissingIdentity {
    /// The user has given no secret.
    OwnSecret,
    /// Each user gives their own secret, but there is no user.
    User,
    /// The configuration names a secret that does not exist.
    Named(String),
    Other(String),
}

impl Credentials {
    /// For a source without credentials.
    pub(crate) fn none(source: &str, target: String, issuer: &Issuer) -> Self {
        Self {
            source: SourceName::from(source),
            target,
            shown: Vec::new(),
            lists_with: None,
            store: None,
            page: issuer.url("/account#secrets"),
            tells: None,
        }
    }

    /// The same with these credentials; `store` holds those that are not in memory. `None` if a header cannot
    /// carry one.
    pub(crate) fn showing(
        self,
        shown: &[Credential],
        lists_with: Option<&SecretLocation>,
        store: Option<&Secrets>,
    ) -> Option<Self> {
        for credential in shown {
            if let (SecretLocation::Here(secret), Carrier::Header { bearer, .. }) =
                (&credential.kept, &credential.carrier)
            {
                header_value(secret, *bearer).ok()?;
            }
        }
        Some(Self { shown: shown.to_vec(), lists_with: lists_with.cloned(), store: store.cloned(), ..self })
    }

    /// Adds an identity token to each request.
    pub(crate) fn telling(self, identities: Identities, issuer: Issuer, audience: String) -> Self {
        Self { tells: Some(Tells { identities, issuer, audience }), ..self }
    }

    /// The credentials of a request for this caller; `None` is the gateway itself. Callers with different
    /// credentials, or different versions of one, do not share sessions (SRC-07).
    pub(crate) fn of(
        &self,
        asker: Option<&CallerIdentity>,
        now: Timestamp,
    ) -> Result<Identity, MissingIdentity> {
        let holder = match asker {
            None => Holder::Gateway,
            Some(asker) if asker.has_user() => Holder::User(asker.user()),
            Some(_) => Holder::Program,
        };
        let (mut headers, mut variables) = (Vec::with_capacity(2), Vec::new());
        let taken_out = self.all_taken_out(holder)?;
        let (versions, version) = versions(&taken_out);
        for (credential, held) in taken_out {
            match &credential.carrier {
                Carrier::Header { name, bearer } => {
                    headers.push((name.clone(), header_value(&held.value, *bearer)?));
                }
                Carrier::Variable(name) => variables.push((name.clone(), held.value)),
            }
        }
        let subject = asker.map_or(GATEWAY, CallerIdentity::user);
        if let Some(tells) = &self.tells {
            headers.push(tells.header(asker, now, &headers)?);
        }
        let of_one_user = self.tells.is_some() || self.are_of_users();
        let whose = if of_one_user { subject } else { "" };
        let key = Some(format!("{whose}{versions}")).filter(|key| !key.is_empty());
        let caller = asker.map(|asker| Caller {
            principal: asker.principal().to_text(),
            session: asker.session().map(str::to_owned),
        });
        Ok(Identity { key, headers, variables, version, caller })
    }

    /// The version of the credentials that a request of this user would have now; of the gateway itself, if there is none.
    /// `None` if it cannot be made.
    pub(crate) fn version_for(&self, user: Option<&str>) -> Option<u64> {
        Some(versions(&self.all_taken_out(user.map_or(Holder::Gateway, Holder::User)).ok()?).1)
    }

    fn are_of_users(&self) -> bool {
        self.shown.iter().any(|credential| credential.kept == SecretLocation::OfUser)
    }

    /// All that are shown, for this holder.
    fn all_taken_out(&self, holder: Holder<'_>) -> Result<Vec<(&Credential, StoredSecret)>, MissingIdentity> {
        let mut all = Vec::with_capacity(self.shown.len());
        for credential in &self.shown {
            let held = self.taken_out(&credential.kept, holder)?;
            all.extend(held.map(|held| (credential, held)));
        }
        Ok(all)
    }

    /// A secret, with its version; `None` if a server is shown nothing in its place.
    fn taken_out(
        &self,
        kept: &SecretLocation,
        holder: Holder<'_>,
    ) -> Result<Option<StoredSecret>, MissingIdentity> {
        match (kept, holder) {
            (SecretLocation::Here(secret), _) => {
                Ok(Some(StoredSecret { version: String::new(), value: secret.clone() }))
            }
            (SecretLocation::Stored(name), _) => {
                let held = self.store.as_ref().map_or(Ok(None), |store| store.named(name))?;
                held.map(Some).ok_or_else(|| MissingIdentity::Named(name.clone()))
            }
            (SecretLocation::OfUser, Holder::Gateway) => match &self.lists_with {
                Some(lists_with) => self.taken_out(lists_with, holder),
                None => Ok(None),
            },
            (SecretLocation::OfUser, Holder::Program) => Err(MissingIdentity::User),
            (SecretLocation::OfUser, Holder::User(user)) => {
                let name = self.source.to_string();
                let server = Server { source: &name, target: &self.target };
                let held = self.store.as_ref().map_or(Ok(None), |store| store.of_user(user, server))?;
                held.map(Some).ok_or(MissingIdentity::OwnSecret)
            }
        }
    }

    /// Why a request was not made, in a sentence for the caller.
    pub(crate) fn says(&self, lacking: &MissingIdentity) -> String {
        let Self { source, page, .. } = self;
        match lacking {
            MissingIdentity::OwnSecret => format!(
                "The server `{source}` needs a secret of your own, such as an access token that it gave you. Open {page} in your browser and paste it under \"Secrets for servers\", then try again."
            ),
            MissingIdentity::User => format!(
                "The server `{source}` needs the secret of the person who asks, and this program asks in its own name. Use it with a person's sign-in."
            ),
            MissingIdentity::Named(name) => format!(
                "The server `{source}` cannot be used: an administrator must set its secret with `portcullis secret set {name}`."
            ),
            MissingIdentity::Other(why) => format!("The server `{source}` cannot be used: {why}."),
        }
    }

    /// What to do about a credential that the source does not accept: the user's own, if the request had one.
    pub(crate) fn remedy(&self, by_user: bool) -> String {
        let Self { source, page, .. } = self;
        let of_users = self.are_of_users();
        if of_users && by_user {
            return format!(
                "it does not accept your own secret for it, or that secret does not allow this; replace it at {page}"
            );
        }
        if of_users && self.lists_with.is_none() {
            return format!(
                "it wants a credential before it lists its tools; an administrator must set `lists_with` of [sources.{source}]"
            );
        }
        match (self.shown.first(), &self.tells) {
            (Some(_), _) => format!(
                "it does not accept this gateway's credential; an administrator must check {} of [sources.{source}]",
                self.keys()
            ),
            (None, Some(_)) => format!(
                "it does not accept the identity token; an administrator must check that it trusts this gateway's keys, or `identity` of [sources.{source}]"
            ),
            (None, None) => format!(
                "it wants a credential and none is configured; an administrator must set `bearer`, `authorization` or `identity` of [sources.{source}]"
            ),
        }
    }

    /// The configuration's keys for the credentials.
    fn keys(&self) -> String {
        if self.lists_with.is_some() {
            return "`lists_with`".to_owned();
        }
        let key = |credential: &Credential| match &credential.carrier {
            Carrier::Header { name, bearer: true } if name == header::AUTHORIZATION => "`bearer`",
            Carrier::Header { name, bearer: false } if name == header::AUTHORIZATION => "`authorization`",
            Carrier::Header { .. } => "`headers`",
            Carrier::Variable(_) => "`secrets`",
        };
        let mut keys: Vec<_> = self.shown.iter().map(key).collect();
        keys.dedup();
        keys.join(" and ")
    }
}

impl Tells {
    fn header(
        &self,
        asker: Option<&CallerIdentity>,
        now: Timestamp,
        beside: &[(HeaderName, HeaderValue)],
    ) -> Result<(HeaderName, HeaderValue), MissingIdentity> {
        let (subject, client) = asker.map_or((GATEWAY, None), |asker| (asker.user(), Some(asker.client())));
        let claims = Claims::new(&self.issuer, subject, client, &self.audience, now);
        let signed = self.identities.sign(&claims);
        let token = signed
            .map_err(|error| MissingIdentity::Other(format!("no identity token could be signed: {error}")))?;
        let taken = beside.iter().any(|(name, _)| *name == header::AUTHORIZATION);
        Ok(if taken {
            (IDENTITY_HEADER, sensitive(token.expose())?)
        } else {
            (header::AUTHORIZATION, sensitive(&format!("Bearer {}", token.expose()))?)
        })
    }
}

fn header_value(secret: &Secret, bearer: bool) -> Result<HeaderValue, MissingIdentity> {
    if bearer { sensitive(&format!("Bearer {}", secret.expose())) } else { sensitive(secret.expose()) }
}

/// The versions of credentials, in words and as a number.
fn versions(taken_out: &[(&Credential, StoredSecret)]) -> (String, u64) {
    let mut versions = String::new();
    for (_, held) in taken_out.iter().filter(|(_, held)| !held.version.is_empty()) {
        let _ = write!(versions, "\n{}", held.version);
    }
    let digest = Digest::of(versions.as_bytes()).0;
    let number = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    (versions, number)
}

fn sensitive(text: &str) -> Result<HeaderValue, MissingIdentity> {
    // The message does not contain the value.
    let unfit =
        |_| MissingIdentity::Other("a credential contains characters that a header cannot carry".to_owned());
    let mut value = HeaderValue::from_str(text).map_err(unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

impl MissingIdentity {
    /// What is missing, for administrators, as it follows "cannot be used:".
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::OwnSecret | Self::User => "it needs the secret of a user".to_owned(),
            Self::Named(name) => {
                format!("its secret is not set; to set it, run `portcullis secret set {name}`")
            }
            Self::Other(why) => why.clone(),
        }
    }
}

impl From<Fault> for MissingIdentity {
    fn from(fault: Fault) -> Self {
        tracing::error!(db.fault = %fault, "a secret could not be read");
        Self::Other("its secret cannot be read at this moment".to_owned())
    }
}
