//! The resources that clients may request tokens for (RFC 8707): this server's MCP endpoints, and those of resource
//! servers elsewhere.

use shared::catalogue::Endpoint;
use shared::db::Conn;
use shared::{Fault, ResourceUri};

use crate::error::{Code, OAuthError};
use crate::{Authz, store};

/// The most resources that an error description names.
const MOST_NAMED: usize = 8;

impl Authz {
    /// The resource that a request names, or the default endpoint if it names none (AUTHZ-14).
    pub(crate) fn asked_resource(
        &self,
        conn: &Conn<'_>,
        asked: Option<&str>,
    ) -> Result<Option<Endpoint>, Fault> {
        if let Some(asked) = asked {
            let Ok(resource) = ResourceUri::parse(asked) else { return Ok(None) };
            return self.resource_in(conn, &resource);
        }
        let mut endpoints = self.catalogue.endpoints().into_iter();
        Ok(endpoints.next().filter(|_| endpoints.next().is_none()))
    }

    /// The refusal of a request that names no resource where there is no only one (AUTHZ-14).
    pub(crate) fn resource_missing(&self) -> OAuthError {
        let resources = self.resources();
        let named: Vec<&str> = resources.iter().take(MOST_NAMED).map(ResourceUri::as_str).collect();
        let mut words = match resources.len() {
            0 => "resource is missing, and this server has none".to_owned(),
            1 => format!("resource is missing; send {}", named[0]),
            _ => format!("resource is missing; this server has several: {}", named.join(", ")),
        };
        if resources.len() > named.len() {
            words += ", and those in protected_resources of its metadata";
        }
        OAuthError::new(Code::InvalidTarget, words)
    }

    /// Like [`Authz::resource`], as this connection sees it. Jobs use this, because memory is updated at the
    /// commit (SESSION-05).
    pub(crate) fn resource_in(
        &self,
        conn: &Conn<'_>,
        resource: &ResourceUri,
    ) -> Result<Option<Endpoint>, Fault> {
        if let Some(ours) = self.catalogue.endpoint(resource) {
            return Ok(Some(ours));
        }
        let server = store::resource_servers::serving(conn, resource)?;
        Ok(server.map(|(name, _)| Endpoint {
            name,
            default_scope: self.catalogue.default_scope(),
            resource: resource.clone(),
        }))
    }

    /// A resource that clients may request tokens for: one of our own endpoints, or a resource registered by a
    /// resource server elsewhere, which has the same scopes (AUTHZ-14).
    pub(crate) fn resource(&self, resource: &ResourceUri) -> Option<Endpoint> {
        let ours = self.catalogue.endpoint(resource);
        ours.or_else(|| {
            Some(Endpoint {
                name: self.status.server_of(resource)?.name.clone(),
                default_scope: self.catalogue.default_scope(),
                resource: resource.clone(),
            })
        })
    }

    /// All resources that clients may request tokens for (RFC 9728 §4); our own endpoints first.
    pub(crate) fn resources(&self) -> Vec<ResourceUri> {
        let ours: Vec<_> = self.catalogue.endpoints().into_iter().map(|e| e.resource).collect();
        let elsewhere = self.status.served_elsewhere();
        let others = elsewhere.into_iter().filter(|resource| !ours.contains(resource)).collect::<Vec<_>>();
        [ours, others].concat()
    }

    /// The default endpoint if a request names none: ours, or the only one elsewhere if we have none.
    pub fn endpoint(&self) -> Option<ResourceUri> {
        let ours = self.catalogue.endpoints().into_iter().next().map(|e| e.resource);
        ours.or_else(|| {
            let mut elsewhere = self.resources().into_iter();
            elsewhere.next().filter(|_| elsewhere.next().is_none())
        })
    }

    /// The URL that users give their clients.
    pub(crate) fn mcp_url(&self) -> Option<String> {
        self.endpoint().map(|url| url.to_string())
    }
}
