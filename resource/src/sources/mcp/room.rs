//! The memory of answers while they arrive from a program, before anybody knows whose they are (RATE-07).

use std::sync::Arc;

use children::{NoRoom, Room};
use shared::outbound::memory::{HeldMemory, Memory};

/// Counts long lines of one program.
pub(super) struct Counted {
    memory: Memory,
    /// Whose share it is part of.
    holder: Arc<str>,
    held: Option<HeldMemory>,
}

impl Counted {
    pub(super) fn of(memory: Memory, holder: Arc<str>) -> Self {
        Self { memory, holder, held: None }
    }
}

impl Room for Counted {
    async fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let held = self.held.get_or_insert_with(|| self.memory.hold(&self.holder));
        held.set(bytes).await.map_err(|_| NoRoom)
    }

    async fn while_kept<T: Send>(&self, work: impl Future<Output = T> + Send) -> Result<T, NoRoom> {
        match &self.held {
            Some(held) => held.while_kept(work).await.map_err(|_| NoRoom),
            None => Ok(work.await),
        }
    }

    fn release(&mut self) {
        self.held = None;
    }
}
