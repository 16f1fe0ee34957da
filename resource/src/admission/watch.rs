//! Whether a call may go on: asked every second while it runs, and again before its result is given out (RS-08, RS-10).

use std::sync::Arc;
use std::time::Duration;

use shared::{Clock, ResourceUri};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::{Denied, ItemRequest};
use crate::bearer::{Bearer, CheckedToken, Refused};
use crate::item::Item;
use crate::policy::Decision;
use crate::registry::{Registry, Snapshot};

/// How often it is asked, and the longest that one question may take: RS-10 leaves two seconds.
const LOOK: Duration = Duration::from_secs(1);

/// What a running call stands on.
pub(super) struct Watch {
    pub(super) clock: Clock,
    pub(super) bearer: Arc<Bearer>,
    pub(super) registry: Arc<Registry>,
    pub(super) caller: CheckedToken,
    pub(super) resource: ResourceUri,
    pub(super) item: Arc<Item>,
    pub(super) asked: ItemRequest,
}

impl Watch {
    /// Waits until the call may not go on, and says why.
    pub(super) async fn ended(&self) -> Denied {
        let mut look = interval_at(Instant::now() + LOOK, LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            match timeout(LOOK, self.may_still()).await {
                // Nobody can say: the source may go on, and its result waits for somebody who can (RS-09).
                Ok(Ok(()) | Err(Denied::Token(Refused::Unavailable))) | Err(_) => {}
                Ok(Err(denied)) => return denied,
            }
        }
    }

    /// Whether the caller may do this now: by the token, its user and client, and the rules of this moment.
    pub(super) async fn may_still(&self) -> Result<(), Denied> {
        loop {
            let look = self.registry.look();
            let item = look.snapshot.ruled_now(&self.item);
            let check = self.bearer.check_for(item.needs.scopes());
            let confirmed = self.bearer.confirm(&self.caller, self.clock.now(), check).await;
            if self.registry.still_holds(&look) {
                return self.decide(&look.snapshot, &item, confirmed);
            }
        }
    }

    /// The same from memory alone, where all that ends access is in this process.
    pub(super) fn was_ended_here(&self) -> Option<Denied> {
        if self.bearer.asks_elsewhere() {
            return None;
        }
        loop {
            let look = self.registry.look();
            let item = look.snapshot.ruled_now(&self.item);
            let checked = self.bearer.recheck(&self.caller, self.clock.now());
            if self.registry.still_holds(&look) {
                return self.decide(&look.snapshot, &item, checked).err();
            }
        }
    }

    /// What its source no longer lists, or a source that is gone, was there when the call was admitted: only the rules can end it.
    fn decide(
        &self,
        snapshot: &Snapshot,
        item: &Item,
        caller: Result<CheckedToken, Refused>,
    ) -> Result<(), Denied> {
        let caller = caller.map_err(Denied::Token)?;
        let is_reached = snapshot.profile_of(&self.resource).is_some_and(|profile| profile.reaches(item));
        match self.asked.decide(is_reached.then_some(item), &caller) {
            Decision::Allow => Ok(()),
            refused => Err(Denied::Policy(refused)),
        }
    }
}
