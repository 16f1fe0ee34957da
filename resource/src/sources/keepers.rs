//! The tasks that keep the sources' lists current, one for each source (SRC-02). They follow the configuration:
//! a new source gets a task, and the task of a removed one ends when its calls have ended (POL-04).

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::upstream::Upstream;
use super::upstreams::Upstreams;

#[derive(Default)]
pub(crate) struct Keepers {
    kept: Vec<(Upstream, CancellationToken)>,
    tasks: JoinSet<()>,
}

impl Keepers {
    /// Starts a task for each current source that has none, and stops those of removed sources.
    pub(crate) fn follow(&mut self, upstreams: &Upstreams, stop: &CancellationToken) {
        let present = upstreams.all();
        self.kept.retain(|(kept, gone)| {
            let stays = present.iter().any(|one| one.is(kept));
            if !stays {
                gone.cancel();
            }
            stays
        });
        for one in present.iter() {
            if !self.kept.iter().any(|(kept, _)| kept.is(one)) {
                let gone = stop.child_token();
                self.tasks.spawn(one.clone().keep(gone.clone(), stop.clone()));
                self.kept.push((one.clone(), gone));
            }
        }
        // Forget tasks that have ended.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Waits for all tasks to end after they were stopped.
    pub(crate) async fn end(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
