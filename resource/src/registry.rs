//! The only owner of definitions: which items exist, their sources, what they need, and at which endpoints they
//! can be used. A request takes one [`Snapshot`] and uses it to its end; a newer one replaces it as a whole,
//! for later requests.

mod listing;
mod review;
mod routing;
mod ruling;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use shared::catalogue::Endpoint;
use shared::{Issuer, ResourceUri, Scope};
use tokio::sync::watch;

use crate::item::{Item, Kind, Offer, Offered, SourceName};
use crate::profile::{MCP_PATH, Profile, Selection};
use crate::rules::{ProfileRule, Rules};
use crate::sources::Sources;
pub(crate) use routing::RequestedItem;
use routing::Routes;
use ruling::ruled;

/// The current items.
#[derive(Debug)]
pub(crate) struct Registry {
    site: Site,
    snapshot: ArcSwap<Snapshot>,
    /// Odd while the rules and their dependants are being replaced; larger after each replacement.
    epoch: AtomicU64,
    /// Serialises replacements, each of which builds on the current state.
    parts: Mutex<Parts>,
    /// Counts up with every snapshot.
    changed: watch::Sender<u64>,
}

/// What a snapshot is made from.
#[derive(Clone, Debug)]
struct Parts {
    rules: Arc<Rules>,
    offered: Vec<Arc<Offered>>,
    /// What runs the items; none where nothing is run.
    sources: Arc<Sources>,
}

/// A snapshot, and the epoch at which it was taken.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotView {
    epoch: u64,
    pub(crate) snapshot: Arc<Snapshot>,
}

/// The origin of the endpoints, and the issuer of their tokens.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) own: Issuer,
    pub(crate) issuer: Issuer,
}

impl Registry {
    /// A registry of what is offered, under these rules. Nothing runs it yet.
    pub(crate) fn new(site: Site, rules: Rules, offered: &[Arc<Offered>]) -> Self {
        let parts = Parts { rules: Arc::new(rules), offered: offered.to_vec(), sources: Arc::default() };
        let (snapshot, quarantined) = parts.merged(&site);
        tell(&quarantined);
        let snapshot = ArcSwap::from_pointee(snapshot);
        let changed = watch::Sender::new(0);
        Self { site, snapshot, epoch: AtomicU64::new(0), parts: Mutex::new(parts), changed }
    }

    /// Told of every snapshot that takes the place of another.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell_changed(&self) {
        self.changed.send_modify(|generation| *generation += 1);
    }

    /// The current snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The present snapshot, for a caller that decides by it together with a user's entitlement: it asks for that, and
    /// then whether this view is still current.
    pub(crate) fn look(&self) -> SnapshotView {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch.is_multiple_of(2) {
                return SnapshotView { epoch, snapshot: self.snapshot() };
            }
            // The replacement is a few assignments on another thread.
            std::thread::yield_now();
        }
    }

    /// Whether no rules were replaced since the look. If they were, what was asked for meanwhile may belong to other rules.
    pub(crate) fn still_holds(&self, look: &SnapshotView) -> bool {
        self.epoch.load(Ordering::SeqCst) == look.epoch
    }

    /// What a snapshot under other rules would be: of this, or else of what is offered now.
    pub(crate) fn under(&self, rules: &Arc<Rules>, offered: Option<&[Arc<Offered>]>) -> Snapshot {
        let parts = self.lock();
        Snapshot::merge(&self.site, offered.unwrap_or(&parts.offered), rules).0
    }

    /// Replaces the rules, and the sources if there are others, and does `together` in the same moment: no request is
    /// decided by one without the other (POL-04).
    pub(crate) fn replace_all(
        &self,
        rules: Arc<Rules>,
        sources: Option<Arc<Sources>>,
        together: impl FnOnce(),
    ) {
        let mut parts = self.lock();
        parts.rules = rules;
        if let Some(sources) = sources {
            parts.run_by(sources);
        }
        let (snapshot, quarantined) = parts.merged(&self.site);
        let snapshot = Arc::new(snapshot);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        together();
        self.snapshot.store(snapshot);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        drop(parts);
        self.tell_changed();
        tell(&quarantined);
    }

    /// Has these sources run what they offer.
    pub(crate) fn run_by(&self, sources: Arc<Sources>) {
        self.change(|parts| parts.run_by(sources));
    }

    /// Takes up what the sources offer now.
    pub(crate) fn refresh(&self) {
        self.change(|parts| parts.offered = parts.sources.offered());
    }

    /// Replaces the offers; returns what was left out of the new snapshot.
    pub(crate) fn replace(&self, offered: &[Arc<Offered>]) -> Vec<Quarantined> {
        self.change(|parts| parts.offered = offered.to_vec())
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) -> Vec<Quarantined> {
        let mut parts = self.lock();
        change(&mut parts);
        let (snapshot, quarantined) = parts.merged(&self.site);
        self.snapshot.store(Arc::new(snapshot));
        drop(parts);
        self.tell_changed();
        tell(&quarantined);
        quarantined
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }
}

