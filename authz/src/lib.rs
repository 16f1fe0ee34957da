//! The authorization server: OAuth 2.1, passkey sign-in, consent.
//!
//! Each requirement is a function in a file named after the RFC's noun. SQL is in `store`, oxide-auth in
//! `oxide`, cookies in `session`.

pub mod access;
mod account;
mod answer;
mod authorize;
mod client_auth;
pub mod client_documents;
pub mod clients;
mod config;
mod consent;
mod current;
mod device;
mod ending;
mod endpoint;
mod error;
mod error_pages;
mod form;
mod grants;
mod introspection;
pub mod issuer_change;
mod login;
mod metadata;
mod opened;
mod oxide;
pub mod pages;
pub mod people;
mod rate;
pub mod reach;
mod refusals;
pub mod resource_servers;
mod resources;
mod revocation;
mod scope;
pub mod secrets;
mod session;
pub mod signing_keys;
mod status;
mod store;
mod sweeping;
#[cfg(test)]
mod testing;
pub mod timekeeping;
mod token;
mod user_agent;
mod visible;

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use http::StatusCode;
use keys::secrets::Secrets;
use keys::{Keys, Memory, Seal};
use serde::de::DeserializeOwned;
use shared::rate::Tally;
use shared::route::{Cors, Limit, Routes, page, program};
use shared::token_status::Ceiling;
use shared::{Catalogue, Clock, Db, Fault, Issuer, Scope, Tx, json};
use webauthn_rs::prelude::{Url, Webauthn, WebauthnBuilder, WebauthnError};

pub use account::snippets;
use clients::configuration::{Configured, Obstacle};
use clients::metadata_document::approvals;
pub use clients::metadata_document::fetch_for_administrator;
use clients::metadata_document::freshness::Fetcher;
pub use config::{
    ACCESS_TOKEN_LIFETIMES, AllowedHost, Cimd, CimdMode, Config, Consent, NotAnAppScheme, Redirects,
    Registration, RegistrationMode, Tokens, UnknownUrl,
};
use error::PageError;
pub use login::enrolment::link::{AdministratorLink, NoLink};
use pages::{Page, Pages};
use session::CookieNames;
pub use status::{Groups, Status};
use store::lifetimes;
pub use visible::look_alike;

/// The authorization server. Cheap to clone.
#[derive(Clone)]
pub struct Authz(Arc<State>);

/// Its shared state.
pub struct State {
    config: Config,
    issuer: Issuer,
    db: Db,
    clock: Clock,
    keys: Keys,
    seal: Arc<Seal>,
    secrets: Secrets,
    status: Arc<Status>,
    catalogue: Arc<dyn Catalogue>,
    pages: Pages,
    webauthn: Webauthn,
    cookies: CookieNames,
    limits: rate::Limits,
    /// Verified access tokens that resource servers asked about.
    memory: Memory<introspection::Answers>,
    introspections: introspection::Records,
    fetcher: Fetcher,
    refusals: refusals::Refusals,
    published: metadata::Published,
}

impl Deref for Authz {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

/// The parts that it is built from.
pub struct Parts {
    pub config: Config,
    pub issuer: Issuer,
    pub db: Db,
    pub clock: Clock,
    pub keys: Keys,
    pub seal: Arc<Seal>,
    pub status: Arc<Status>,
    pub catalogue: Arc<dyn Catalogue>,
    pub limits: shared::rate::Limits,
    /// The count of refusals by rate limits.
    pub tally: Arc<Tally>,
}

/// Why the authorization server cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the issuer cannot be used for passkeys: {0}")]
    Webauthn(String),
    #[error("the CA certificates for client documents cannot be used: {0}")]
    Trust(String),
    #[error("the pages do not compile: {0}")]
    Pages(#[from] tera::Error),
}

impl Authz {
    /// Builds the authorization server.
    ///
    /// # Errors
    /// If passkeys cannot be bound to the issuer's host (WEBAUTHN-01).
    pub fn new(parts: Parts) -> Result<Self, BuildError> {
        let Parts { config, issuer, db, clock, keys, seal, status, catalogue, limits, tally } = parts;
        let origin = Url::parse(issuer.as_str()).map_err(|e| BuildError::Webauthn(e.to_string()))?;
        let webauthn = WebauthnBuilder::new(issuer.host(), &origin)
            .and_then(|builder| builder.rp_name("Portcullis").timeout(config.ceremony_timeout).build())
            .map_err(|e| BuildError::Webauthn(format!("{e:?}")))?;
        config.cimd.check().map_err(BuildError::Trust)?;
        let pages = Pages::new()?.https_issuer(issuer.demands_https());
        let cookies = CookieNames::new(&issuer);
        let limits = rate::Limits::new(limits, &clock, &tally);
        let memory = Memory::new(keys.verifier());
        let introspections = introspection::Records::new(clock.clone());
        let fetcher = Fetcher::default();
        let refusals = refusals::Refusals::new(&clock);
        let secrets = Secrets::new(db.clone(), Arc::clone(&seal));
        let state = State {
            config,
            issuer,
            db,
            clock,
            keys,
            seal,
            secrets,
            status,
            catalogue,
            pages,
            webauthn,
            cookies,
            limits,
            memory,
            introspections,
            fetcher,
            refusals,
            published: metadata::Published::default(),
        };
        Ok(Self(Arc::new(state)))
    }

