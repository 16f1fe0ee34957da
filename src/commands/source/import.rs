//! `portcullis source import`: turns the servers of a client's file into `[sources]`, and puts their secrets
//! into the sealed store (SRC-14). Secrets are neither printed nor written into the configuration.

mod append;
mod entry;
mod formats;
mod jsonc;
mod openapi;

use std::fs;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use shared::Secret;

use crate::commands::frame::print::safe;
use crate::commands::frame::{CommonOptions, typed};
use crate::commands::secret::SetSecret;
use crate::config::File;
use crate::output::{note, say};
use entry::{FoundServer, NeededSecret, PlannedSource};

/// The longest file in bytes.
const LONGEST: u64 = 1 << 20;

#[derive(Args, Debug)]
pub struct Import {
    /// The client's file: mcp.json of Claude Code, VS Code or Cursor, or config.toml of Codex. Or `openapi` and the file of an
    /// OpenAPI 3 description in JSON, whose operations become tools.
    #[arg(value_name = "FILE", num_args = 1..=2, required = true)]
    pub files: Vec<PathBuf>,
    /// The name of the source that an OpenAPI description becomes.
    #[arg(long, default_value = "api", value_name = "NAME")]
    pub name: String,
    /// Print what would be written, and store no secret.
    #[arg(long, conflicts_with = "write")]
    pub dry_run: bool,
    /// Add the sources to the configuration file, in one step.
    #[arg(long)]
    pub write: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

/// The result.
#[derive(Serialize)]
struct Imported {
    /// The tables for the configuration.
    toml: String,
    sources: Vec<String>,
    /// The names of the secrets that were stored.
    secrets: Vec<String>,
    /// Names in the tables whose values the file does not contain.
    to_set: Vec<String>,
    left_out: Vec<LeftOut>,
    /// The configuration file, if the tables were added to it.
    written: Option<PathBuf>,
}

/// A server that is not imported.
#[derive(Clone, Debug, Serialize)]
struct LeftOut {
    name: String,
    why: String,
}

/// Runs the command.
pub(super) fn run(import: &Import, file: &File) -> anyhow::Result<()> {
    let (planned, left_out) = match &import.files[..] {
        [format, path] if format == Path::new("openapi") => {
            let described = openapi::read(path, &read(path)?, &import.name)?;
            let one = PlannedSource { name: import.name.clone(), toml: described.toml, secrets: Vec::new() };
            check(&one, file).map_err(anyhow::Error::msg)?;
            (vec![one], described.left_out)
        }
        [path] => plan(formats::read(path, &read(path)?)?, file),
        _ => bail!("write `source import FILE`, or `source import openapi FILE`"),
    };
    if planned.is_empty() && left_out.is_empty() {
        bail!("{} names no MCP server", import.files[0].display());
    }
    let toml: String = planned.iter().map(|planned| planned.toml.as_str()).collect::<Vec<_>>().join("\n");
    let target =
        if import.write && !planned.is_empty() { Some(append::Target::of(file, &toml)?) } else { None };
    let mut imported = Imported {
        sources: planned.iter().map(|planned| planned.name.clone()).collect(),
        toml,
        secrets: Vec::new(),
        to_set: Vec::new(),
        left_out,
        written: None,
    };
    for wants in planned.iter().flat_map(|planned| &planned.secrets) {
        match value(import, wants)? {
            Some(value) => {
                import.common.ask(file, SetSecret::new(&wants.name, &value))?;
                imported.secrets.push(wants.name.clone());
            }
            // A dry run does not store the file's secrets.
            None if import.dry_run && wants.value.is_some() => imported.secrets.push(wants.name.clone()),
            None => imported.to_set.push(wants.name.clone()),
        }
    }
    imported.written = target.map(append::Target::write).transpose()?;
    import.common.show(&imported, |imported| imported.print(import.dry_run))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let unreadable = || format!("cannot read {}", path.display());
    let file = fs::File::open(path).with_context(unreadable)?;
    file.take(LONGEST + 1).read_to_string(&mut text).with_context(unreadable)?;
    if text.len() as u64 > LONGEST {
        bail!(
            "{} is longer than 1 MiB; name the file in which the client keeps its MCP servers",
            path.display()
        );
    }
    Ok(text)
}

/// Decides about each server in the file: a source, or why it is left out.
fn plan(found: Vec<FoundServer>, file: &File) -> (Vec<PlannedSource>, Vec<LeftOut>) {
    let (mut planned, mut left_out) = (Vec::<PlannedSource>::new(), Vec::new());
    for found in found {
        let name = found.name.clone();
        let taken = |name: &str| planned.iter().any(|one| one.name == name);
        match PlannedSource::of(found, taken).and_then(|one| check(&one, file).map(|()| one)) {
            Ok(one) => planned.push(one),
            Err(why) => left_out.push(LeftOut { name, why }),
        }
    }
    (planned, left_out)
}

/// Whether the configuration would be valid with it.
fn check(planned: &PlannedSource, file: &File) -> Result<(), String> {
    if file.sources.contains_key(&planned.name) || file.declared.contains_key(&planned.name) {
        return Err(format!("the configuration has [sources.{}] already", planned.name));
    }
    match File::parse(Path::new("this table"), &planned.toml) {
        Ok(_) => Ok(()),
        Err(why) => Err(format!("{why:#}")),
    }
}

/// The value of a secret: from the file, or typed at the terminal.
fn value(import: &Import, wants: &NeededSecret) -> anyhow::Result<Option<Secret>> {
    if import.dry_run {
        return Ok(None);
    }
    if let Some(value) = &wants.value {
        return Ok(Some(value.clone()));
    }
    if import.common.json || !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let about = wants.about.as_deref().map(|about| format!(" ({})", safe(about))).unwrap_or_default();
    typed::secret(&format!("The secret for `{}`{about} (it is not shown): ", wants.name)).map(Some)
}

impl Imported {
    fn print(&self, dry_run: bool) -> anyhow::Result<()> {
        if !self.toml.is_empty() {
            say!("{}", self.toml.trim_end())?;
        }
        if !self.secrets.is_empty() {
            let kept = if dry_run { "To be kept" } else { "Kept" };
            note!("\n{kept} in the sealed store: {}", self.secrets.join(", "));
        }
        for name in &self.to_set {
            note!("Not in the file: the secret `{name}`. To set it: portcullis secret set {name}");
        }
        for left_out in &self.left_out {
            note!("Left out: {}: {}", safe(&left_out.name), safe(&left_out.why));
        }
        match (&self.written, self.sources.first()) {
            (_, None) => note!("\nNothing to add."),
            (Some(path), Some(source)) => {
                let path = path.display();
                note!(
                    "\nAdded to {path}. Next: give the tools rules in [tools], then `portcullis reload` and `portcullis source test {source}`."
                );
            }
            (None, Some(_)) => {
                note!("\nNothing was written. Add the lines above to portcullis.toml, or use --write.");
            }
        }
        Ok(())
    }
}
