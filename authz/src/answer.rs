//! How an authorization response reaches a client (RFC 6749 §4.1.2, RFC 9207): by redirect, either at once or,
//! if the redirect URI was not verified, after the person confirms.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use shared::audit::{Event, Name};
use shared::{ClientId, Fault, RedirectUri, Secret};

use crate::Authz;
use crate::error::Code;
use crate::pages::{Continue, Onward};
use crate::rate::refund::earned;
use crate::store::clients::{Client, Source, Trust};
use crate::store::transactions::Transaction;

/// An error for a client: a code and a fixed text (AUTHZ-19).
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub code: Code,
    pub description: Cow<'static, str>,
}

impl Refused {
    pub(crate) fn new(code: Code, description: impl Into<Cow<'static, str>>) -> Self {
        Self { code, description: description.into() }
    }

    /// The error that a client gets for a server fault (AUTHZ-18).
    pub(crate) fn fault(fault: &Fault) -> Self {
        match fault {
            Fault::Busy | Fault::Storage(_) => {
                Self::new(Code::TemporarilyUnavailable, "the server is temporarily unavailable; try again")
            }
            Fault::Corrupt(_) => Self::new(Code::ServerError, "the server found invalid stored data"),
        }
    }
}

/// The kind of request that is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    Get,
    Post,
    /// A form of one of our own pages.
    Form,
}

/// Where an authorization response goes, once the redirect URI has been validated. This is the stored URI
/// (REDIR-07).
#[derive(Clone, Debug)]
pub(crate) struct Return {
    pub client_id: ClientId,
    client_name: String,
    /// An administrator verified the client, or saw its redirect URIs and accepted them.
    vouched_for: bool,
    pub redirect_uri: RedirectUri,
    pub state: Option<String>,
}

impl Return {
    pub(crate) fn new(client: &Client, redirect_uri: &RedirectUri, state: Option<&str>) -> Self {
        Self {
            client_id: client.id.clone(),
            client_name: client.name.clone(),
            vouched_for: client.trust == Trust::Verified || client.source == Source::Imported,
            redirect_uri: redirect_uri.clone(),
            state: state.map(str::to_owned),
        }
    }

    /// For a request whose client has been deleted. It counts as unverified.
    pub(crate) fn to_whom_it_was_promised(transaction: &Transaction) -> Self {
        Self {
            client_id: transaction.client_id.clone(),
            client_name: "the application".to_owned(),
            vouched_for: false,
            redirect_uri: transaction.redirect_uri.clone(),
            state: transaction.state.clone(),
        }
    }

    /// The response for an approval.
    pub(crate) fn approved(&self, authz: &Authz, via: Via, code: &Secret) -> Response {
        earned(self.send(authz, via, self.location(authz, &[("code", code.expose())])))
    }

    /// The response for every refusal. It is redirected at once if only the user's own computer can receive it
    /// or if an administrator verified the receiver. Otherwise this server would be an open redirector, so the
    /// person is asked first (AUTHZ-12).
    pub(crate) fn refused(&self, authz: &Authz, via: Via, refused: &Refused) -> Response {
        let answer = [("error", refused.code.as_str()), ("error_description", &*refused.description)];
        let location = self.location(authz, &answer);
        if self.vouched_for || self.redirect_uri.target().is_local() {
            return self.send(authz, via, location);
        }
        let page = Continue {
            host: self.redirect_uri.host_for_people(),
            uri: location,
            error: refused.code.as_str().to_owned(),
            description: refused.description.clone().into_owned(),
        };
        authz.page(StatusCode::BAD_REQUEST, &page)
    }

    /// The audit record of this refusal.
    pub(crate) fn event(&self, refused: &Refused) -> Event {
        Event::denied(Name::AuthzError, refused.code.as_str())
            .client(&self.client_id)
            .detail("description", &*refused.description)
            .detail("redirect_host", self.redirect_uri.host_for_people())
    }

    /// The redirect URI with the response parameters: `state` if the request had one, and always `iss`
    /// (AUTHZ-08).
    /// REDIR-07: the redirect URI of this request's transaction, with the answer.
    fn location(&self, authz: &Authz, answer: &[(&str, &str)]) -> String {
        let mut parameters = answer.to_vec();
        if let Some(state) = &self.state {
            parameters.push(("state", state));
        }
        parameters.push(("iss", authz.issuer.as_str()));
        self.redirect_uri.with_parameters(&parameters)
    }

    fn send(&self, authz: &Authz, via: Via, location: String) -> Response {
        let mut response = if via == Via::Form && authz.config.consent.interstitial {
            // Chromium applies `form-action` to the whole chain of redirects that a form starts. This page
            // starts a new chain (CONSENT-10).
            authz.page(StatusCode::OK, &Onward { client_name: self.client_name.clone(), uri: location })
        } else {
            // 307 and 308 would make the browser repeat the POST at the client (AUTHZ-10).
            let status = if via == Via::Get { StatusCode::FOUND } else { StatusCode::SEE_OTHER };
            let Ok(location) = HeaderValue::try_from(location) else {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            };
            let mut response = (status, [(header::LOCATION, location)]).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            response
        };
        if authz.issuer.is_loopback() {
            // The client's callback may be on the same host, and cookies ignore ports (SESSION-01).
            response.headers_mut().append(header::SET_COOKIE, authz.cookies.expire_session());
        }
        response
    }
}