    /// The issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Every route of this crate, with its declarations.
    pub fn routes(&self) -> Routes {
        let reads = Limit::Free("it only reads");
        let document = |handler| program(handler, reads).cors(Cors::Documents);
        let passkey = |handler| page(handler, Limit::Passkey);
        let start = |handler| page(handler, Limit::Start);
        let form = |handler| page(handler, Limit::Form);
        let registration = &self.config.registration;
        let registers = registration.mode != RegistrationMode::Off;
        let own = if registers && registration.management {
            let own = get(clients::management::get).put(clients::management::put);
            program(own.delete(clients::management::delete), Limit::Management)
        } else {
            // A page must be able to read that it is missing (CORS).
            program(any(async || StatusCode::NOT_FOUND), Limit::Free("there is nothing"))
        };
        let authz = self.clone();
        Routes::guarded(move |rule, handler| rate::limited(&authz, rule.limit, handler))
            // Nothing under `openid-configuration`: that profile does not exist (META-03).
            .route("/.well-known/oauth-authorization-server", document(get(metadata::authorization_server)))
            .route("/jwks.json", document(get(metadata::jwks)))
            .route("/.well-known/jwks.json", document(get(metadata::jwks)))
            // Pages of other origins may call these, without cookies (TOKEN-16, REVOKE-06, DCR-14).
            .route("/token", program(post(token::post), Limit::Token).cors(Cors::Clients))
            .route("/revoke", program(post(revocation::post), Limit::Client).cors(Cors::Clients))
            .route("/introspect", program(post(introspection::post), Limit::Failures))
            .route("/", page(get(account::home), reads))
            .route("/authorize", page(either(get(authorize::get).post(authorize::post)), Limit::Authorize))
            .route("/consent", page(either(get(consent::get).post(consent::post)), Limit::Decision))
            .route("/consent/confirm", passkey(post(consent::confirm::start)))
            .route("/login/start", start(post(login::passkey::start)))
            .route("/login/finish", passkey(post(login::passkey::finish)))
            .route("/setup", page(get(login::enrolment::setup_page), reads))
            .route("/setup/look", start(post(login::enrolment::look::setup)))
            .route("/setup/start", start(post(login::enrolment::setup_start)))
            .route("/setup/finish", passkey(post(login::enrolment::finish)))
            .route("/enrol", page(get(login::enrolment::enrol_page), reads))
            .route("/enrol/look", start(post(login::enrolment::look::enrolment)))
            .route("/enrol/start", start(post(login::enrolment::enrol_start)))
            .route("/enrol/finish", passkey(post(login::enrolment::finish)))
            .route("/account", page(get(account::page::get), reads))
            .route("/account/change", page(post(account::changing::post), Limit::Change))
            .route("/account/change/start", start(post(account::confirm::start)))
            .route("/account/passkeys/start", start(post(account::add_start)))
            .route("/account/passkeys/confirm", passkey(post(account::add_confirm)))
            .route("/account/passkeys/finish", passkey(post(account::add_finish)))
            .route(approvals::PATH, form(post(approvals::post)))
            .route("/sign-out", form(post(account::sign_out)))
            .route("/assets/{name}", page(get(asset), reads))
            .when(self.config.device, |routes| {
                routes
                    .route("/device_authorization", program(post(device::post), Limit::Client))
                    .route("/device", form(get(device::page::get).post(device::page::post)))
                    .route("/device/decision", page(post(device::decision::post), Limit::DeviceDecision))
            })
            .when(registers, |routes| {
                let register = program(post(clients::registration::post), Limit::Register);
                routes.route("/register", register.cors(Cors::Clients))
            })
            .route("/register/{id}", own.cors(Cors::Management))
            .with_state(self.clone())
    }

    /// Runs before the server serves: ends what the configuration and this version no longer allow.
    ///
    /// # Errors
    /// A database fault.
    pub fn reconcile(&self, tx: &Tx<'_>) -> Result<(), Fault> {
        lifetimes::note(tx, self.config.tokens.access)?;
        clients::reconcile(self, tx)
    }

