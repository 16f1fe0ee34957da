//! The MCP resource server: its metadata (RFC 9728), bearer tokens, and the gate in front of the sources.

#![cfg_attr(test, allow(clippy::duplicate_mod, reason = "the gate's tests run at /mcp and at a profile"))]

mod admission;
mod argument_rules;
pub mod bearer;
mod call_limits;
pub mod catalogue;
mod gate;
mod item;
mod members;
mod metadata;
mod policy;
mod profile;
mod progress;
mod registry;
pub mod remote;
pub mod replay;
mod revision;
mod rules;
mod settings;
pub mod sources;
mod store;
#[cfg(test)]
mod testing;
pub mod timekeeping;
mod uri;

use std::sync::Arc;

use axum::response::Response;
use axum::routing::any;
use http::header::VARY;
use http::{HeaderMap, HeaderName, HeaderValue};
use keys::Verifier;
use shared::rate::{self, Tally};
use shared::route::{Cors, Host, Limit, Routes, program};
use shared::{Clock, Db, TokenStatus};
use tokio_util::sync::CancellationToken;

use admission::Admission;
pub use admission::{Calls, RunningCall};
use bearer::Bearer;
use catalogue::{BuiltIn, Rules};
use gate::Front;
use gate::denials::Denials;
use gate::limits::Limits;
use gate::session::Sessions;
use gate::stream::Streams;
use metadata::{MCP_WELL_KNOWN, OTHER_WELL_KNOWN, PROFILE_WELL_KNOWN, WELL_KNOWN};
use profile::{MCP_PATH, PROFILE_PATH};
use registry::{Registry, Site};
use remote::Remote;
pub use settings::Settings;
use sources::docs::Docs;
use sources::{Keepers, Servers, Source, Sources, Upstreams};

/// What a resource server is made of.
pub struct Config {
    /// The endpoints, scopes and items, and the issuer.
    pub catalogue: BuiltIn,
    /// The main database, with the audit log and the tokens' use.
    pub db: Db,
    pub clock: Clock,
    pub authority: Authority,
    pub docs: Arc<Docs>,
    /// Servers behind the gate.
    pub upstreams: Upstreams,
    pub settings: Settings,
    /// The rate limits for principals, and for addresses that send invalid tokens (RATE-01).
    pub limits: rate::Limits,
    /// Counts refusals by rate limits.
    pub tally: Arc<Tally>,
}

/// Where the token status comes from.
pub enum Authority {
    /// The authorization server in this process.
    Here { verifier: Verifier, status: Arc<dyn TokenStatus> },
    /// One elsewhere.
    Elsewhere(Arc<Remote>),
}

/// The resource server's state. Cheap to clone.
#[derive(Clone)]
pub struct Resource(Arc<Inner>);

struct Inner {
    bearer: Arc<Bearer>,
    registry: Arc<Registry>,
    admission: Admission,
    db: Db,
    clock: Clock,
    denials: Denials,
    sessions: Sessions,
    streams: Streams,
    front: Front,
    limits: Limits,
    docs: Arc<Docs>,
    upstreams: Upstreams,
}

impl Resource {
    /// Builds a resource server.
    pub fn new(config: Config) -> Self {
        let built_in = [Source::Account, Source::Docs(Arc::clone(&config.docs))];
        let sources = Sources::new(built_in);
        let sources = sources.with_servers(config.upstreams.sources());
        Self::with(config, sources)
    }

    /// The same with these sources behind the gate.
    pub(crate) fn with(config: Config, sources: Sources) -> Self {
        let Config { catalogue, db, clock, authority, docs, upstreams, settings, limits, tally } = config;
        let registry = Arc::clone(catalogue.registry());
        let Site { own, issuer } = registry.site().clone();
        let bearer = Arc::new(match authority {
            Authority::Here { verifier, status } => Bearer::new(issuer, verifier, status),
            Authority::Elsewhere(remote) => Bearer::of_remote(issuer, remote),
        });
        registry.run_by(Arc::new(sources));
        Self(Arc::new(Inner {
            admission: Admission::new(
                db.clone(),
                clock.clone(),
                Arc::clone(&bearer),
                Arc::clone(&registry),
                upstreams.memory(),
            ),
            registry,
            sessions: Sessions::new(db.clone(), clock.clone(), Arc::clone(bearer.status())),
            bearer,
            denials: Denials::new(db.clone(), clock.clone()),
            streams: Streams::default(),
            front: Front::new(own, settings.allowed_origins),
            limits: Limits::new(&limits, &clock, &tally),
            docs,
            upstreams,
            db,
            clock,
        }))
    }

