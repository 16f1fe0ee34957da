//! `portcullis reload`: makes a running server read its configuration again (POL-04).

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use shared::data_dir;

use super::frame::{CommonOptions, Handler, Refused, Request, ServerParts, ask_server};
use crate::config::File;
use crate::output::say;
use crate::reload::{Reloaded, RequestedBy};

/// Its requests to a running server.
pub(super) const REQUESTS: &[Handler] = &[Handler::of::<ReloadRequest>()];

#[derive(Args, Debug)]
pub struct Reload {
    #[command(flatten)]
    pub common: CommonOptions,
}

/// The request to reload.
#[derive(Debug, Serialize, Deserialize)]
struct ReloadRequest {}

impl Request for ReloadRequest {
    const COMMAND: &'static str = "reload";
    const AT_GATEWAY: bool = true;
    type Answer = Reloaded;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Reloaded, Refused> {
        let Some(reloader) = &place.reloader else {
            return Err(Refused::unavailable(&"no server runs; the next start reads the configuration"));
        };
        reloader.reload(RequestedBy::Console(uid)).await?.map_err(|refused| Refused::by_rule(&refused))
    }
}

/// Runs the command. The server is told of an invalid file too, so that the attempt is recorded.
pub(super) fn run(command: &Reload, file: anyhow::Result<File>) -> anyhow::Result<()> {
    let dir = match (&command.common.data.data_dir, file) {
        (Some(dir), _) => dir.clone(),
        (None, Ok(file)) => file.data_dir_or_default(),
        (None, Err(error)) => {
            return Err(error).context("nothing was reloaded");
        }
    };
    data_dir::check(&dir)?;
    let Some(answer) = ask_server(&dir, &ReloadRequest {})? else {
        bail!("no server runs on {}; the next start reads the configuration", dir.display());
    };
    command.common.show(&answer?, |reloaded| {
        if reloaded.changed.is_empty() {
            return say!("Reloaded. Nothing has changed.");
        }
        say!("Reloaded. Changed: {}.", reloaded.changed.join(", "))
    })
}
