//! What is to be written to a child, in order, with a way past the queue. Writing never waits for reading, nor reading for
//! writing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// How many bytes wait at most, so that a child that reads nothing costs no more.
const MOST: usize = 16 << 20;

/// Why a line was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotTaken {
    Full,
    Closed,
}

/// The lines that wait. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Inner>);

#[derive(Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    first: VecDeque<Vec<u8>>,
    then: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    closed: bool,
}

impl Outbox {
    /// Queues a line, with a number by which it can be taken back.
    pub(crate) fn push(&self, number: u64, line: Vec<u8>) -> Result<(), NotTaken> {
        self.queue(line, |waiting, line| waiting.then.push_back((number, line)))
    }

    /// Queues a line before all that wait.
    pub(crate) fn push_first(&self, line: Vec<u8>) -> Result<(), NotTaken> {
        self.queue(line, |waiting, line| waiting.first.push_back(line))
    }

    fn queue(&self, mut line: Vec<u8>, place: impl FnOnce(&mut Waiting, Vec<u8>)) -> Result<(), NotTaken> {
        line.push(b'\n');
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(NotTaken::Closed);
        }
        // A line longer than all the room is written if nothing else waits.
        if waiting.bytes > 0 && waiting.bytes + line.len() > MOST {
            return Err(NotTaken::Full);
        }
        waiting.bytes += line.len();
        place(&mut waiting, line);
        drop(waiting);
        self.0.news.notify_one();
        Ok(())
    }

    /// Takes a line back. Says whether it was still there, so that nothing of it was written.
    pub(crate) fn take_back(&self, number: u64) -> bool {
        let mut waiting = self.waiting();
        let Some(place) = waiting.then.iter().position(|(one, _)| *one == number) else { return false };
        if let Some((_, line)) = waiting.then.remove(place) {
            waiting.bytes -= line.len();
        }
        true
    }

    /// From now on nothing is taken, and what waits is not written. Returns the numbers of what waited.
    pub(crate) fn close(&self) -> Vec<u64> {
        let mut waiting = self.waiting();
        let dropped = std::mem::replace(&mut *waiting, Waiting { closed: true, ..Waiting::default() });
        drop(waiting);
        self.0.news.notify_one();
        dropped.then.into_iter().map(|(number, _)| number).collect()
    }

    /// Writes until the box is closed or the child stops reading. Returns the numbers of the messages that were not
    /// written completely.
    pub(crate) async fn write_to(self, mut child: impl AsyncWrite + Unpin) -> Vec<u64> {
        loop {
            match self.next() {
                Next::Line(number, line) => {
                    if child.write_all(&line).await.is_err() {
                        return number.into_iter().chain(self.close()).collect();
                    }
                }
                Next::Nothing => self.0.news.notified().await,
                Next::Closed => return Vec::new(),
            }
        }
    }

    fn next(&self) -> Next {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Next::Closed;
        }
        let first = waiting.first.pop_front().map(|line| (None, line));
        let next = first.or_else(|| waiting.then.pop_front().map(|(number, line)| (Some(number), line)));
        let Some((number, line)) = next else { return Next::Nothing };
        waiting.bytes -= line.len();
        Next::Line(number, line)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Next {
    Line(Option<u64>, Vec<u8>),
    Nothing,
    Closed,
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    /// SRC-09: a cancellation is written before what waits, and never in the middle of a line.
    #[tokio::test]
    async fn urgent_lines_go_ahead_of_the_queue() {
        let outbox = Outbox::default();
        let (ours, theirs) = tokio::io::duplex(16);
        outbox.push(1, vec![b'a'; 64]).expect("taken");
        let writing = tokio::spawn(outbox.clone().write_to(ours));
        let mut lines = BufReader::new(theirs).lines();
        // The first line is longer than the pipe, so it is being written.
        tokio::task::yield_now().await;
        outbox.push(2, b"second".to_vec()).expect("taken");
        outbox.push_first(b"urgent".to_vec()).expect("taken");
        for expected in [&"a".repeat(64), "urgent", "second"] {
            assert_eq!(lines.next_line().await.expect("read").as_deref(), Some(expected));
        }
        outbox.close();
        assert!(writing.await.expect("it ends").is_empty());
        assert_eq!(outbox.push(3, Vec::new()), Err(NotTaken::Closed));
    }

    /// SRC-08: what was taken back was not sent.
    #[test]
    fn a_line_that_waits_can_be_taken_back_once() {
        let outbox = Outbox::default();
        outbox.push(1, b"one".to_vec()).expect("taken");
        assert!(outbox.take_back(1));
        assert!(!outbox.take_back(1));
        assert!(matches!(outbox.next(), Next::Nothing));
    }

    /// SRC-11: a child that reads nothing makes the queue no longer than its bound.
    #[test]
    fn a_full_queue_takes_nothing() {
        let outbox = Outbox::default();
        outbox.push(1, vec![b'x'; MOST + 1]).expect("alone it is taken");
        assert_eq!(outbox.push(2, vec![b'x']), Err(NotTaken::Full));
        assert_eq!(outbox.push_first(vec![b'x']), Err(NotTaken::Full));
        assert!(outbox.take_back(1));
        for number in 0..16 {
            outbox.push(number, vec![b'x'; (1 << 20) - 1]).expect("taken");
        }
        assert_eq!(outbox.push(99, Vec::new()), Err(NotTaken::Full));
    }
}
