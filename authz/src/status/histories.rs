//! Random histories of revocations, permissions and restarts. After each step, revoked tokens stay refused, and
//! memory agrees with a server that has just read the database.

use std::time::Duration;

use proptest::prelude::*;
use shared::{ClientId, Fault, UserId};

use super::*;
use crate::Authz;
use crate::access;
use crate::clients::administration;
use crate::people;
use crate::store::grants::Grant;
use crate::testing::{READERS, TestServer, groups, resource, scope};

/// The operating-system user of the commands.
const UID: u32 = 0;
const LIFETIME: i64 = 3600;

#[derive(Clone, Debug)]
enum Step {
    Issue {
        user: usize,
        client: usize,
    },
    RevokeGrant(usize),
    RevokeToken(usize),
    DisableUser(usize),
    EnableUser(usize),
    DeleteUser(usize),
    Join(usize),
    Leave(usize),
    DisableClient(usize),
    EnableClient(usize),
    DeleteClient(usize),
    Lockdown,
    /// The batch that would end this token fails at its commit.
    Lost(usize),
    Minutes(u64),
    Restart,
}

const USERS: usize = 3;
const CLIENTS: usize = 2;

fn step() -> impl Strategy<Value = Step> {
    let (user, client, token) = (0..USERS, 0..CLIENTS, 0..64_usize);
    prop_oneof![
        8 => (user.clone(), client.clone()).prop_map(|(user, client)| Step::Issue { user, client }),
        2 => token.clone().prop_map(Step::RevokeGrant),
        2 => token.clone().prop_map(Step::RevokeToken),
        1 => user.clone().prop_map(Step::DisableUser),
        2 => user.clone().prop_map(Step::EnableUser),
        1 => user.clone().prop_map(Step::DeleteUser),
        1 => user.clone().prop_map(Step::Join),
        1 => user.prop_map(Step::Leave),
        1 => client.clone().prop_map(Step::DisableClient),
        2 => client.clone().prop_map(Step::EnableClient),
        1 => client.prop_map(Step::DeleteClient),
        1 => Just(Step::Lockdown),
        2 => token.prop_map(Step::Lost),
        1 => (1..40_u64).prop_map(Step::Minutes),
        2 => Just(Step::Restart),
    ]
}

struct Person {
    id: UserId,
    enabled: bool,
    reads: bool,
}

struct Issued {
    token: AccessToken,
    dead: bool,
}

/// The server, and the expected state of each token.
struct World {
    house: TestServer,
    people: [Option<Person>; USERS],
    clients: [Option<(ClientId, bool)>; CLIENTS],
    issued: Vec<Issued>,
    made: usize,
}

impl World {
    fn new() -> Self {
        Self {
            house: TestServer::new(),
            people: std::array::from_fn(|_| None),
            clients: std::array::from_fn(|_| None),
            issued: Vec::new(),
            made: 0,
        }
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("c_{}", self.made)
    }

    fn issue(&mut self, user: usize, client: usize) {
        // Leave the second in which a lockdown happened.
        self.house.clock.advance(Duration::from_secs(1));
        if self.people[user].is_none() {
            let name = self.name();
            self.people[user] = Some(Person { id: self.house.person(&name).id, enabled: true, reads: true });
        }
        if self.clients[client].is_none() {
            let name = self.name();
            self.clients[client] = Some((self.house.client(&name).id, true));
        }
        let (Some(person), Some((client, true))) = (&self.people[user], &self.clients[client]) else {
            return;
        };
        if !person.enabled {
            return;
        }
        let issued_at = self.house.clock.now().seconds();
        let grant = Grant {
            id: GrantId::random(),
            user_id: person.id.clone(),
            client_id: client.clone(),
            resource: resource(),
            scope: scope(),
            amr: "hwk".to_owned(),
            auth_time: self.house.clock.now(),
            expires_at: self.house.clock.now() + Duration::from_hours(24),
            seen_generation: None,
            revoked: false,
        };
        let token = AccessToken {
            iss: self.house.authz.issuer().to_string(),
            sub: person.id.to_string(),
            aud: resource(),
            client_id: client.clone(),
            exp: issued_at + LIFETIME,
            iat: issued_at,
            nbf: None,
            jti: Jti::random(0),
            scope: scope(),
            grant_id: grant.id.clone(),
            auth_time: None,
            acr: None,
            amr: None,
        };
        self.house.write(move |_, tx| grants::insert(tx, &grant));
        self.issued.push(Issued { token, dead: false });
    }

    fn kill(&mut self, whose: impl Fn(&AccessToken) -> bool) {
        for issued in self.issued.iter_mut().filter(|issued| whose(&issued.token)) {
            issued.dead = true;
        }
    }

    fn some_token(&self, n: usize) -> Option<AccessToken> {
        let at = n.checked_rem(self.issued.len())?;
        Some(self.issued[at].token.clone())
    }

