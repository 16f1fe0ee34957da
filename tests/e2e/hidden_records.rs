//! Floods meant to hide a record: any number of requests from strangers leaves other records visible
//! (AUDIT-06).

use futures_util::future::join_all;
use reqwest::{RequestBuilder, Response};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use shared::audit::{Name, QUOTA};

use crate::harness::{Browser, Client, TestApp, Tokens};

/// A way to cause a record, with its event and reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cause {
    event: Name,
    reason: &'static str,
    how: RequestShape,
}

/// The request that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RequestShape {
    TokenByNobody,
    TokenMalformed,
    RefreshTokenMadeUp,
    CodeMadeUp,
    RevokeMadeUp,
    IntrospectMalformed,
    IntrospectByNobody,
    RegisterBadly,
    LookWithAGuess,
    ChangeWithAGuess,
    DeleteWithAGuess,
    AuthorizeNothing,
    AuthorizeByNobody,
    DeviceByTheWrongClient,
    ConsentFromElsewhere,
    ConsentToNothing,
    DeviceDecisionFromElsewhere,
    LoginFromElsewhere,
    LoginToNothing,
    DeadLink,
    SignOutFromElsewhere,
    ApprovalFromElsewhere,
    ChangeFromElsewhere,
    SecretFromElsewhere,
    RemovalFromElsewhere,
    JunkBearer,
    // From here on the records are about a known user or thing.
    BadSignature,
    RevokedAccessToken,
    EndedRefreshToken,
    SomebodyElsesRefreshToken,
    RevokedAgain,
    WrongSecret,
}

const CAUSES: &[Cause] = &[
    cause(Name::ClientAuthFailed, "client_unknown", RequestShape::TokenByNobody),
    cause(Name::TokenRefused, "malformed", RequestShape::TokenMalformed),
    cause(Name::TokenRefused, "refresh_token_unknown", RequestShape::RefreshTokenMadeUp),
    cause(Name::TokenRefused, "code_unknown", RequestShape::CodeMadeUp),
    cause(Name::TokenRevoked, "unknown", RequestShape::RevokeMadeUp),
    cause(Name::IntrospectRefused, "malformed", RequestShape::IntrospectMalformed),
    cause(Name::ClientAuthFailed, "client_unknown", RequestShape::IntrospectByNobody),
    cause(Name::ClientRegistered, "invalid_redirect_uri", RequestShape::RegisterBadly),
    cause(Name::ClientRegistered, "invalid_token", RequestShape::LookWithAGuess),
    cause(Name::ClientUpdated, "invalid_token", RequestShape::ChangeWithAGuess),
    cause(Name::ClientDeleted, "invalid_token", RequestShape::DeleteWithAGuess),
    cause(Name::AuthzError, "client_id_missing", RequestShape::AuthorizeNothing),
    cause(Name::AuthzError, "client_unknown", RequestShape::AuthorizeByNobody),
    cause(Name::AuthzError, "device_grant_not_allowed", RequestShape::DeviceByTheWrongClient),
    cause(Name::AuthzDenied, "origin", RequestShape::ConsentFromElsewhere),
    cause(Name::AuthzDenied, "transaction_unknown", RequestShape::ConsentToNothing),
    cause(Name::AuthzDenied, "origin", RequestShape::DeviceDecisionFromElsewhere),
    cause(Name::WebauthnFailed, "wrong_origin", RequestShape::LoginFromElsewhere),
    cause(Name::WebauthnFailed, "cookies_required", RequestShape::LoginToNothing),
    cause(Name::WebauthnFailed, "cookies_required", RequestShape::DeadLink),
    cause(Name::SessionEnded, "not_from_our_page", RequestShape::SignOutFromElsewhere),
    cause(Name::CimdApprovalRequested, "not_from_our_page", RequestShape::ApprovalFromElsewhere),
    cause(Name::ConsentWithdrawn, "origin", RequestShape::ChangeFromElsewhere),
    cause(Name::SecretSet, "origin", RequestShape::SecretFromElsewhere),
    cause(Name::SecretRemoved, "origin", RequestShape::RemovalFromElsewhere),
    cause(Name::RsDenied, "not_a_jwt", RequestShape::JunkBearer),
    cause(Name::WebauthnFailed, "assertion", RequestShape::BadSignature),
    cause(Name::RsDenied, "revoked", RequestShape::RevokedAccessToken),
    cause(Name::TokenRefused, "grant_ended", RequestShape::EndedRefreshToken),
    cause(Name::TokenRefused, "refresh_token_unknown", RequestShape::SomebodyElsesRefreshToken),
    cause(Name::TokenRevoked, "ended_before", RequestShape::RevokedAgain),
    cause(Name::ClientAuthFailed, "client_secret_wrong", RequestShape::WrongSecret),
];

