//! `portcullis check`: what `serve` would do with the same options, and what would stop it.

mod entrance;
mod gateway;
mod sources;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use authz::RegistrationMode;
use authz::clients::configuration::{self, Configured};
use authz::issuer_change::{self, Another};
use clap::Args;
use keys::Seal;
use resource::catalogue::{BuiltIn, Kind, ScopeRule, ToolNeeds};
use resource::sources::docs::Folder;
use rustix::fs::{Access, access};
use serde::Serialize;
use serde_json::json;
use shared::catalogue::Risk;
use shared::data_dir::{self, DataDirError};
use shared::db::{OpenError, ReadOnly};
use shared::schema::SCHEMA;
use shared::{Catalogue, ClientId, Issuer, Scope};

use crate::output::{self, note, say};
use crate::timekeeping;
use entrance::Entrance;
use gateway::Gateway;

use crate::config::{self, CommandLineOptions, EVERYONE, File, OneHalf, SealKey};
use crate::front::address::{Listen, address};

#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    pub settings: CommandLineOptions,
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub(crate) fn run(command: &Check, file: anyhow::Result<File>) -> anyhow::Result<()> {
    let problems = match file {
        Ok(file) => {
            let report = Report::of(&file.under(&command.settings), command.settings.only);
            if command.json {
                output::json(&report)?;
            } else {
                say!("{}", report.to_string().trim_end())?;
            }
            report.problems
        }
        Err(error) => {
            let problem = format!("{error:#}");
            if command.json {
                output::json(&json!({ "ok": false, "problems": [problem] }))?;
            }
            vec![problem]
        }
    };
    let Some((last, others)) = problems.split_last() else { return Ok(()) };
    for problem in others {
        note!("portcullis: {problem}");
    }
    bail!("{last}")
}

/// The report.
#[derive(Serialize)]
struct Report {
    ok: bool,
    /// The configuration file.
    config: Option<PathBuf>,
    /// `None` if it depends on a port that is chosen later.
    issuer: Option<Issuer>,
    listen: String,
    #[serde(flatten)]
    entrance: Entrance,
    /// For a gateway alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Gateway>,
    data_dir: PathBuf,
    /// `None` for the built-in handbook.
    docs: Option<PathBuf>,
    /// Who may register clients.
    registration: &'static str,
    /// The lifetime of an access token in seconds.
    access_token_lifetime: u64,
    groups: BTreeMap<String, Vec<String>>,
    scopes: Vec<ScopeReport>,
    tools: Vec<ToolReport>,
    clients: Vec<ClientReport>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct ScopeReport {
    name: String,
    title: String,
    risk: Risk,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_text: Option<String>,
    default: bool,
}

#[derive(Serialize)]
struct ToolReport {
    name: String,
    /// `None` if it needs only a valid token, or cannot be used.
    scopes: Option<Vec<String>>,
    /// Whether the site hides it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    hidden: bool,
    /// The groups whose members may call it.
    groups: Vec<String>,
}

/// A configured client.
#[derive(Serialize)]
struct ClientReport {
    id: ClientId,
    title: String,
    auth_method: &'static str,
    redirect_uris: Vec<String>,
    grant_types: Vec<String>,
    scope: Scope,
}

impl Report {
    fn of(file: &File, only: Option<OneHalf>) -> Self {
        let mut report = Self {
            ok: false,
            config: file.path.clone(),
            issuer: None,
            listen: file.front.listen_or_default().to_owned(),
            entrance: Entrance::of(file),
            gateway: None,
            data_dir: file.data_dir_or_default(),
            docs: file.resource.docs.clone(),
            registration: registration(file.authz.registration.mode),
            access_token_lifetime: file.authz.tokens.access.as_secs(),
            groups: file.groups.iter().map(|(name, scope)| (name.clone(), list(scope))).collect(),
            scopes: Vec::new(),
            tools: Vec::new(),
            clients: file.clients.iter().map(ClientReport::of).collect(),
            warnings: Vec::new(),
            problems: Vec::new(),
        };
        // In the order of `serve`.
        if only == Some(OneHalf::Resource) {
            report.gateway(file);
            report.note(open(&file.data_dir_or_default(), None));
        } else {
            report.whole(file);
        }
        if let Some(folder) = &file.resource.docs {
            let opened = Folder::Directory(folder.clone()).check();
            report.note(opened.map_err(Into::into));
        }
        report.ok = report.problems.is_empty();
        report
    }

