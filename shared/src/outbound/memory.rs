//! How many bytes the answers of other servers hold while they arrive and until they are handed on, and for whom
//! (RATE-07). Over the limit the largest answer of the largest holder is given up; the others go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a request costs beside the bytes of its answer: its connection and its task.
const REQUEST: usize = 32 * 1024;
/// One answer of the largest size fits into the share of one holder, however small the budget is.
const ONE: usize = (8 << 20) + 256 * 1024;

/// The memory for answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: usize,
    share: usize,
    held: Mutex<Answers>,
    /// Told whenever memory was released.
    released: Notify,
}

#[derive(Debug, Default)]
struct Answers {
    next: u64,
    bytes: usize,
    arriving: HashMap<u64, Answer>,
    /// What was given up, and is not released yet.
    leaving: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Answer {
    holder: Arc<str>,
    bytes: usize,
    given_up: CancellationToken,
}

/// The memory that one answer holds. Dropping this releases it.
#[derive(Debug)]
pub struct HeldMemory {
    memory: Memory,
    id: u64,
    given_up: CancellationToken,
}

/// There was no memory left for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenUp;

impl Default for Memory {
    fn default() -> Self {
        Self::within(256 << 20)
    }
}

impl Memory {
    /// Memory within a budget of this many bytes. Answers may hold half of it, because each is copied while it is read and
    /// written again; those of one holder a quarter of that.
    pub fn within(budget: usize) -> Self {
        let all = budget / 2;
        Self(Arc::new(Inner {
            all,
            share: (all / 4).max(ONE).min(all),
            held: Mutex::default(),
            released: Notify::new(),
        }))
    }

    /// Begins to count an answer for this holder.
    pub fn hold(&self, holder: &str) -> HeldMemory {
        let given_up = CancellationToken::new();
        let mut answers = self.lock();
        let id = answers.next;
        answers.next += 1;
        answers.arriving.insert(id, Answer { holder: holder.into(), bytes: 0, given_up: given_up.clone() });
        self.set(&mut answers, id, REQUEST);
        drop(answers);
        HeldMemory { memory: self.clone(), id, given_up }
    }

    /// How many bytes all answers hold, with those that were given up.
    pub fn bytes(&self) -> usize {
        let answers = self.lock();
        answers.bytes + answers.leaving.values().sum::<usize>()
    }

    fn set(&self, answers: &mut Answers, id: u64, bytes: usize) {
        let Some(answer) = answers.arriving.get_mut(&id) else { return };
        let before = std::mem::replace(&mut answer.bytes, bytes);
        let holder = Arc::clone(&answer.holder);
        answers.bytes = answers.bytes - before + bytes;
        if bytes > before {
            self.relieve(answers, &holder);
        }
    }

