//! Commands about the machine's clock.

use authz::Authz;
use authz::timekeeping;
use keys::NewKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{Db, Fault};

use super::Answer;

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

async fn confirm(authz: &Authz, db: &Db, uid: u32) -> Result<Answer, Fault> {
    let made: Vec<NewKey> = super::blocking(authz, timekeeping::prepare).await??;
    let authz = authz.clone();
    let confirmed = db.write(move |tx| timekeeping::confirm(&authz, tx, uid, &made)).await?;
    Ok(match confirmed {
        Ok(confirmed) => Answer::Ok(json!({ "confirmed": confirmed })),
        Err(refusal) => Answer::error("refused", &refusal.to_string()),
    })
}
