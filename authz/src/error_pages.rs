//! Error pages that belong to no endpoint: unknown and malformed addresses, faults, full tables.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use shared::{Fault, Request};

use crate::Authz;
use crate::pages::ErrorPage;

impl Authz {
    /// The page for an unknown address.
    pub fn not_found(&self, request: &Request) -> Response {
        let page = ErrorPage::new(
            "not_found",
            &request.id,
            "Page not found",
            "This address does not exist on this server.",
            "Start from the home page, or from your application.",
        )
        .linking_home();
        self.page(StatusCode::NOT_FOUND, &page)
    }

    /// The page for a malformed address.
    pub fn unreadable(&self, request: &Request) -> Response {
        let page = ErrorPage::new(
            "invalid_request",
            &request.id,
            "This address is invalid",
            "The server could not read the address.",
            "Start from the home page, or from your application.",
        )
        .linking_home();
        self.page(StatusCode::BAD_REQUEST, &page)
    }

    /// The page for a request that failed with an internal error (HTTP-10).
    pub fn broken(&self, request: &Request) -> Response {
        let page = ErrorPage::new(
            "server_error",
            &request.id,
            "Something went wrong",
            "The server made an error and could not complete your request.",
            "Try again. If it happens again, give your administrator the reference below.",
        );
        self.page(StatusCode::INTERNAL_SERVER_ERROR, &page)
    }

    /// The page for a sign-in that was refused because a table is full (RATE-06). The table's code counted it.
    pub(crate) fn full(&self, request: &Request) -> Response {
        let page = ErrorPage::new(
            "temporarily_unavailable",
            &request.id,
            "Too many unfinished sign-ins",
            "This server has reached its limit of unfinished sign-ins, so it did not start yours.",
            "Wait a few minutes, then start again. If this continues, tell your administrator.",
        );
        let mut response = self.page(StatusCode::SERVICE_UNAVAILABLE, &page);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        response
    }

    /// The page for a request that could not be served (AUTHZ-18).
    pub(crate) fn unavailable(&self, request: &Request, fault: &Fault) -> Response {
        tracing::error!(db.fault = %fault, request.id = %request.id, "a request could not be served");
        let page = ErrorPage::new(
            "temporarily_unavailable",
            &request.id,
            "Not available right now",
            "The server could not read or write its data. Nothing was changed.",
            "Try again in a few minutes. If this continues, tell your administrator.",
        );
        let mut response = self.page(StatusCode::SERVICE_UNAVAILABLE, &page);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }
}
