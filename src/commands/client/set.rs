//! `portcullis client set`: another name, other redirect URIs.

use authz::clients::administration::Details;
use authz::clients::preregistered::Changes;
use authz::clients::revision;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::describe;
use crate::commands::frame::{CommonOptions, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  portcullis client set \"Ticket portal\" --redirect-uri https://tickets.lab.internal/oauth/callback"
)]
pub struct Set {
    /// The client's id, or its name if no other has the same.
    #[arg(value_name = "CLIENT")]
    pub client: String,
    /// Where its answers go, in place of all redirect URIs that it has now. May be given more than once. What people
    /// granted it ends, because they allowed answers to other addresses.
    #[arg(long = "redirect-uri", value_name = "URI", required_unless_present = "name")]
    pub redirect_uris: Vec<String>,
    /// Another name for it, which people read when it asks them for something.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis client set`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SetClient {
    client: String,
    name: Option<String>,
    redirect_uris: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Revised {
    client: Details,
    changed_fields: Vec<String>,
    grants_ended: usize,
}

impl Request for SetClient {
    const COMMAND: &'static str = "client-set";
    type Answer = Revised;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Revised, Refused> {
        let Self { client, name, redirect_uris } = self;
        let changes = Changes { name, redirect_uris };
        let changed = place.write(move |authz, tx| revision::set(authz, tx, uid, &client, &changes)).await?;
        Ok(Revised {
            client: changed.client,
            changed_fields: changed.fields,
            grants_ended: changed.grants_ended,
        })
    }
}

pub(super) fn run(command: Set, file: &File) -> anyhow::Result<()> {
    let Set { client, redirect_uris, name, common } = command;
    common.run(file, SetClient { client, name, redirect_uris }, |changed| {
        describe(&changed.client)?;
        match (changed.changed_fields.is_empty(), changed.grants_ended) {
            (true, _) => say!("\nNothing changed: the client was like that already."),
            (false, 0) => Ok(()),
            (false, ended) => say!(
                "\nGrants that ended: {ended}. The people who gave them are asked again when the client signs in."
            ),
        }
    })
}
