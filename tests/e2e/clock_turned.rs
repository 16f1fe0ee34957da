//! The machine's clock is set back, forward, to 2040 and back; while a server runs, across a restart, and at a
//! gateway elsewhere (OPS-04).

use std::time::Duration;

use serde_json::{Value, json};
use shared::clock::{Clock, Timestamp};

use crate::gateway::LocalGateway;
use crate::harness::{Browser, Client, TestApp, Tokens, error_of};
use crate::process::{complaint, portcullis};

const HOURS: Duration = Duration::from_hours(6);
/// The lifetime of an access token plus the leeway (standards §1), plus a second for rounding.
const DEAD: Duration = Duration::from_secs(15 * 60 + 60 + 1);
/// The remaining time after a wrong time has passed.
const LEFT: Duration = Duration::from_secs(6 * 60 + 1);
const YEAR_2040: Timestamp = Timestamp(2_208_988_800_000);

/// A change of the clock. Ten minutes pass in a wrong time that is corrected again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Back,
    Forward,
    ForwardAndBack,
    To2040AndBack,
}

const ALL: [Turn; 4] = [Turn::Back, Turn::Forward, Turn::ForwardAndBack, Turn::To2040AndBack];
const MEANWHILE: Duration = Duration::from_mins(10);

impl Turn {
    /// Changes the clock, runs `meanwhile`, and corrects the clock if the change does.
    async fn of<T>(self, clock: &Clock, meanwhile: impl AsyncFnOnce() -> T) -> T {
        let right = clock.wall();
        match self {
            Self::Back => clock.set(right - HOURS),
            Self::Forward | Self::ForwardAndBack => clock.set(right + HOURS),
            Self::To2040AndBack => clock.set(YEAR_2040),
        }
        let done = meanwhile().await;
        clock.advance(MEANWHILE);
        if matches!(self, Self::ForwardAndBack | Self::To2040AndBack) {
            clock.set(right + MEANWHILE);
        }
        done
    }

    /// Whether the clock is behind at the end.
    fn pauses(self) -> bool {
        self != Self::Forward
    }
}

