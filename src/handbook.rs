//! The handbook in the binary: this project's own documentation.

/// Path and text of each page, served by the documentation source when no folder is given.
pub(crate) const HANDBOOK: &[(&str, &str)] = &[
    ("README.md", include_str!("../README.md")),
    ("ARCHITECTURE.md", include_str!("../ARCHITECTURE.md")),
    ("SECURITY.md", include_str!("../SECURITY.md")),
    ("CHANGELOG.md", include_str!("../CHANGELOG.md")),
    ("docs/getting-started.md", include_str!("../docs/getting-started.md")),
    ("docs/connecting-clients.md", include_str!("../docs/connecting-clients.md")),
    ("docs/registering-clients.md", include_str!("../docs/registering-clients.md")),
    ("docs/client-documents.md", include_str!("../docs/client-documents.md")),
    ("docs/resource-servers.md", include_str!("../docs/resource-servers.md")),
    ("docs/gateways.md", include_str!("../docs/gateways.md")),
    ("docs/clients.md", include_str!("../docs/clients.md")),
    ("docs/configuration.md", include_str!("../docs/configuration.md")),
    ("docs/policy.md", include_str!("../docs/policy.md")),
    ("docs/upstreams.md", include_str!("../docs/upstreams.md")),
    ("docs/rest.md", include_str!("../docs/rest.md")),
    ("docs/sql.md", include_str!("../docs/sql.md")),
    ("docs/webhook.md", include_str!("../docs/webhook.md")),
    ("docs/your-account.md", include_str!("../docs/your-account.md")),
    ("docs/devices.md", include_str!("../docs/devices.md")),
    ("docs/documents.md", include_str!("../docs/documents.md")),
    ("docs/audit.md", include_str!("../docs/audit.md")),
    ("docs/tls.md", include_str!("../docs/tls.md")),
    ("docs/operations.md", include_str!("../docs/operations.md")),
    ("docs/troubleshooting.md", include_str!("../docs/troubleshooting.md")),
];
