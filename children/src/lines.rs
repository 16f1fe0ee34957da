//! Lines that a child writes, of a bounded length.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::answered_id::AnsweredId;
use crate::room::{NoRoom, Room};

/// The longest line (SRC-11).
pub const LONGEST: usize = 8 << 20;
/// How much is read at once.
const CHUNK: usize = 32 << 10;
/// From this length on the memory of a line is counted.
const COUNTED: usize = 2 * CHUNK;
/// From this length on a line gets all the room that it may need.
const LONG: usize = 1 << 20;

/// One line.
#[derive(Debug)]
pub(crate) enum Line {
    Whole(Bytes),
    /// It was longer than allowed and is gone. If it answered a request, this is which.
    TooLong(Option<u64>),
    /// There was no memory for it, and it is gone. If it answered a request, this is which.
    NoRoom(Option<u64>),
}

/// Reads lines.
pub(crate) struct Lines<R, M> {
    from: R,
    room: M,
    /// What was read and not handed on. `searched` bytes of it contain no line end.
    buffer: BytesMut,
    searched: usize,
    longest: usize,
}

impl<R: AsyncRead + Unpin + Send, M: Room> Lines<R, M> {
    pub(crate) fn of(from: R, room: M, longest: usize) -> Self {
        Self { from, room, buffer: BytesMut::new(), searched: 0, longest }
    }