    /// Gives answers up until what this holder has, and what all have, is within its bounds.
    fn relieve(&self, answers: &mut Answers, holder: &Arc<str>) {
        while answers.of(holder) > self.0.share {
            answers.give_up_the_largest_of(holder);
        }
        while answers.bytes > self.0.all {
            let Some(greediest) = answers.greediest() else { return };
            answers.give_up_the_largest_of(&greediest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    fn of(&self, holder: &str) -> usize {
        self.arriving.values().filter(|answer| *answer.holder == *holder).map(|answer| answer.bytes).sum()
    }

    /// Who holds most.
    fn greediest(&self) -> Option<Arc<str>> {
        let mut holders: HashMap<&Arc<str>, usize> = HashMap::new();
        for answer in self.arriving.values() {
            *holders.entry(&answer.holder).or_default() += answer.bytes;
        }
        holders.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(holder, _)| Arc::clone(holder))
    }

    fn give_up_the_largest_of(&mut self, holder: &str) {
        let own = self.arriving.iter().filter(|(_, answer)| *answer.holder == *holder);
        let Some(id) = own.max_by_key(|(_, answer)| answer.bytes).map(|(id, _)| *id) else { return };
        if let Some(answer) = self.arriving.remove(&id) {
            self.bytes -= answer.bytes;
            self.leaving.insert(id, answer.bytes);
            answer.given_up.cancel();
        }
    }
}

impl HeldMemory {
    /// The answer is about to hold this many bytes, beside what its request costs. If others were given up to make room,
    /// this waits until they have released their memory.
    ///
    /// # Errors
    /// If there is no memory for it: it was given up, now or before.
    pub async fn set(&self, bytes: usize) -> Result<(), GivenUp> {
        self.memory.set(&mut self.memory.lock(), self.id, REQUEST.saturating_add(bytes));
        let room = async {
            loop {
                let released = self.memory.0.released.notified();
                if self.memory.bytes() <= self.memory.0.all {
                    return;
                }
                released.await;
            }
        };
        self.while_kept(room).await
    }

    /// Does this for as long as the answer is not given up.
    ///
    /// # Errors
    /// If it is given up.
    pub async fn while_kept<T>(&self, work: impl Future<Output = T>) -> Result<T, GivenUp> {
        tokio::select! {
            biased;
            () = self.given_up.cancelled() => Err(GivenUp),
            done = work => Ok(done),
        }
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        let mut answers = self.memory.lock();
        if let Some(answer) = answers.arriving.remove(&self.id) {
            answers.bytes -= answer.bytes;
        }
        answers.leaving.remove(&self.id);
        drop(answers);
        self.memory.0.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// RATE-07: a holder of more than its share loses its largest answer, and nobody else does.
    #[tokio::test]
    async fn a_share_is_the_holders_own_limit() {
        let memory = Memory::within(256 * MIB);
        let others: Vec<_> = (0..3).map(|_| memory.hold("bob")).collect();
        for held in &others {
            held.set(8 * MIB).await.unwrap();
        }
        let own: Vec<_> = (0..4).map(|_| memory.hold("ann")).collect();
        for held in &own[1..] {
            held.set(8 * MIB).await.unwrap();
        }
        assert_eq!(own[0].set(9 * MIB).await, Err(GivenUp));
        assert!(others.iter().chain(&own[1..]).all(|held| !held.given_up.is_cancelled()));
        drop((own, others));
        assert_eq!(memory.bytes(), 0);
    }

    /// RATE-07: when all together hold too much, the largest holder makes room, and others wait until there is some.
    #[tokio::test]
    async fn the_greediest_makes_room() {
        let memory = Memory::within(32 * MIB);
        let (first, second) = (memory.hold("ann"), memory.hold("bob"));
        first.set(8 * MIB).await.unwrap();
        second.set(7 * MIB).await.unwrap();
        let third = memory.hold("eve");
        let mut waits = std::pin::pin!(third.set(2 * MIB));
        tokio::select! {
            biased;
            _ = &mut waits => panic!("her memory is not released yet"),
            () = std::future::ready(()) => {}
        }
        assert!(first.given_up.is_cancelled() && !second.given_up.is_cancelled(), "she held most");
        drop(first);
        assert_eq!(waits.await, Ok(()));
        assert_eq!((second.set(7 * MIB).await, third.set(3 * MIB).await), (Ok(()), Ok(())));
        assert!(memory.bytes() <= 16 * MIB);
    }

    /// RATE-07: a reader of an answer that is given up stops waiting.
    #[tokio::test]
    async fn a_stalled_answer_is_given_up() {
        let memory = Memory::within(32 * MIB);
        let (stalled, other) = (memory.hold("ann"), memory.hold("ann"));
        stalled.set(8 * MIB).await.unwrap();
        let waiting = stalled.while_kept(std::future::pending::<()>());
        other.set(MIB).await.unwrap();
        assert_eq!(waiting.await, Err(GivenUp));
        assert_eq!(other.while_kept(async { 7 }).await, Ok(7));
    }
}
