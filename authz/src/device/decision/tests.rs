use std::time::Duration;

use shared::Digest;
use shared::share::Holder;

use super::*;
use crate::store::client_reports::{self, GrantFilter};
use crate::store::devices::{Device, Stage, Typed};
use crate::store::sessions;
use crate::store::transactions::Assertion;
use crate::testing::{TestServer, resource, scope};

/// SESSION-05, SESSION-06, DEV-01: if the session ends while the decision waits for the writer, nothing is
/// decided and the device still waits.
#[test]
fn a_decision_does_not_outlive_its_session() {
    let house = TestServer::new();
    let (client, ada) = (house.client("c_app"), house.person("ada"));
    let (browser, signed_in) = house.sign_in(&ada);
    let device = Device {
        code: Digest::of(b"device code"),
        client_id: client.id.clone(),
        scope: scope(),
        resource: resource(),
        address: None,
        created_at: house.clock.now(),
        expires_at: house.clock.now() + Duration::from_mins(10),
        interval: Duration::from_secs(5),
        polled_at: None,
        stage: Stage::Waiting,
    };
    let made =
        Assertion { session: signed_in.session.digest, user_id: ada.id.clone(), proof: Digest::of(b"proof") };
    let typed = Typed {
        id: "d_typed".to_owned(),
        device_code: device.code,
        browser: browser.id().ok().unwrap(),
        signed_in: Some(made),
        expires_at: device.expires_at,
        decided: false,
    };
    let (waiting, entered) = (device.clone(), typed.clone());
    house.write(move |_, tx| {
        let holder = Holder::from(&Request::from(None));
        let client = Current::read(tx, |tx| clients::find(tx, &waiting.client_id))?.found().unwrap();
        assert!(devices::insert(tx, &waiting, &Digest::of(b"user code"), &client, &holder)?);
        devices::insert_typed(tx, &entered, &Current::read(tx, |_| Ok(waiting))?, &holder).map(|_| ())
    });
    let answered = || {
        let open = Open { typed: typed.clone(), device: device.clone(), client: client.clone() };
        let (browser, signed_in) = (browser.clone(), signed_in.clone());
        let request = Request::from(None);
        let decision = Decision { approved: true, ticked: scope(), open, signed_in, browser, request };
        house.write(move |authz, tx| settle(authz, tx, &decision))
    };
    let grants = || {
        let now = house.clock.now();
        house.db.read(|conn| client_reports::access(conn, GrantFilter::default(), now, 100)).unwrap().len()
    };
    let stage = || house.db.read(|conn| devices::find(conn, &device.code)).unwrap().unwrap().stage;

    let session = signed_in.session.digest;
    let ended = house.db.read(|conn| sessions::find(conn, &session)).unwrap().unwrap();
    house.write(move |_, tx| sessions::delete(tx, &session));
    assert_eq!(answered(), Outcome::SignedOut);
    assert_eq!((grants(), stage()), (0, Stage::Waiting));

    house.write(move |_, tx| sessions::insert(tx, &ended, None, None));
    assert_eq!(answered(), Outcome::Approved);
    assert_eq!(grants(), 1);
}
