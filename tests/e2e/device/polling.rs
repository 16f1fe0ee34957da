//! The responses to a device's polls.

use super::*;

/// DEV-01: a device that polls too fast must wait five seconds longer each time, and still gets its tokens
/// after the decision.
#[tokio::test(flavor = "multi_thread")]
async fn polling_too_fast_is_slowed_down() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    let after = |seconds| app.clock.advance(Duration::from_secs(seconds));
    assert_eq!(polled(&app, &client, &device).await, "authorization_pending");
    after(4);
    assert_eq!(polled(&app, &client, &device).await, "slow_down");
    after(9);
    assert_eq!(polled(&app, &client, &device).await, "slow_down", "ten seconds from now on");
    after(15);
    assert_eq!(polled(&app, &client, &device).await, "authorization_pending", "fifteen, and no more");
    after(15);
    assert_eq!(polled(&app, &client, &device).await, "authorization_pending");
    approve(&app, &mut browser, &device).await;
    assert_eq!(poll(&app, &client, &device).await.status(), 200);
    let told = |reason| app.events().iter().filter(|(_, r)| r.as_deref() == Some(reason)).count();
    assert_eq!((told("device_slow_down"), told("device_pending")), (2, 0), "waiting is no decision");
}

/// DEV-01, RATE-01: a client that polls at its interval reaches no limit, with any number of devices.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_reaches_no_limit() {
    let app = TestApp::start_configured("device = true\n[rate]\ntoken_client = 3\ntoken_address = 3\n").await;
    let client = device_client(&app);
    let devices = [ask(&app, &client).await, ask(&app, &client).await, ask(&app, &client).await];
    // Anyone can request codes in this client's name, so the requests for them count for the address.
    app.clock.advance(Duration::from_mins(1));
    for _ in 0..6 {
        for device in &devices {
            assert_eq!(polled(&app, &client, device).await, "authorization_pending");
        }
        app.clock.advance(Duration::from_secs(5));
    }
    let hasty = join_all((0..12).map(|_| poll(&app, &client, &devices[0]))).await;
    assert!(hasty.iter().any(|answer| answer.status() == 429), "whoever does not wait does");
}

/// DEV-01: a code expires after ten minutes, for the user and for the device; an approval in time no longer
/// counts afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_code_expires() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let (waiting, allowed) = (ask(&app, &client).await, ask(&app, &client).await);
    let page = question(&app, &mut browser, &waiting).await;
    approve(&app, &mut browser, &allowed).await;
    app.clock.advance(Duration::from_mins(10));
    assert_eq!(polled(&app, &client, &waiting).await, "expired_token");
    assert_eq!(polled(&app, &client, &allowed).await, "expired_token");
    assert_eq!(type_code(&app, &mut browser, &waiting.user_code).await.status(), 400);
    assert_eq!(decide(&app, &mut browser, &page, "approve").await.status(), 400);
    assert_eq!(polled(&app, &client, &waiting).await, "expired_token");
    // Later the device is deleted.
    app.clock.advance(Duration::from_mins(11));
    ask(&app, &client).await;
    assert_eq!(polled(&app, &client, &waiting).await, "invalid_grant");
}

/// DEV-01, TOKEN-08, TOKEN-11, TOKEN-07: another client's code is answered like an unknown one, and a mistake
/// uses nothing up.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_code_is_its_clients_alone() {
    let (app, mut browser) = start().await;
    let (client, other) = (device_client(&app), device_client(&app));
    let device = ask(&app, &client).await;
    approve(&app, &mut browser, &device).await;
    let form = |changes: &[(&'static str, &'static str)]| {
        let mut form =
            vec![("grant_type", GRANT), ("device_code", device.code.as_str()), ("client_id", &client.id)];
        for (name, value) in changes {
            form.retain(|(n, _)| n != name);
            form.push((name, value));
        }
        form.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect::<Vec<_>>()
    };
    let stolen = poll(&app, &other, &device).await;
    let unknown =
        app.http.post(app.url("/token")).form(&form(&[("device_code", "dc_x")])).send().await.unwrap();
    assert_eq!(stolen.text().await.unwrap(), unknown.text().await.unwrap());
    for (changes, status, error) in [
        ([("device_code", "dc_x")], 400, "invalid_grant"),
        ([("device_code", "")], 400, "invalid_request"),
        ([("client_id", "")], 401, "invalid_client"),
        ([("client_id", "c_unknown")], 401, "invalid_client"),
        ([("client_secret", "cs_guess")], 401, "invalid_client"),
        ([("resource", "http://localhost:1/mcp")], 400, "invalid_target"),
    ] {
        let response = app.http.post(app.url("/token")).form(&form(&changes)).send().await.unwrap();
        let got = error_of(response).await;
        assert_eq!((got.0.as_u16(), got.1.as_str()), (status, error), "{changes:?}");
    }
    // A user code is not accepted as a device code, and a device code not as another secret.
    for (name, grant) in [("code", "authorization_code"), ("refresh_token", "refresh_token")] {
        let form = [
            ("grant_type", grant),
            (name, device.code.as_str()),
            ("client_id", &client.id),
            ("code_verifier", crate::harness::VERIFIER),
        ];
        let error = error_of(app.token(&form).await).await.1;
        assert!(matches!(error.as_str(), "invalid_grant" | "unauthorized_client"), "{error}");
    }
    assert_eq!(poll(&app, &client, &device).await.status(), 200);
}

