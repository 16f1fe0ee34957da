//! All routes of a server, with one or both halves.

use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::StatusCode;
use shared::route::{Cors, Host, Limit, Routes, program};

use crate::readiness::Readiness;

/// The routes of the existing halves, and the probes.
pub(crate) fn all(authz: Option<Routes>, resource: Option<Routes>, readiness: Readiness) -> Routes {
    let probe = |handler| program(handler, Limit::Free("a probe")).host(Host::Any);
    let nothing = || program(any(async || StatusCode::NOT_FOUND), Limit::Free("there is nothing"));
    let ready = get(move || readiness.clone().answer());
    let own = Routes::default()
        .route("/healthz", probe(get(healthz)))
        .route("/readyz", probe(ready))
        // Clients in browsers look for documents in many places, and must be able to read that they are
        // missing.
        .route("/.well-known/", nothing().cors(Cors::Documents))
        .route("/.well-known/{*document}", nothing().cors(Cors::Documents))
        .route("/mcp/.well-known/{*document}", nothing().cors(Cors::Documents))
        .route("/mcp/.well-known/", nothing().cors(Cors::Documents))
        .route("/mcp/{profile}/{*path}", nothing())
        .when(resource.is_none(), |routes| routes.route("/mcp/{profile}", nothing()));
    authz.into_iter().chain(resource).fold(own, Routes::merge)
}

/// `GET /healthz`: the process is alive (OPS-05).
pub(crate) async fn healthz() -> Response {
    "ok\n".into_response()
}
