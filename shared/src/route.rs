//! What is known about each path before its handler runs, declared where the handler is (RATE-01, HTTP-06, OPS-05).
//! Nobody asks about a path by its name again; tests walk the whole table.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::MethodRouter;
use http::Method;

/// Bodies of more bytes are refused, where a route says nothing else (standards §1).
pub const LARGEST_BODY: usize = 16 * 1024;

/// Which limit counts requests to a path (the matrix of RATE-01).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Limit {
    /// None, for the reason given.
    Free(&'static str),
    /// By address, by client, and by failures of a client to prove itself.
    Token,
    /// The same, but that a client may ask as often as it likes.
    Client,
    /// By address, failures only: those who prove who they are ask as often as they like (INTRO-07).
    Failures,
    /// By address: how many clients are stored (DCR-12), and how often it is asked for in vain.
    Register,
    /// By address; pages count too, because looking starts something.
    Authorize,
    /// By address, if a passkey is used for it; and an authorization request that ends well here is refunded where it
    /// began.
    Decision,
    /// The same for what is no authorization request.
    Change,
    /// By address: a passkey was used for it a moment ago.
    DeviceDecision,
    /// By address, and by user once it is known who it is.
    Passkey,
    /// By address: a page's script begins something for which this server keeps a row (RATE-06).
    Start,
    /// By address: a page's form, which may leave a row or a record (RATE-06).
    Form,
    /// By address, whatever is answered: anybody can register a client, and ask about it (RFC 7592).
    Management,
    /// By user and client, once the token says who they are; by address where it is no token of ours.
    Mcp,
}

impl Limit {
    /// Whether a request with this method counts. Reading a page costs nothing, where it starts nothing.
    pub fn counts(self, method: &Method) -> bool {
        match self {
            Self::Free(_) => false,
            Self::Authorize | Self::Management | Self::Mcp => true,
            _ => !matches!(*method, Method::GET | Method::HEAD),
        }
    }
}

/// Which pages of other origins may read the answers (HTTP-06).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cors {
    /// None.
    Closed,
    /// Every page: a public document.
    Documents,
    /// Every page: an endpoint of clients, which bring their own proof.
    Clients,
    /// The same, with the methods of client management (RFC 7592).
    Management,
    /// Those that the handler allows (MCP-14).
    ByHandler,
}

/// Who asks, and so in which form a refusal is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// A person with a browser: a page.
    Person,
    /// A program: JSON.
    Program,
}

/// Under which names and from whom a path is answered (HTTP-01, HTTP-03).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// Those that the server is known by.
    Known,
    /// The handler decides (MCP-14).
    ByHandler,
    /// Any, also without TLS: a probe asks by address (OPS-05).
    Any,
}

/// What is declared about a path.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The path as axum writes it, with parameters in braces.
    pub path: &'static str,
    pub limit: Limit,
    pub cors: Cors,
    pub audience: Audience,
    pub host: Host,
    /// The largest body in bytes.
    pub body: usize,
}

impl Rule {
    /// What holds for a path that nobody declared.
    pub const UNKNOWN: Self = Self {
        path: "",
        limit: Limit::Free("there is nothing"),
        cors: Cors::Closed,
        audience: Audience::Person,
        host: Host::Known,
        body: LARGEST_BODY,
    };
    /// What holds where a document could be and is not.
    const NO_DOCUMENT: Self = Self { cors: Cors::Documents, audience: Audience::Program, ..Self::UNKNOWN };
}

/// A handler with its rule, on its way into [`Routes`].
pub struct Route<S> {
    handler: MethodRouter<S>,
    rule: Rule,
}

/// A route that programs ask.
pub fn program<S>(handler: MethodRouter<S>, limit: Limit) -> Route<S> {
    Route { handler, rule: Rule { limit, audience: Audience::Program, ..Rule::UNKNOWN } }
}

/// A route that people's browsers ask.
pub fn page<S>(handler: MethodRouter<S>, limit: Limit) -> Route<S> {
    Route { handler, rule: Rule { limit, ..Rule::UNKNOWN } }
}

impl<S> Route<S> {
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.rule.cors = cors;
        self
    }

    #[must_use]
    pub fn host(mut self, host: Host) -> Self {
        self.rule.host = host;
        self
    }

    /// Takes bodies of up to so many bytes.
    #[must_use]
    pub fn body(mut self, bytes: usize) -> Self {
        self.rule.body = bytes;
        self
    }
}

/// Routes, and what is declared about each.
pub struct Routes<S = ()> {
    router: Router<S>,
    rules: Vec<Rule>,
    guard: Guard<S>,
}