const fn cause(event: Name, reason: &'static str, how: RequestShape) -> Cause {
    Cause { event, reason, how }
}

/// Events whose records are never replaced by counts, because strangers' events are limited or counted
/// otherwise, or because only callers who proved something can cause them.
const NEVER_HELD_BACK: &[Name] = &[
    Name::ServerStart,
    Name::ServerStop,
    Name::ServerConfigChanged,
    Name::ConfigReloaded,
    Name::ConfigReloadRefused,
    Name::ClockStep,
    Name::AuthzRequest,
    Name::AuthzApproved,
    Name::ConsentGranted,
    Name::TokenIssued,
    Name::RefreshRotated,
    Name::RefreshGrace,
    Name::RefreshReuse,
    Name::CodeReplay,
    Name::PkceFailed,
    Name::IntrospectOk,
    Name::ClientExpired,
    Name::ClientVerified,
    Name::ClientDisabled,
    Name::CimdImported,
    Name::CimdFetched,
    Name::CimdRefused,
    Name::KeyPublished,
    Name::KeyActivated,
    Name::KeyRetired,
    Name::KeyRemoved,
    Name::SessionCreated,
    Name::StepUp,
    Name::WebauthnRegistered,
    Name::WebauthnAsserted,
    Name::WebauthnRemoved,
    Name::CounterRegression,
    Name::LinkIssued,
    Name::LinkUsed,
    Name::LinkExpired,
    Name::UserCreated,
    Name::UserDisabled,
    Name::UserEnabled,
    Name::UserDeleted,
    Name::UserRoleChanged,
    Name::McpCall,
    Name::McpResult,
    Name::McpDenied,
    Name::CallStopped,
    Name::RateLimited,
    Name::SourceAdded,
    Name::SourceChanged,
    Name::SourceRemoved,
    Name::SourceStale,
    Name::SourceRecovered,
    Name::SourceRestarted,
    Name::SourceCrashed,
    Name::SourceQuarantined,
    Name::AuditCheckpoint,
    Name::AuditExported,
    Name::BackupCreated,
    Name::BackupRestored,
];

/// AUDIT-06: every event is either flooded below or in that list.
#[test]
fn every_event_is_walked() {
    for name in Name::ALL {
        let walked = CAUSES.iter().any(|cause| cause.event == *name);
        assert!(walked != NEVER_HELD_BACK.contains(name), "{}", name.as_str());
    }
}

/// A server, a user with a passkey, and their revoked credentials.
struct Scene {
    app: TestApp,
    ada: Browser,
    client: Client,
    other: Client,
    confidential: String,
    dead: Option<Tokens>,
    live: Option<Tokens>,
    /// Reads the server's records.
    log: Connection,
}

/// The number of concurrent requests of a flood.
const AT_ONCE: usize = 16;

impl Scene {
    async fn new() -> Self {
        let app = TestApp::start_https("device = true\n[registration]\nmanagement = true").await;
        let (ada, client, other) = (app.admin().await, app.client().await, app.client().await);
        let made =
            app.console(&["client", "add", "Wiki", "--secret", "--redirect-uri", "https://wiki.example/cb"]);
        let confidential = made["client"]["id"].as_str().unwrap().to_owned();
        let log = Connection::open(app.data_dir().join("portcullis.db")).unwrap();
        let mut scene = Self { app, ada, client, other, confidential, dead: None, live: None, log };
        scene.renew().await;
        scene
    }

    /// Makes new tokens, one set of which is revoked.
    async fn renew(&mut self) {
        let dead = self.app.tokens(&mut self.ada, &self.client).await;
        self.app
            .http
            .post(self.app.url("/revoke"))
            .form(&self.revocation(&dead.refresh))
            .send()
            .await
            .unwrap();
        self.live = Some(self.app.tokens(&mut self.ada, &self.client).await);
        self.dead = Some(dead);
    }

