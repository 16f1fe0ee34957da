//! How an answer reaches a client (RFC 6749 §4.1.2, RFC 9207): by redirect, at once or, where nobody vouches for
//! the place, when the person says so.

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

/// An error on its way to a client: a code, and a fixed text (AUTHZ-19).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub code: Code,
    pub description: &'static str,
}

impl Refused {
    pub(crate) fn new(code: Code, description: &'static str) -> Self {
        Self { code, description }
    }

    /// What a client is told of a fault of ours (AUTHZ-18).
    pub(crate) fn fault(fault: &Fault) -> Self {
        match fault {
            Fault::Busy | Fault::Storage(_) => {
                Self::new(Code::TemporarilyUnavailable, "the server is temporarily unavailable; try again")
            }
            Fault::Corrupt(_) => Self::new(Code::ServerError, "the server found invalid stored data"),
        }
    }
}

/// What an answer answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    Get,
    Post,
    /// A form of one of our own pages.
    Form,
}

/// Where an answer goes, once the redirect URI is trusted. It is the stored, validated one (REDIR-07).
#[derive(Clone, Debug)]
pub(crate) struct Return {
    pub client_id: ClientId,
    client_name: String,
    /// An administrator vouches for the client, or was shown where its answers go and took it.
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

    /// For a request whose client is known no more: nobody vouches for it.
    pub(crate) fn to_whom_it_was_promised(transaction: &Transaction) -> Self {
        Self {
            client_id: transaction.client_id.clone(),
            client_name: "the application".to_owned(),
            vouched_for: false,
            redirect_uri: transaction.redirect_uri.clone(),
            state: transaction.state.clone(),
        }
    }

    /// The answer to an approval.
    pub(crate) fn approved(&self, authz: &Authz, via: Via, code: &Secret) -> Response {
        earned(self.send(authz, via, self.location(authz, &[("code", code.expose())])))
    }

    /// The answer to everything else. It goes at once where only the user's own computer can receive it, or where
    /// an administrator vouches for the receiver. Anywhere else a redirect would let strangers use this server to
    /// send people places, so the person is asked first (AUTHZ-12).
    pub(crate) fn refused(&self, authz: &Authz, via: Via, refused: Refused) -> Response {
        let answer = [("error", refused.code.as_str()), ("error_description", refused.description)];
        let location = self.location(authz, &answer);
        if self.vouched_for || self.redirect_uri.target().is_local() {
            return self.send(authz, via, location);
        }
        let page = Continue {
            host: self.redirect_uri.host_for_people(),
            uri: location,
            error: refused.code.as_str().to_owned(),
            description: refused.description.to_owned(),
        };
        authz.page(StatusCode::BAD_REQUEST, &page)
    }

    /// The record of a refusal that is answered here.
    pub(crate) fn event(&self, refused: Refused) -> Event {
        Event::denied(Name::AuthzError, refused.code.as_str())
            .client(&self.client_id)
            .detail("description", refused.description)
            .detail("redirect_host", self.redirect_uri.host_for_people())
    }

    /// The redirect URI with the answer: `state` if one was sent, and `iss` always (AUTHZ-08).
    fn location(&self, authz: &Authz, answer: &[(&str, &str)]) -> String {
        let mut parameters = answer.to_vec();
        if let Some(state) = &self.state {
            parameters.push(("state", state));
        }
        parameters.push(("iss", authz.issuer.as_str()));
        self.redirect_uri.with_parameters(&parameters)
    }

    fn send(&self, authz: &Authz, via: Via, location: String) -> Response {
        let mut response = if via == Via::Form && authz.config.consent_interstitial {
            // Chromium holds `form-action` against the whole chain of redirects that a form starts, and this page
            // starts a chain of its own (CONSENT-10).
            authz.page(StatusCode::OK, &Onward { client_name: self.client_name.clone(), uri: location })
        } else {
            // 307 and 308 would repeat the POST at the client (AUTHZ-10).
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
            // The client's callback may be on this host too, and cookies ignore ports (SESSION-01).
            response.headers_mut().append(header::SET_COOKIE, authz.cookies.expire_session());
        }
        response
    }
}