/// What is put around each handler, knowing its rule.
type Guard<S> = Box<dyn Fn(Rule, MethodRouter<S>) -> MethodRouter<S>>;

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::guarded(|_, handler| handler)
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes yet; each will have this around its handler.
    pub fn guarded(guard: impl Fn(Rule, MethodRouter<S>) -> MethodRouter<S> + 'static) -> Self {
        Self { router: Router::new(), rules: Vec::new(), guard: Box::new(guard) }
    }

    #[must_use]
    pub fn route(mut self, path: &'static str, route: Route<S>) -> Self {
        let rule = Rule { path, ..route.rule };
        let handler = (self.guard)(rule, route.handler).layer(DefaultBodyLimit::max(rule.body));
        self.router = self.router.route(path, handler);
        self.rules.push(rule);
        self
    }

    /// More routes, if a condition holds: what is off is not there (META-04).
    #[must_use]
    pub fn when(self, condition: bool, more: impl FnOnce(Self) -> Self) -> Self {
        if condition { more(self) } else { self }
    }

    /// Joins two.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.rules.extend(other.rules);
        self
    }

    /// Puts a layer around all of them.
    #[must_use]
    pub fn around(mut self, layer: impl FnOnce(Router<S>) -> Router<S>) -> Self {
        self.router = layer(self.router);
        self
    }

    /// Gives the handlers their state.
    pub fn with_state(self, state: S) -> Routes {
        Routes { router: self.router.with_state(state), rules: self.rules, ..Routes::default() }
    }
}

impl Routes {
    /// The router, and the table of what was declared.
    pub fn split(self) -> (Router, Table) {
        (self.router, Table::new(self.rules))
    }
}

/// What is declared about every path.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rules: Vec<Rule>,
    by_path: matchit::Router<usize>,
}

impl Table {
    /// # Panics
    /// If two rules contend for a path; the router would not have taken them either.
    fn new(rules: Vec<Rule>) -> Self {
        let mut by_path = matchit::Router::new();
        for (index, rule) in rules.iter().enumerate() {
            by_path.insert(rule.path, index).expect("each path is declared once");
        }
        Self { rules, by_path }
    }

    /// What holds for a request to this path.
    pub fn of(&self, path: &str) -> Rule {
        self.find(path).unwrap_or_else(|| {
            // Clients in browsers look for documents below every address that they know, and must be able to read that
            // they are not there.
            if path.split('/').any(|part| part == ".well-known") { Rule::NO_DOCUMENT } else { Rule::UNKNOWN }
        })
    }

    fn find(&self, path: &str) -> Option<Rule> {
        self.by_path.at(path).ok().map(|found| self.rules[*found.value])
    }

    /// The path that somebody means who asks for one that nobody declared: with a slash at its end, or in other letters.
    pub fn meant(&self, path: &str) -> Option<Rule> {
        if self.find(path).is_some() {
            return None;
        }
        let plain = path.trim_end_matches('/').to_ascii_lowercase();
        self.find(&plain).filter(|rule| rule.path == plain)
    }

    /// All rules, in the order of their declaration.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    fn table() -> Table {
        let handler = || get(async || "ok");
        Routes::<()>::default()
            .route("/token", program(handler(), Limit::Token).cors(Cors::Clients))
            .route("/register/{id}", program(handler(), Limit::Client))
            .route("/.well-known/{*rest}", program(handler(), Limit::Free("a document")))
            .with_state(())
            .split()
            .1
    }

    /// HTTP-06: a rule is found by the path that the router would take, and by no other spelling.
    #[test]
    fn rules_are_found_as_routes_are() {
        let table = table();
        for (path, rule) in [
            ("/token", "/token"),
            ("/register/a", "/register/{id}"),
            ("/.well-known/a/b", "/.well-known/{*rest}"),
            ("/token/", ""),
            ("/Token", ""),
            ("/register/", ""),
            ("/register/a/b", ""),
            ("", ""),
        ] {
            assert_eq!(table.of(path).path, rule, "{path}");
        }
    }

    /// HTTP-06: what nobody declared is closed to other origins, but where documents are looked for.
    #[test]
    fn what_is_unknown_is_closed() {
        for path in ["/nowhere", "/nowhere/well-known/x", "/.well-knowns", "/x.well-known/y"] {
            let rule = table().of(path);
            assert_eq!(
                (rule.cors, rule.host, rule.body),
                (Cors::Closed, Host::Known, LARGEST_BODY),
                "{path}"
            );
        }
        for path in ["/.well-known", "/.well-known/", "/token/.well-known/x", "/a/b/.well-known/c/d"] {
            assert_eq!(table().of(path).cors, Cors::Documents, "{path}");
        }
    }

    /// HTTP-03: a slash too many and other letters are told from nonsense.
    #[test]
    fn what_is_meant_is_found() {
        for path in ["/token/", "/Token", "/TOKEN/", "/token//"] {
            assert_eq!(table().meant(path).map(|rule| rule.path), Some("/token"), "{path}");
        }
        for path in ["/token", "/toke", "/token/x", "/register/", "/register/a", "/Register/a", "/", "", "//"]
        {
            assert!(table().meant(path).is_none(), "{path}");
        }
    }

    /// RATE-01
    #[test]
    fn reading_counts_only_where_it_starts_something() {
        assert!(!Limit::Passkey.counts(&Method::GET) && Limit::Passkey.counts(&Method::POST));
        assert!(Limit::Authorize.counts(&Method::GET) && Limit::Mcp.counts(&Method::DELETE));
        assert!(!Limit::Free("a document").counts(&Method::POST));
    }
}
