//! Each request is checked, and then waits for the database writer. Here a kill is written first, after the check. The
//! request must then write nothing and issue nothing (SESSION-05).

mod case;
mod kill;
mod scene;

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};

use futures_util::FutureExt;
use reqwest::Method;
use shared::db::Conn;
use shared::{Db, Fault, Tx};

use crate::harness::TestApp;
use crate::routes::{endpoints, path};
use case::Case;
use kill::Kill;
use scene::{Prepared, Scene};

/// Requests other than GET without a case, and why. A GET request without a case is sent, and must write nothing.
const NO_CASE: [(&str, &str, &str); 4] = [
    ("POST", "/sign-out", "it only ends something"),
    ("POST", "/setup/look", "it only reads"),
    ("POST", "/enrol/look", "it only reads"),
    ("POST", "/mcp/{profile}", "its requests go the same way as those to /mcp"),
];

/// Every request that a kill can overtake, in groups that run in parallel.
const WALKS: [&[Case]; 6] = [
    &[Case::Code, Case::Refresh, Case::DeviceToken, Case::ClientCredentials, Case::Revoke],
    &[
        Case::Authorize,
        Case::AuthorizeForm,
        Case::ConsentPage,
        Case::Remembered,
        Case::Consent,
        Case::ConfirmedConsent,
    ],
    &[Case::Confirm, Case::SignInStart, Case::SignIn, Case::SignInForClient, Case::ClientRequest],
    &[Case::SetupStart, Case::Setup, Case::EnrolStart, Case::Enrol, Case::Home, Case::Account],
    &[Case::ChangeStart, Case::Change, Case::PasskeyStart, Case::PasskeyConfirm, Case::PasskeyFinish],
    &[
        Case::DeviceAuthorization,
        Case::DeviceCode,
        Case::DeviceDecision,
        Case::Register,
        Case::ClientUpdate,
        Case::ClientRemoval,
        Case::Initialize,
        Case::Introspect,
    ],
];

/// Parameters that pages know.
const QUERY: &str = "transaction=t_x&user_code=BCDF-GHJK&client_id=c_x&done=x&token=x";

/// The writer, busy until it is let go.
struct BusyWriter(Sender<()>);

/// Has the writer begin a job that ends when it is let go. Everything before it is committed then.
fn hold(db: &Db) -> BusyWriter {
    let (release, released) = channel::<()>();
    queue(db, move |_| {
        let _ = released.recv();
        Ok(())
    });
    while db.queued() > 0 {
        std::thread::yield_now();
    }
    BusyWriter(release)
}

impl BusyWriter {
    fn release(self) {
        drop(self.0);
    }
}