    fn revocation<'a>(&'a self, token: &'a str) -> [(&'a str, &'a str); 2] {
        [("token", token), ("client_id", &self.client.id)]
    }

    /// Has it happen once.
    async fn cause(&mut self, how: RequestShape) {
        if how == RequestShape::BadSignature {
            return self.sign_badly().await;
        }
        self.send(how, None).await;
    }

    /// Repeats it until it gets no record of its own.
    async fn flood(&mut self, how: RequestShape) {
        if how == RequestShape::BadSignature {
            for _ in 0..QUOTA + 10 {
                self.sign_badly().await;
            }
            return;
        }
        self.flood_from(how, (0..QUOTA + 10).map(|_| None).collect()).await;
    }

    /// Has it happen once from each of these addresses, as a proxy names them.
    async fn flood_from(&self, how: RequestShape, addresses: Vec<Option<String>>) {
        for some in addresses.chunks(AT_ONCE) {
            join_all(some.iter().map(|from| self.send(how, from.as_deref()))).await;
        }
    }

    async fn send(&self, how: RequestShape, from: Option<&str>) {
        let request = self.request(how);
        let request = match from {
            Some(from) => request.header("x-forwarded-for", from),
            None => request,
        };
        let status = request.send().await.unwrap().status().as_u16();
        let nothing_revoked = matches!(how, RequestShape::RevokeMadeUp | RequestShape::RevokedAgain);
        assert_eq!((400..500).contains(&status), !nothing_revoked, "{how:?}: {status}");
    }

    async fn sign_badly(&mut self) {
        let start = json!({"transaction": null});
        let started: Value =
            self.ada.post_json(&self.app, "/login/start", &start).await.json().await.unwrap();
        let response = self.ada.assert(&self.app, started["options"].clone());
        let mut response = serde_json::to_value(&response).unwrap();
        let signature = response["response"]["signature"].as_str().unwrap();
        let mut bytes = data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        response["response"]["signature"] = data_encoding::BASE64URL_NOPAD.encode(&bytes).into();
        let finish = json!({"ceremony": started["ceremony"], "response": response});
        let refused: Response = self.ada.post_json(&self.app, "/login/finish", &finish).await;
        assert_eq!(refused.status(), 400);
    }

    fn request(&self, how: RequestShape) -> RequestBuilder {
        let Self { app, client, other, .. } = self;
        let (dead, live) = (self.dead.as_ref().unwrap(), self.live.as_ref().unwrap());
        let http = &app.http;
        let registration = format!("/register/{}", client.id);
        let post = |path: &str| http.post(app.url(path));
        let ours = |path: &str| post(path).header("origin", &app.origin);
        let evil = |path: &str| post(path).header("origin", "https://evil.example");
        let refresh = |token: &str, client: &str| {
            post("/token").form(&[
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("client_id", client),
            ])
        };
        match how {
            RequestShape::TokenByNobody => refresh("rt_guess", "nobody"),
            RequestShape::TokenMalformed => post("/token").body("%"),
            RequestShape::RefreshTokenMadeUp => refresh("rt_guess", &client.id),
            RequestShape::CodeMadeUp => post("/token").form(&[
                ("grant_type", "authorization_code"),
                ("code", "ac_guess"),
                ("code_verifier", &"a".repeat(43)),
                ("client_id", client.id.as_str()),
            ]),
            RequestShape::RevokeMadeUp => post("/revoke").form(&self.revocation("rt_guess")),
            RequestShape::IntrospectMalformed => post("/introspect").body("%"),
            RequestShape::IntrospectByNobody => {
                post("/introspect").basic_auth("nobody", Some("guess")).form(&[("token", "rt_guess")])
            }
            RequestShape::RegisterBadly => {
                post("/register").json(&json!({"redirect_uris": ["javascript:1"]}))
            }
            RequestShape::LookWithAGuess => http.get(app.url(&registration)).bearer_auth("rat_guess"),
            RequestShape::ChangeWithAGuess => {
                http.put(app.url(&registration)).bearer_auth("rat_guess").json(&json!({}))
            }
            RequestShape::DeleteWithAGuess => http.delete(app.url(&registration)).bearer_auth("rat_guess"),
            RequestShape::AuthorizeNothing => http.get(app.url("/authorize")),
            RequestShape::AuthorizeByNobody => http.get(app.url("/authorize?client_id=nobody")),
            RequestShape::DeviceByTheWrongClient => {
                post("/device_authorization").form(&[("client_id", client.id.as_str())])
            }
            RequestShape::ConsentFromElsewhere => evil("/consent").form(&[("a", "b")]),
            RequestShape::ConsentToNothing => http.get(app.url("/consent?transaction=t_guess")),
            RequestShape::DeviceDecisionFromElsewhere => evil("/device/decision").form(&[("a", "b")]),
            RequestShape::LoginFromElsewhere => evil("/login/start").json(&json!({})),
            RequestShape::LoginToNothing => {
                ours("/login/finish").json(&json!({"ceremony": "cer_guess", "response": {}}))
            }
            RequestShape::DeadLink => {
                ours("/setup/start").json(&json!({"token": "enr_guess", "name": "eve"}))
            }
            RequestShape::SignOutFromElsewhere => evil("/sign-out").form(&[("csrf", "guess")]),
            RequestShape::ApprovalFromElsewhere => evil("/account/client-requests").form(&[("a", "b")]),
            RequestShape::ChangeFromElsewhere => evil("/account/change").form(&[("a", "b")]),
            RequestShape::SecretFromElsewhere => {
                evil("/account/change").form(&[("action", "set_secret"), ("source", "a"), ("secret", "b")])
            }
            RequestShape::RemovalFromElsewhere => {
                evil("/account/change").form(&[("action", "remove_secret"), ("source", "a")])
            }
            RequestShape::JunkBearer => {
                http.post(app.reach(&app.mcp_url())).bearer_auth("junk").json(&json!({}))
            }
            RequestShape::BadSignature => unreachable!("it takes two requests"),
            RequestShape::RevokedAccessToken => {
                http.post(app.reach(&app.mcp_url())).bearer_auth(&dead.access).json(&json!({}))
            }
            RequestShape::EndedRefreshToken => refresh(&dead.refresh, &client.id),
            RequestShape::SomebodyElsesRefreshToken => refresh(&live.refresh, &other.id),
            RequestShape::RevokedAgain => post("/revoke").form(&self.revocation(&dead.refresh)),
            RequestShape::WrongSecret => {
                let form = [("grant_type", "client_credentials"), ("client_secret", "cs_guess")];
                post("/token").form(&[form[0], form[1], ("client_id", &self.confidential)])
            }
        }
    }

    /// The number of the last record now.
    fn end_of_log(&self) -> i64 {
        self.log.query_row("SELECT max(seq) FROM audit", [], |row| row.get(0)).unwrap()
    }

    /// The number of records of a cause after this one; from this address if one is given.
    fn records(&self, cause: &Cause, after: i64, from: Option<&str>) -> u32 {
        let sql = "SELECT count(*) FROM audit WHERE seq > ?1 AND event = ?2 AND json_extract(record, '$.reason') = ?3
                   AND (?4 IS NULL OR json_extract(record, '$.src_ip') = ?4)";
        let found = params![after, cause.event.as_str(), cause.reason, from];
        self.log.query_row(sql, found, |row| row.get(0)).unwrap()
    }
}

