//! `portcullis session …`: signed-in browsers.

use std::process::ExitCode;

use anyhow::bail;
use authz::access;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::frame::print::{moment, optional, safe, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Session {
    /// Show the signed-in browsers, newest first.
    List(List),
    /// Sign out a browser, or all browsers of a user. What they allow applications to do continues.
    End(End),
}

#[derive(Args, Debug)]
pub struct List {
    /// Only this user's: a name or an id.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Debug)]
pub struct End {
    /// The session's id, as shown by `session list`.
    #[arg(value_name = "SESSION", required_unless_present = "user", conflicts_with = "user")]
    pub session: Option<String>,
    /// All sessions of this user: a name or an id.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis session list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListSessions {
    user: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    sessions: Vec<access::Session>,
}

impl Request for ListSessions {
    const COMMAND: &'static str = "session-list";
    const DOES: Effect = Effect::Reads;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        let sessions = place.write(move |_, tx| access::sessions(tx, self.user.as_deref())).await?;
        Ok(Listed { sessions })
    }
}

/// The sessions that were ended.
#[derive(Serialize, Deserialize)]
struct Ended {
    ended: Vec<access::Session>,
}

/// `portcullis session end SESSION`.
#[derive(Debug, Serialize, Deserialize)]
struct EndSession {
    session: String,
}

impl Request for EndSession {
    const COMMAND: &'static str = "session-end";
    type Answer = Ended;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Ended, Refused> {
        let ended = place.write(move |_, tx| access::end_session(tx, uid, &self.session)).await?;
        Ok(Ended { ended: vec![ended] })
    }
}

/// `portcullis session end --user USER`.
#[derive(Debug, Serialize, Deserialize)]
struct EndSessionsOf {
    user: String,
}

impl Request for EndSessionsOf {
    const COMMAND: &'static str = "session-end-of";
    type Answer = Ended;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Ended, Refused> {
        let ended = place.write(move |_, tx| access::end_sessions_of(tx, uid, &self.user)).await?;
        Ok(Ended { ended })
    }
}

impl Noun for Session {
    const REQUESTS: &'static [Handler] =
        &[Handler::of::<ListSessions>(), Handler::of::<EndSession>(), Handler::of::<EndSessionsOf>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(c) => c.common.run(file, ListSessions { user: c.user }, |listed| {
                table(&["USER", "SIGNED IN", "LAST SEEN", "BROWSER", "FROM", "ID"], &listed.sessions, row)
            }),
            Self::End(End { session, user, common }) => match (session, user) {
                (Some(session), _) => common.run(file, EndSession { session }, count),
                (None, Some(user)) => common.run(file, EndSessionsOf { user }, count),
                (None, None) => bail!("give a session, or a user with --user"),
            },
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn count(ended: &Ended) -> anyhow::Result<()> {
    match ended.ended.len() {
        0 => say!("There was no session to end."),
        1 => say!("Session ended."),
        several => say!("{several} sessions ended."),
    }
}

fn row(session: &access::Session) -> Vec<String> {
    vec![
        safe(&session.user),
        moment(session.signed_in_at),
        moment(session.seen_at),
        optional(session.browser.as_deref()),
        optional(session.address.as_deref()),
        safe(&session.id),
    ]
}
