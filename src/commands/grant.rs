//! `portcullis grant …`: what people allow applications to do.

use std::process::ExitCode;

use authz::access;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use shared::GrantId;

use super::frame::print::{moment, moment_if, optional, safe, short, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Grant {
    /// Show what people allow applications to do, newest first; a thousand at most.
    List(List),
    /// Revoke a grant: its tokens are refused from the next request on, and its application must ask again.
    Revoke(Revoke),
}

#[derive(Args, Debug)]
pub struct List {
    /// Only grants of this user: a name or an id.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Only grants to this application: an id, or a name that only one has.
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<String>,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct Revoke {
    /// The grant's id, as in `grant list`, in the audit log and in the token itself (`grant_id`).
    #[arg(value_name = "GRANT")]
    pub grant: String,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis grant list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListGrants {
    user: Option<String>,
    client: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    grants: Vec<access::Grant>,
}

impl Request for ListGrants {
    const COMMAND: &'static str = "grant-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        let Self { user, client } = self;
        let grants = place.write(move |_, tx| access::grants(tx, user.as_deref(), client.as_deref()));
        Ok(Listed { grants: grants.await? })
    }
}

/// `portcullis grant revoke`.
#[derive(Debug, Serialize, Deserialize)]
struct RevokeGrant {
    grant: String,
}

#[derive(Serialize, Deserialize)]
struct Revoked {
    revoked: GrantId,
}

impl Request for RevokeGrant {
    const COMMAND: &'static str = "grant-revoke";
    type Answer = Revoked;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Revoked, Refused> {
        let revoked = place.write(move |authz, tx| access::revoke_grant(authz, tx, uid, &self.grant));
        Ok(Revoked { revoked: revoked.await? })
    }
}

impl Noun for Grant {
    const REQUESTS: &'static [Handler] = &[Handler::of::<ListGrants>(), Handler::of::<RevokeGrant>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(c) => c.common.run(file, ListGrants { user: c.user, client: c.client }, |listed| {
                let heading = ["USER", "CLIENT", "SCOPE", "RESOURCE", "CREATED", "LAST USED", "FROM", "ID"];
                table(&heading, &listed.grants, row)
            }),
            Self::Revoke(c) => c.common.run(file, RevokeGrant { grant: c.grant }, |_| {
                say!("Grant revoked. Its tokens are refused from now on.")
            }),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(grant: &access::Grant) -> Vec<String> {
    vec![
        safe(&grant.user),
        short(&grant.client),
        grant.scope.to_string(),
        safe(&grant.resource),
        moment(grant.created_at),
        moment_if(grant.last_used_at),
        optional(grant.address.as_deref()),
        grant.id.to_string(),
    ]
}