    /// Reports on an authorization server.
    fn whole(&mut self, file: &File) {
        self.issuer(file);
        self.certificate(file, self.issuer.clone().as_ref());
        self.rules(file);
        self.sources(file);
        self.note(file.authz.cimd.check().map_err(anyhow::Error::msg));
        self.data(&file.signing.seal_key);
        self.clients(file);
        if file.remote != config::Remote::default() {
            self.warnings.push(
                "[remote] is used only with --only resource; for a gateway, run check and serve with that option"
                    .to_owned(),
            );
        }
    }

    /// Adds an error, in the words of `serve`.
    fn note<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.problems.push(format!("{error:#}"))).ok()
    }

    fn issuer(&mut self, file: &File) {
        let configured = file.issuer.as_deref();
        let listen = Listen::parse(&self.listen);
        let Some(listen) = self.note(listen) else {
            self.issuer = configured.and_then(|text| Issuer::parse(text).ok());
            return;
        };
        let protection = file.front.protection();
        let issuer = address("issuer", configured, listen, listen.port(), protection);
        self.issuer = self
            .note(issuer)
            .filter(|_| configured.is_some() || listen.port() != 0)
            .or_else(|| configured.and_then(|text| Issuer::parse(text).ok()));
    }

    fn certificate(&mut self, file: &File, address: Option<&Issuer>) {
        let Some(clock) = self.note(timekeeping::clock()) else { return };
        let read = self.entrance.read_certificate(file, address, clock.now());
        let warnings = self.note(read).unwrap_or_default();
        self.warnings.extend(warnings);
    }

    fn rules(&mut self, file: &File) {
        // The rules do not depend on the issuer.
        let issuer = self.issuer.clone().unwrap_or_else(|| Issuer::localhost(8080));
        let catalogue = BuiltIn::new(&issuer, &file.rules);
        let Some(catalogue) = self.note(catalogue.map_err(Into::into)) else { return };
        self.remember(&catalogue, file);
        let granted = catalogue.scopes();
        for rule in &file.rules.scopes {
            let described = rule.description.clone();
            if !granted.contains(&described) {
                self.warnings.push(format!("no tool needs the scope `{}`", described.name));
            }
            self.scopes.push(ScopeReport::of(rule));
        }
        let everyone = file.groups.get(EVERYONE).cloned().unwrap_or_default();
        let everything = file.groups.values().fold(Scope::empty(), |all, scope| all.union(scope));
        for (name, opens) in catalogue.needs(Kind::Tool) {
            let reach = |entitled: &Scope| reaches(&catalogue, entitled, &name);
            let groups = file.groups.iter().filter(|(_, scope)| reach(&scope.union(&everyone)));
            let groups = groups.map(|(group, _)| group.clone()).collect();
            match &opens {
                ToolNeeds::Scopes(scopes) if scopes.is_empty() => self.warnings.push(format!(
                    "nobody may call the tool `{name}`: no rule says what it needs; write [tools.{name}] with scope = \"…\", or with hidden = true"
                )),
                ToolNeeds::Scopes(scopes) if !reach(&everything) => self.warnings.push(format!(
                    "nobody may call the tool `{name}`: no group has the scopes it needs; add {} to one of [groups]",
                    scopes.without(&everything)
                )),
                ToolNeeds::Scopes(_) | ToolNeeds::Token | ToolNeeds::Nothing => {}
            }
            self.tools.push(ToolReport::new(name, &opens, groups));
        }
    }

    fn clients(&mut self, file: &File) {
        for client in &file.clients {
            if !file.authz.device
                && client.wanted().grant_types().iter().any(|grant| grant.ends_with(":device_code"))
            {
                self.warnings.push(format!(
                    "the client {} uses the device grant, and the server has it turned off; write device = true",
                    client.id()
                ));
            }
        }
        let Some(issuer) = self.issuer.clone() else { return };
        let database = self.data_dir.join("portcullis.db");
        // An unusable directory was reported before.
        let Ok(db) = ReadOnly::open(&database, &SCHEMA) else { return };
        let stored = self.note(db.read(issuer_change::stored).map_err(Into::into)).flatten();
        if let Some(another) = stored.and_then(|stored| Another::than(&stored, &issuer)) {
            self.problems.push(another.to_string());
        }
        let obstacle = db.read(|conn| configuration::obstacle(conn, &issuer, &file.clients));
        if let Some(Some(obstacle)) = self.note(obstacle.map_err(Into::into)) {
            self.problems.push(obstacle.to_string());
        }
    }

    fn data(&mut self, seal_key: &SealKey) {
        let dir = self.data_dir.clone();
        self.note(open(&dir, Some(seal_key)));
        let beside = match seal_key {
            SealKey::Beside => dir.join("seal.key"),
            SealKey::File(path) => path.clone(),
            SealKey::Credential(_) => return,
        };
        let inside = |dir: PathBuf| fs::canonicalize(&beside).is_ok_and(|path| path.starts_with(dir));
        if fs::canonicalize(&dir).is_ok_and(inside) {
            let name = beside.file_name().unwrap_or_default().display();
            self.warnings.push(format!(
                "{name} is in the same directory as the database, {}: anyone who copies the whole directory can decrypt every key in it; leave {name} out of copies, or keep it elsewhere and set [keys] seal_key",
                dir.display()
            ));
        }
    }
}

