//! Questions about what the gate would decide.

use clap::{Args, Subcommand};

use super::user::Common;

#[derive(Subcommand, Debug)]
pub enum Policy {
    /// May this user call this tool? Prints the decision and the rule that made it. Changes nothing.
    Check(Check),
}

#[derive(Args, Debug)]
pub struct Check {
    /// The user's name or id.
    #[arg(long, value_name = "USER")]
    pub user: String,
    /// The tool, by its name on the wire.
    #[arg(long, value_name = "TOOL")]
    pub tool: String,
    /// Through this client, with what the user has granted it; its id, or its name if no other has the same.
    /// Without it: through a client that holds all that the user may grant.
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<String>,
    #[command(flatten)]
    pub common: Common,
}