    /// The next line without its end; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        // The line before was handed on.
        self.room.release();
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unsearched) {
                return Ok(Some(self.cut(self.searched + end)));
            }
            self.searched = self.buffer.len();
            if self.searched > self.longest {
                return self.discard(Line::TooLong).await.map(Some);
            }
            match self.fill().await? {
                Err(NoRoom) => return self.discard(Line::NoRoom).await.map(Some),
                Ok(0) => {
                    let rest = std::mem::take(&mut self.buffer);
                    self.searched = 0;
                    return Ok((!rest.is_empty()).then(|| Line::Whole(rest.freeze())));
                }
                Ok(_) => {}
            }
        }
    }

    /// Takes the line that ends here.
    fn cut(&mut self, end: usize) -> Line {
        let mut line = self.buffer.split_to(end + 1);
        self.searched = 0;
        if line.len() >= COUNTED {
            // What follows must not keep the memory of a long line.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        line.truncate(end);
        if line.len() > self.longest {
            Line::TooLong(AnsweredId::of(&line))
        } else {
            Line::Whole(line.freeze())
        }
    }

    /// Reads to the end of a line without keeping it.
    async fn discard(&mut self, as_line: fn(Option<u64>) -> Line) -> io::Result<Line> {
        let mut id = AnsweredId::default();
        loop {
            self.searched = 0;
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                id.read(line.get(..end).unwrap_or_default());
                self.buffer = BytesMut::from(&self.buffer[..]);
                return Ok(as_line(id.found()));
            }
            id.read(&self.buffer);
            self.buffer = BytesMut::new();
            self.room.release();
            // Nothing is held, so there is room for a piece.
            if matches!(self.fill().await?, Ok(0)) {
                return Ok(as_line(id.found()));
            }
        }
    }

    async fn fill(&mut self) -> io::Result<Result<usize, NoRoom>> {
        let Self { from, room, buffer, longest, .. } = self;
        let is_counted = buffer.len() >= COUNTED;
        if is_counted && room.grow(buffer.len() + CHUNK).await.is_err() {
            return Ok(Err(NoRoom));
        }
        // A buffer that doubles holds a long line twice while it grows. What is reserved and not written takes no memory.
        let is_long = buffer.len() >= LONG && buffer.capacity() - buffer.len() < CHUNK;
        buffer.reserve(if is_long { longest.saturating_sub(buffer.len()) + 2 * CHUNK } else { CHUNK });
        // At most what was reserved, so that a long line grows the buffer step by step.
        let mut piece = from.take(CHUNK as u64);
        let read = piece.read_buf(buffer);
        if is_counted {
            room.while_kept(read).await.map_or(Ok(Err(NoRoom)), |read| read.map(Ok))
        } else {
            read.await.map(Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::room::Unlimited;

    async fn all(mut text: &[u8], longest: usize) -> Vec<String> {
        let mut lines = Lines::of(&mut text, Unlimited, longest);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.expect("memory can be read") {
            all.push(match line {
                Line::Whole(line) => String::from_utf8(line.to_vec()).expect("text"),
                Line::TooLong(id) => format!("too long: {id:?}"),
                Line::NoRoom(id) => format!("no room: {id:?}"),
            });
        }
        all
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends_and_the_last_may_lack_one() {
        assert_eq!(all(b"a\n\nbc\nd", 10).await, ["a", "", "bc", "d"]);
        assert!(all(b"", 10).await.is_empty());
    }

    /// SRC-11: a line that is too long costs itself; the lines around it arrive.
    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped_and_names_its_request() {
        let filler = "x".repeat(200_000);
        let text = format!("before\n{{\"result\":\"{filler}\",\"id\":7}}\nafter\n");
        assert_eq!(all(text.as_bytes(), 100_000).await, ["before", "too long: Some(7)", "after"]);
        // One byte over, in the buffer whole; and exactly the longest.
        assert_eq!(all(b"{\"id\":12}\n{\"id\":3}\n", 8).await, ["too long: Some(12)", "{\"id\":3}"]);
        assert_eq!(all(filler.as_bytes(), 100).await, ["too long: None"]);
    }

    /// SRC-11: however long a line is, no more is held than the longest line needs.
    #[tokio::test]
    async fn memory_stays_bounded_while_a_line_is_discarded() {
        let endless = tokio::io::repeat(b'x').take(8 << 20);
        let mut lines = Lines::of(endless, Unlimited, 1 << 20);
        assert!(matches!(lines.next().await, Ok(Some(Line::TooLong(None)))));
        assert!(lines.buffer.capacity() <= (2 << 20), "{}", lines.buffer.capacity());
    }

    /// Room for this many bytes; it counts what is held.
    struct Bounded(usize, Arc<AtomicUsize>);

    impl Room for Bounded {
        async fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
            self.1.store(bytes, Ordering::SeqCst);
            if bytes > self.0 { Err(NoRoom) } else { Ok(()) }
        }

        async fn while_kept<T: Send>(&self, work: impl Future<Output = T> + Send) -> Result<T, NoRoom> {
            Ok(work.await)
        }

        fn release(&mut self) {
            self.1.store(0, Ordering::SeqCst);
        }
    }

    /// RATE-07: a line that finds no memory fails its own request only, and gives back what it held; a long line
    /// that was handed on leaves nothing behind.
    #[tokio::test]
    async fn a_line_without_room_is_dropped_and_the_next_arrives() {
        let filler = "x".repeat(400_000);
        let text =
            format!("{{\"result\":\"{filler}\",\"id\":7}}\n{{\"id\":8}}\n{}\nlast\n", &filler[..200_000]);
        let held = Arc::new(AtomicUsize::new(0));
        let mut lines = Lines::of(text.as_bytes(), Bounded(300_000, Arc::clone(&held)), LONGEST);
        assert!(matches!(lines.next().await, Ok(Some(Line::NoRoom(Some(7))))));
        assert_eq!(held.load(Ordering::SeqCst), 0);
        assert!(matches!(lines.next().await, Ok(Some(Line::Whole(line))) if line == "{\"id\":8}"));
        assert!(matches!(lines.next().await, Ok(Some(Line::Whole(line))) if line.len() == 200_000));
        assert!(held.load(Ordering::SeqCst) >= 200_000 && lines.buffer.capacity() < COUNTED);
        assert!(matches!(lines.next().await, Ok(Some(Line::Whole(line))) if line == "last"));
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }
}
