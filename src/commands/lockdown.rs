//! `portcullis lockdown`: ends everything at once.

use std::process::ExitCode;
use std::time::Duration;

use authz::Authz;
use authz::access::{self, BlastRadius};
use clap::Args;
use serde::{Deserialize, Serialize};
use shared::Fault;
use shared::db::Conn;

use super::frame::confirm::confirm;
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::{note, say};

/// The time limit for counting what a lockdown ended.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
#[command(
    after_help = "It ends every token and code issued so far, browser sessions, pending requests, remembered decisions, unused links\nand registration tokens. Passkeys, clients and their secrets stay: people sign in again, and applications ask\nthem again. To stop a person, a client or a key that you no longer trust, use `user disable`, `client disable` or\n`key remove`."
)]
pub struct Lockdown {
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// Counts what a lockdown would end.
#[derive(Debug, Serialize, Deserialize)]
struct Measure {}

#[derive(Serialize, Deserialize)]
struct Measured {
    blast_radius: BlastRadius,
}

impl Request for Measure {
    const COMMAND: &'static str = "lockdown-measure";
    const DOES: Effect = Effect::Reads;
    type Answer = Measured;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Measured, Refused> {
        Ok(Measured { blast_radius: reading(place, access::measure).await? })
    }
}

/// `portcullis lockdown`.
#[derive(Debug, Serialize, Deserialize)]
struct LockDown {}

#[derive(Serialize, Deserialize)]
struct LockedDown {
    ended: BlastRadius,
}

impl Request for LockDown {
    const COMMAND: &'static str = "lockdown";
    /// A lockdown must be answered, even if the writer is busy.
    const PATIENCE: Duration = Duration::from_mins(2);
    type Answer = LockedDown;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<LockedDown, Refused> {
        let (ended, locked) = place.look(move |authz, tx| access::lock_down(authz, tx, uid)).await?;
        // It is done; counting must not delay the answer for long.
        let counted = reading(place, move |_, conn| locked.held(conn));
        let held = tokio::time::timeout(COUNTED_WITHIN, counted).await.ok().and_then(Result::ok);
        Ok(LockedDown { ended: BlastRadius { held, ..ended } })
    }
}

/// Reads on another thread, beside the writer, which others wait for.
async fn reading<T: Send + 'static>(
    place: &ServerParts,
    work: impl FnOnce(&Authz, &Conn<'_>) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Refused> {
    let db = place.db.clone();
    Ok(place.blocking(move |authz| db.read(|conn| work(authz, conn))).await??)
}

impl Noun for Lockdown {
    const REQUESTS: &'static [Handler] = &[Handler::of::<Measure>(), Handler::of::<LockDown>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        let Self { yes, common } = self;
        if !yes {
            let measured = common.ask(file, Measure {})?;
            note!("A lockdown ends {}.", in_words(&measured.blast_radius));
            confirm(false, "People sign in again, and their applications ask them again.")?;
        }
        common.run(file, LockDown {}, |done| {
            say!("Ended: {}. Tokens issued before now are refused.", in_words(&done.ended))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// How much ends, in words.
pub(super) fn in_words(radius: &BlastRadius) -> String {
    let some = |count: u32, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    let held = radius.held.as_ref().map_or_else(
        || "every grant (too many to count now)".to_owned(),
        |held| {
            format!(
                "{} ({}, {})",
                some(held.grants, "grant", "grants"),
                some(held.users, "user", "users"),
                some(held.clients, "client", "clients")
            )
        },
    );
    [
        held,
        some(radius.client_grants, "grant of a client to itself", "grants of clients to themselves"),
        some(radius.sessions, "browser session", "browser sessions"),
        some(radius.links, "unused link", "unused links"),
        some(radius.registration_tokens, "registration token", "registration tokens"),
        some(radius.waiting, "pending request", "pending requests"),
    ]
    .join(", ")
}
