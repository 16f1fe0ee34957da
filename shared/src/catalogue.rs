//! The scopes, endpoints and tools that exist: answered by the resource side, asked by the authorization side.

use serde::{Deserialize, Serialize};

use crate::resource_uri::ResourceUri;
use crate::scope::Scope;

/// How much harm a scope can do in the wrong hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Mostly reading.
    Low,
    /// Takes a passkey assertion each time it is granted (CONSENT-08).
    High,
}

/// A scope, described for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeDescription {
    /// The scope token, as on the wire.
    pub name: String,
    /// What it allows, in plain words.
    pub title: String,
    /// Its risk.
    pub risk: Risk,
    /// The warning on the consent page for a high-risk scope, in the site's own words.
    pub risk_text: Option<String>,
}

/// One MCP endpoint: its own RFC 8707 resource.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its identifier, the `aud` of its tokens.
    pub resource: ResourceUri,
    /// Its name for people.
    pub name: String,
    /// The scope for a request that names none, and in the first 401.
    pub default_scope: Scope,
}

/// A tool in a list.
#[derive(Clone, Debug)]
pub struct ToolDescription {
    /// `<source>_<tool>`, the name on the wire (MCP-08).
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// The highest risk of the scopes that it needs.
    pub risk: Risk,
}

/// A server to which each user gives a secret of their own (SRC-10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnSecret {
    /// Its name in the configuration.
    pub source: String,
    /// What it is and where it is reached: a secret is for no other.
    pub target: String,
    /// What somebody may call there, in words.
    pub titles: Vec<String>,
}

/// The endpoints, tools and scopes that exist. The resource side answers; the authorization side asks, for its
/// metadata, consent page and home page.
pub trait Catalogue: Send + Sync {
    /// Every MCP endpoint.
    fn endpoints(&self) -> Vec<Endpoint>;
    /// Every grantable scope.
    fn scopes(&self) -> Vec<ScopeDescription>;
    /// The scope for a request that names none.
    fn default_scope(&self) -> Scope;
    /// The tools of an endpoint that a user with this entitlement may call.
    fn usable(&self, resource: &ResourceUri, entitled: &Scope) -> Vec<ToolDescription>;
    /// The tools of an endpoint that need this scope, alone or together with others (POL-03).
    fn opened_by(&self, resource: &ResourceUri, scope: &str) -> Vec<ToolDescription>;

    /// The servers that need a secret of their own from somebody entitled to this: those of which they may call something.
    fn own_secrets(&self, entitled: &Scope) -> Vec<OwnSecret>;

    /// The endpoint with this identifier.
    fn endpoint(&self, resource: &ResourceUri) -> Option<Endpoint> {
        self.endpoints().into_iter().find(|e| &e.resource == resource)
    }
}
