//! The commit that admits a call: its limits and the record of what is about to happen, in one transaction (AUDIT-04,
//! LIMIT-02). After it everything that may have changed meanwhile is asked again (RS-08).

use std::sync::Arc;

use shared::audit;
use shared::db::Durability;
use shared::{Clock, Db};

use super::limits::{Hold, LIMITED, Lasting, Limited};
use super::record::{self, Subject};
use super::{Denied, ParsedCall};
use crate::bearer::{Bearer, CheckedToken, Refused};
use crate::gate::refusal::Refusal;
use crate::item::Effect;
use crate::policy::Decision;
use crate::registry::Registry;
use crate::sources::Outcome;

/// What a call is admitted with.
#[derive(Clone)]
pub(super) struct Commit {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) bearer: Arc<Bearer>,
    pub(super) registry: Arc<Registry>,
}

impl Commit {
    /// Admits a call that has been decided, and returns its caller as they are now.
    pub(super) async fn admit(
        &self,
        wanted: &ParsedCall,
        subject: &Subject,
        effect: Effect,
        hold: &mut Hold,
    ) -> Result<CheckedToken, Denied> {
        if effect == Effect::ReadOnly && hold.lasting().is_empty() {
            hold.admitted();
            return Ok(subject.caller.clone());
        }
        if let Err(limited) = self.count(subject, effect, hold.lasting()).await? {
            return Err(Denied::Limited(Box::new(limited)));
        }
        let denied = match self.decide_again(wanted, subject).await {
            Ok((Decision::Allow, caller)) => {
                hold.admitted();
                return Ok(caller);
            }
            Ok((refused, _)) => Denied::Policy(refused),
            Err(refused) => Denied::Token(refused),
        };
        let event = match (effect, &denied) {
            (Effect::Writes, _) => {
                let took = wanted.began.elapsed();
                Some(subject.ended(effect, &Outcome::not_sent(), took).detail("bytes", 0))
            }
            (Effect::ReadOnly, Denied::Policy(decision)) => Some(subject.refused(decision)),
            // The gate records a token that has ended.
            (Effect::ReadOnly, _) => None,
        };
        hold.lasting().write_and_take_back(&self.db, event).await?;
        Err(denied)
    }

    /// Counts a call, and puts on record what may change something, before it does. A call that is over a limit is on record
    /// as that.
    async fn count(
        &self,
        subject: &Subject,
        effect: Effect,
        lasting: &Arc<Lasting>,
    ) -> Result<Result<(), Limited>, Refusal> {
        let mut intended = (effect == Effect::Writes).then(|| subject.intended());
        if lasting.is_empty()
            && let Some(intended) = intended.take()
        {
            let job = move |tx: &shared::Tx<'_>| audit::append(tx, intended);
            return Ok(Ok(record::in_time(self.db.one(Durability::Full, job)).await?));
        }
        let (lasting, limited) = (Arc::clone(lasting), subject.limited(LIMITED));
        let job = move |tx: &shared::Tx<'_>| {
            if let Err(over) = lasting.count(tx)? {
                audit::append(tx, over.on_record(limited))?;
                return Ok(Err(over));
            }
            if let Some(intended) = intended {
                audit::append(tx, intended)?;
            }
            Ok(Ok(()))
        };
        match effect {
            // What only reads needs no power-safe record of it.
            Effect::ReadOnly => record::in_time(self.db.record(job)).await,
            Effect::Writes => record::in_time(self.db.write(job)).await,
        }
    }

    /// Decides with the current rules and caller.
    async fn decide_again(
        &self,
        wanted: &ParsedCall,
        subject: &Subject,
    ) -> Result<(Decision, CheckedToken), Refused> {
        loop {
            let look = self.registry.look();
            let profile = look.snapshot.profile_of(&subject.resource);
            let item = profile.and_then(|profile| look.snapshot.seek_at(profile, &wanted.sought));
            let check = self.bearer.check_for(item.as_ref().and_then(|item| item.needs.scopes()));
            let confirmed = self.bearer.confirm(&subject.caller, self.clock.now(), check).await;
            if self.registry.still_holds(&look) {
                let caller = confirmed?;
                let decision = wanted.asked.decide(item.as_deref(), &caller);
                return Ok((decision, caller));
            }
        }
    }
}