    /// Runs a command about a user.
    fn about(
        &self,
        user: usize,
        command: impl FnOnce(&Authz, &Tx<'_>, &str) -> people::Answer<people::Person> + Send + 'static,
    ) -> Option<UserId> {
        let id = self.people[user].as_ref()?.id.clone();
        let who = id.to_string();
        self.house.write(move |authz, tx| command(authz, tx, &who)).unwrap();
        Some(id)
    }

    fn about_client(
        &self,
        client: usize,
        command: impl FnOnce(&Authz, &Tx<'_>, &str) -> administration::Answer<administration::Details>
        + Send
        + 'static,
    ) -> Option<ClientId> {
        let id = self.clients[client].as_ref()?.0.clone();
        let who = id.to_string();
        assert!(self.house.write(move |authz, tx| command(authz, tx, &who)).is_ok());
        Some(id)
    }

    fn regroup(&mut self, user: usize, reads: bool) {
        let readers = vec![READERS.to_owned()];
        let (add, remove) = if reads { (readers, vec![]) } else { (vec![], readers) };
        let done =
            self.about(user, move |authz, tx, who| people::regroup(authz, tx, UID, who, &add, &remove));
        if let (Some(_), Some(person)) = (done, &mut self.people[user]) {
            person.reads = reads;
        }
    }

    /// Runs a job that is rolled back after memory was updated.
    fn lose(&self, token: AccessToken) {
        let lost = self.house.attempt(move |authz, tx| {
            let ended = access::revoke_token(authz, tx, UID, &access::NamedToken::Jti(token.jti.clone()))?;
            let _ = (ended, access::revoke_grant(authz, tx, UID, token.grant_id.as_str())?);
            access::lock_down(authz, tx, UID)?;
            tx.execute("PRAGMA defer_foreign_keys = ON", [])?;
            tx.execute("INSERT INTO client_redirect_uri (client_id, uri) VALUES ('nobody', 'x')", [])
        });
        assert!(matches!(lost, Err(Fault::Storage(_))), "{lost:?}");
    }

    fn take(mut self, step: &Step) -> Self {
        match *step {
            Step::Issue { user, client } => self.issue(user, client),
            Step::RevokeGrant(n) => {
                if let Some(token) = self.some_token(n) {
                    let grant = token.grant_id.clone();
                    let _ = self
                        .house
                        .write(move |authz, tx| access::revoke_grant(authz, tx, UID, grant.as_str()));
                    self.kill(|other| other.grant_id == token.grant_id);
                }
            }
            Step::RevokeToken(n) => {
                if let Some(token) = self.some_token(n) {
                    let jti = token.jti.clone();
                    let _ = self.house.write(move |authz, tx| {
                        access::revoke_token(authz, tx, UID, &access::NamedToken::Jti(jti.clone()))
                    });
                    self.kill(|other| other.jti == token.jti);
                }
            }
            Step::DisableUser(n) => {
                if let Some(id) = self.about(n, |authz, tx, who| {
                    Ok(people::disable(authz, tx, UID, who)?.map(|(person, _)| person))
                }) {
                    self.people[n].as_mut().unwrap().enabled = false;
                    self.kill(|token| token.sub == id.as_str());
                }
            }
            Step::EnableUser(n) => {
                if self.about(n, |authz, tx, who| people::enable(authz, tx, UID, who)).is_some() {
                    self.people[n].as_mut().unwrap().enabled = true;
                }
            }
            Step::DeleteUser(n) => {
                if let Some(id) = self.about(n, |authz, tx, who| people::delete(authz, tx, UID, who)) {
                    self.people[n] = None;
                    self.kill(|token| token.sub == id.as_str());
                }
            }
            Step::Join(n) => self.regroup(n, true),
            Step::Leave(n) => self.regroup(n, false),
            Step::DisableClient(n) => {
                if let Some(id) =
                    self.about_client(n, |authz, tx, who| administration::disable(authz, tx, UID, who))
                {
                    self.clients[n].as_mut().unwrap().1 = false;
                    self.kill(|token| token.client_id == id);
                }
            }
            Step::EnableClient(n) => {
                let enabled =
                    self.about_client(n, |authz, tx, who| administration::enable(authz, tx, UID, who));
                if enabled.is_some() {
                    self.clients[n].as_mut().unwrap().1 = true;
                }
            }
            Step::DeleteClient(n) => {
                if let Some(id) =
                    self.about_client(n, |authz, tx, who| administration::delete(authz, tx, UID, who))
                {
                    self.clients[n] = None;
                    self.kill(|token| token.client_id == id);
                }
            }
            Step::Lockdown => {
                self.house.write(|authz, tx| access::lock_down(authz, tx, UID));
                self.kill(|_| true);
            }
            Step::Lost(n) => {
                if let Some(token) = self.some_token(n) {
                    self.lose(token);
                }
            }
            Step::Minutes(minutes) => self.house.clock.advance(Duration::from_mins(minutes)),
            Step::Restart => self.house = self.house.restart(),
        }
        self
    }

    /// Checks every unexpired token against its expected state: in memory, in a freshly started server, and by
    /// its grant.
    fn holds(&self, step: &Step) {
        let now = self.house.clock.now();
        let fresh = Status::load(&self.house.db, groups(), now).unwrap();
        for Issued { token, dead } in &self.issued {
            if now >= token.expires() + LEEWAY {
                continue;
            }
            let person = self.people.iter().flatten().find(|person| person.id.as_str() == token.sub);
            let expected = person.filter(|_| !dead).map(|p| if p.reads { scope() } else { Scope::empty() });
            for (status, which) in [(&self.house.authz.status, "memory"), (&fresh, "a fresh start")] {
                let found = match status.standing(token, "") {
                    Standing::Live { entitled, .. } => Some((*entitled).clone()),
                    Standing::Dead => None,
                };
                assert_eq!(found, expected, "{which}, after {step:?}: {token:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// RS-08, REFRESH-08, STORE-02: after any history of revocations and restarts, revoked tokens are refused,
    /// others accepted, and memory and database agree.
    #[test]
    fn an_ended_token_never_becomes_valid_again(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world = world.take(step);
            world.holds(step);
        }
    }
}