/// AUDIT-06: a flood of one kind hides no record of another kind, and none about a known user or thing.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_kind_hides_no_other() {
    let mut scene = Scene::new().await;
    for flood in CAUSES {
        scene.flood(flood.how).await;
        for other in CAUSES {
            let same = (flood.event, flood.reason) == (other.event, other.reason);
            // One stranger is as good as another.
            if same && (other.how as usize) < RequestShape::BadSignature as usize || other == flood {
                continue;
            }
            let before = scene.end_of_log();
            scene.cause(other.how).await;
            assert_eq!(scene.records(other, before, None), 1, "{flood:?} hides {other:?}");
        }
        scene.app.clock.advance(std::time::Duration::from_mins(1));
        scene.renew().await;
    }
    // The others are in counts, which say what they count.
    let records = scene.app.restart().await.audit();
    for cause in CAUSES {
        let counts = records.iter().filter(|record| {
            record["event"] == cause.event.as_str()
                && record["reason"] == "flood"
                && record["detail"]["of"] == cause.reason
        });
        assert!(counts.count() > 0, "{cause:?}");
    }
}

/// AUDIT-06: a flood from one address or one IPv6 /48 hides no record from another.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_address_hides_no_other_address() {
    let scene = Scene::new().await;
    for (n, cause) in CAUSES.iter().enumerate() {
        if cause.how == RequestShape::BadSignature {
            continue;
        }
        let one_of_a_network = |count| {
            let network = if count % 2 == 0 { String::new() } else { format!("{count:x}") };
            Some(format!("2001:db8:7:{network}::1").replace(":::", "::"))
        };
        scene.flood_from(cause.how, (0..QUOTA + 10).map(one_of_a_network).collect()).await;
        let one_address = Some("203.0.113.9".to_owned());
        scene.flood_from(cause.how, (0..QUOTA + 10).map(|_| one_address.clone()).collect()).await;
        let (elsewhere, before) = (format!("198.51.100.{n}"), scene.end_of_log());
        scene.send(cause.how, Some(&elsewhere)).await;
        assert_eq!(scene.records(cause, before, Some(&elsewhere)), 1, "{cause:?}");
    }
}
