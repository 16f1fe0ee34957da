//! What `check` reports about sources: from their stored lists, without contacting them (POL-05).

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use keys::secrets;
use resource::catalogue::{BuiltIn, Kind, ToolNeeds};
use resource::sources::endpoint::{Address, Endpoint, Local, Sandbox};
use resource::sources::never_walked;
use shared::catalogue::Risk;
use shared::db::ReadOnly;
use shared::network::is_never_dialled;
use shared::schema::SCHEMA;

use super::Report;
use crate::config::File;
use crate::doubts;

impl Report {
    /// Checks that the files that each source needs exist.
    pub(super) fn sources(&mut self, file: &File) {
        for source in file.declared.values() {
            let configured = source.configured(&self.data_dir);
            self.note(configured);
            if let Some(to) = source.source.destination() {
                self.host(&source.source.name, &to.host);
            }
        }
        for source in file.sources.values() {
            let configured = source.configured();
            self.note(configured);
            match &source.settings.endpoint {
                Endpoint::Http(at) => self.address(&source.settings.name, at),
                Endpoint::Local(program) => self.program(&source.settings.name, program),
            }
        }
    }

    fn address(&mut self, name: &str, at: &Address) {
        self.host(name, &at.destination.host);
    }

    /// Whether the host of a source may be connected to.
    fn host(&mut self, name: &str, host: &str) {
        if let Ok(address) = host.parse::<IpAddr>()
            && is_never_dialled(address)
        {
            self.problems.push(format!(
                "[sources.{name}] is at {address}, which is never connected to: it is unspecified, multicast or link-local; write the server's own address in `url`"
            ));
        }
    }

    /// What a program needs is there, as far as that can be seen without starting it.
    fn program(&mut self, name: &str, program: &Local) {
        let command = Path::new(&program.command).is_absolute().then(|| Path::new(&program.command));
        let missing = command.into_iter().chain(program.cwd.as_deref());
        let missing = missing.chain(program.paths.keys().map(PathBuf::as_path)).filter(|path| !path.exists());
        for path in missing {
            self.problems.push(format!("[sources.{name}] names {}, which does not exist", path.display()));
        }
        if program.sandbox == Sandbox::Off {
            self.warnings.push(format!(
                "[sources.{name}] has `sandbox = \"off\"`: the program can use every file of this server's user, its keys and its database among them"
            ));
        }
    }

    /// Compares the rules with the sources' stored lists, and the configured names with the stored secrets.
    pub(super) fn remember(&mut self, catalogue: &BuiltIn, file: &File) {
        let sources: Vec<_> = file.sources.values().map(|source| source.settings.clone()).collect();
        let declared: Vec<_> = file.declared.values().map(|source| source.source.clone()).collect();
        let mut unknown: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
        catalogue.declare(&declared);
        // Errors of the database are reported elsewhere.
        if let Ok(db) = ReadOnly::open(&self.data_dir.join("portcullis.db"), &SCHEMA) {
            let read = db.read(|conn| {
                catalogue.remember(conn, &sources, &declared)?;
                Ok((never_walked(conn, &sources)?, secrets::list(conn)?))
            });
            if let Some((never_walked, secrets)) = self.note(read.map_err(Into::into)) {
                unknown = never_walked;
                self.secrets(file, &secrets);
            }
        }
        self.triggers(catalogue, file);
        self.note(catalogue.check().map_err(Into::into));
        for name in &unknown {
            self.warnings.push(format!(
                "the server `{name}` has never listed its tools here, so rules about them were not checked; start `portcullis serve`, then run `portcullis source test {name}` and check again"
            ));
        }
        let doubts = doubts::about(catalogue, file, &unknown).into_iter();
        self.warnings.extend(doubts.map(|doubt| doubt.to_string()));
    }

    /// Tools that start something elsewhere, and need no scope that takes a passkey.
    fn triggers(&mut self, catalogue: &BuiltIn, file: &File) {
        let high =
            |name: &str| file.risks().iter().any(|(scope, risk)| *scope == name && *risk == Risk::High);
        let hooks = file.declared.values().filter(|source| source.source.kind_name() == "webhook");
        let tools: Vec<_> = hooks.flat_map(crate::config::Declared::tool_names).collect();
        for (name, opens) in catalogue.needs(Kind::Tool) {
            if let ToolNeeds::Scopes(scope) = opens
                && tools.contains(&name)
                && !scope.is_empty()
                && !scope.iter().any(high)
            {
                self.warnings.push(format!(
                    "`{name}` sends messages that start something elsewhere, and needs no scope with risk = \"high\", so nobody is asked for a passkey; give it one"
                ));
            }
        }
    }

    /// Secrets that are named in the configuration but not set.
    fn secrets(&mut self, file: &File, known: &[secrets::SecretInfo]) {
        let is_set = |name: &str| known.iter().any(|known| known.user.is_none() && known.name == name);
        for (source, shown) in file.shown() {
            for name in shown.names().filter(|name| !is_set(name)) {
                self.warnings.push(format!(
                    "[sources.{source}] uses the secret `{name}`, which is not set; run: portcullis secret set {name}"
                ));
            }
        }
    }
}
