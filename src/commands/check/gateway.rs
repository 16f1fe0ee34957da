//! The report of `check --only resource` on a gateway alone.

use std::collections::BTreeMap;
use std::fmt;

use resource::catalogue::{BuiltIn, Kind};
use resource::sources::endpoint::Endpoint;
use serde::Serialize;
use shared::Issuer;

use super::{Report, ScopeReport, ToolReport};
use crate::config::{self, File};
use crate::front::address::{Listen, address};

/// A gateway, and how it introspects tokens.
#[derive(Serialize)]
pub(super) struct Gateway {
    /// `None` if it depends on a port that is chosen later.
    origin: Option<Issuer>,
    client_id: Option<String>,
    /// How long an answer is cached, in milliseconds.
    cache_ms: u128,
    /// How strictly tokens are checked for each scope.
    checks: BTreeMap<String, &'static str>,
}

impl Report {
    /// Reports on a gateway, in the order of `serve`. The authorization server is not contacted, because the
    /// gateway can start without it.
    pub(super) fn gateway(&mut self, file: &File) {
        self.groups.clear();
        self.issuer = self.note(config::authority(file.issuer.as_deref()));
        let protection = file.front.protection();
        let configured = file.origin.as_deref();
        let address = Listen::parse(&self.listen).and_then(|listen| {
            let address = address("origin", configured, listen, listen.port(), protection)?;
            Ok((address, configured.is_some() || listen.port() != 0))
        });
        let origin = self.note(address).and_then(|(address, known)| known.then_some(address));
        if let (Some(origin), Some(issuer)) = (&origin, &self.issuer) {
            let distinct = config::distinct(origin, issuer);
            self.note(distinct);
        }
        self.certificate(file, origin.as_ref());
        // Errors do not depend on the issuer.
        let issuer = self.issuer.clone().unwrap_or_else(|| Issuer::localhost(8080));
        let settings = file.remote.settings(issuer);
        self.note(settings);
        if file.remote.ca.is_some() && self.issuer.as_ref().is_some_and(Issuer::is_loopback) {
            self.warnings.push("[remote] `ca` has no effect for a server on this computer".to_owned());
        }
        let checks = file.rules.scopes.iter().map(|rule| {
            let scope = &rule.description;
            (scope.name.clone(), file.remote.check(&scope.name, scope.risk).as_str())
        });
        let checks = checks.collect();
        let (client_id, cache_ms) = (file.remote.client_id.clone(), file.remote.cache.as_millis());
        self.gateway_rules(file, &checks);
        if file.rules.have_limits() {
            self.warnings.push(
                "the limits on calls count at each gateway by itself: two gateways together let through twice as many".to_owned(),
            );
        }
        self.sources(file);
        let is_told = |source: &&config::Source| matches!(&source.settings.endpoint, Endpoint::Http(address) if address.identity);
        for source in file.sources.values().filter(is_told) {
            self.problems.push(format!(
                "[sources.{}] has `identity = \"jwt\"`, and a gateway alone has no keys to sign with; remove it, or run the whole server",
                source.settings.name
            ));
        }
        for (name, shown) in file.shown() {
            if shown.names().next().is_some() || shown.is_of_users() {
                self.problems.push(format!(
                    "[sources.{name}] has a secret in the sealed store, and a gateway alone has none; write \"file:/path\" or \"env:NAME\", or run the whole server"
                ));
            }
        }
        self.gateway = Some(Gateway { origin, client_id, cache_ms, checks });
    }

    /// What each tool needs. The authorization server knows who is in which group.
    fn gateway_rules(&mut self, file: &File, checks: &BTreeMap<String, &'static str>) {
        let catalogue = BuiltIn::new(&Issuer::localhost(8080), &file.rules);
        let Some(catalogue) = self.note(catalogue.map_err(Into::into)) else { return };
        self.remember(&catalogue, file);
        self.scopes = file.rules.scopes.iter().map(ScopeReport::of).collect();
        for (name, opens) in catalogue.needs(Kind::Tool) {
            self.tools.push(ToolReport::new(name, &opens, Vec::new()));
        }
        let trusting = checks.iter().filter(|(_, check)| **check == "expiry-only");
        for (scope, _) in trusting {
            self.warnings.push(format!(
                "tokens are not checked with the authorization server for tools that need `{scope}`: a revoked token works there until it expires"
            ));
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.as_ref().map_or("http://localhost, with the port", Issuer::as_str);
        writeln!(f, "Origin         {origin}")?;
        writeln!(f, "Known as       {}", self.client_id.as_deref().unwrap_or("nobody"))?;
        writeln!(f, "Answers count  {} s", self.cache_ms / 1000)?;
        for (scope, check) in &self.checks {
            writeln!(f, "Checked        {scope}: {check}")?;
        }
        Ok(())
    }
}
