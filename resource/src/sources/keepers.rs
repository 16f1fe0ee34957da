//! The tasks that keep what is known of servers true, one for each (SRC-02). They follow the configuration: a server that
//! is added gets one, and that of a server that is gone ends when its calls have ended (POL-04).

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::http::Http;
use super::upstreams::Upstreams;

#[derive(Default)]
pub(crate) struct Keepers {
    kept: Vec<(Http, CancellationToken)>,
    tasks: JoinSet<()>,
}

impl Keepers {
    /// Has a task for each of the servers of this moment, and for no other.
    pub(crate) fn follow(&mut self, upstreams: &Upstreams, stop: &CancellationToken) {
        let present = upstreams.all();
        self.kept.retain(|(kept, gone)| {
            let stays = present.iter().any(|http| http.is(kept));
            if !stays {
                gone.cancel();
            }
            stays
        });
        for http in present.iter() {
            if !self.kept.iter().any(|(kept, _)| kept.is(http)) {
                let gone = stop.child_token();
                self.tasks.spawn(http.clone().keep(gone.clone(), stop.clone()));
                self.kept.push((http.clone(), gone));
            }
        }
        // Those that have ended need not be remembered.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Waits for all of them to end, once they were stopped.
    pub(crate) async fn end(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