impl Parts {
    fn run_by(&mut self, sources: Arc<Sources>) {
        self.offered = sources.offered();
        self.sources = sources;
    }

    fn merged(&self, site: &Site) -> (Snapshot, Vec<Quarantined>) {
        let (snapshot, quarantined) = Snapshot::merge(site, &self.offered, &self.rules);
        (Snapshot { sources: Arc::clone(&self.sources), ..snapshot }, quarantined)
    }
}

fn tell(quarantined: &[Quarantined]) {
    for item in quarantined {
        tracing::warn!(
            item.name = %item.offer.name, source = %item.source, owner = %item.owner,
            "another source has the name or URI of an item already; the newcomer is left out"
        );
    }
}

/// All items and endpoints at one moment. Immutable.
#[derive(Debug)]
pub(crate) struct Snapshot {
    rules: Arc<Rules>,
    /// What runs the items. A call goes to the source of its own snapshot, whatever takes the source's place meanwhile.
    sources: Arc<Sources>,
    items: BTreeMap<Kind, BTreeMap<Arc<str>, Arc<Item>>>,
    /// Whose a URI is.
    routes: Routes,
    high_risk: Scope,
    /// The sources to which each user gives a secret of their own, with what each is (SRC-10).
    own_secrets: Vec<(SourceName, Arc<str>)>,
    /// What was left out of it.
    quarantined: Vec<Quarantined>,
    /// `/mcp`.
    main: Arc<Profile>,
    /// `/mcp/NAME`.
    profiles: BTreeMap<String, Arc<Profile>>,
}

/// An offer whose name or URI somebody else had first (MCP-11, SRC-04).
#[derive(Clone, Debug)]
pub(crate) struct Quarantined {
    pub(crate) offer: Arc<Offer>,
    pub(crate) source: SourceName,
    pub(crate) owner: SourceName,
}

impl Snapshot {
    /// Combines these sources' offers with these rules. If two offers have the same name, the earlier source's
    /// is used.
    pub(crate) fn merge(
        site: &Site,
        offered: &[Arc<Offered>],
        rules: &Arc<Rules>,
    ) -> (Self, Vec<Quarantined>) {
        let high_risk = rules.high_risk();
        let mut all: BTreeMap<Kind, BTreeMap<Arc<str>, Arc<Item>>> = BTreeMap::new();
        let mut quarantined = Vec::new();
        let mut routes = Routes::to(offered);
        for offered in offered {
            for offer in &offered.offers {
                let items = all.entry(offer.kind).or_default();
                let first = items.get(&offer.name).map(|first| &first.source);
                if let Some(owner) = first.or_else(|| routes.owner(offer, &offered.source)) {
                    let (source, owner) = (offered.source.clone(), owner.clone());
                    quarantined.push(Quarantined { offer: Arc::clone(offer), source, owner });
                    continue;
                }
                let item = Arc::new(ruled(rules, offer, offered.source.clone(), &high_risk));
                routes.add(&item);
                items.insert(Arc::clone(&offer.name), item);
            }
        }
        let items = || all.values().flat_map(BTreeMap::values);
        let main = Arc::new(profile(site, rules, items(), None));
        let profiles = rules.profiles.iter();
        let profiles = profiles
            .map(|(name, rule)| (name.clone(), Arc::new(profile(site, rules, items(), Some((name, rule))))))
            .collect();
        let own = |one: &Arc<Offered>| Some((one.source.clone(), one.own_secret.clone()?));
        let own_secrets = offered.iter().filter_map(own).collect();
        let (rules, sources) = (Arc::clone(rules), Arc::default());
        let left_out = quarantined.clone();
        let snapshot =
            Self { rules, sources, items: all, routes, high_risk, own_secrets, quarantined, main, profiles };
        (snapshot, left_out)
    }

