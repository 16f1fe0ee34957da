//! Whose a setup or enrolment link is, told when its page opens. The link's secret is in the fragment, so the page's
//! script sends it. Looking spends nothing and starts nothing (ENROL-02).

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use shared::{Request, Secret};

use super::{is_live_setup, may_enrol};
use crate::Authz;
use crate::error::{self, PageError};
use crate::login::recorded;
use crate::session::{self, Browser};

#[derive(Deserialize)]
struct LookRequest {
    token: String,
}

/// Whom the link is for.
#[derive(Serialize)]
struct LinkOwner {
    /// `None` for the first administrator, who chooses a name.
    name: Option<String>,
}

/// `POST /setup/look`.
pub(crate) async fn setup(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    let looked = || {
        session::require_json_from_us(&authz.issuer, &headers)?;
        let look: LookRequest = crate::read_json(&body)?;
        let link = Secret::presented(look.token).digest();
        authz.db.read(|conn| is_live_setup(&authz, conn, &link))??;
        Ok(answer(LinkOwner { name: None }))
    };
    recorded(&authz, &request, looked()).await
}

/// `POST /enrol/look`.
pub(crate) async fn enrolment(
    State(authz): State<Authz>,
    axum::Extension(request): axum::Extension<Request>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, PageError> {
    let looked = || {
        session::require_json_from_us(&authz.issuer, &headers)?;
        let look: LookRequest = crate::read_json(&body)?;
        let browser = Browser::from_headers(&authz.cookies, &headers);
        let link = Secret::presented(look.token).digest();
        let (user, _) = authz.db.read(|conn| may_enrol(&authz, conn, &browser, &link))??;
        Ok(answer(LinkOwner { name: Some(user.name) }))
    };
    recorded(&authz, &request, looked()).await
}

fn answer(whose: LinkOwner) -> Response {
    let mut response = Json(whose).into_response();
    error::no_store(&mut response);
    response
}
