//! `portcullis client approvals …`: approval requests of users (CIMD-09).

use std::path::PathBuf;

use authz::client_documents::approvals::{self, PendingApproval};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::{Confirmed, OneChange, read};
use crate::commands::frame::print::{moment, optional, safe, table};
use crate::commands::frame::{CommonOptions, Effect, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Approvals {
    /// Show which clients users requested.
    List(CommonOptions),
    /// Approve a client, with a given document or with what its request said.
    Approve(Approve),
    /// Refuse a request and remove it from the list.
    Refuse(OneUrl),
}

#[derive(Args, Debug)]
pub struct Approve {
    /// The client id.
    #[arg(value_name = "CLIENT_ID_URL")]
    pub url: String,
    /// Its document. Default: a minimal one, made from the request.
    #[arg(long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    #[command(flatten)]
    pub confirmed: Confirmed,
}

#[derive(Args, Debug)]
pub struct OneUrl {
    /// The client id.
    #[arg(value_name = "CLIENT_ID_URL")]
    pub url: String,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis client approvals list`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::commands::client) struct ListApprovals {}

#[derive(Serialize, Deserialize)]
pub(in crate::commands::client) struct Listed {
    approvals: Vec<PendingApproval>,
}

impl Request for ListApprovals {
    const COMMAND: &'static str = "client-approvals-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        Ok(Listed { approvals: place.look(|_, tx| approvals::list(tx)).await? })
    }
}

/// `portcullis client approvals approve`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::commands::client) struct ApproveClient {
    url: String,
    body: Option<String>,
    confirm: Option<String>,
}

impl Request for ApproveClient {
    const COMMAND: &'static str = "client-approvals-approve";
    type Answer = OneChange;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<OneChange, Refused> {
        let Self { url, body, confirm } = self;
        let change = place.write(move |authz, tx| {
            approvals::approve(authz, tx, uid, &url, body.as_deref(), confirm.as_deref())
        });
        Ok(OneChange { change: change.await? })
    }
}

/// `portcullis client approvals refuse`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::commands::client) struct RefuseApproval {
    url: String,
}

#[derive(Serialize, Deserialize)]
pub(in crate::commands::client) struct ApprovalRefused {
    url: String,
    refused: bool,
}

impl Request for RefuseApproval {
    const COMMAND: &'static str = "client-approvals-refuse";
    type Answer = ApprovalRefused;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<ApprovalRefused, Refused> {
        let url = self.url.clone();
        place.write(move |_, tx| approvals::refuse(tx, uid, &url)).await?;
        Ok(ApprovalRefused { url: self.url, refused: true })
    }
}

/// Runs the command.
pub(super) fn run(command: Approvals, file: &File) -> anyhow::Result<()> {
    match command {
        Approvals::List(common) => common.run(file, ListApprovals {}, |listed| {
            table(&["ASKED BY", "SINCE", "ANSWERS GO TO", "CLIENT ID"], &listed.approvals, row)
        }),
        Approvals::Approve(Approve { url, document, confirmed }) => {
            let body = document.as_deref().map(read).transpose()?;
            confirmed.run(file, |confirm| ApproveClient { url: url.clone(), body: body.clone(), confirm })
        }
        Approvals::Refuse(OneUrl { url, common }) => common.run(file, RefuseApproval { url }, |refused| {
            say!("{} was removed from the list.", safe(&refused.url))
        }),
    }
}

fn row(waiting: &PendingApproval) -> Vec<String> {
    vec![
        optional(waiting.user.as_deref()),
        moment(waiting.created_at),
        safe(waiting.redirect_uri.as_str()),
        safe(&waiting.url),
    ]
}