/// Queues a job without waiting for it.
fn queue(db: &Db, job: impl FnOnce(&Tx<'_>) -> Result<(), Fault> + Send + 'static) {
    assert!(db.write(job).now_or_never().is_none(), "the queue is not full");
}

/// How a request ended.
#[derive(Debug)]
enum End {
    /// It was answered before it came to its job of this number.
    NoSuchJob,
    Answered {
        went_well: bool,
        told: String,
        /// Rows that are new since the kill.
        written: Vec<String>,
    },
}

/// Sends a request, and has it overtaken by a kill just before its job of this number.
async fn overtake(scene: &Scene, prepared: Prepared, kill: Option<Kill>, before_job: usize) -> End {
    let Prepared { request, whose, good } = prepared;
    let db = &scene.writer.db;
    let (authz, whose) = (scene.writer.authz.clone(), whose);
    let (tell, told) = channel();
    let strike = move || {
        let killed = tell.clone();
        queue(db, move |tx| {
            let _ = killed.send(match kill {
                Some(kill) => kill.strike(&authz, tx, &whose)?,
                None => Ok(()),
            });
            Ok(())
        });
        let (tell, seen) = channel();
        queue(db, move |tx| {
            let _ = tell.send(rows(tx)?);
            Ok(())
        });
        seen
    };
    let mut held = hold(db);
    let mut strike = Some(strike);
    let mut seen = (before_job == 1).then(|| strike.take().unwrap()());
    let asking = tokio::spawn(request.send());
    let mut waiting = 2 * usize::from(before_job == 1) + 1;
    for job in 1..before_job {
        if !is_queued(db, waiting, &asking).await {
            held.release();
            assert!(asking.await.unwrap().is_ok());
            return End::NoSuchJob;
        }
        // Nothing of the server runs between these lines, because it shares this thread.
        held.release();
        while db.queued() > 0 {
            std::thread::yield_now();
        }
        held = hold(db);
        if job + 1 == before_job {
            seen = Some(strike.take().unwrap()());
            waiting += 2;
        }
    }
    let comes = is_queued(db, waiting, &asking).await;
    held.release();
    let seen = seen.expect("the kill is queued").recv().unwrap();
    let response = asking.await.unwrap().unwrap();
    if !comes {
        return End::NoSuchJob;
    }
    told.recv().unwrap().unwrap_or_else(|refused| panic!("{kill:?} was refused: {refused}"));
    let (status, location) = (response.status(), response.headers().get("location").cloned());
    let location = location.map(|location| location.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = response.text().await.unwrap();
    let went_well = status.as_u16() < 400
        && !location.contains("error=")
        && good.is_none_or(|text| format!("{location} {body}").contains(text));
    let written = db.read(rows).unwrap().difference(&seen).cloned().collect();
    End::Answered { went_well, told: format!("{status} {location} {body:.300}"), written }
}

/// Waits until this many jobs wait for the writer; false if the request is answered before.
async fn is_queued<T>(db: &Db, jobs: usize, asking: &tokio::task::JoinHandle<T>) -> bool {
    while db.queued() < jobs {
        if asking.is_finished() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

/// All rows of the database; of the audit log, only records of allowed actions.
fn rows(conn: &Conn<'_>) -> Result<BTreeSet<String>, Fault> {
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
                  AND name NOT IN ('audit', 'share', 'room_made')";
    let tables: Vec<String> = conn.query(tables, [], |row| row.get(0))?;
    let mut found = BTreeSet::new();
    for table in tables {
        let columns = format!("SELECT name FROM pragma_table_info('{table}')");
        let mut columns: Vec<String> = conn.query(&columns, [], |row| row.get::<String>(0))?;
        if table == "access_grant" {
            // The use of a token is recorded regardless of the kill.
            columns.retain(|column| !matches!(column.as_str(), "seen_generation" | "last_used_at"));
        }
        let values: Vec<_> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
        let all = format!("SELECT '{table} ' || {} FROM \"{table}\"", values.join(" || ' ' || "));
        found.extend(conn.query(&all, [], |row| row.get::<String>(0))?);
    }
    let allowed = "SELECT 'audit ' || record FROM audit WHERE json_extract(record, '$.outcome') = 'allowed'";
    found.extend(conn.query(allowed, [], |row| row.get::<String>(0))?);
    Ok(found)
}

/// Runs each of these requests with each kill, before each of its jobs.
async fn walk(cases: &[Case]) {
    let mut wrong = Vec::new();
    for &case in cases {
        let mut scene = Scene::set(case).await;
        for kill in std::iter::once(None).chain(Kill::ALL.map(Some)) {
            for before_job in 1.. {
                let Some(prepared) = scene.prepare(case, kill).await else { break };
                let end = overtake(&scene, prepared, kill, before_job).await;
                let End::Answered { went_well, told, written } = end else {
                    assert!(before_job > 1, "{case:?} writes nothing");
                    break;
                };
                let refusals = |row: &String| {
                    let is_in = |left: &&str| {
                        row.starts_with(&format!("{left} ")) || row.contains(&format!("\"event\":\"{left}\""))
                    };
                    !went_well && case.leaves().iter().any(is_in)
                };
                let written: Vec<_> = written.into_iter().filter(|row| !refusals(row)).collect();
                let what = format!("{case:?} {kill:?} before job {before_job}: {told} {written:?}");
                match kill {
                    None => assert!(went_well, "{what}"),
                    Some(kill) if !case.is_ended_by(kill) => {
                        if !went_well {
                            wrong.push(format!("refused for no reason: {what}"));
                        }
                    }
                    // Rows written by its earlier jobs stay. Nothing may follow.
                    Some(_) if !written.is_empty() => wrong.push(format!("written: {what}")),
                    Some(_) if went_well && before_job == 1 => wrong.push(format!("went well: {what}")),
                    Some(_) => {}
                }
                scene.go_on(kill);
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults\n{}", wrong.len(), wrong.join("\n"));
}

/// SESSION-05: every writing route of the server's own table has a case; pages without one write nothing, also for
/// a signed-in user.
#[tokio::test]
async fn every_route_that_writes_is_walked() {
    let (app, writer) = TestApp::start_with_writer(scene::CONFIGURATION).await;
    let mut ada = app.admin().await;
    let walked: BTreeSet<_> = WALKS.iter().copied().flatten().map(|case| case.route()).collect();
    let mut asked = BTreeSet::new();
    for (rule, method) in endpoints(&app).await {
        let excused = NO_CASE.iter().any(|(of, path, _)| (*of, *path) == (method.as_str(), rule.path));
        let has_case = walked.contains(&(method.as_str(), rule.path));
        assert!(asked.insert((method.to_string(), rule.path)));
        if method == Method::GET && !has_case {
            let before = writer.db.read(rows).unwrap();
            ada.get(&app, &app.url(&format!("{}?{QUERY}", path(&rule)))).await;
            let after = writer.db.read(rows).unwrap();
            let written: Vec<_> = after.difference(&before).collect();
            assert!(written.is_empty(), "{method} {} has no case and writes {written:?}", rule.path);
        } else {
            assert!(has_case || excused, "{method} {} has no case", rule.path);
        }
    }
    for (method, path, _) in NO_CASE {
        assert!(asked.contains(&(method.to_owned(), path)), "{method} {path} is no route");
    }
    for (method, path) in walked {
        assert!(asked.contains(&(method.to_owned(), path)), "{method} {path} is no route");
    }
}

/// SESSION-05, TOKEN-05, REVOKE-07, RS-08: requests for tokens.
#[tokio::test]
async fn no_token_is_issued_on_what_has_ended() {
    walk(WALKS[0]).await;
}

/// SESSION-05, AUTHZ-17, CONSENT-08: consents and approvals.
#[tokio::test]
async fn nothing_is_granted_to_what_has_ended() {
    walk(WALKS[1]).await;
}

/// SESSION-05, WEBAUTHN-06, CIMD-09: sign-ins and approval requests.
#[tokio::test]
async fn users_who_lost_access_cannot_finish_a_sign_in() {
    walk(WALKS[2]).await;
}

/// SESSION-05, ENROL-01, ENROL-03: setup and enrolment.
#[tokio::test]
async fn an_ended_link_makes_no_passkey() {
    walk(WALKS[3]).await;
}

/// SESSION-05, SESSION-06, WEBAUTHN-12: the account page.
#[tokio::test]
async fn a_session_that_has_ended_changes_no_account() {
    walk(WALKS[4]).await;
}

/// SESSION-05, DCR-01, DCR-09, DEV-01, MCP-12: registrations, devices and MCP sessions.
#[tokio::test]
async fn programs_start_nothing_for_ended_access() {
    walk(WALKS[5]).await;
}
