//! What there is to be granted: the resource side answers, the authorization side asks.

use serde::{Deserialize, Serialize};

use crate::resource_uri::ResourceUri;
use crate::scope::Scope;

/// How much harm a scope can do in the wrong hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Reading, mostly.
    Low,
    /// Needs a fresh passkey tap before it is granted (CONSENT-08).
    High,
}

/// A scope in words that a person can decide on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeDescription {
    /// The scope token, as on the wire.
    pub name: String,
    /// What it allows, in plain words.
    pub title: String,
    /// Whether granting it needs more care.
    pub risk: Risk,
    /// Why, in the site's own words, where the consent page marks it as high-risk.
    pub risk_text: Option<String>,
}

/// One MCP endpoint: its own RFC 8707 resource.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The identifier that tokens for it carry as `aud`.
    pub resource: ResourceUri,
    /// Its name for people.
    pub name: String,
    /// What a request that names no scope gets, and what the first 401 asks for.
    pub default_scope: Scope,
}

/// A tool as a list shows it.
#[derive(Clone, Debug)]
pub struct ToolDescription {
    /// `<source>_<tool>`, the name on the wire (MCP-08).
    pub name: String,
    /// Its name for people.
    pub title: String,
}

/// Which endpoints, tools and scopes exist (design: the resource side answers, the authorization
/// side asks, for its metadata, consent and portal pages).
pub trait Catalogue: Send + Sync {
    /// Every MCP endpoint.
    fn endpoints(&self) -> Vec<Endpoint>;
    /// Every grantable scope.
    fn scopes(&self) -> Vec<ScopeDescription>;
    /// What a request that names no scope gets.
    fn default_scope(&self) -> Scope;
    /// The tools of an endpoint that somebody entitled to `entitled` may call.
    fn usable(&self, resource: &ResourceUri, entitled: &Scope) -> Vec<ToolDescription>;
    /// The tools of an endpoint that need this scope, alone or with others (POL-03).
    fn opened_by(&self, resource: &ResourceUri, scope: &str) -> Vec<ToolDescription>;

    /// The endpoint with this identifier.
    fn endpoint(&self, resource: &ResourceUri) -> Option<Endpoint> {
        self.endpoints().into_iter().find(|e| &e.resource == resource)
    }
}
