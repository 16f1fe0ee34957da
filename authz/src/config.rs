//! The parameters of the authorization server, with the defaults of the conformance matrix (§1).

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use shared::Network;

use crate::clients::metadata_document::DocumentUrl;
pub use crate::clients::redirects::{NotAnAppScheme, Redirects};
use crate::store::clients::Trust;

const DAY: Duration = Duration::from_hours(24);

/// How long an access token may live (standards §1). What is remembered of tokens that ended before their time, and
/// for how long a retired key is kept, follows from the upper bound, whatever is configured.
pub const ACCESS_TOKEN_LIFETIMES: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(1);

/// Lifetimes and rules.
#[derive(Clone, Debug)]
pub struct Config {
    /// An access token's life, one of [`ACCESS_TOKEN_LIFETIMES`].
    pub access_token_lifetime: Duration,
    /// An authorization code's life: at most 60 seconds.
    pub code_lifetime: Duration,
    /// How long a request waits for a person.
    pub transaction_lifetime: Duration,
    /// How long a browser may wait for a passkey.
    pub ceremony_timeout: Duration,
    /// One-shot rotation: no successor-unused rule (REFRESH-06).
    pub strict_refresh: bool,
    /// The device authorization grant, for clients that an administrator made for it (DEV-01).
    pub device: bool,
    /// A decision is answered with a page that leads to the client, in place of a redirect (CONSENT-10).
    pub consent_interstitial: bool,
    /// Clients whose ids are URLs.
    pub cimd: Cimd,
    pub registration: Registration,
    /// Where clients' answers may go (REDIR-05, DCR-05).
    pub redirects: Redirects,
}

/// What is done with client ids that are URLs of client id metadata documents (CIMD-01).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cimd {
    pub mode: CimdMode,
    /// `None`: what fits how registration is set.
    pub unknown: Option<UnknownUrl>,
    /// Whether the metadata says that such ids are taken; `None`: if that is so (CIMD-02).
    pub advertise: Option<bool>,
    /// Where documents may be fetched from, in mode `Fetch`.
    pub allow: Vec<AllowedHost>,
}

/// Where documents come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CimdMode {
    /// From administrators and the built-in catalogue; nothing is ever fetched.
    #[default]
    Import,
    /// From the network too, where the site says so.
    Fetch,
    /// Ids that are URLs are not taken.
    Off,
}

/// What becomes of a URL that there is no document for (CIMD-09).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnknownUrl {
    /// A client that is answered on the user's own computer counts like one that registered itself.
    Loopback,
    /// An administrator may be asked.
    Ask,
    Refuse,
}

/// A host that documents may be fetched from (CIMD-06).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowedHost {
    pub host: String,
    pub port: u16,
    /// Every address that the host's name resolves to must be in one of these.
    pub networks: Vec<Network>,
    /// Certificates of the authorities that may vouch for it, as PEM (OPS-08).
    pub ca: PathBuf,
}

impl AllowedHost {
    /// Whether a text is a host as it stands in a URL: in small letters, an address in its plain form.
    pub fn is_host(text: &str) -> bool {
        DocumentUrl::parse(&format!("https://{text}/x"))
            .is_ok_and(|url| url.authority() == text && url.host() == text)
    }
}

impl Cimd {
    /// Checks that the files that are needed to fetch documents are there (OPS-03).
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        self.allow.iter().try_for_each(|allowed| shared::tls::certificates(&allowed.ca).map(|_| ()))
    }

    /// The host that a document may be fetched from.
    pub(crate) fn allowed(&self, url: &DocumentUrl) -> Option<&AllowedHost> {
        let named = |allowed: &&AllowedHost| allowed.host == url.host() && allowed.port == url.port();
        self.allow.iter().filter(|_| self.mode == CimdMode::Fetch).find(named)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            access_token_lifetime: Duration::from_mins(15),
            code_lifetime: Duration::from_mins(1),
            transaction_lifetime: Duration::from_mins(10),
            ceremony_timeout: Duration::from_mins(5),
            strict_refresh: false,
            device: false,
            consent_interstitial: false,
            cimd: Cimd::default(),
            registration: Registration::default(),
            redirects: Redirects::default(),
        }
    }
}

/// How long refresh tokens last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefreshLifetimes {
    /// Without being used.
    pub idle: Duration,
    /// At most, however often they are used.
    pub family: Duration,
}

impl Config {
    /// What becomes of a URL that there is no document for (CIMD-09).
    pub(crate) fn unknown_url(&self) -> UnknownUrl {
        // Where anybody may register, anybody may as well be known by a URL.
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

/// How clients may register themselves (RFC 7591).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registration {
    pub mode: RegistrationMode,
    /// Whether clients may read, change and remove their own registrations (RFC 7592, DCR-09).
    pub management: bool,
}

/// Who may register a client (DCR-01).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RegistrationMode {
    /// Anybody.
    #[default]
    Open,
    /// Whoever holds an initial access token.
    Token,
    /// Nobody; the endpoint is not there.
    Off,
}
