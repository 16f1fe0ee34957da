//! An authorization server with its own database file, for tests of its inner parts: a clock that stands still,
//! one endpoint, one scope, and one group that may have it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use keys::{Keys, Seal};
use shared::catalogue::{Endpoint, OwnSecret, Risk, ScopeDescription, ToolDescription};
use shared::db::params;
use shared::rate::{Limits, Tally};
use shared::schema::SCHEMA;
use shared::{
    Catalogue, ClientId, Clock, Db, Fault, Issuer, RedirectUri, Request, ResourceUri, Scope, Timestamp, Tx,
};
use uuid::Uuid;

use crate::session::{self, Browser, SignedIn};
use crate::status::Groups;
use crate::store::clients::{self, AuthMethod, Client, Registration, Source, Trust};
use crate::store::sessions::Authentication;
use crate::store::users::{self, Role, User};
use crate::{Authz, Config, Parts, Status};

pub(crate) const READERS: &str = "readers";
const BROWSER: &str = "browser";

/// The server.
pub(crate) struct TestServer {
    pub authz: Authz,
    pub db: Db,
    pub clock: Clock,
    dir: Arc<tempfile::TempDir>,
}

struct OneEndpoint(ResourceUri);

impl Catalogue for OneEndpoint {
    fn endpoints(&self) -> Vec<Endpoint> {
        let (resource, default_scope) = (self.0.clone(), scope());
        vec![Endpoint { resource, name: "Documents".to_owned(), default_scope }]
    }

    fn scopes(&self) -> Vec<ScopeDescription> {
        let (name, title) = (scope().to_string(), "Read documents".to_owned());
        vec![ScopeDescription { name, title, risk: Risk::Low, risk_text: None }]
    }

    fn default_scope(&self) -> Scope {
        scope()
    }

    fn usable(&self, _: &ResourceUri, _: &Scope) -> Vec<ToolDescription> {
        Vec::new()
    }

    fn opened_by(&self, _: &ResourceUri, _: &str) -> Vec<ToolDescription> {
        Vec::new()
    }

    fn own_secrets(&self, _: &Scope) -> Vec<OwnSecret> {
        Vec::new()
    }
}

/// The only scope.
pub(crate) fn scope() -> Scope {
    "docs.read".parse().unwrap()
}

fn issuer() -> Issuer {
    Issuer::parse("https://auth.example").unwrap()
}

/// The only endpoint.
pub(crate) fn resource() -> ResourceUri {
    ResourceUri::at(&issuer(), "/mcp")
}

/// The scope of each group.
pub(crate) fn groups() -> Groups {
    Groups::new([(READERS.to_owned(), scope())].into())
}

impl TestServer {
    pub(crate) fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::open(dir, Clock::held(Timestamp::from_seconds(1_795_435_200)))
    }

    /// Stops the server and starts it again on the same file.
    pub(crate) fn restart(self) -> Self {
        let Self { authz, db, clock, dir } = self;
        drop((authz, db));
        Self::open(dir, clock)
    }

    fn open(dir: Arc<tempfile::TempDir>, clock: Clock) -> Self {
        let db = Db::open(&dir.path().join("x.db"), &SCHEMA, None, &clock).unwrap();
        let may_create = !Keys::exist(&db).unwrap();
        let seal = Arc::new(Seal::open_or_create(&dir.path().join("seal.key"), may_create).unwrap());
        let keys = Keys::open(&db, Arc::clone(&seal), keys::Config::default(), &clock).unwrap();
        let status = Status::load(&db, groups(), clock.now()).unwrap();
        let parts = Parts {
            config: Config::default(),
            issuer: issuer(),
            db: db.clone(),
            clock: clock.clone(),
            keys,
            seal,
            status,
            catalogue: Arc::new(OneEndpoint(resource())),
            limits: Limits::off(),
            tally: Arc::new(Tally::default()),
        };
        Self { authz: Authz::new(parts).unwrap(), db, clock, dir }
    }

    /// Runs a job on the writer, as handlers do.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Authz, &Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> T {
        self.attempt(job).unwrap()
    }

    pub(crate) fn attempt<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Authz, &Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let authz = self.authz.clone();
        self.db.write_blocking(move |tx| job(&authz, tx))
    }

    /// A client of an administrator, which users and devices may use.
    pub(crate) fn client(&self, id: &str) -> Client {
        let client = Client {
            id: ClientId::parse(id).unwrap(),
            name: id.to_owned(),
            source: Source::Administrator,
            trust: Trust::Verified,
            auth_method: AuthMethod::None,
            auth_defaulted: false,
            jwks: None,
            grant_types: ["authorization_code", "refresh_token", crate::grants::GrantType::DeviceCode.name()]
                .map(str::to_owned)
                .into(),
            redirect_uris: vec![RedirectUri::parse("https://app.example/callback").unwrap()],
            scope: Scope::empty(),
            disabled: false,
        };
        let inserted = client.clone();
        self.write(move |_, tx| {
            let registration = Registration {
                application_type: "native",
                metadata: "{}",
                fingerprint: None,
                management: None,
                holder: None,
            };
            clients::insert(tx, &inserted, &registration)
        });
        client
    }

    /// Adds a user who may read.
    pub(crate) fn person(&self, name: &str) -> User {
        let user = User {
            id: shared::UserId::random(),
            name: name.to_owned(),
            handle: Uuid::new_v4(),
            disabled: false,
        };
        let added = user.clone();
        self.write(move |authz, tx| {
            users::insert(tx, &added, Role::None)?;
            let groups = [READERS.to_owned()];
            users::set_groups(tx, &added.id, &groups)?;
            authz.status.set_groups(tx, &added.id, &groups);
            Ok(())
        });
        user
    }

    /// Signs a user in with a browser. The passkey is a dummy that cannot be verified.
    pub(crate) fn sign_in(&self, user: &User) -> (Browser, SignedIn) {
        let authentication = Authentication {
            credential: user.id.as_str().as_bytes().to_vec(),
            amr: "hwk user".to_owned(),
            user_verified: true,
            backed_up: false,
        };
        let (who, unknown) = (user.clone(), self.browser(None));
        let (secret, session) = self.write(move |_, tx| {
            tx.execute(
                "INSERT INTO passkey (credential, user_id, data, created_at) VALUES (?1, ?2, '{}', ?3) ON CONFLICT DO NOTHING",
                params![who.id.as_str().as_bytes(), who.id, tx.now()],
            )?;
            let who = users::enabled(tx, &who.id)?.unwrap();
            session::start(tx, &who, authentication, &unknown, None, &Request::from(None))
        });
        (self.browser(Some(secret.expose())), SignedIn { session, user: user.clone() })
    }

    fn browser(&self, session: Option<&str>) -> Browser {
        let mut cookies = format!("__Host-txn={BROWSER}");
        if let Some(session) = session {
            cookies = format!("{cookies}; __Host-sid={session}");
        }
        let headers: HeaderMap =
            [(header::COOKIE, HeaderValue::from_str(&cookies).unwrap())].into_iter().collect();
        Browser::from_headers(&self.authz.cookies, &headers)
    }
}