    /// Every route of this crate, with its declarations.
    pub fn routes(&self) -> Routes {
        let reads = Limit::Free("it only reads");
        let endpoint = |handler| {
            let gate = program(handler, Limit::Mcp).cors(Cors::ByHandler);
            gate.host(Host::ByHandler).body(gate::LARGEST)
        };
        let elsewhere =
            program(any(metadata::none_such), Limit::Free("there is nothing")).cors(Cors::Documents);
        Routes::guarded(|_, handler| handler.layer(axum::middleware::map_response(harden)))
            .route(MCP_PATH, endpoint(any(gate::main)))
            .route(PROFILE_PATH, endpoint(any(gate::profile)))
            .route(MCP_WELL_KNOWN, program(any(metadata::of_main), reads).cors(Cors::Documents))
            .route(PROFILE_WELL_KNOWN, program(any(metadata::of_profile), reads).cors(Cors::Documents))
            .route(WELL_KNOWN, program(any(metadata::of_the_only_one), reads).cors(Cors::Documents))
            .route(OTHER_WELL_KNOWN, elsewhere)
            .with_state(self.clone())
    }

    /// Records counts of refused tokens (AUDIT-06), and deletes ended sessions and old counts. Call it regularly, and before
    /// the server stops; running calls are waited for then.
    pub async fn flush(&self) {
        if self.0.streams.is_ending() {
            self.0.admission.settle().await;
        }
        self.0.sessions.sweep().await;
        self.0.admission.sweep().await;
        // The error was logged, and no caller waits for it.
        let _ = self.0.denials.flush().await;
    }

    /// Keeps the lists of the servers behind the gate current until `stop`, each independently (SRC-02).
    pub async fn keep_sources(&self, stop: CancellationToken) {
        let upstreams = &self.0.upstreams;
        let (mut changed, mut keepers) = (upstreams.changed(), Keepers::default());
        let mut documents = self.0.docs.generation();
        while !stop.is_cancelled() {
            keepers.follow(upstreams, &stop);
            tokio::select! {
                () = stop.cancelled() => {}
                Ok(()) = changed.changed() => self.0.registry.refresh(),
                Ok(()) = documents.changed() => self.0.registry.refresh(),
            }
        }
        keepers.end().await;
    }

    /// Puts these rules and servers in the place of the present ones, and does `together` in the same moment (POL-04).
    pub fn replace_all(&self, rules: Arc<Rules>, servers: Servers, together: impl FnOnce()) {
        let sources = self.0.registry.snapshot();
        let sources = sources.sources().with_servers(servers.sources());
        self.0.registry.replace_all(rules, Some(Arc::new(sources)), together);
        self.0.upstreams.replace(servers);
    }

    /// The servers behind the gate.
    pub fn upstreams(&self) -> &Upstreams {
        &self.0.upstreams
    }

    /// The calls that run, to be shown and stopped (LIMIT-04).
    pub fn calls(&self) -> Calls {
        self.0.admission.calls()
    }

    /// Lets an allowed page read a refusal that was made before the gate (HTTP-06).
    pub fn share(&self, asked: &HeaderMap, response: &mut Response) {
        if !response.headers().contains_key(VARY) {
            Front::share(response, self.0.front.check_origin(asked).ok().flatten().cloned());
        }
    }

    /// Ends all open streams, and later ones at once. Call it when the server begins to stop, because streams
    /// do not end by themselves.
    pub fn end_streams(&self) {
        self.0.streams.end();
    }

    /// Replaces the rate limits (RATE-01, POL-04).
    pub fn limit(&self, limits: &rate::Limits) {
        self.0.limits.set(limits);
    }

    /// The check of bearer tokens, for benchmarks.
    pub fn bearer(&self) -> &Bearer {
        &self.0.bearer
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub(crate) fn db(&self) -> &Db {
        &self.0.db
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn denials(&self) -> &Denials {
        &self.0.denials
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.0.streams
    }

    /// The rate limits.
    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn front(&self) -> &Front {
        &self.0.front
    }
}

/// Adds the headers of every response (HTTP-04), unless its handler set others.
async fn harden(mut response: Response) -> Response {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        let name = HeaderName::from_static(name);
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
