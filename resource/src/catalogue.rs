//! Which endpoints, scopes and tools there are, for the authorization side to ask.

use std::sync::Arc;

use shared::catalogue::{Catalogue, Endpoint, Risk, ScopeDescription, ToolDescription};
use shared::{Issuer, ResourceUri, Scope};

use crate::mcp::tools::Tools;
use crate::policy::Decision;

/// Where the MCP endpoint is.
pub const MCP_PATH: &str = "/mcp";
/// Reading the documentation.
pub(crate) const DOCS_READ: &str = "docs.read";

/// What is built in: one endpoint, with the documentation behind it. Cheap to clone, and needs
/// nothing that the authorization side provides.
#[derive(Clone)]
pub struct BuiltIn {
    issuer: Issuer,
    resource: ResourceUri,
    tools: Arc<Tools>,
}

impl BuiltIn {
    /// The catalogue of a server with this issuer.
    pub fn new(issuer: &Issuer) -> Self {
        Self {
            issuer: issuer.clone(),
            resource: ResourceUri::at(issuer, MCP_PATH),
            tools: Arc::new(Tools::built_in()),
        }
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(crate) fn tools(&self) -> &Arc<Tools> {
        &self.tools
    }

    /// The one endpoint.
    pub(crate) fn mcp(&self) -> Endpoint {
        Endpoint {
            resource: self.resource.clone(),
            name: "Portcullis".to_owned(),
            default_scope: [DOCS_READ].into_iter().collect(),
        }
    }
}

impl Catalogue for BuiltIn {
    fn endpoints(&self) -> Vec<Endpoint> {
        vec![self.mcp()]
    }

    fn scopes(&self) -> Vec<ScopeDescription> {
        vec![ScopeDescription {
            name: DOCS_READ.to_owned(),
            title: "Search and read the documentation".to_owned(),
            risk: Risk::Low,
        }]
    }

    fn usable(&self, resource: &ResourceUri, entitled: &Scope) -> Vec<ToolDescription> {
        if *resource != self.resource {
            return Vec::new();
        }
        let allowed = |name: &str| self.tools.decide(entitled, entitled, name) == Decision::Allow;
        self.tools
            .iter()
            .filter(|tool| allowed(tool.name()))
            .map(|tool| ToolDescription { name: tool.name().to_owned(), title: tool.title().to_owned() })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(catalogue: &BuiltIn, path: &str, entitled: &str) -> Vec<String> {
        let resource = ResourceUri::at(&Issuer::localhost(8080), path);
        let tools = catalogue.usable(&resource, &entitled.parse().unwrap());
        tools.into_iter().map(|tool| tool.name).collect()
    }

    #[test]
    fn what_somebody_may_use_follows_the_policy() {
        let catalogue = BuiltIn::new(&Issuer::localhost(8080));
        assert_eq!(usable(&catalogue, "/mcp", ""), ["whoami"]);
        assert_eq!(usable(&catalogue, "/mcp", "docs.read x"), ["docs_read", "docs_search", "whoami"]);
        assert!(usable(&catalogue, "/mcp/", "docs.read").is_empty());
    }

    /// Every scope that a tool or an endpoint names can be described on a consent page.
    #[test]
    fn every_scope_has_words() {
        let catalogue = BuiltIn::new(&Issuer::localhost(8080));
        let described: Scope = catalogue.scopes().iter().map(|scope| scope.name.as_str()).collect();
        assert!(catalogue.mcp().default_scope.is_subset(&described));
        assert!(catalogue.tools().scopes().is_subset(&described));
    }
}
