//! `portcullis serve`: its options.

use clap::Args;

use crate::config::Given;

#[derive(Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    pub settings: Given,
    /// Print one line of JSON when ready, instead of words.
    #[arg(long)]
    pub json: bool,
}