async fn works(app: &TestApp, tokens: &Tokens) -> bool {
    match app.call_tool(&tokens.access, "whoami", json!({})).await.status().as_u16() {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

async fn someone(app: &TestApp) -> (Browser, Client, Tokens) {
    let mut browser = app.admin().await;
    let client = app.client().await;
    let tokens = app.tokens(&mut browser, &client).await;
    (browser, client, tokens)
}

/// Tokens issued in a wrong time, if there were any.
async fn meanwhile(app: &TestApp, browser: &mut Browser, client: &Client, turn: Turn) -> Option<Tokens> {
    if turn == Turn::Back {
        let paused = browser.get(app, &client.authorize_url(app)).await;
        assert_eq!(paused.status(), 503, "{turn:?}");
        return None;
    }
    Some(app.tokens(browser, client).await)
}

/// OPS-04: after any change of the clock, nothing is accepted for longer than its lifetime, measured by uptime;
/// and after one command everything works again.
async fn a_story(turn: Turn, restarts: bool) {
    let mut app = TestApp::start().await;
    let (mut browser, client, before) = someone(&app).await;
    let clock = app.clock.clone();
    let within = turn.of(&clock, async || meanwhile(&app, &mut browser, &client, turn).await).await;
    if restarts {
        app = app.restart_as_another_process().await;
    }
    let case = format!("{turn:?}, restarted: {restarts}");
    assert_eq!(works(&app, &before).await, turn == Turn::Back, "{case}: ten minutes old");
    if let Some(within) = &within {
        assert!(works(&app, within).await, "{case}");
    }
    let refreshed = app.refresh(&client, &before.refresh).await;
    match turn {
        Turn::Forward => assert_eq!(refreshed.status(), 200, "{case}"),
        _ => assert_eq!(error_of(refreshed).await.0, 503, "{case}"),
    }
    // To the second.
    app.clock.advance(LEFT.saturating_sub(Duration::from_secs(2)));
    assert_eq!(works(&app, &before).await, turn == Turn::Back, "{case}: a second before its end");
    app.clock.advance(Duration::from_secs(2));
    assert!(!works(&app, &before).await, "{case}: sixteen minutes old");
    if let Some(within) = &within {
        assert!(!works(&app, within).await, "{case}: of the time that was wrong");
    }

    if turn.pauses() {
        let confirmed = app.console(&["clock", "confirm", "--yes"])["confirmed"].clone();
        // Of the six hours still to come: grants made in a wrong time, or before the clock was set back.
        assert_eq!(confirmed["grants_ended"], 1, "{case}: {confirmed}");
        assert_eq!(confirmed["now"], json!(app.clock.wall().0), "{case}");
    } else {
        let data = app.data_dir();
        let refused = portcullis(&["clock", "confirm", "--yes", "--data-dir", data.to_str().unwrap()]);
        assert!(complaint(&refused).contains("nothing to confirm"), "{case}");
    }
    if restarts {
        app = app.restart_as_another_process().await;
    }
    assert!(!works(&app, &before).await, "{case}: it does not come back");
    if let Some(within) = within.filter(|_| turn.pauses()) {
        assert!(!works(&app, &within).await, "{case}");
        let error = error_of(app.refresh(&client, &within.refresh).await).await;
        assert_eq!((error.0.as_u16(), error.1.as_str()), (400, "invalid_grant"), "{case}");
    }
    let fresh = app.tokens(&mut browser, &client).await;
    assert!(works(&app, &fresh).await, "{case}: people sign in again");
    let rotated = Tokens::of(app.refresh(&client, &fresh.refresh).await).await;
    assert!(works(&app, &rotated).await, "{case}: clients fetch new tokens");
    app.clock.advance(DEAD);
    assert!(!works(&app, &rotated).await, "{case}");
}

/// OPS-04
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_clock_extends_no_lifetime_and_one_command_corrects_it() {
    for turn in ALL {
        a_story(turn, false).await;
    }
}

/// OPS-04
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_clock_extends_no_lifetime_across_a_restart() {
    for turn in ALL {
        a_story(turn, true).await;
    }
}

/// OPS-04: the command ends tokens issued in the wrong time, also on older grants: a user whose client
/// refreshed in it signs in again; one whose client did not continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_of_a_wrong_time_ends() {
    let app = TestApp::start().await;
    let (mut browser, client, before) = someone(&app).await;
    let other = app.client().await;
    let waiting = app.tokens(&mut browser, &other).await;
    let right = app.clock.wall();
    app.clock.set(right + HOURS);
    let within = Tokens::of(app.refresh(&client, &before.refresh).await).await;
    app.clock.set(right);
    let confirmed = app.console(&["clock", "confirm", "--yes"])["confirmed"].clone();
    assert_eq!(confirmed["grants_ended"], 1);
    for token in [&before.refresh, &within.refresh] {
        let (status, error) = error_of(app.refresh(&client, token).await).await;
        assert_eq!((status.as_u16(), error.as_str()), (400, "invalid_grant"));
    }
    assert_eq!(app.refresh(&other, &waiting.refresh).await.status(), 200);
}

/// OPS-04: time passes while no server runs, as long as the machine is not restarted.
#[tokio::test(flavor = "multi_thread")]
async fn time_passes_while_no_server_runs() {
    let app = TestApp::start().await;
    let (_, client, before) = someone(&app).await;
    let machine = app.clock.clone();
    let mut stopped = app.stop().await;
    machine.advance(DEAD);
    machine.set(machine.wall() - HOURS);
    stopped.clock = machine.of_another_process();
    let app = stopped.start().await;
    assert!(!works(&app, &before).await);
    assert_eq!(app.refresh(&client, &before.refresh).await.status(), 503);
}

/// OPS-04: the command also works without a server, for example if its certificate has expired in the wrong
/// time.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_is_confirmed_without_a_server() {
    let app = TestApp::start().await;
    let (mut browser, client, _) = someone(&app).await;
    let clock = app.clock.clone();
    Turn::To2040AndBack.of(&clock, async || app.console(&["user", "add", "grace"])).await;
    let mut stopped = app.stop().await;
    stopped.clock = clock.of_another_process();
    crate::process::share_clock(&stopped.data_dir(), &stopped.clock);
    let data = stopped.data_dir();
    let confirmed = portcullis(&["clock", "confirm", "--yes", "--data-dir", data.to_str().unwrap()]);
    assert!(confirmed.status.success(), "{}", complaint(&confirmed));
    assert!(String::from_utf8_lossy(&confirmed.stdout).contains("Tokens are issued again."));
    let app = stopped.start().await;
    let fresh = app.tokens(&mut browser, &client).await;
    assert!(works(&app, &fresh).await);
}

