//! Everything that ends access, seen by a real client with an unexpired token and an open stream: its next
//! request is refused as the standards say, its stream is closed within two seconds, introspection answers
//! `{"active":false}`, and the audit log names the actor and the subject. Tested with a running server and with
//! one that starts afterwards.

mod scene;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::process::{complaint, portcullis};
use scene::{HeldCredentials, Scene, Sdk, serve};

/// RS-10, in milliseconds.
const CLOSED_WITHIN: f64 = 2000.0;

/// A cause that ends access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Killer {
    RefreshTokenRevoked,
    AccessTokenRevoked,
    UserDisabled,
    UserDeleted,
    ClientDisabled,
    ClientDeleted,
    GrantRevoked,
    TokenRevoked,
    Lockdown,
    GroupLeft,
    RefreshTokenReused,
    CodeReplayed,
    KeyRemoved,
    /// By the user on the account page.
    Disconnected,
    /// The same, for all of their clients: the thief of that passkey may have allowed them.
    PasskeyStolen,
}

impl Killer {
    /// Whether only the current access token ends and the refresh token still works.
    fn leaves_the_grant(self) -> bool {
        matches!(self, Self::AccessTokenRevoked | Self::TokenRevoked | Self::KeyRemoved)
    }

    /// The administrator's command for it, if there is one.
    fn command(self, held: &HeldCredentials) -> Option<Vec<String>> {
        let words: &[&str] = match self {
            Self::UserDisabled => &["user", "disable", "ines"],
            Self::UserDeleted => &["user", "delete", "ines", "--yes"],
            Self::ClientDisabled => &["client", "disable", &held.client_id],
            Self::ClientDeleted => &["client", "delete", &held.client_id, "--yes"],
            Self::GrantRevoked => &["grant", "revoke", &held.grant],
            Self::TokenRevoked => &["token", "revoke", &held.jti],
            Self::Lockdown => &["lockdown", "--yes"],
            Self::GroupLeft => &["user", "groups", "ines", "--remove", "readers"],
            Self::KeyRemoved => &["key", "remove", "--kid", &held.kid, "--reason", "it leaked", "--yes"],
            _ => return None,
        };
        Some(words.iter().map(|&word| word.to_owned()).collect())
    }

