//! The settings of the authorization server, with the defaults of the conformance matrix (§1).

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use shared::Network;

use crate::clients::metadata_document::DocumentUrl;
pub use crate::clients::redirects::{NotAnAppScheme, Redirects};
use crate::store::clients::Trust;

const DAY: Duration = Duration::from_hours(24);

/// The allowed range of an access token's lifetime (standards §1). How long ended tokens are remembered and
/// retired keys are kept follows from its upper bound.
pub const ACCESS_TOKEN_LIFETIMES: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(1);

/// Lifetimes and rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub tokens: Tokens,
    /// The lifetime of an authorization code: at most 60 seconds.
    pub code_lifetime: Duration,
    /// How long an authorization request stays open.
    pub transaction_lifetime: Duration,
    /// How long a browser may wait for a passkey.
    pub ceremony_timeout: Duration,
    /// Strict rotation: a used refresh token is never accepted again (REFRESH-06).
    pub strict_refresh: bool,
    /// Whether the device authorization grant is on, for clients that an administrator added for it (DEV-01).
    pub device: bool,
    pub consent: Consent,
    /// Clients whose ids are URLs.
    pub cimd: Cimd,
    pub registration: Registration,
    /// Rules for redirect URIs (REDIR-05, DCR-05).
    pub redirects: Redirects,
}

/// Settings for client ids that are URLs of client id metadata documents (CIMD-01).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cimd {
    pub mode: CimdMode,
    /// `None`: follows from the registration mode.
    pub unknown: Option<UnknownUrl>,
    /// Whether the metadata advertises them; `None`: if they are accepted (CIMD-02).
    pub advertise: Option<bool>,
    /// The hosts that documents may be fetched from in mode `Fetch`.
    pub allow: Vec<AllowedHost>,
}

/// Where documents come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CimdMode {
    /// Only imported documents and the built-in catalogue; nothing is fetched.
    #[default]
    Import,
    /// Also from the network, for allowed hosts.
    Fetch,
    /// URLs are not accepted as client ids.
    Off,
}

/// How a URL without a document is treated (CIMD-09).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnknownUrl {
    /// As a self-registered client, if it redirects to the user's own computer.
    Loopback,
    /// Refused; the user may ask an administrator to approve it.
    Ask,
    Refuse,
}

/// A host that documents may be fetched from (CIMD-06).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowedHost {
    pub host: String,
    pub port: u16,
    /// Every address that the host resolves to must be in one of these.
    pub networks: Vec<Network>,
    /// The certificate authorities for it, as a PEM file (OPS-08).
    pub ca: PathBuf,
}

impl AllowedHost {
    /// Whether a text is a host in the normal form of URLs: lower case, IP addresses in their plain form.
    pub fn is_host(text: &str) -> bool {
        DocumentUrl::parse(&format!("https://{text}/x"))
            .is_ok_and(|url| url.authority() == text && url.host() == text)
    }
}

impl Cimd {
    /// Checks that the files needed for fetching exist (OPS-03).
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        self.allow.iter().try_for_each(|allowed| shared::tls::certificates(&allowed.ca).map(|_| ()))
    }

    /// The allowed host that serves this document.
    pub(crate) fn allowed(&self, url: &DocumentUrl) -> Option<&AllowedHost> {
        let named = |allowed: &&AllowedHost| allowed.host == url.host() && allowed.port == url.port();
        self.allow.iter().filter(|_| self.mode == CimdMode::Fetch).find(named)
    }
}

/// How tokens are issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tokens {
    /// The lifetime of an access token, within [`ACCESS_TOKEN_LIFETIMES`].
    pub access: Duration,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { access: Duration::from_mins(15) }
    }
}

/// How people are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Consent {
    /// Whether a decision is answered with a page that leads to the client, instead of a redirect (CONSENT-10).
    pub interstitial: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tokens: Tokens::default(),
            code_lifetime: Duration::from_mins(1),
            transaction_lifetime: Duration::from_mins(10),
            ceremony_timeout: Duration::from_mins(5),
            strict_refresh: false,
            device: false,
            consent: Consent::default(),
            cimd: Cimd::default(),
            registration: Registration::default(),
            redirects: Redirects::default(),
        }
    }
}

/// How long refresh tokens last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefreshLifetimes {
    /// Maximum time between two uses.
    pub idle: Duration,
    /// Maximum age of the family, however often it is used.
    pub family: Duration,
}

impl Config {
    /// The policy for URLs without a document (CIMD-09).
    pub(crate) fn unknown_url(&self) -> UnknownUrl {
        // If anyone may register, an unknown URL adds no risk.
        self.cimd.unknown.unwrap_or(match self.registration.mode {
            RegistrationMode::Open => UnknownUrl::Loopback,
            RegistrationMode::Token | RegistrationMode::Off => UnknownUrl::Ask,
        })
    }

    /// The lifetimes for a client of this trust.
    #[allow(clippy::unused_self, reason = "a site will be able to narrow them")]
    pub(crate) fn refresh_lifetimes(&self, trust: Trust) -> RefreshLifetimes {
        match trust {
            Trust::Unverified => RefreshLifetimes { idle: DAY, family: 7 * DAY },
            Trust::Known | Trust::Verified => RefreshLifetimes { idle: 14 * DAY, family: 30 * DAY },
        }
    }
}

/// Settings of dynamic client registration (RFC 7591).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registration {
    pub mode: RegistrationMode,
    /// Whether clients may manage their registrations (RFC 7592, DCR-09).
    pub management: bool,
}

/// Who may register a client (DCR-01).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RegistrationMode {
    /// Anyone.
    #[default]
    Open,
    /// Clients with an initial access token.
    Token,
    /// No one; the endpoint answers 404.
    Off,
}