/// DEV-01, TOKEN-05: of 64 concurrent polls one gets the tokens, and they work.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_polls_have_one_winner() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    for _ in 0..5 {
        let device = ask(&app, &client).await;
        approve(&app, &mut browser, &device).await;
        let answers = join_all((0..64).map(|_| poll(&app, &client, &device))).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 200);
        assert_eq!((won.len(), lost.len()), (1, 63));
        for answer in lost {
            assert_eq!(error_of(answer).await, (StatusCode::BAD_REQUEST, "invalid_grant".to_owned()));
        }
        for winner in won {
            assert!(works(&app, &Tokens::of(winner).await.access).await);
        }
    }
}

/// DEV-01, TOKEN-06: a device code that is used again later revokes its tokens, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_device_code_ends_what_it_bought() {
    let (app, mut browser) = start().await;
    let (client, other) = (device_client(&app), device_client(&app));
    let device = ask(&app, &client).await;
    approve(&app, &mut browser, &device).await;
    let tokens = Tokens::of(poll(&app, &client, &device).await).await;
    app.clock.advance(Duration::from_secs(6));
    assert_eq!(polled(&app, &other, &device).await, "invalid_grant");
    assert!(works(&app, &tokens.access).await, "somebody else's replay ends nothing");
    let app = app.restart().await;
    assert_eq!(polled(&app, &client, &device).await, "invalid_grant");
    assert!(!works(&app, &tokens.access).await);
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
    assert!(app.has_event("code.replay", Some("device_code_replayed")));
    let app = app.restart().await;
    assert!(!works(&app, &tokens.access).await);
}

/// DEV-01, AUTHZ-17, TOKEN-15: everything is checked again between the decision and the tokens.
#[tokio::test(flavor = "multi_thread")]
async fn changes_after_the_decision_apply() {
    let (app, _) = start().await;
    let mut bob = app.enrol("bob", &["engineers"]).await;
    let client = device_client(&app);

    let device = ask_for(&app, &client, "docs.read docs.full").await;
    approve(&app, &mut bob, &device).await;
    app.console(&["user", "groups", "bob", "--remove", "engineers"]);
    let tokens = Tokens::of(poll(&app, &client, &device).await).await;
    assert_eq!(tokens.body["scope"], "docs.read", "what is left of it");

    app.console(&["user", "groups", "bob", "--add", "engineers"]);
    let device = ask_for(&app, &client, "docs.full").await;
    approve(&app, &mut bob, &device).await;
    app.console(&["user", "groups", "bob", "--remove", "engineers"]);
    assert_eq!(polled(&app, &client, &device).await, "access_denied", "nothing is left");

    let device = ask(&app, &client).await;
    approve(&app, &mut bob, &device).await;
    app.console(&["client", "disable", &client.id]);
    assert_eq!(
        error_of(poll(&app, &client, &device).await).await,
        (StatusCode::UNAUTHORIZED, "invalid_client".to_owned())
    );
    app.console(&["client", "enable", &client.id]);
    assert_eq!(polled(&app, &client, &device).await, "access_denied", "enabling brings nothing back");

    let client = device_client(&app);
    let device = ask(&app, &client).await;
    approve(&app, &mut bob, &device).await;
    change(&app, "UPDATE client SET grant_types = 'refresh_token' WHERE id = ?1", &client.id);
    assert_eq!(polled(&app, &client, &device).await, "unauthorized_client");

    let client = device_client(&app);
    let (device, undecided) = (ask(&app, &client).await, ask(&app, &client).await);
    approve(&app, &mut bob, &device).await;
    let page = question(&app, &mut bob, &undecided).await;
    app.console(&["user", "disable", "bob"]);
    assert_eq!(polled(&app, &client, &device).await, "access_denied");
    assert_eq!(decide(&app, &mut bob, &page, "approve").await.status(), 403, "nobody is signed in any more");
    app.console(&["user", "enable", "bob"]);
    assert_eq!(polled(&app, &client, &device).await, "access_denied", "and enabling brings nothing back");
    assert_eq!(polled(&app, &client, &undecided).await, "authorization_pending");
    app.console(&["user", "delete", "bob", "--yes"]);
    assert_eq!(polled(&app, &client, &device).await, "invalid_grant");
}