    /// Makes a new setup link, requested by this operating-system user; `None` if an administrator exists
    /// (ENROL-01).
    ///
    /// # Errors
    /// A database fault.
    pub fn setup_link(&self, tx: &Tx<'_>, uid: u32) -> Result<Option<String>, Fault> {
        login::enrolment::link::issue_setup(self, tx, uid)
    }

    /// Makes a link for an administrator who cannot sign in: a setup link, or an enrolment link for the only
    /// administrator if no administrator's passkey works.
    ///
    /// # Errors
    /// A database fault. The inner error says what to do instead.
    pub fn way_in(&self, tx: &Tx<'_>, uid: u32) -> Result<Result<AdministratorLink, NoLink>, Fault> {
        login::enrolment::link::way_in(self, tx, uid)
    }

    /// Whether there are administrators, and none of them can sign in.
    ///
    /// # Errors
    /// A database fault.
    pub fn is_locked_out(&self, tx: &Tx<'_>) -> Result<bool, Fault> {
        login::enrolment::link::is_locked_out(tx)
    }

    /// Makes the configured clients match `portcullis.toml`.
    ///
    /// # Errors
    /// A database fault. The inner error names the obstacle, and then nothing has changed.
    pub fn follow_configuration(
        &self,
        tx: &Tx<'_>,
        configured: &[Configured],
    ) -> Result<Result<(), Obstacle>, Fault> {
        clients::configuration::follow(self, tx, configured)
    }

    /// Replaces the rate limits (RATE-01, POL-04).
    pub fn limit(&self, limits: shared::rate::Limits) {
        self.limits.set(limits);
    }

    /// Records what was only counted so far (AUDIT-06); with `last`, all of it. Call it regularly, and once
    /// before the server stops.
    pub async fn flush(&self, last: bool) {
        if let Err(fault) = self.introspections.flush(&self.db, last).await {
            tracing::error!(db.fault = %fault, "introspections could not be recorded");
        }
        if let Err(fault) = self.refusals.flush(&self.db).await {
            tracing::error!(db.fault = %fault, "refusals that were counted could not be recorded");
        }
    }

    /// Deletes what has expired, and unused clients (RATE-03, DCR-11). Call it at the start and regularly.
    pub async fn sweep(&self) {
        let authz = self.clone();
        if let Err(fault) = self.db.write(move |tx| sweeping::sweep(&authz, tx)).await {
            tracing::error!(db.fault = %fault, "expired rows could not be deleted");
        }
    }

    /// Every scope that exists, in one set.
    fn grantable(&self) -> Scope {
        self.grantable_to(Ceiling::Any)
    }

    /// Every scope that a client with this ceiling can be granted (DCR-08).
    fn grantable_to(&self, ceiling: Ceiling) -> Scope {
        let scopes = self.catalogue.scopes();
        let below = scopes.iter().filter(|scope| ceiling.allows(scope.risk));
        below.map(|scope| scope.name.as_str()).collect()
    }

    /// This server's name on its pages: its host.
    fn server_name(&self) -> String {
        clients::names::server_name(&self.issuer)
    }

    /// A page as a response.
    fn page<P: Page>(&self, status: StatusCode, page: &P) -> Response {
        self.pages.respond(status, page).unwrap_or_else(|error| {
            tracing::error!(page.template = P::TEMPLATE, page.error = %error, "a page did not render");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    }
}

/// Routes GET and POST but not HEAD, because HEAD must not start a transaction or answer one from a remembered
/// consent (AUTHZ-01, CONSENT-03).
fn either(handler: MethodRouter<Authz>) -> MethodRouter<Authz> {
    handler.head(not_allowed).fallback(not_allowed)
}

async fn not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(http::header::ALLOW, "GET, POST")]).into_response()
}

async fn asset(Path(name): Path<String>) -> Response {
    pages::asset_response(&name).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

/// Parses the JSON body of a request from one of our own pages.
fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, PageError> {
    json::read(body).map_err(|_| invalid_json())
}

/// The error for a body that our pages never send.
fn invalid_json() -> PageError {
    PageError::new(StatusCode::BAD_REQUEST, "invalid_request", "This page is out of date. Reload it.")
}

/// webauthn-rs could not make a challenge: a bug, or no randomness.
#[allow(clippy::needless_pass_by_value, reason = "it goes to map_err, which hands the error over")]
fn webauthn_fault(error: WebauthnError) -> Fault {
    Fault::Storage(format!("webauthn: {error:?}"))
}
