//! URIs that somebody was shown by a source, which may be in no list of it (SRC-04). They say where a request for one goes;
//! who may read it is decided by the rules. One principal never learns of another's (SRC-15). All of it is bounded and in
//! memory: a forgotten one is treated like an unknown one.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use shared::Digest;

use crate::bearer::Principal;
use crate::item::SourceName;
use crate::uri::CanonicalUri;

/// How many are kept for one principal; a new one takes the place of the oldest.
const PER_PRINCIPAL: usize = 256;
/// How many are kept for all of them. To make room, some of the user who was shown most go: all of the client that was shown nothing
/// for longest.
const MOST: usize = 65_536;

/// Who was shown what.
#[derive(Default)]
pub(super) struct Links(Mutex<All>);

#[derive(Default)]
struct All {
    shown: HashMap<Principal, ShownLinks>,
    /// How many URIs there are in all.
    count: usize,
    /// Counts up with every use.
    time: u64,
}

/// What one principal was shown. URIs are kept as their digests, so that each takes as much room as any other.
#[derive(Default)]
struct ShownLinks {
    sources: HashMap<Digest, SourceName>,
    order: VecDeque<Digest>,
    used: u64,
}

impl Links {
    /// A source has shown these URIs to somebody. Of two sources the first keeps one.
    pub(super) fn show(&self, principal: &Principal, source: &SourceName, uris: &[String]) {
        let uris: Vec<_> = uris.iter().filter_map(|uri| CanonicalUri::parse(uri).ok()).collect();
        if uris.is_empty() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.time += 1;
        let time = all.time;
        let shown = all.shown.entry(principal.clone()).or_default();
        let before = shown.order.len();
        shown.used = time;
        for uri in &uris {
            shown.add(uri, source);
        }
        let after = shown.order.len();
        all.count = all.count - before + after;
        while all.count > MOST {
            let Some(forgotten) = all.one_to_forget() else { break };
            let gone = all.shown.remove(&forgotten).map_or(0, |shown| shown.order.len());
            all.count -= gone;
        }
    }

    /// The source that has shown this URI to this principal.
    pub(super) fn source(&self, principal: &Principal, uri: &str) -> Option<SourceName> {
        let uri = CanonicalUri::parse(uri).ok()?;
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.shown.get(principal)?.sources.get(&digest(&uri)).cloned()
    }
}

impl All {
    /// Whose links make room. Nobody pushes out another user's by signing in with many clients (RATE-06).
    fn one_to_forget(&self) -> Option<Principal> {
        let mut users: HashMap<(&str, &str), (usize, u64, &Principal)> = HashMap::new();
        for (principal, shown) in &self.shown {
            let user = users.entry((&principal.iss, &principal.sub)).or_insert((0, shown.used, principal));
            user.0 += shown.order.len();
            if shown.used < user.1 {
                (user.1, user.2) = (shown.used, principal);
            }
        }
        let most = users.into_values().max_by_key(|(held, used, _)| (*held, Reverse(*used)));
        most.map(|(_, _, principal)| principal.clone())
    }
}

impl ShownLinks {
    fn add(&mut self, uri: &CanonicalUri, source: &SourceName) {
        let digest = digest(uri);
        if self.sources.contains_key(&digest) {
            return;
        }
        if self.order.len() >= PER_PRINCIPAL
            && let Some(oldest) = self.order.pop_front()
        {
            self.sources.remove(&oldest);
        }
        self.sources.insert(digest, source.clone());
        self.order.push_back(digest);
    }
}

fn digest(uri: &CanonicalUri) -> Digest {
    Digest::of(uri.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use shared::ClientId;

    use super::*;

    fn principal(sub: &str, client_id: &ClientId) -> Principal {
        Principal { iss: "i".to_owned(), sub: sub.to_owned(), client_id: client_id.clone() }
    }

    /// SRC-04, SRC-15: a link is the one's who was shown it, and the first source's who showed it.
    #[test]
    fn only_the_principal_who_was_shown_a_link_may_use_it() {
        let (links, client) = (Links::default(), ClientId::random_dynamic());
        let (ann, bob) = (principal("ann", &client), principal("bob", &client));
        links.show(&ann, &"one".into(), &["a:1".to_owned(), "A:2".to_owned(), "a:..".to_owned()]);
        links.show(&ann, &"two".into(), &["a:1".to_owned(), "a:3".to_owned()]);
        let source = |who, uri| links.source(who, uri).map(|source| source.to_string());
        assert_eq!(source(&ann, "a:1").as_deref(), Some("one"));
        assert_eq!(source(&ann, "a:2").as_deref(), Some("one"));
        assert_eq!(source(&ann, "a:3").as_deref(), Some("two"));
        for (who, uri) in [(&ann, "a:4"), (&ann, "a:.."), (&bob, "a:1")] {
            assert_eq!(source(who, uri), None, "{uri}");
        }
    }

    /// RATE-06, SRC-15: a user with many clients makes room at their own expense.
    #[test]
    fn a_user_with_many_clients_pushes_out_no_other() {
        let (links, source) = (Links::default(), SourceName::from("one"));
        let (ann, bob) =
            (principal("ann", &ClientId::random_dynamic()), principal("bob", &ClientId::random_dynamic()));
        links.show(&ann, &source, &["a:1".to_owned()]);
        let many: Vec<_> = (0..PER_PRINCIPAL).map(|n| format!("b:{n}")).collect();
        for _ in 0..MOST / PER_PRINCIPAL + 10 {
            links.show(&principal("eve", &ClientId::random_dynamic()), &source, &many);
        }
        links.show(&bob, &source, &["a:2".to_owned()]);
        assert!(links.source(&ann, "a:1").is_some() && links.source(&bob, "a:2").is_some());
        assert!(links.0.lock().unwrap().count <= MOST);
    }

    /// SRC-04: links are bounded for each principal and for all of them.
    #[test]
    fn links_are_bounded() {
        let (links, client) = (Links::default(), ClientId::random_dynamic());
        let (ann, source) = (principal("ann", &client), SourceName::from("one"));
        for n in 0..PER_PRINCIPAL + 10 {
            links.show(&ann, &source, &[format!("a:{n}")]);
        }
        assert!(links.source(&ann, "a:9").is_none() && links.source(&ann, "a:10").is_some());
        let many: Vec<_> = (0..PER_PRINCIPAL).map(|n| format!("b:{n}")).collect();
        for n in 0..MOST / PER_PRINCIPAL {
            links.show(&principal(&n.to_string(), &client), &source, &many);
        }
        assert!(links.source(&ann, "a:10").is_none(), "she was shown nothing for longest");
        let all = links.0.lock().unwrap();
        assert!(
            all.count <= MOST
                && all.count == all.shown.values().map(|shown| shown.order.len()).sum::<usize>()
        );
    }
}
