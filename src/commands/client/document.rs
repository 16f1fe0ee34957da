//! Commands about clients whose ids are URLs of client id metadata documents.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::commands::user::Common;

#[derive(Subcommand, Debug)]
pub enum ClientDocument {
    /// Take a client id metadata document from a file, or from a host in [[cimd.allow]]. What changes is shown
    /// first.
    ImportMetadata(Import),
    /// Forget an imported document. What people granted its client ends.
    RemoveMetadata(Remove),
    /// Show and change the built-in catalogue of clients that people use.
    #[command(subcommand)]
    Catalogue(Catalogue),
    /// Show what users asked for, and decide about it.
    #[command(subcommand)]
    Approvals(Approvals),
}

#[derive(Subcommand, Debug)]
pub enum Catalogue {
    /// Show every entry: the client, where its answers go, where that can be read, and whether it counts here.
    List(Common),
    /// Switch an entry off: its client is not let in any more, and what people granted it ends.
    Disable(Entry),
    /// Switch an entry on again.
    Enable(Entry),
    /// Take every document of a catalogue file, such as a newer version's. What changes is shown first.
    Import(CatalogueFile),
}

#[derive(Subcommand, Debug)]
pub enum Approvals {
    /// Show which clients users asked for.
    List(Common),
    /// Let a client in: with a document that you bring, or with what its request said.
    Approve(Approve),
    /// Take it off the list.
    Refuse(OneUrl),
}

/// What is shown before it is done.
#[derive(Args, Debug)]
pub struct Confirmed {
    /// Do it without asking. Without it, and with --json, nothing is changed: what would be is printed.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct Import {
    /// The document: a file, or the URL that it is served at.
    #[arg(value_name = "FILE|URL")]
    pub from: String,
    /// The client id that the document must be that of. Default: what it says itself.
    #[arg(long, value_name = "CLIENT_ID_URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub confirmed: Confirmed,
}

#[derive(Args, Debug)]
pub struct Remove {
    /// The client id.
    #[arg(value_name = "CLIENT_ID_URL")]
    pub url: String,
    #[command(flatten)]
    pub confirmed: Confirmed,
}

#[derive(Args, Debug)]
pub struct Entry {
    /// The entry's name, or its client id.
    #[arg(value_name = "NAME")]
    pub entry: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub struct CatalogueFile {
    /// The catalogue, as JSON: what `catalogue list --json` prints under `catalogue`, without `state`.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub confirmed: Confirmed,
}

#[derive(Args, Debug)]
pub struct Approve {
    /// The client id.
    #[arg(value_name = "CLIENT_ID_URL")]
    pub url: String,
    /// Its document. Default: the least that a document can say, out of what the client asked with.
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
    pub common: Common,
}
