use super::*;
use crate::clock::Timestamp;
use crate::id::{ClientId, UserId};
use crate::request::Request;

struct Fixture {
    clock: Clock,
    flood: Flood,
}

fn fixture() -> Fixture {
    let clock = Clock::held(Timestamp(0));
    Fixture { flood: Flood::new(clock.clone()), clock }
}

fn from(address: &str) -> Request {
    Request::from(Some(address.parse().unwrap()))
}

fn junk(address: &str) -> Event {
    Event::denied(Name::RsDenied, "not_a_jwt").request(&from(address))
}

impl Fixture {
    fn own(&self, event: &Event) -> bool {
        self.flood.admit(event, ClientStanding::Unknown).0
    }

    fn many(&self, event: &Event, count: u32) -> u32 {
        (0..count).map(|_| u32::from(self.own(event))).sum()
    }

    fn held_back(&self) -> u64 {
        self.flood.take().iter().map(|one| one.count).sum()
    }
}

/// AUDIT-06: every event is recorded or counted, and the count says what it counts.
#[test]
fn every_refusal_is_recorded_or_counted() {
    let f = fixture();
    let event = junk("192.0.2.1");
    assert_eq!(f.many(&event, QUOTA + 5), QUOTA);
    f.clock.advance(WINDOW);
    let (own, held_back) = f.flood.admit(&event, ClientStanding::Unknown);
    assert!(own);
    assert_eq!(held_back.iter().map(|one| one.count).collect::<Vec<_>>(), [5]);
    let counted = held_back[0].event();
    assert_eq!((counted.reason(), counted.text("src_ip")), ("flood", Some("192.0.2.1")));
    let detail = |name| counted.detail.get(name).and_then(serde_json::Value::as_str);
    assert_eq!((detail("of"), detail("from")), (Some("not_a_jwt"), Some("192.0.2.1")));
    assert_eq!(f.held_back(), 0);
    f.flood.put_back(held_back);
    assert_eq!(f.held_back(), 5);
}

/// AUDIT-06: events of one kind, from one address or about one subject do not hide others.
#[test]
fn a_flood_hides_nothing_else() {
    let f = fixture();
    f.many(&junk("192.0.2.1"), 10_000);
    let other_kind = Event::denied(Name::RsDenied, "expired").request(&from("192.0.2.1"));
    assert!(f.own(&other_kind));
    assert!(f.own(&junk("192.0.2.2")));
    let revoked = |jti: &str| Event::denied(Name::RsDenied, "revoked").jti(jti).request(&from("192.0.2.1"));
    assert_eq!(f.many(&revoked("t1"), 10_000), QUOTA);
    assert!(f.own(&revoked("t2")));
    let user = |id: &UserId| {
        Event::failed(Name::WebauthnFailed, "assertion").by_user(id).request(&from("192.0.2.1"))
    };
    let (ada, grace) = (UserId::random(), UserId::random());
    assert_eq!(f.many(&user(&ada), 10_000), QUOTA);
    assert!(f.own(&user(&grace)));
}

/// AUDIT-06: a client id that a request merely claims is not a subject; a self-registered client is, up to a
/// limit per network; an approved client always is.
#[test]
fn unknown_client_ids_get_no_counter() {
    let f = fixture();
    let client = |n: u32| {
        let id = ClientId::parse(&format!("c_{n}")).unwrap();
        Event::denied(Name::ClientAuthFailed, "client_unknown").client(&id).request(&from("192.0.2.1"))
    };
    assert_eq!((0..10_000).filter(|n| f.own(&client(*n))).count(), QUOTA as usize);
    let with = |n: u32, how| f.flood.admit(&client(n), how).0;
    let told_apart = (0..10_000).filter(|n| with(*n, ClientStanding::SelfMade)).count();
    assert_eq!(told_apart, MOST_OF_A_NETWORK as usize - 1);
    assert!((0..500).all(|n| with(n, ClientStanding::Known)));
}

/// AUDIT-06: the number of records that strangers cause is bounded, from any number of addresses; neither a
/// network nor a thousand addresses hide events from elsewhere or about known subjects.
#[test]
fn many_addresses_cause_a_bounded_number_of_records() {
    let f = fixture();
    let mut written = 0;
    for n in 0..20_000_u32 {
        written += f.many(&junk(&format!("2001:db8:1:{n:x}::1")), 2);
    }
    assert!(written <= 2 * MOST_OF_A_NETWORK + QUOTA, "{written}");
    assert!(f.own(&junk("2001:db8:2::1")));
    for n in 0..60_000_u32 {
        written += f.many(&junk(&format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255)), 3);
    }
    let most = PLENTY + 2 * FIRST * u32::try_from(MOST).unwrap() + QUOTA;
    assert!(written <= most, "{written}");
    let revoked = Event::denied(Name::RsDenied, "revoked").jti("t1").request(&from("192.0.2.1"));
    assert!(f.own(&revoked));
    assert_eq!(u64::from(written) + f.held_back(), 2 * 20_000 + 3 * 60_000);
    assert!(f.flood.lock().allowances.len() <= 2 * MOST + 3);
}

/// AUDIT-06: the records about one subject are bounded, from any number of addresses.
#[test]
fn one_subject_is_bounded_too() {
    let f = fixture();
    let revoked = |n: u32| {
        let request = from(&format!("10.0.{}.{}", n >> 8, n & 255));
        Event::denied(Name::RsDenied, "revoked").jti("t1").request(&request)
    };
    let written: u32 = (0..1000).map(|n| f.many(&revoked(n), QUOTA + 1)).sum();
    assert_eq!(written, (u32::try_from(NETWORKS_OF_A_SUBJECT).unwrap() + 1) * QUOTA);
    // A /48 that has used up its allowance for one subject has not used it up for others.
    let other = |address: &str| Event::denied(Name::RsDenied, "revoked").jti("t2").request(&from(address));
    for n in 0..1000 {
        f.many(&other(&format!("2001:db8:1:{n:x}::1")), QUOTA + 1);
    }
    assert!(f.own(&other("192.0.2.1")));
}

/// AUDIT-06, OPS-04: setting the clock neither opens a new window nor keeps one closed.
#[test]
fn a_changed_wall_clock_allows_no_extra_records() {
    let f = fixture();
    let event = junk("192.0.2.1");
    assert_eq!(f.many(&event, QUOTA), QUOTA);
    f.clock.set(Timestamp(2_208_988_800_000));
    assert!(!f.own(&event));
    f.clock.set(Timestamp(0));
    f.clock.restart();
    f.clock.advance(WINDOW);
    let (own, held_back) = f.flood.admit(&event, ClientStanding::Unknown);
    assert_eq!((own, held_back.len(), held_back[0].count), (true, 1, 1));
}
