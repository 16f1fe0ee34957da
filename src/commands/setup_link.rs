//! `portcullis setup-link`: a link for an administrator to sign in with.

use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::{note, say};

#[derive(Args, Debug)]
pub struct SetupLink {
    #[command(flatten)]
    pub common: CommonOptions,
}

/// A new link for the first administrator, or for the only one who cannot sign in.
#[derive(Debug, Serialize, Deserialize)]
struct MakeLink {}

#[derive(Serialize, Deserialize)]
struct Made {
    setup_link: String,
    /// Its user; `None` if there is no administrator yet.
    user: Option<String>,
}

impl Request for MakeLink {
    const COMMAND: &'static str = "setup-link";
    const DOES: Effect = Effect::HandsOut;
    type Answer = Made;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Made, Refused> {
        let made = place.look(move |authz, tx| authz.way_in(tx, uid)).await?;
        let way_in = made.map_err(|instead| Refused::new("admin_exists", &instead))?;
        Ok(Made { setup_link: way_in.link, user: way_in.user })
    }
}

impl Noun for SetupLink {
    const REQUESTS: &'static [Handler] = &[Handler::of::<MakeLink>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        self.common.run(file, MakeLink {}, |made| {
            say!("{}", made.setup_link)?;
            match &made.user {
                Some(user) => note!(
                    "No administrator can sign in. With this link `{user}` creates a passkey; it works once, for 24 hours, in a browser on a computer that reaches the server."
                ),
                None => note!(
                    "Open it within 60 minutes, in a browser on a computer that reaches the server. Earlier links are void."
                ),
            }
            Ok(())
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
