//! `portcullis call …`: the calls that run (LIMIT-04).

use std::process::ExitCode;

use clap::{Args, Subcommand};
use resource::{Calls, RunningCall};
use serde::{Deserialize, Serialize};
use shared::audit::{self, Event, Name};

use super::frame::print::{moment, optional, safe, table};
use super::frame::{CommonOptions, Effect, Handler, Noun, Refused, Request, ServerParts};
use crate::config::File;
use crate::output::say;

#[derive(Subcommand, Debug)]
pub enum Call {
    /// Show the calls that run, the oldest first.
    List(CommonOptions),
    /// Stop a call. Its client is told so; what the server behind the gate has done by then stays done.
    Stop(Stop),
}

#[derive(Args, Debug)]
pub struct Stop {
    /// The call's number, as shown by `call list`.
    #[arg(value_name = "NUMBER")]
    pub id: u64,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// `portcullis call list`.
#[derive(Debug, Serialize, Deserialize)]
struct ListCalls {}

#[derive(Serialize, Deserialize)]
struct Listed {
    calls: Vec<RunningCall>,
}

impl Request for ListCalls {
    const COMMAND: &'static str = "call-list";
    const DOES: Effect = Effect::Reads;
    const AT_GATEWAY: bool = true;
    type Answer = Listed;

    async fn perform(self, place: &ServerParts, _uid: u32) -> Result<Listed, Refused> {
        // Without a server none runs.
        Ok(Listed { calls: place.calls.as_ref().map(Calls::all).unwrap_or_default() })
    }
}

/// `portcullis call stop`.
#[derive(Debug, Serialize, Deserialize)]
struct StopCall {
    id: u64,
}

#[derive(Serialize, Deserialize)]
struct Stopped {
    stopped: RunningCall,
}

impl Request for StopCall {
    const COMMAND: &'static str = "call-stop";
    const AT_GATEWAY: bool = true;
    type Answer = Stopped;

    async fn perform(self, place: &ServerParts, uid: u32) -> Result<Stopped, Refused> {
        let calls = place.calls.clone().unwrap_or_default();
        let Some(call) = calls.find(self.id) else {
            let why = format!("no call {} runs; see: portcullis call list", self.id);
            return Err(Refused::by_rule(&why));
        };
        let event = Event::allowed(Name::CallStopped).by_console(uid).detail("name", call.name.as_str());
        let event =
            event.detail("request_id", call.request_id.as_str()).detail("client", call.client.as_str());
        let event = match &call.user {
            Some(user) => event.subject(user),
            None => event,
        };
        place.db.write(move |tx| audit::append(tx, event)).await?;
        calls.stop(self.id);
        Ok(Stopped { stopped: call })
    }
}

impl Noun for Call {
    const REQUESTS: &'static [Handler] = &[Handler::of::<ListCalls>(), Handler::of::<StopCall>()];

    fn run(self, file: &File) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(common) => common.run(file, ListCalls {}, |listed| {
                table(&["NUMBER", "BEGAN", "NAME", "SOURCE", "USER", "CLIENT"], &listed.calls, row)
            }),
            Self::Stop(Stop { id, common }) => common.run(file, StopCall { id }, |stopped| {
                say!("Stopped: {}. Its end is in the audit log as `stopped`.", safe(&stopped.stopped.name))
            }),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(call: &RunningCall) -> Vec<String> {
    vec![
        call.id.to_string(),
        moment(call.began_at.0),
        safe(&call.name),
        optional(call.source.as_deref()),
        optional(call.user.as_deref()),
        safe(&call.client),
    ]
}
