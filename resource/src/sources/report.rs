//! Reports about the servers behind the gate, for administrators (SRC-14).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{Db, Fault};

use super::declared::Declared;
use super::endpoint::Endpoint;
use super::health::Health;
use super::journal::Entry;
use super::mcp::definition::LeftOut;
use super::upstream::Upstream;
use super::upstreams::Upstreams;
use crate::item::{Kind, Offer};
use crate::store::snapshots;

/// The characters of a definition per token of a model's context, approximately.
const PER_TOKEN: usize = 4;

/// The result of a test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tested {
    pub era: Option<String>,
    /// How long the listing took, in milliseconds.
    pub ms: u64,
    pub tools: Vec<ListedItem>,
    pub prompts: Vec<ListedItem>,
    pub resources: Vec<ListedItem>,
    pub templates: Vec<ListedItem>,
    pub left_out: Vec<LeftOut>,
    /// The end of what a program wrote to standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<String>,
}

/// What happened lately.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    pub entries: Vec<Entry>,
    /// The end of what a program wrote to standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<String>,
}

/// An item as it was listed, with what its own annotations suggest. They are its server's word, and nobody goes by them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedItem {
    pub name: String,
    pub title: String,
    pub scope: String,
    /// `low` or `high`.
    pub risk: String,
    /// The approximate size of its definition in tokens of a model's context.
    pub tokens: usize,
}

impl ListedItem {
    fn of(source: &str, offer: &Offer) -> Self {
        let listed: Value = serde_json::from_str(offer.listed.get()).unwrap_or_default();
        let hint = |name: &str| listed["annotations"][name].as_bool();
        let reads = hint("readOnlyHint") == Some(true) || offer.kind != Kind::Tool;
        let harmless = reads || hint("destructiveHint") == Some(false);
        Self {
            name: offer.name.to_string(),
            title: offer.title.clone(),
            scope: format!("{source}.{}", if reads { "read" } else { "write" }),
            risk: if harmless { "low" } else { "high" }.to_owned(),
            tokens: offer.listed.get().len().div_ceil(PER_TOKEN),
        }
    }
}

impl Upstreams {
    /// The health of all sources, from what is known, without contacting them.
    pub async fn health(&self) -> Vec<Health> {
        let mut all = Vec::new();
        for source in self.all().iter() {
            all.push(source.health().await);
        }
        all.extend(self.declared().iter().map(Declared::health));
        all
    }

    /// The same without a running server, from the database.
    ///
    /// # Errors
    /// A database fault.
    pub fn remembered(db: &Db) -> Result<Vec<Health>, Fault> {
        let health = |stored: snapshots::Stored| {
            Ok(Health {
                items: db.read(|conn| snapshots::counts(conn, &stored.id))?,
                url: Endpoint::shown_of(&stored.target).to_owned(),
                name: stored.name,
                id: stored.id,
                era: stored.era,
                walked_at: stored.walked_at,
                stale: None,
                left_out: Vec::new(),
                processes: None,
            })
        };
        db.read(snapshots::all)?.into_iter().map(health).collect()
    }

    /// Lists the source with this name now; `None` if it does not exist.
    pub async fn test(&self, name: &str) -> Option<Result<Tested, String>> {
        if let Some(declared) = self.find_declared(name) {
            return Some(declared.test().await.map(|ms| tested(name, &declared, ms)));
        }
        let source = self.find(name)?;
        Some(test(name, &source).await)
    }

    /// The id of the source with this name.
    pub fn id(&self, name: &str) -> Option<String> {
        let declared = self.find_declared(name).map(|_| name.to_owned());
        declared.or_else(|| Some(self.find(name)?.id()))
    }

    /// Recent events of the source with this name; `None` if it does not exist.
    pub fn log(&self, name: &str, most: usize) -> Option<Log> {
        if let Some(declared) = self.find_declared(name) {
            return Some(Log { entries: declared.journal(most), errors: None });
        }
        let source = self.find(name)?;
        Some(Log { entries: source.journal(most), errors: source.errors() })
    }

    /// Restarts the source with this name, and returns its health afterwards; `None` if it does not exist.
    pub async fn restart(&self, name: &str) -> Option<Result<Health, String>> {
        if let Some(declared) = self.find_declared(name) {
            return Some(declared.restart().await.map(|()| declared.health()));
        }
        let source = self.find(name)?;
        let restarted = source.restart().await;
        let health = source.health().await;
        Some(restarted.map(|()| health))
    }
}

/// What a test of a source with declared tools shows.
fn tested(name: &str, declared: &Declared, ms: u64) -> Tested {
    let tools = declared.offered().offers.iter().map(|offer| ListedItem::of(name, offer)).collect();
    let (prompts, resources, templates, left_out) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    Tested { era: None, ms, tools, prompts, resources, templates, left_out, errors: None }
}

async fn test(name: &str, source: &Upstream) -> Result<Tested, String> {
    let begun = std::time::Instant::now();
    source.walk().await?;
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let health = source.health().await;
    let offered = source.offered();
    let listed = |kind| {
        let offers = offered.offers.iter().filter(|offer| offer.kind == kind);
        offers.map(|offer| ListedItem::of(name, offer)).collect()
    };
    Ok(Tested {
        era: health.era,
        ms,
        tools: listed(Kind::Tool),
        prompts: listed(Kind::Prompt),
        resources: listed(Kind::Resource),
        templates: listed(Kind::Template),
        left_out: health.left_out,
        errors: source.errors(),
    })
}