    /// The recorded event and actor, and the member that names the subject.
    fn record(self, held: &HeldCredentials) -> (&'static str, &'static str, &'static str, &str) {
        match self {
            Self::RefreshTokenRevoked => ("token.revoked", "client", "/grant_id", &held.grant),
            Self::AccessTokenRevoked => ("token.revoked", "client", "/jti", &held.jti),
            Self::UserDisabled => ("user.disabled", "console", "/subject", &held.user),
            Self::UserDeleted => ("user.deleted", "console", "/subject", &held.user),
            Self::ClientDisabled => ("client.disabled", "console", "/client_id", &held.client_id),
            Self::ClientDeleted => ("client.deleted", "console", "/client_id", &held.client_id),
            Self::GrantRevoked => ("token.revoked", "console", "/grant_id", &held.grant),
            Self::TokenRevoked => ("token.revoked", "console", "/jti", &held.jti),
            Self::Lockdown => ("token.revoked", "console", "/detail/token", "everything"),
            Self::GroupLeft => ("user.role_changed", "console", "/subject", &held.user),
            // The request came in the client's name.
            Self::RefreshTokenReused => ("token.refresh.reuse", "client", "/grant_id", &held.grant),
            Self::CodeReplayed => ("code.replay", "client", "/grant_id", &held.grant),
            Self::KeyRemoved => ("key.removed", "console", "/detail/kid", &held.kid),
            Self::Disconnected => ("token.revoked", "user", "/grant_id", &held.grant),
            Self::PasskeyStolen => ("webauthn.removed", "user", "/subject", &held.user),
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

/// Tests one row of the table.
async fn ends(killer: Killer, sdk: Sdk) {
    let mut scene = Scene::set(sdk).await;
    let mut held = HeldCredentials::by(&mut scene.client);
    if killer == Killer::RefreshTokenReused {
        // The successor of the repeated token has been used: its client has it.
        for _ in 0..2 {
            scene.client.ok(&json!({"op": "refresh"}));
        }
        held =
            HeldCredentials { refresh_token: held.refresh_token, ..HeldCredentials::by(&mut scene.client) };
    }
    scene.prepare(killer).await;
    assert_eq!(scene.introspected(&held.access_token).await["active"], true);
    let before = scene.answered();
    let streams = before.iter().filter(|exchange| exchange["content_type"] == "text/event-stream").count();
    assert_eq!(streams, usize::from(scene.has_stream()), "{before:?}");

    scene.kill(killer, &held).await;
    let ended = now();
    assert_eq!(scene.introspected(&held.access_token).await, json!({"active": false}), "{killer:?}");
    scene.is_refused(killer);
    if scene.has_stream() {
        let stream = scene.client.ok(&json!({"op": "stream_ended"}));
        assert_eq!(stream["how"], "closed", "{killer:?}: {stream}");
        let after = stream["at"].as_f64().unwrap() - ended;
        assert!(after <= CLOSED_WITHIN, "{killer:?}: the stream was closed after {after} ms");
    }
    assert_eq!(scene.introspected(&held.access_token).await, json!({"active": false}), "{killer:?}");
    scene.is_on_record(killer, &held);
}

/// The same while no server runs; tested on the next one.
async fn ends_without_a_server(killer: Killer) {
    let mut scene = Scene::set(Sdk::TypeScript("legacy")).await;
    let held = HeldCredentials::by(&mut scene.client);
    assert_eq!(scene.introspected(&held.access_token).await["active"], true);
    let listen = scene.process.listen();
    scene.process.kill();
    scene.answered();
    let mut command = killer.command(&held).expect("an administrator's");
    command.extend(["--config".to_owned(), scene.dir.path().join("portcullis.toml").display().to_string()]);
    command.extend(["--data-dir".to_owned(), scene.dir.path().join("data").display().to_string()]);
    let output = portcullis(&command.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success(), "{killer:?}: {}", complaint(&output));
    scene.process = serve(scene.dir.path(), &listen);
    assert_eq!(scene.introspected(&held.access_token).await, json!({"active": false}), "{killer:?}");
    scene.is_refused(killer);
    scene.is_on_record(killer, &held);
}

const LEGACY: Sdk = Sdk::TypeScript("legacy");

/// REVOKE-04, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_client_revokes_the_refresh_token() {
    ends(Killer::RefreshTokenRevoked, LEGACY).await;
}

/// REVOKE-04, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_client_revokes_the_access_token() {
    ends(Killer::AccessTokenRevoked, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_user_is_disabled() {
    ends(Killer::UserDisabled, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_user_is_deleted() {
    ends(Killer::UserDeleted, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_client_is_disabled() {
    ends(Killer::ClientDisabled, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_client_is_deleted() {
    ends(Killer::ClientDeleted, LEGACY).await;
}

/// REVOKE-07, REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_grant_is_revoked() {
    ends(Killer::GrantRevoked, LEGACY).await;
}

/// REVOKE-07, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn it_is_revoked_by_its_jti() {
    ends(Killer::TokenRevoked, LEGACY).await;
}

/// REFRESH-08, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_locked_down() {
    ends(Killer::Lockdown, LEGACY).await;
}

/// RS-10, INTRO-06, MCP-09: after the user leaves a group, their token no longer allows its tools, without a
/// new sign-in.
#[tokio::test(flavor = "multi_thread")]
async fn its_user_leaves_a_group() {
    ends(Killer::GroupLeft, LEGACY).await;
}

/// REFRESH-05, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_refresh_token_comes_back() {
    ends(Killer::RefreshTokenReused, LEGACY).await;
}

/// TOKEN-06, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_code_comes_back() {
    ends(Killer::CodeReplayed, LEGACY).await;
}

/// KEYS-04, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_key_is_removed() {
    ends(Killer::KeyRemoved, LEGACY).await;
}

/// REVOKE-07, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_person_disconnects_it() {
    ends(Killer::Disconnected, LEGACY).await;
}

/// WEBAUTHN-12, REVOKE-07, RS-08, RS-10, INTRO-06
#[tokio::test(flavor = "multi_thread")]
async fn its_person_reports_a_passkey() {
    ends(Killer::PasskeyStolen, LEGACY).await;
}

/// RS-08: in the newest revision, without a stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_2026_is_out_too() {
    ends(Killer::UserDisabled, Sdk::TypeScript("modern")).await;
}

/// REVOKE-04, RS-08, RS-10
#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_gives_its_tokens_back() {
    ends(Killer::RefreshTokenRevoked, Sdk::Python("legacy")).await;
}

/// REFRESH-08, RS-08, RS-10
#[tokio::test(flavor = "multi_thread")]
async fn a_python_clients_user_is_disabled() {
    ends(Killer::UserDisabled, Sdk::Python("legacy")).await;
}

/// RS-10, MCP-09
#[tokio::test(flavor = "multi_thread")]
async fn a_python_clients_user_leaves_a_group() {
    ends(Killer::GroupLeft, Sdk::Python("legacy")).await;
}

/// KEYS-04, RS-08, RS-10
#[tokio::test(flavor = "multi_thread")]
async fn a_python_clients_key_is_removed() {
    ends(Killer::KeyRemoved, Sdk::Python("legacy")).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_disabled_without_a_server() {
    ends_without_a_server(Killer::UserDisabled).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_deleted_without_a_server() {
    ends_without_a_server(Killer::UserDeleted).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_disabled_without_a_server() {
    ends_without_a_server(Killer::ClientDisabled).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_deleted_without_a_server() {
    ends_without_a_server(Killer::ClientDeleted).await;
}

/// ADMIN-05, REVOKE-07
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_revoked_without_a_server() {
    ends_without_a_server(Killer::GrantRevoked).await;
}

/// ADMIN-05, REVOKE-07
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_revoked_without_a_server() {
    ends_without_a_server(Killer::TokenRevoked).await;
}

/// ADMIN-05, REFRESH-08
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_locked_down_without_a_server() {
    ends_without_a_server(Killer::Lockdown).await;
}

/// ADMIN-05, MCP-09
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_left_without_a_server() {
    ends_without_a_server(Killer::GroupLeft).await;
}

/// ADMIN-05, KEYS-04
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_removed_without_a_server() {
    ends_without_a_server(Killer::KeyRemoved).await;
}
