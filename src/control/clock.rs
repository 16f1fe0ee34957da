//! Commands about the machine's clock.

use authz::Authz;
use authz::timekeeping;
use keys::NewKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::timekeeping::Time;
use shared::{Db, Fault, Tx};

use super::{Answer, Gateway};

/// What is done about the clock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Request {
    Show,
    Confirm,
}

/// Has it done.
pub(super) async fn perform(authz: &Authz, db: &Db, uid: u32, request: Request) -> Result<Answer, Fault> {
    match request {
        Request::Show => Ok(Answer::Ok(json!({ "time": timekeeping::show(authz) }))),
        Request::Confirm => confirm(authz, db, uid).await,
    }
}

/// Has it done at a gateway alone.
pub(super) async fn perform_at_gateway(
    gateway: &Gateway,
    uid: u32,
    request: Request,
) -> Result<Answer, Fault> {
    let clock = gateway.clock.clone();
    match request {
        Request::Show => Ok(Answer::Ok(json!({ "time": Time::of(&clock), "gateway": true }))),
        Request::Confirm => {
            let job = move |tx: &Tx<'_>| resource::timekeeping::confirm(tx, &clock, uid);
            Ok(match gateway.db.write(job).await? {
                Ok(confirmed) => Answer::Ok(json!({ "confirmed": confirmed })),
                Err(refusal) => Answer::error("refused", &refusal.to_string()),
            })
        }
    }
}

async fn confirm(authz: &Authz, db: &Db, uid: u32) -> Result<Answer, Fault> {
    let made: Vec<NewKey> = super::blocking(authz, timekeeping::prepare).await??;
    let authz = authz.clone();
    let confirmed = db.write(move |tx| timekeeping::confirm(&authz, tx, uid, &made)).await?;
    Ok(match confirmed {
        Ok(confirmed) => Answer::Ok(json!({ "confirmed": confirmed })),
        Err(refusal) => Answer::error("refused", &refusal.to_string()),
    })
}
