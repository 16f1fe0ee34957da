//! Commands about clients.

use clap::{Args, Subcommand};

use super::people::Common;

#[derive(Subcommand, Debug)]
pub enum Client {
    /// Show every client: how it became known, how far it is trusted, how many people use it.
    List(Common),
    /// Show all about one client: where its answers go, what it may ask for, its secrets' ages, and who uses it.
    Show(One),
    /// Vouch for a client: its answers may go to every redirect URI that it registered, and people may grant it
    /// high-risk scopes.
    Verify(One),
    /// Vouch for it no more. What people granted it ends.
    Unverify(One),
    /// Stop a client: from the next request on no token of its works, and what people granted it ends.
    Disable(One),
    /// Let a client in again. Its users sign in anew.
    Enable(One),
    /// Remove a client with everything that people granted it. The audit log keeps what it did.
    Delete(One),
}

#[derive(Args, Debug)]
pub struct One {
    /// The client's id, or its name if no other has the same.
    #[arg(value_name = "CLIENT")]
    pub client: String,
    #[command(flatten)]
    pub common: Common,
}