/// OPS-04: rate limits refill by uptime, neither slower nor faster.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_clock_changes_no_limit() {
    for turn in ALL {
        let app = TestApp::start_configured("[rate]\nmcp = 3\nauthorize = \"off\"").await;
        let (_, _, tokens) = someone(&app).await;
        let calls = async || {
            let mut through = 0;
            while app.call_tool(&tokens.access, "whoami", json!({})).await.status() == 200 {
                through += 1;
            }
            through
        };
        assert_eq!(calls().await, 3, "{turn:?}");
        let right = app.clock.wall();
        let wrong = match turn {
            Turn::Back => right - HOURS,
            // Within the lifetime of the token.
            _ => right + Duration::from_mins(5),
        };
        app.clock.set(wrong);
        assert_eq!(calls().await, 0, "{turn:?}: turned hands fill nothing");
        app.clock.advance(Duration::from_secs(20));
        assert_eq!(calls().await, 1, "{turn:?}");
        app.clock.set(right);
        app.clock.advance(Duration::from_mins(1));
        assert_eq!(calls().await, 3, "{turn:?}: and the time that goes by fills it");
    }
}

fn at_gateway(gateway: &LocalGateway, arguments: &[&str]) -> Value {
    let data = gateway.data_dir();
    let output = portcullis(&[arguments, &["--json", "--data-dir", data.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// OPS-04, RS-05: the gateway's clock is changed, or the authorization server's.
async fn a_story_of_two(turn: Turn, restarts: bool, checks: &str) {
    let case = format!("{turn:?}, restarted: {restarts}, {checks}");
    let app = TestApp::start().await;
    let mut browser = app.admin().await;
    let client = app.client().await;
    let clock = Clock::held(app.clock.wall());
    let mut gateway = LocalGateway::start_by(&app, checks, clock.clone()).await;
    let before = crate::split::tokens(&app, &mut browser, &client).await;
    assert_eq!(gateway.whoami(&before.access).await, 200, "{case}");
    turn.of(&clock, async || gateway.whoami(&before.access).await).await;
    app.clock.advance(MEANWHILE);
    if restarts {
        gateway = gateway.restart().await;
    }
    assert_eq!(gateway.whoami(&before.access).await == 200, turn == Turn::Back, "{case}: ten minutes old");
    for clock in [&app.clock, &clock] {
        clock.advance(LEFT);
    }
    assert_eq!(gateway.whoami(&before.access).await, 401, "{case}: sixteen minutes old");

    // An administrator corrects the clock and confirms it.
    clock.set(app.clock.wall());
    if turn == Turn::Back {
        let fresh = Tokens::of(app.refresh(&client, &before.refresh).await).await;
        assert_eq!(gateway.whoami(&fresh.access).await, 200, "{case}");
    } else {
        let fresh = Tokens::of(app.refresh(&client, &before.refresh).await).await;
        assert_eq!(gateway.whoami(&fresh.access).await, 401, "{case}: the gateway is in a time to come");
        assert_eq!(at_gateway(&gateway, &["clock", "show"])["time"]["paused"], true, "{case}");
        let confirmed = at_gateway(&gateway, &["clock", "confirm", "--yes"])["confirmed"].clone();
        assert_eq!(confirmed["now"], json!(clock.wall().0), "{case}");
        assert!(gateway.events().iter().any(|event| event["detail"]["confirmed"] == true), "{case}");
        assert_eq!(gateway.whoami(&fresh.access).await, 200, "{case}: one command");
        if restarts {
            gateway = gateway.restart().await;
        }
        assert_eq!(gateway.whoami(&fresh.access).await, 200, "{case}");
        assert_eq!(gateway.whoami(&before.access).await, 401, "{case}: it does not come back");
    }
    gateway.end().await;
}

/// OPS-04
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_changed_clock_extends_no_lifetime() {
    for turn in ALL {
        for restarts in [false, true] {
            a_story_of_two(turn, restarts, "").await;
        }
    }
}

/// OPS-04: the same for a gateway that does not introspect.
#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_only_gateway_extends_no_lifetime() {
    for turn in ALL {
        a_story_of_two(turn, true, "[remote.checks]\n\"docs.read\" = \"expiry-only\"\n").await;
    }
}

/// OPS-04: the authorization server's clock is changed, and the gateway's is right.
#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_server_with_a_changed_clock_serves_a_gateway_again_after_one_command() {
    for turn in [Turn::ForwardAndBack, Turn::To2040AndBack] {
        let app = TestApp::start().await;
        let mut browser = app.admin().await;
        let client = app.client().await;
        let clock = Clock::held(app.clock.wall());
        let gateway = LocalGateway::start_by(&app, "", clock.clone()).await;
        let before = crate::split::tokens(&app, &mut browser, &client).await;
        let hands = app.clock.clone();
        let turned = turn.of(&hands, async || crate::split::tokens(&app, &mut browser, &client).await).await;
        clock.advance(MEANWHILE);
        assert_eq!(gateway.whoami(&turned.access).await, 401, "{turn:?}: it is from the future");
        app.console(&["clock", "confirm", "--yes"]);
        for dead in [&before, &turned] {
            assert_eq!(gateway.whoami(&dead.access).await, 401, "{turn:?}");
        }
        let fresh = crate::split::tokens(&app, &mut browser, &client).await;
        // The key set may be cached for five minutes.
        for clock in [&app.clock, &clock] {
            clock.advance(Duration::from_mins(5));
        }
        assert_eq!(gateway.whoami(&fresh.access).await, 200, "{turn:?}");
        gateway.end().await;
    }
}

/// OPS-04, ADMIN-05: a gateway alone accepts commands about its clock, with and without a running process, and
/// no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_takes_commands_about_its_clock_alone() {
    let app = TestApp::start().await;
    let clock = Clock::held(app.clock.wall());
    let gateway = LocalGateway::start_by(&app, "", clock.clone()).await;
    let data = gateway.data_dir();
    let run = |arguments: &[&str]| portcullis(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat());
    for others in [&["user", "list"][..], &["key", "list"], &["lockdown", "--yes"]] {
        let refused = run(others);
        assert!(complaint(&refused).contains("this is a gateway alone"), "{}", complaint(&refused));
    }
    assert!(complaint(&run(&["clock", "confirm", "--yes"])).contains("nothing to confirm"));
    Turn::To2040AndBack.of(&clock, async || clock.now()).await;
    assert!(complaint(&run(&["clock", "confirm"])).contains("--yes"));
    let directory = gateway.dir();
    gateway.end().await;
    let confirmed = run(&["clock", "confirm", "--yes"]);
    let said = String::from_utf8_lossy(&confirmed.stdout);
    assert!(said.contains("Tokens are checked by the machine's clock."), "{said} {}", complaint(&confirmed));
    assert!(!data.join("seal.key").exists(), "it has no keys");
    drop(directory);
}