    /// Its rules.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What runs the items.
    pub(crate) fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// All items of a kind, sorted by name (MCP-10).
    pub(crate) fn items(&self, kind: Kind) -> impl Iterator<Item = &Arc<Item>> {
        self.items.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// The items of a source.
    pub(crate) fn items_of(&self, source: &SourceName) -> impl Iterator<Item = &Arc<Item>> {
        self.items.values().flat_map(BTreeMap::values).filter(move |item| item.source == *source)
    }

    /// The sources to which each user gives a secret of their own, with what each is.
    pub(crate) fn own_secrets(&self) -> impl Iterator<Item = (&SourceName, &str)> {
        self.own_secrets.iter().map(|(source, target)| (source, &**target))
    }

    /// The item with exactly this name, at any endpoint.
    pub(crate) fn find(&self, kind: Kind, name: &str) -> Option<&Arc<Item>> {
        self.items.get(&kind)?.get(name)
    }

    /// An item of an earlier snapshot under the rules of this one, whether or not it is offered still.
    pub(crate) fn ruled_now(&self, item: &Item) -> Arc<Item> {
        match self.find(item.offer.kind, &item.offer.name) {
            Some(known) if Arc::ptr_eq(&known.offer, &item.offer) => Arc::clone(known),
            _ => Arc::new(ruled(&self.rules, &item.offer, item.source.clone(), &self.high_risk)),
        }
    }

    /// The items of a kind at an endpoint.
    pub(crate) fn items_at(&self, profile: &Profile, kind: Kind) -> impl Iterator<Item = &Arc<Item>> {
        self.items(kind).filter(|item| profile.reaches(item))
    }

    /// `/mcp`, or the profile with this name (POL-03).
    pub(crate) fn profile(&self, name: Option<&str>) -> Option<&Arc<Profile>> {
        match name {
            None => Some(&self.main),
            Some(name) => self.profiles.get(name),
        }
    }

    /// The endpoint with this identifier.
    pub(crate) fn profile_of(&self, resource: &ResourceUri) -> Option<&Arc<Profile>> {
        self.profiles().find(|profile| profile.uri() == resource)
    }

    /// All endpoints, `/mcp` first.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = &Arc<Profile>> {
        std::iter::once(&self.main).chain(self.profiles.values())
    }

    /// All scopes that an item needs.
    pub(crate) fn scopes(&self) -> Scope {
        needed(self.items.values().flat_map(BTreeMap::values))
    }

    /// The scopes that are withheld from unverified clients.
    pub(crate) fn high_risk(&self) -> &Scope {
        &self.high_risk
    }
}

/// All scopes that one of these items needs.
fn needed<'i>(items: impl Iterator<Item = &'i Arc<Item>>) -> Scope {
    items.filter_map(|item| item.needs.scopes()).fold(Scope::empty(), |all, scope| all.union(scope))
}

/// An endpoint under the rules: `/mcp`, or one of `[profiles]`.
fn profile<'i>(
    site: &Site,
    rules: &Rules,
    items: impl Iterator<Item = &'i Arc<Item>>,
    named: Option<(&String, &ProfileRule)>,
) -> Profile {
    let (path, name, selection, default_scope) = match named {
        None => (MCP_PATH.to_owned(), "Portcullis".to_owned(), Selection::All, None),
        Some((name, rule)) => {
            let title = rule.title.clone().unwrap_or_else(|| format!("Portcullis: {name}"));
            let selection = Selection::Matching(rule.items.clone());
            (format!("{MCP_PATH}/{name}"), title, selection, rule.default_scope.clone())
        }
    };
    let needed = needed(items.filter(|item| selection.contains(item)));
    let default_scope = default_scope.unwrap_or_else(|| rules.default_among(&needed));
    let resource = ResourceUri::at(&site.own, &path);
    Profile::new(&site.own, &site.issuer, Endpoint { resource, name, default_scope }, selection)
}

#[cfg(test)]
mod tests;
