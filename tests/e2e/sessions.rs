//! How a session began is stored with it, and later checks use that (SESSION-10).

use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::account::is_signed_in;
use crate::harness::{Browser, TestApp, authorize_url};

fn database(app: &TestApp) -> Connection {
    Connection::open(app.data_dir().join("portcullis.db")).unwrap()
}

/// A stored session.
#[derive(PartialEq, Eq, Debug)]
struct Record {
    credential: Vec<u8>,
    amr: String,
    user_verified: bool,
    backed_up: bool,
    auth_time: i64,
}

/// A user's newest session.
fn record(app: &TestApp, user: &str) -> Record {
    let query = "SELECT credential, amr, user_verified, backed_up, auth_time FROM session
                 JOIN user ON user.id = user_id WHERE name = ?1 ORDER BY auth_time DESC, session.rowid DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Record {
            credential: row.get(0)?,
            amr: row.get(1)?,
            user_verified: row.get(2)?,
            backed_up: row.get(3)?,
            auth_time: row.get(4)?,
        })
    };
    database(app).query_row(query, [user], read).unwrap()
}

/// SESSION-10, WEBAUTHN-13: a session stores its passkey, method, time, user verification and backup state;
/// enrolment and sign-in store the same; and a token has the session's values.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_remembers_how_it_was_begun() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let enrolled = record(&app, "ada");
    assert_eq!(ada.passkey_digest(), shared::Digest::of(&enrolled.credential).hex());
    assert_eq!((enrolled.amr.as_str(), enrolled.auth_time), ("hwk user", app.clock.now().0));
    assert_eq!((enrolled.user_verified, enrolled.backed_up), (true, false));

    app.clock.advance(Duration::from_mins(5));
    assert_eq!(ada.sign_in(&app, None).await.status(), 200);
    let signed_in = record(&app, "ada");
    assert_eq!(signed_in, Record { auth_time: app.clock.now().0, ..enrolled });
    let created: Vec<_> = app.audit().into_iter().filter(|r| r["event"] == "session.created").collect();
    assert!(created.iter().all(|record| record["detail"]["amr"] == "hwk user") && created.len() == 2);

    // A token made much later has the time and method of the authentication, not of its issue.
    app.clock.advance(Duration::from_mins(30));
    let client = app.client().await;
    let claims = app.tokens(&mut ada, &client).await.claims();
    assert_eq!(claims["auth_time"], signed_in.auth_time / 1000);
    assert_eq!((&claims["amr"], &claims["acr"]), (&json!(["hwk", "user"]), &json!("aal2")));
}

/// SESSION-10: later checks use that record: a session without user verification never counts, `max_age` uses
/// the time of authentication and not of the last use, and a token has the stored method.
#[tokio::test(flavor = "multi_thread")]
async fn later_checks_read_the_record() {
    let app = TestApp::start_https("").await;
    let mut ada = app.admin().await;
    let client = app.client().await;
    let set = |what: &str| {
        assert_eq!(database(&app).execute(&format!("UPDATE session SET {what}"), []).unwrap(), 1);
    };
    assert!(is_signed_in(&app, &mut ada).await);
    set("user_verified = 0");
    assert!(!is_signed_in(&app, &mut ada).await);
    let account = ada.get(&app, &app.url("/account")).await.text().await.unwrap();
    assert!(account.contains("passkey-login") && !account.contains("Your passkeys"), "{account}");
    let asked = async |ada: &mut Browser, max_age: &str| {
        let mut parameters = client.request(&app);
        parameters.insert("max_age", max_age.to_owned());
        let page = ada.get(&app, &authorize_url(&app, &parameters)).await.text().await.unwrap();
        page.contains("passkey-login")
    };
    assert!(asked(&mut ada, "3600").await, "signs in again");
    set("user_verified = 1");
    assert!(is_signed_in(&app, &mut ada).await);
    assert!(!asked(&mut ada, "3600").await);

    // Used just now, authenticated 50 minutes ago.
    app.clock.advance(Duration::from_mins(50));
    assert!(is_signed_in(&app, &mut ada).await);
    assert!(asked(&mut ada, "2999").await && !asked(&mut ada, "3000").await);

    set("amr = 'swk user'");
    let claims = app.tokens(&mut ada, &client).await.claims();
    assert_eq!(claims["amr"], json!(["swk", "user"]));
}
