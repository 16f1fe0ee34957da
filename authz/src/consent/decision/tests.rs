use shared::{Digest, Request, Tx};

use super::*;
use crate::session::{Browser, SignedIn};
use crate::store::client_reports::{self, GrantFilter};
use crate::store::transactions::Transaction;
use crate::testing::{TestServer, resource, scope};

/// A request that waits in this browser for its signed-in user.
fn asked(
    house: &TestServer,
    client: &Client,
    browser: &Browser,
    decider: &SignedIn,
    stored: bool,
) -> Question {
    let transaction = Transaction {
        id: format!("t_{}", shared::id::random_128()),
        browser: browser.id().ok().unwrap(),
        client_id: client.id.clone(),
        redirect_uri: client.redirect_uris[0].clone(),
        state: None,
        code_challenge: "c".repeat(43),
        scope: scope(),
        resource: resource(),
        prompt_login: false,
        prompt_consent: false,
        max_age: None,
        signed_in: None,
        user_id: None,
        expires_at: house.clock.now() + Duration::from_mins(10),
        decided: false,
    };
    let request = Request::from(None);
    if stored {
        let (transaction, request) = (transaction.clone(), request.clone());
        house.write(move |authz, tx| {
            let client = Current::read(tx, |tx| client_of(authz, tx, &transaction))?.found().unwrap();
            crate::authorize::store(tx, &transaction, &client, &request, &(&request).into()).map(|_| ())
        });
    }
    let asked = crate::consent::question(&house.authz, &request, browser, transaction, decider.clone());
    asked.unwrap().unwrap()
}

fn settled(house: &TestServer, question: &Question) -> Outcome {
    let question = question.clone();
    let pressed = SubmittedDecision { approve: true, ticked: scope(), confirmed: None };
    house.write(move |authz, tx| settle(authz, tx, &question, &pressed))
}

fn recalled(house: &TestServer, question: &Question, stored: bool) -> Option<Secret> {
    let question = question.clone();
    house.write(move |authz, tx| settle_from_memory(authz, tx, &question, stored))
}

fn grants(house: &TestServer) -> usize {
    let now = house.clock.now();
    house.db.read(|conn| client_reports::access(conn, GrantFilter::default(), now, 100)).unwrap().len()
}

fn is_decided(house: &TestServer, question: &Question) -> bool {
    let found = house.db.read(|conn| transactions::find(conn, &question.transaction.id)).unwrap();
    found.unwrap().decided
}

fn end_session(house: &TestServer, signed_in: &SignedIn) {
    let digest = signed_in.session.digest;
    house.write(move |_, tx: &Tx<'_>| sessions::delete(tx, &digest));
}

/// SESSION-05, SESSION-06, CONSENT-03: if the session ends while the answer waits for the writer, nothing is
/// decided, and the user can sign in again and answer.
#[test]
fn an_answer_does_not_outlive_its_session() {
    let house = TestServer::new();
    let (client, ada) = (house.client("c_app"), house.person("ada"));
    let (browser, signed_in) = house.sign_in(&ada);
    let question = asked(&house, &client, &browser, &signed_in, true);
    end_session(&house, &signed_in);
    assert!(matches!(settled(&house, &question), Outcome::SignedOut));
    assert_eq!((grants(&house), is_decided(&house, &question)), (0, false));
    let records = house.db.read(|conn| audit::tail(conn, 100, 0)).unwrap();
    assert!(
        records.iter().any(|r| r["event"] == "authz.denied" && r["reason"] == "session_over"),
        "{records:?}"
    );

    let (browser, signed_in) = house.sign_in(&ada);
    let again = Question {
        sign_in: SignIn { browser, decider: signed_in, ..question.sign_in.clone() },
        ..question.clone()
    };
    assert!(matches!(settled(&house, &again), Outcome::Approved(_)));
    assert_eq!((grants(&house), is_decided(&house, &question)), (1, true));
}

/// SESSION-05, CONSENT-04: a remembered consent does not answer for a user who has been signed out.
#[test]
fn an_ended_session_gets_no_remembered_consent() {
    let house = TestServer::new();
    let (client, ada) = (house.client("c_app"), house.person("ada"));
    let (browser, signed_in) = house.sign_in(&ada);
    let first = asked(&house, &client, &browser, &signed_in, true);
    assert!(matches!(settled(&house, &first), Outcome::Approved(_)));
    let [recalled_before, stored, silent] =
        [true, true, false].map(|stored| asked(&house, &client, &browser, &signed_in, stored));
    assert!(recalled(&house, &recalled_before, true).is_some(), "it is remembered");
    end_session(&house, &signed_in);
    assert!(recalled(&house, &stored, true).is_none() && recalled(&house, &silent, false).is_none());
    assert_eq!(grants(&house), 2);
    let found = house.db.read(|conn| transactions::find(conn, &silent.transaction.id)).unwrap();
    assert!(found.is_none(), "nothing of it was stored");
}

/// REFRESH-08, CONSENT-07: after a lockdown every user is asked again, in the same browser too.
#[test]
fn a_lockdown_forgets_remembered_consents() {
    let house = TestServer::new();
    let (client, ada) = (house.client("c_app"), house.person("ada"));
    let (browser, signed_in) = house.sign_in(&ada);
    let first = asked(&house, &client, &browser, &signed_in, true);
    assert!(matches!(settled(&house, &first), Outcome::Approved(_)));
    let waiting = asked(&house, &client, &browser, &signed_in, true);
    house.write(|authz, tx| crate::access::lock_down(authz, tx, 0));
    assert!(recalled(&house, &waiting, true).is_none());
    assert!(!matches!(settled(&house, &waiting), Outcome::Approved(_)));
    house.clock.advance(Duration::from_secs(1));
    let (browser, signed_in) = house.sign_in(&ada);
    let after = asked(&house, &client, &browser, &signed_in, true);
    assert!(recalled(&house, &after, true).is_none(), "it is not remembered");
    assert_eq!(grants(&house), 0);
    assert!(matches!(settled(&house, &after), Outcome::Approved(_)));
    let next = asked(&house, &client, &browser, &signed_in, true);
    assert!(recalled(&house, &next, true).is_some(), "what is allowed after it is");
    assert_eq!(grants(&house), 2);
}

/// SESSION-09: a cancelled request cannot be decided.
#[test]
fn a_deleted_request_cannot_be_decided() {
    let house = TestServer::new();
    let (client, ada) = (house.client("c_app"), house.person("ada"));
    let (browser, signed_in) = house.sign_in(&ada);
    let question = asked(&house, &client, &browser, &signed_in, true);
    let here: Digest = browser.id().ok().unwrap();
    house.write(move |_, tx| {
        transactions::cancel(tx, &here, transactions::CancelledRequests::Everybodys, None)
    });
    assert!(matches!(settled(&house, &question), Outcome::DecidedBefore));
    assert_eq!(grants(&house), 0);
}
