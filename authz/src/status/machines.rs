//! Clients that act in their own name, in memory: resource servers, which introspect, and clients with the
//! client credentials grant (INTRO, CC). Read at every introspection and for every token without a user.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use shared::db::Conn;
use shared::{ClientId, Digest, Fault, ResourceUri, Scope, Timestamp};
use tokio::sync::Semaphore;

use crate::store::clients::{self, AuthMethod};
use crate::store::{client_reports, resource_servers};

/// The most requests of one resource server in flight (INTRO-07).
pub(crate) const IN_FLIGHT: usize = 64;

/// An enabled client that acts in its own name.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The scope of its own tokens; `None` if it gets none (CC-01).
    pub own: Option<Arc<Scope>>,
    /// `Some` if it is a resource server.
    pub resource_server: Option<Arc<ResourceServer>>,
}

/// A resource server.
#[derive(Debug)]
pub(crate) struct ResourceServer {
    pub id: ClientId,
    /// Its name.
    pub name: String,
    /// The resources whose tokens it may introspect (INTRO-04).
    pub audiences: BTreeSet<ResourceUri>,
    /// Whether it introspects. One without authentication only checks signature and expiry.
    pub introspects: bool,
    /// A permit for each request in flight.
    pub in_flight: Arc<Semaphore>,
    methods: Vec<AuthMethod>,
    secrets: HashMap<Digest, Option<Timestamp>>,
}

impl ResourceServer {
    /// Whether this is one of its secrets, sent by a registered method (CAUTH-01, CAUTH-04).
    pub(crate) fn is_proven_by(&self, method: AuthMethod, secret: &Digest, now: Timestamp) -> bool {
        let live = |expires_at: &Option<Timestamp>| expires_at.is_none_or(|expires_at| now < expires_at);
        self.methods.contains(&method) && self.secrets.get(secret).is_some_and(live)
    }
}

impl Machine {
    /// Reads a client from the database; `None` if it does not act in its own name or is disabled.
    pub(crate) fn read(conn: &Conn<'_>, id: &ClientId, now: Timestamp) -> Result<Option<Self>, Fault> {
        let Some(client) = clients::find(conn, id)?.filter(|client| !client.disabled) else {
            return Ok(None);
        };
        let own = client.acts_in_its_own_name().then(|| Arc::new(client.scope.clone()));
        let audiences: BTreeSet<_> = resource_servers::audiences(conn, id)?.into_iter().collect();
        let resource_server = if audiences.is_empty() {
            None
        } else {
            let secrets = client_reports::secrets(conn, id, now)?.into_iter();
            Some(Arc::new(ResourceServer {
                id: id.clone(),
                name: client.name.clone(),
                audiences,
                introspects: client.auth_method != AuthMethod::None,
                in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
                methods: client.secret_methods(),
                secrets: secrets.map(|secret| (secret.digest, secret.expires_at)).collect(),
            }))
        };
        let acts = own.is_some() || resource_server.is_some();
        Ok(acts.then_some(Self { own, resource_server }))
    }

    /// The intersection with `other`: what both allow.
    fn narrowed(&self, other: &Self) -> Self {
        let own = match (&self.own, &other.own) {
            (Some(own), Some(other)) => Some(Arc::new(own.intersection(other))),
            _ => None,
        };
        let resource_server = match (&self.resource_server, &other.resource_server) {
            (Some(server), Some(other)) => Some(Arc::new(server.narrowed(other))),
            _ => None,
        };
        Self { own, resource_server }
    }

    /// The same client with the request counter of `before`.
    fn counting_with(mut self, before: Option<&Self>) -> Self {
        let before = before.and_then(|machine| machine.resource_server.as_ref());
        if let (Some(server), Some(before)) = (&mut self.resource_server, before)
            && let Some(server) = Arc::get_mut(server)
        {
            server.in_flight = Arc::clone(&before.in_flight);
        }
        self
    }
}

impl ResourceServer {
    fn narrowed(&self, other: &Self) -> Self {
        let secrets = self.secrets.iter().filter_map(|(digest, expires_at)| {
            let also = other.secrets.get(digest)?;
            // `None` means no end, which is later than any end.
            let first = [*expires_at, *also].into_iter().flatten().min();
            Some((*digest, first))
        });
        Self {
            id: self.id.clone(),
            name: other.name.clone(),
            audiences: self.audiences.intersection(&other.audiences).cloned().collect(),
            introspects: self.introspects && other.introspects,
            in_flight: Arc::clone(&self.in_flight),
            methods: self.methods.iter().filter(|method| other.methods.contains(method)).copied().collect(),
            secrets: secrets.collect(),
        }
    }
}

/// All such clients.
#[derive(Default)]
pub(super) struct Machines(HashMap<ClientId, Machine>);

impl Machines {
    pub(super) fn read(conn: &Conn<'_>, now: Timestamp) -> Result<Self, Fault> {
        let mut all = HashMap::new();
        for id in clients::acting_in_their_own_name(conn)? {
            if let Some(machine) = Machine::read(conn, &id, now)? {
                all.insert(id, machine);
            }
        }
        Ok(Self(all))
    }

    pub(super) fn get(&self, id: &ClientId) -> Option<&Machine> {
        self.0.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Machine> {
        self.0.values()
    }

    /// Removes what a client is about to lose.
    pub(super) fn narrow(&mut self, id: &ClientId, next: Option<&Machine>) {
        let left = match (self.0.get(id), next) {
            (Some(machine), Some(next)) => machine.narrowed(next),
            (None, _) => return,
            (Some(_), None) => {
                self.0.remove(id);
                return;
            }
        };
        self.0.insert(id.clone(), left);
    }

    /// Sets a client's new state.
    pub(super) fn set(&mut self, id: ClientId, next: Option<Machine>) {
        match next {
            Some(machine) => {
                let machine = machine.counting_with(self.0.get(&id));
                self.0.insert(id, machine);
            }
            None => {
                self.0.remove(&id);
            }
        }
    }
}
