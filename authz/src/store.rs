//! SQL, one table family per file. Only rows in and out: no HTTP and no policy.

pub(crate) mod approval_requests;
pub(crate) mod assertions;
pub(crate) mod ceremonies;
pub(crate) mod client_documents;
pub(crate) mod client_grants;
pub(crate) mod client_reports;
pub(crate) mod client_secrets;
pub(crate) mod clients;
pub(crate) mod codes;
pub(crate) mod consents;
pub(crate) mod dead_tokens;
pub(crate) mod devices;
pub(crate) mod everything;
#[cfg(test)]
mod fairness;
pub(crate) mod future;
pub(crate) mod grants;
pub(crate) mod initial_access_tokens;
pub(crate) mod issuers;
pub(crate) mod lifetimes;
pub(crate) mod links;
pub(crate) mod passkeys;
pub(crate) mod refresh_tokens;
pub(crate) mod resource_servers;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod transactions;
pub(crate) mod users;
