//! What is declared about each route beside its handler (RATE-01, HTTP-06, OPS-05). Other code does not
//! distinguish paths by name; tests walk the whole table.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::MethodRouter;
use http::Method;

/// The largest body in bytes, unless a route declares another limit (standards §1).
pub const LARGEST_BODY: usize = 16 * 1024;

/// The rate limit of a route (the matrix of RATE-01).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Limit {
    /// None, for this reason.
    Free(&'static str),
    /// By address, by client, and by failed authentications of a client.
    Token,
    /// Like `Token`, without a limit on a client's successful requests.
    Client,
    /// By address, for failures only: an authenticated caller is not limited (INTRO-07).
    Failures,
    /// By address: the number of stored clients (DCR-12), and of requests that store none.
    Register,
    /// By address; GET requests count too, because they start something.
    Authorize,
    /// By address if it includes a passkey assertion. A successful decision refunds its authorization request.
    Decision,
    /// Like `Decision`, without an authorization request.
    Change,
    /// By address, for a decision whose passkey assertion was made just before.
    DeviceDecision,
    /// By address, and by user once the user is known.
    Passkey,
    /// By address, for a page's script that starts something with a row (RATE-06).
    Start,
    /// By address, for a page's form, which may leave a row or a record (RATE-06).
    Form,
    /// By address, for all responses: anyone can register a client and read it (RFC 7592).
    Management,
    /// By user and client of the token; by address if this issuer did not sign it.
    Mcp,
}

impl Limit {
    /// Whether a request with this method counts. Reading a page is free unless it starts something.
    pub fn counts(self, method: &Method) -> bool {
        match self {
            Self::Free(_) => false,
            Self::Authorize | Self::Management | Self::Mcp => true,
            _ => !matches!(*method, Method::GET | Method::HEAD),
        }
    }
}

/// Which other origins' pages may read the response (HTTP-06).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cors {
    /// None.
    Closed,
    /// All: a public document.
    Documents,
    /// All: an endpoint for clients, which authenticate themselves.
    Clients,
    /// Like `Clients`, with the methods of client management (RFC 7592).
    Management,
    /// Decided by the handler (MCP-14).
    ByHandler,
}

/// Who calls a route, which decides the format of refusals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// A person with a browser: HTML.
    Person,
    /// A program: JSON.
    Program,
}

/// Under which host names, and from whom, a route is served (HTTP-01, HTTP-03).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    /// The server's own names.
    Known,
    /// Decided by the handler (MCP-14).
    ByHandler,
    /// Any, also without TLS: probes use the address (OPS-05).
    Any,
}

/// The declarations of a route.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The path in axum's syntax, with parameters in braces.
    pub path: &'static str,
    pub limit: Limit,
    pub cors: Cors,
    pub audience: Audience,
    pub host: Host,
    /// The largest body in bytes.
    pub body: usize,
}

impl Rule {
    /// The declarations for an unknown path.
    pub const UNKNOWN: Self = Self {
        path: "",
        limit: Limit::Free("there is nothing"),
        cors: Cors::Closed,
        audience: Audience::Person,
        host: Host::Known,
        body: LARGEST_BODY,
    };
    /// The declarations for a missing document below `.well-known`.
    const NO_DOCUMENT: Self = Self { cors: Cors::Documents, audience: Audience::Program, ..Self::UNKNOWN };
}

/// A handler with its declarations, before it is added to [`Routes`].
pub struct Route<S> {
    handler: MethodRouter<S>,
    rule: Rule,
}

/// A route for programs.
pub fn program<S>(handler: MethodRouter<S>, limit: Limit) -> Route<S> {
    Route { handler, rule: Rule { limit, audience: Audience::Program, ..Rule::UNKNOWN } }
}

/// A route for browsers.
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

    /// Accepts bodies of up to this many bytes.
    #[must_use]
    pub fn body(mut self, bytes: usize) -> Self {
        self.rule.body = bytes;
        self
    }
}

