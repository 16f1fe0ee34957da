//! Whose a URI is (SRC-04). The source that claimed it first has it: by listing it, by a template that makes it, or, for one
//! principal, by a link in a result. That says where a request goes, and nothing about who may send it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Offered, Snapshot, ruled};
use crate::item::{Address, Effect, Item, Kind, Offer, SourceName};
use crate::profile::Profile;
use crate::uri::CanonicalUri;

/// The resources by their URIs, and the templates in the order of their sources.
#[derive(Debug, Default)]
pub(super) struct Routes {
    resources: HashMap<CanonicalUri, Arc<Item>>,
    templates: Vec<Arc<Item>>,
    /// All sources that there are.
    sources: Vec<SourceName>,
}

impl Routes {
    /// Without resources and templates yet.
    pub(super) fn to(offered: &[Arc<Offered>]) -> Self {
        let sources = offered.iter().map(|offered| offered.source.clone()).collect();
        Self { sources, ..Self::default() }
    }

    /// Another source that has what this offer of `newcomer` claims, if one does.
    pub(super) fn owner(&self, offer: &Offer, newcomer: &SourceName) -> Option<&SourceName> {
        let others = self.templates.iter().filter(|template| template.source != *newcomer);
        match offer.address.as_ref()? {
            Address::One(uri) => {
                let listed = self.resources.get(uri).map(|item| &item.source);
                listed.or_else(|| others.clone().find(|other| makes(other, uri)).map(|other| &other.source))
            }
            Address::All(template) => {
                let same = |other: &&Arc<Item>| *other.offer.at_source == *template.as_str();
                others.clone().find(same).map(|other| &other.source)
            }
        }
    }

    pub(super) fn add(&mut self, item: &Arc<Item>) {
        match &item.offer.address {
            Some(Address::One(uri)) => {
                self.resources.insert(uri.clone(), Arc::clone(item));
            }
            Some(Address::All(_)) => self.templates.push(Arc::clone(item)),
            None => {}
        }
    }

    /// The source that makes this URI from a template.
    fn made_by(&self, uri: &CanonicalUri) -> Option<&SourceName> {
        self.templates.iter().find(|template| makes(template, uri)).map(|template| &template.source)
    }
}

fn makes(template: &Item, uri: &CanonicalUri) -> bool {
    matches!(&template.offer.address, Some(Address::All(template)) if template.makes(uri))
}

/// An item as a request names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RequestedItem {
    pub(crate) kind: Kind,
    /// The name of a tool or prompt, a URI as it was sent, or a template as it was listed.
    pub(crate) name: String,
    /// The source that showed this URI to the caller.
    pub(crate) shown_by: Option<SourceName>,
}

impl RequestedItem {
    pub(crate) fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), shown_by: None }
    }
}

impl Snapshot {
    /// The item that a request names, if it is reached at this endpoint.
    pub(crate) fn seek_at(&self, profile: &Profile, sought: &RequestedItem) -> Option<Arc<Item>> {
        self.seek(sought).filter(|item| profile.reaches(item))
    }

    /// The item that a request names, wherever it is reached.
    pub(crate) fn seek(&self, sought: &RequestedItem) -> Option<Arc<Item>> {
        match sought.kind {
            Kind::Tool | Kind::Prompt => self.find(sought.kind, &sought.name).cloned(),
            Kind::Resource => self.resource(sought),
            Kind::Template => {
                let mut templates = self.routes.templates.iter();
                templates.find(|template| *template.offer.at_source == *sought.name).cloned()
            }
        }
    }

    fn resource(&self, sought: &RequestedItem) -> Option<Arc<Item>> {
        let uri = CanonicalUri::parse(&sought.name).ok()?;
        if let Some(listed) = self.routes.resources.get(&uri) {
            return Some(Arc::clone(listed));
        }
        // A source that was removed since it showed a link no longer has anything.
        let shown_by = sought.shown_by.as_ref().filter(|source| self.routes.sources.contains(source));
        let source = self.routes.made_by(&uri).or(shown_by)?;
        Some(Arc::new(self.unlisted(source, uri)))
    }

    /// A resource that no list has. The rules about it are those about its name, as for any other.
    fn unlisted(&self, source: &SourceName, uri: CanonicalUri) -> Item {
        let offer = Offer {
            kind: Kind::Resource,
            name: Offer::resource_name(source, uri.as_str()).into(),
            at_source: uri.as_str().into(),
            title: uri.to_string(),
            address: Some(Address::One(uri)),
            listed: RawValue::from_string("{}".to_owned()).expect("an empty object is JSON"),
            modern_output: false,
            effect: Effect::ReadOnly,
            needs: None,
            like: source.is_docs().then_some(Offer::READS_DOCS),
            mirrored: Vec::new(),
        };
        ruled(&self.rules, &Arc::new(offer), source.clone(), &self.high_risk)
    }
}