/// DEV-01, OPS-07: pending and approved devices survive a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_device() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let (waiting, allowed) = (ask(&app, &client).await, ask(&app, &client).await);
    let page = question(&app, &mut browser, &waiting).await;
    approve(&app, &mut browser, &allowed).await;
    let app = app.restart().await;
    assert_eq!(polled(&app, &client, &waiting).await, "authorization_pending");
    let tokens = Tokens::of(poll(&app, &client, &allowed).await).await;
    assert!(works(&app, &tokens.access).await);
    // The earlier question was signed in to with a passkey that has been used elsewhere since.
    assert_eq!(decide(&app, &mut browser, &page, "approve").await.status(), 403);
    approve(&app, &mut browser, &waiting).await;
    assert_eq!(poll(&app, &client, &waiting).await.status(), 200);
}

/// DEV-01, OPS-07, STORE-02: the server is killed while devices poll. A code gets tokens once, and issued
/// tokens work.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_redeems_no_code_twice() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let config = dir.path().join("portcullis.toml");
    std::fs::write(&config, "device = true\n").unwrap();
    let serve = |listen: &str| {
        let mut command = crate::process::program();
        command.args(["serve", "--json", "--listen", listen, "--config"]).arg(&config);
        command.arg("--data-dir").arg(dir.path().join("data"));
        Process::spawn(command)
    };
    let mut server = serve("localhost:0");
    let app = TestApp::beside(&server, Arc::clone(&dir));
    let mut browser = app.admin().await;
    let client = device_client(&app);
    for round in 0..4 {
        let device = ask(&app, &client).await;
        approve(&app, &mut browser, &device).await;
        let bystander = ask(&app, &client).await;
        let attempt = || async {
            let form =
                [("grant_type", GRANT), ("device_code", device.code.as_str()), ("client_id", &client.id)];
            let answer = app.http.post(app.url("/token")).form(&form).send().await.ok()?;
            (answer.status() == 200).then_some(())?;
            answer.json::<Value>().await.ok()
        };
        let polls = join_all((0..8).map(|_| attempt()));
        // The moment depends on other work, more of it in each round.
        let killing = async {
            for _ in 0..round {
                let form = [
                    ("grant_type", GRANT),
                    ("device_code", bystander.code.as_str()),
                    ("client_id", &client.id),
                ];
                let _ = app.http.post(app.url("/token")).form(&form).send().await;
            }
            let listen = server.listen();
            server.kill();
            server = serve(&listen);
        };
        let (before, ()) = tokio::join!(polls, killing);
        let mut won: Vec<Value> = before.into_iter().flatten().collect();
        won.extend(attempt().await);
        assert!(won.len() <= 1, "round {round}: {won:?}");
        for tokens in won {
            let access = tokens["access_token"].as_str().unwrap();
            let answer = app.call_tool(access, "docs_search", json!({"query": "portcullis"})).await;
            assert_eq!(answer.status(), 200, "round {round}");
        }
    }
    app.audit();
}

/// DEV-01: a day after the decision a device's grant ends, however often it was refreshed.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_grant_ends_after_a_day() {
    let (app, mut browser) = start().await;
    let client = device_client(&app);
    let device = ask(&app, &client).await;
    approve(&app, &mut browser, &device).await;
    let mut tokens = Tokens::of(poll(&app, &client, &device).await).await;
    for _ in 0..3 {
        app.clock.advance(Duration::from_hours(7));
        tokens = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    }
    app.clock.advance(Duration::from_mins(170));
    tokens = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
    assert_eq!(tokens.body["expires_in"], 600, "no access token outlives it either");
    app.clock.advance(Duration::from_mins(10));
    assert_eq!(error_of(app.refresh(&client, &tokens.refresh).await).await.1, "invalid_grant");
}