/// Routes and their declarations.
pub struct Routes<S = ()> {
    router: Router<S>,
    rules: Vec<Rule>,
    guard: Guard<S>,
}

/// Wraps each handler, given its declarations.
type Guard<S> = Box<dyn Fn(Rule, MethodRouter<S>) -> MethodRouter<S>>;

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::guarded(|_, handler| handler)
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes; each added handler will be wrapped by `guard`.
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

    /// Adds routes if a condition holds: disabled features have no route (META-04).
    #[must_use]
    pub fn when(self, condition: bool, more: impl FnOnce(Self) -> Self) -> Self {
        if condition { more(self) } else { self }
    }

    /// Joins two sets of routes.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.rules.extend(other.rules);
        self
    }

    /// Adds a layer around all routes.
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
    /// The router, and the table of declarations.
    pub fn split(self) -> (Router, Table) {
        (self.router, Table::new(self.rules))
    }
}

/// The declarations of all routes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rules: Vec<Rule>,
    by_path: matchit::Router<usize>,
}

impl Table {
    /// # Panics
    /// If two routes conflict; the router would refuse them too.
    fn new(rules: Vec<Rule>) -> Self {
        let mut by_path = matchit::Router::new();
        for (index, rule) in rules.iter().enumerate() {
            by_path.insert(rule.path, index).expect("each path is declared once");
        }
        Self { rules, by_path }
    }

    /// The declarations for a request to this path.
    pub fn of(&self, path: &str) -> Rule {
        self.find(path).unwrap_or_else(|| Self::undeclared(path))
    }

    /// The declarations for a request to this path. For an unknown path also the declared route that it probably means:
    /// the same with a trailing slash, or in another case.
    pub fn look_up(&self, path: &str) -> (Rule, Option<Rule>) {
        match self.find(path) {
            Some(rule) => (rule, None),
            None => (Self::undeclared(path), self.meant(path)),
        }
    }

    fn find(&self, path: &str) -> Option<Rule> {
        self.by_path.at(path).ok().map(|found| self.rules[*found.value])
    }

    fn undeclared(path: &str) -> Rule {
        // Clients in browsers look for documents below every address that they know, and must be able to
        // read that they are missing.
        if path.split('/').any(|part| part == ".well-known") { Rule::NO_DOCUMENT } else { Rule::UNKNOWN }
    }

    fn meant(&self, path: &str) -> Option<Rule> {
        let plain = path.trim_end_matches('/').to_ascii_lowercase();
        self.find(&plain).filter(|rule| rule.path == plain)
    }

    /// All declarations, in order.
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

    /// HTTP-06: declarations are found by the router's own path matching, and by no other spelling.
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

    /// HTTP-06: unknown paths are closed to other origins, except where documents are looked for.
    #[test]
    fn unknown_paths_are_closed_to_other_origins() {
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

    /// HTTP-03: a trailing slash and another case are distinguished from unknown paths.
    #[test]
    fn a_nearly_right_path_finds_the_intended_route() {
        for path in ["/token/", "/Token", "/TOKEN/", "/token//"] {
            assert_eq!(table().look_up(path).1.map(|rule| rule.path), Some("/token"), "{path}");
        }
        for path in ["/token", "/toke", "/token/x", "/register/", "/register/a", "/Register/a", "/", "", "//"]
        {
            assert!(table().look_up(path).1.is_none(), "{path}");
        }
    }

    /// RATE-01: reading counts only where it starts something.
    #[test]
    fn get_counts_against_a_limit_only_where_it_starts_something() {
        assert!(!Limit::Passkey.counts(&Method::GET) && Limit::Passkey.counts(&Method::POST));
        assert!(Limit::Authorize.counts(&Method::GET) && Limit::Mcp.counts(&Method::DELETE));
        assert!(!Limit::Free("a document").counts(&Method::POST));
    }
}
