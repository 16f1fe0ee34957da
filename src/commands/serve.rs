//! `portcullis serve`: its options, and the process around a server: signals, and what is printed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use children::Executable;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::frame::socket;
use crate::config::{self, CommandLineOptions, File, OneHalf, Origin, Running};
use crate::hangups::Hangups;
use crate::output::{self, say};
use crate::serve::{Options, Server};
use crate::timekeeping;

#[derive(Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    pub settings: CommandLineOptions,
    /// Print one line of JSON when ready, instead of words.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command. The control socket takes these requests.
pub(crate) fn run(command: &Serve, named: Option<PathBuf>, requests: socket::Find) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    // First, so that a SIGHUP during the start does not end the server.
    let hangups = runtime.block_on(async { Hangups::hear() })?;
    runtime.block_on(async { refuse_to_die_of_a_file() })?;
    let origin = Origin { named, given: command.settings.clone() };
    let reading = origin.read().map_err(|unreadable| unreadable.why)?;
    let file = reading.file.clone();
    let only = command.settings.only;
    if only != Some(OneHalf::Resource) && file.remote != config::Remote::default() {
        tracing::warn!("[remote] is used only with --only resource; this is a whole server");
    }
    let running = Arc::new(Running { origin, reading });
    let options = Options { only, file: file.clone(), running, children: Executable::default() };
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = stop_on_signal(stop.clone())?;
        let server = Server::start(options, requests, timekeeping::clock()?).await?;
        hangups.reconfigure(server.reconfigure());
        if file.front.tls.cert.is_some() {
            hangups.reload(server.reload());
        }
        unheard(announce(command, &server, &file));
        server.run(stop).await;
        signals.abort();
        Ok(())
    })
}

/// Stops in an orderly way at the first SIGTERM or SIGINT, and at once at the second.
fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if attempt > 0 {
                std::process::exit(130);
            }
            tracing::info!("stopping; requests under way have 10 seconds");
            stop.cancel();
        }
    }))
}

/// Handles SIGXFSZ: a file at its size limit (`LimitFSIZE=`) then fails a write, like a full disk, instead of
/// ending the process.
fn refuse_to_die_of_a_file() -> io::Result<()> {
    // A handler stays installed for as long as the process runs.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// A server whose standard output is closed still serves.
fn unheard(announced: anyhow::Result<()>) {
    if let Err(error) = announced {
        tracing::warn!(
            stdout.error = %error.root_cause(),
            "the server is ready, and could not say so on standard output; `portcullis setup-link` prints a link for the first administrator"
        );
    }
}

/// Says on standard output that the server is ready, and what to do next.
fn announce(command: &Serve, server: &Server, file: &File) -> anyhow::Result<()> {
    let address = server.address();
    let only = command.settings.only;
    let mcp_url = (only != Some(OneHalf::Authz)).then(|| address.url("/mcp"));
    let issuer = match only {
        Some(OneHalf::Resource) => config::authority(file.issuer.as_deref())?,
        Some(OneHalf::Authz) | None => address.clone(),
    };
    if command.json {
        let setup_link = server.setup_link();
        return output::json(&json!({ "issuer": issuer, "mcp_url": mcp_url, "setup_link": setup_link }));
    }
    let half = match only {
        None => "",
        Some(OneHalf::Authz) => ": the authorization server alone",
        Some(OneHalf::Resource) => ": the gateway alone",
    };
    say!("Portcullis {} is ready{half}.\n", env!("CARGO_PKG_VERSION"))?;
    match &mcp_url {
        Some(url) => say!("  MCP URL    {url}")?,
        None => say!("  Issuer     {issuer}")?,
    }
    if only == Some(OneHalf::Resource) {
        say!("  Tokens of  {issuer}")?;
    }
    say!("  Data       {}", file.data_dir_or_default().display())?;
    match (only, &file.resource.docs) {
        (None, Some(folder)) => say!("  Documents  {}", folder.display())?,
        (None, None) => say!("  Documents  the built-in handbook; serve your own with --docs DIR")?,
        (Some(_), _) => {}
    }
    how_to_sign_in(server)?;
    match (only, &mcp_url) {
        (None, Some(url)) => how_to_connect(url)?,
        (Some(OneHalf::Authz), _) => say!("\nTo register a gateway: portcullis rs add NAME --audience URL")?,
        _ => {}
    }
    say!("\nStop with Ctrl-C.")
}

fn how_to_sign_in(server: &Server) -> anyhow::Result<()> {
    if let Some(link) = server.setup_link() {
        say!("\nYou are its first administrator. Open this link within 60 minutes and create a passkey:\n")?;
        say!("  {link}\n")?;
        say!("A new link: portcullis setup-link")?;
    }
    if server.is_locked_out() {
        say!("\nNo administrator can sign in. To print a link for one: portcullis setup-link")?;
    }
    Ok(())
}

fn how_to_connect(url: &str) -> anyhow::Result<()> {
    say!("\nConnect a client:\n")?;
    for snippet in authz::snippets(url) {
        say!("  {}: {}", snippet.client, snippet.how)?;
        say!("    {}", snippet.code)?;
    }
    Ok(())
}
