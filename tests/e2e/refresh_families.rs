//! Refresh token families against a model of the rules: after any sequence of use, loss, repetition, revocation
//! and restart, the server answers like the model.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::harness::{Client, TestApp, Tokens};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
/// For a client whose redirect URIs are all on the user's own computer.
const IDLE: u64 = 14 * DAY;
const FAMILY: u64 = 30 * DAY;
const ACCESS: u64 = 15 * MINUTE;
const LEEWAY: u64 = MINUTE;

#[derive(Clone, Debug)]
enum Step {
    /// Uses a refresh token: the leaf, or the one this many before it.
    Use(usize),
    /// The same by this many requests at once.
    UseAtOnce(usize, usize),
    /// Uses an access token: the newest, or the one this many before it.
    Call(usize),
    Wait(u64),
    /// Restarts the server.
    Restart,
    Revoke,
}

fn step() -> impl Strategy<Value = Step> {
    let back = prop_oneof![6 => Just(0usize), 3 => Just(1), 1 => 2usize..4];
    prop_oneof![
        6 => back.clone().prop_map(Step::Use),
        2 => (back, 2usize..6).prop_map(|(back, many)| Step::UseAtOnce(back, many)),
        4 => (0usize..3).prop_map(Step::Call),
        4 => prop_oneof![Just(1), Just(59), Just(61), Just(ACCESS + LEEWAY + 1), Just(DAY - 1), Just(DAY + 1), Just(IDLE - 1), Just(IDLE + 1)]
            .prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => Just(Step::Revoke),
    ]
}

/// The model of a family: the rules of REFRESH-02 to 07, in seconds since it began.
struct Family {
    /// Its refresh tokens by generation; the last one is the leaf.
    refresh: Vec<String>,
    /// Its access tokens: generation, expiry, text.
    access: Vec<(usize, u64, String)>,
    now: u64,
    /// When the leaf was made.
    rotated: u64,
    /// When the leaf's idle time ends.
    idle_end: u64,
    /// The newest generation whose access token was used.
    seen: Option<usize>,
    dead: bool,
}

impl Family {
    fn of(first: Tokens) -> Self {
        Self {
            refresh: vec![first.refresh],
            access: vec![(0, ACCESS, first.access)],
            now: 0,
            rotated: 0,
            idle_end: IDLE,
            seen: None,
            dead: false,
        }
    }

    fn leaf(&self) -> usize {
        self.refresh.len() - 1
    }

    fn pick<T>(items: &[T], back: usize) -> usize {
        (items.len() - 1).saturating_sub(back)
    }

    /// Whether a use of this generation must succeed; updates the model, except for the tokens.
    fn expect_use(&mut self, generation: usize) -> bool {
        if self.dead || self.now >= self.idle_end {
            return false;
        }
        let leaf = self.leaf();
        if generation == leaf {
            self.rotated = self.now;
            self.idle_end = (self.now + IDLE).min(FAMILY);
            return true;
        }
        let age = self.now - self.rotated;
        let leaf_used = self.seen.is_some_and(|seen| seen >= leaf);
        let accepted = generation + 1 == leaf && (age < MINUTE || (!leaf_used && age < DAY));
        self.dead |= !accepted;
        accepted
    }

    /// Stores the tokens that a use of this generation returned.
    fn learn(&mut self, generation: usize, tokens: Tokens) {
        match self.refresh.get(generation + 1) {
            // REFRESH-04: using it again gives the same successor.
            Some(known) => assert_eq!(*known, tokens.refresh),
            None => self.refresh.push(tokens.refresh),
        }
        self.access.push((generation + 1, (self.now + ACCESS).min(FAMILY), tokens.access));
    }
}

async fn act(mut app: TestApp, client: &Client, family: &mut Family, step: &Step) -> TestApp {
    match step {
        Step::Use(back) => {
            let generation = Family::pick(&family.refresh, *back);
            let answer = app.refresh(client, &family.refresh[generation]).await;
            let expected = family.expect_use(generation);
            assert_eq!(
                answer.status().as_u16(),
                if expected { 200 } else { 400 },
                "{step:?} of {generation}"
            );
            if expected {
                family.learn(generation, Tokens::of(answer).await);
            }
        }
        Step::UseAtOnce(back, many) => {
            let generation = Family::pick(&family.refresh, *back);
            let presented = family.refresh[generation].clone();
            let uses = (0..*many).map(|_| app.refresh(client, &presented));
            for answer in futures_util::future::join_all(uses).await {
                // In some order: one request rotates, the others use the direct predecessor within the minute.
                let expected = family.expect_use(generation);
                assert_eq!(
                    answer.status().as_u16(),
                    if expected { 200 } else { 400 },
                    "{step:?} of {generation}"
                );
                if expected {
                    family.learn(generation, Tokens::of(answer).await);
                }
            }
        }
        Step::Call(back) => {
            let (generation, end, token) = &family.access[Family::pick(&family.access, *back)];
            let good = !family.dead && family.now < end + LEEWAY;
            let answer = app.call_tool(token, "whoami", json!({})).await;
            assert_eq!(answer.status().as_u16(), if good { 200 } else { 401 }, "{step:?} of {generation}");
            if good {
                family.seen = family.seen.max(Some(*generation));
            }
        }
        Step::Wait(seconds) => {
            family.now += seconds;
            app.clock.advance(Duration::from_secs(*seconds));
        }
        Step::Restart => app = app.restart().await,
        Step::Revoke => {
            let form = [("token", family.refresh[family.leaf()].as_str()), ("client_id", &client.id)];
            let answer = app.http.post(app.url("/revoke")).form(&form).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            family.dead = true;
        }
    }
    app
}

/// REFRESH-02, REFRESH-04, REFRESH-05, REFRESH-06, REFRESH-07, REVOKE-04: random sequences of use, loss,
/// repetition, crash and revocation.
#[test]
fn families_keep_the_rules() {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    runner
        .run(&prop::collection::vec(step(), 1..24), |steps| {
            runtime.block_on(async {
                let mut app = TestApp::start().await;
                let mut browser = app.admin().await;
                let client = app.client().await;
                let mut family = Family::of(app.tokens(&mut browser, &client).await);
                for step in &steps {
                    app = act(app, &client, &mut family, step).await;
                }
            });
            Ok(())
        })
        .unwrap();
}
