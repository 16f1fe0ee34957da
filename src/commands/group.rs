//! `portcullis group …`.

use std::process::ExitCode;

use authz::people;
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::frame::print::{safe, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::{EVERYONE, File};

#[derive(Subcommand, Debug)]
pub enum Group {
    /// Show the configured groups, their scopes, and how many members they have.
    List(CommonOptions),
}

/// `portcullis group list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListGroups {}

#[derive(Serialize, Deserialize)]
struct Listed {
    groups: Vec<people::Group>,
}

impl Request for ListGroups {
    const COMMAND: &'static str = "group-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        Ok(Listed { groups: place.look(people::groups).await? })
    }
}

impl Noun for Group {
    const REQUESTS: &'static [Handler] = &[Handler::of::<ListGroups>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        let Self::List(common) = self;
        common.run(file, ListGroups {}, |listed| {
            table(&["GROUP", "MEMBERS", "MAY BE GRANTED"], &listed.groups, |group| {
                let members =
                    if group.name == EVERYONE { "all".to_owned() } else { group.members.to_string() };
                vec![safe(&group.name), members, safe(&group.scopes)]
            })
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