/// Whether a user with this entitlement may call the tool at any endpoint.
fn reaches(catalogue: &BuiltIn, entitled: &Scope, tool: &str) -> bool {
    let usable = |endpoint: shared::catalogue::Endpoint| catalogue.usable(&endpoint.resource, entitled);
    catalogue.endpoints().into_iter().flat_map(usable).any(|usable| usable.name == tool)
}

fn list(scope: &Scope) -> Vec<String> {
    scope.iter().map(str::to_owned).collect()
}

fn registration(mode: RegistrationMode) -> &'static str {
    match mode {
        RegistrationMode::Open => "open",
        RegistrationMode::Token => "token",
        RegistrationMode::Off => "off",
    }
}

/// Checks the data directory as `serve` would; a missing one can be created.
fn open(dir: &Path, seal_key: Option<&SealKey>) -> anyhow::Result<()> {
    let writable = |path: &Path| {
        access(path, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| DataDirError::Unwritable(dir.to_owned(), error.into()))
    };
    match data_dir::check(dir) {
        Err(DataDirError::Missing(_)) => {
            let absolute = std::path::absolute(dir)?;
            let parent = absolute.ancestors().find(|path| path.exists());
            return Ok(writable(parent.unwrap_or(Path::new("/")))?);
        }
        checked => checked?,
    }
    writable(dir)?;
    let database = dir.join("portcullis.db");
    if database.exists() {
        match ReadOnly::open(&database, &SCHEMA) {
            // `serve` migrates it.
            Ok(_) | Err(OpenError::Older { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // A gateway alone has none.
        if let Some(seal_key) = seal_key {
            Seal::open(seal_key.source(dir)?, false)?;
        }
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |path: &Option<PathBuf>, none: &str| match path {
            Some(path) => path.display().to_string(),
            None => none.to_owned(),
        };
        let issuer = self.issuer.as_ref().map_or("http://localhost, with the port", Issuer::as_str);
        writeln!(f, "Configuration  {}", or(&self.config, "none (built-in defaults)"))?;
        writeln!(f, "Issuer         {issuer}")?;
        writeln!(f, "Listen         {}", self.listen)?;
        write!(f, "{}", self.entrance)?;
        writeln!(f, "Data           {}", self.data_dir.display())?;
        writeln!(f, "Documents      {}", or(&self.docs, "the built-in handbook"))?;
        if let Some(gateway) = &self.gateway {
            write!(f, "{gateway}")?;
        } else {
            writeln!(f, "Registration   {}", self.registration)?;
            writeln!(f, "Access tokens  live {} seconds", self.access_token_lifetime)?;
        }
        let groups =
            self.groups.iter().map(|(name, scopes)| [name.clone(), or_nothing(scopes), String::new()]);
        if self.gateway.is_none() {
            columns(f, "Groups", groups)?;
        }
        columns(f, "Scopes", self.scopes.iter().map(ScopeReport::columns))?;
        let tools = self.tools.iter().map(ToolReport::columns);
        // The authorization server knows who is in which group.
        let known = self.gateway.is_none();
        let tools =
            tools.map(|[tool, needs, groups]| [tool, needs, if known { groups } else { String::new() }]);
        columns(f, "Tools", tools)?;
        if !self.clients.is_empty() {
            columns(f, "Clients", self.clients.iter().map(ClientReport::columns))?;
        }
        writeln!(f)?;
        for warning in &self.warnings {
            writeln!(f, "Warning: {warning}")?;
        }
        match self.problems.len() {
            0 => writeln!(f, "No problems."),
            1 => writeln!(f, "1 problem."),
            many => writeln!(f, "{many} problems."),
        }
    }
}

impl ScopeReport {
    fn of(rule: &ScopeRule) -> Self {
        let shared::catalogue::ScopeDescription { name, title, risk, risk_text } = rule.description.clone();
        Self { name, title, risk, risk_text, default: rule.default }
    }

    fn columns(&self) -> [String; 3] {
        let risk = match self.risk {
            Risk::Low => "low risk",
            Risk::High => "high risk",
        };
        let default = if self.default { ", asked for by default" } else { "" };
        [self.name.clone(), format!("{risk}{default}"), self.title.clone()]
    }
}

impl ToolReport {
    fn new(name: String, opens: &ToolNeeds, groups: Vec<String>) -> Self {
        let (scopes, hidden) = match opens {
            ToolNeeds::Token => (None, false),
            ToolNeeds::Scopes(scopes) => (Some(list(scopes)), false),
            ToolNeeds::Nothing => (None, true),
        };
        Self { name, scopes, hidden, groups }
    }

    fn columns(&self) -> [String; 3] {
        if self.hidden {
            return [self.name.clone(), "hidden".to_owned(), "for nobody".to_owned()];
        }
        let needs = self.scopes.as_ref().map_or("a valid token".to_owned(), |scopes| or_nothing(scopes));
        let groups = if self.groups.iter().any(|group| group == EVERYONE) {
            EVERYONE.to_owned()
        } else if self.groups.is_empty() {
            "no group alone".to_owned()
        } else {
            self.groups.join(" ")
        };
        [self.name.clone(), format!("needs {needs}"), format!("for {groups}")]
    }
}

impl ClientReport {
    fn of(client: &Configured) -> Self {
        let wanted = client.wanted();
        Self {
            id: client.id().clone(),
            title: wanted.name().to_owned(),
            auth_method: wanted.auth_method(),
            redirect_uris: wanted.redirect_uris().map(str::to_owned).collect(),
            grant_types: wanted.grant_types().to_vec(),
            scope: wanted.scope().clone(),
        }
    }

    fn columns(&self) -> [String; 3] {
        let grants: Vec<&str> =
            self.grant_types.iter().map(|grant| grant.rsplit(':').next().unwrap_or(grant)).collect();
        [self.id.to_string(), self.auth_method.to_owned(), format!("{} ({})", self.title, grants.join(" "))]
    }
}

fn or_nothing(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
}

/// A heading, and rows with aligned columns.
fn columns(
    f: &mut fmt::Formatter<'_>,
    heading: &str,
    rows: impl Iterator<Item = [String; 3]>,
) -> fmt::Result {
    let rows: Vec<_> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    writeln!(f, "\n{heading}")?;
    for [a, b, c] in &rows {
        writeln!(f, "{}", format!("  {a:first$}  {b:second$}  {c}").trim_end())?;
    }
    Ok(())
}
