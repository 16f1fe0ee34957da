//! Lines that a child writes, of a bounded length.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::answered_id::AnsweredId;

/// The longest line (SRC-11).
pub const LONGEST: usize = 8 << 20;
/// How much is read at once.
const CHUNK: usize = 32 << 10;

/// One line.
#[derive(Debug)]
pub(crate) enum Line {
    Whole(Bytes),
    /// It was longer than allowed and is gone. If it answered a request, this is which.
    TooLong(Option<u64>),
}

/// Reads lines.
pub(crate) struct Lines<R> {
    from: R,
    /// What was read and not handed on. `searched` bytes of it contain no line end.
    buffer: BytesMut,
    searched: usize,
    longest: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn of(from: R, longest: usize) -> Self {
        Self { from, buffer: BytesMut::new(), searched: 0, longest }
    }

    /// The next line without its end; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unsearched) {
                return Ok(Some(self.cut(self.searched + end)));
            }
            self.searched = self.buffer.len();
            if self.searched > self.longest {
                return self.discard().await.map(Some);
            }
            if self.fill().await? == 0 {
                let rest = std::mem::take(&mut self.buffer);
                self.searched = 0;
                return Ok((!rest.is_empty()).then(|| Line::Whole(rest.freeze())));
            }
        }
    }

    /// Takes the line that ends here.
    fn cut(&mut self, end: usize) -> Line {
        let mut line = self.buffer.split_to(end + 1);
        self.searched = 0;
        line.truncate(end);
        if line.len() > self.longest {
            Line::TooLong(AnsweredId::of(&line))
        } else {
            Line::Whole(line.freeze())
        }
    }

    /// Reads to the end of a line without keeping it.
    async fn discard(&mut self) -> io::Result<Line> {
        let mut id = AnsweredId::default();
        loop {
            self.searched = 0;
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                id.read(line.get(..end).unwrap_or_default());
                return Ok(Line::TooLong(id.found()));
            }
            id.read(&self.buffer);
            self.buffer = BytesMut::new();
            if self.fill().await? == 0 {
                return Ok(Line::TooLong(id.found()));
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(CHUNK);
        // At most what was reserved, so that a long line grows the buffer step by step.
        (&mut self.from).take(CHUNK as u64).read_buf(&mut self.buffer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut text: &[u8], longest: usize) -> Vec<String> {
        let mut lines = Lines::of(&mut text, longest);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.expect("memory can be read") {
            all.push(match line {
                Line::Whole(line) => String::from_utf8(line.to_vec()).expect("text"),
                Line::TooLong(id) => format!("too long: {id:?}"),
            });
        }
        all
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends_and_the_last_needs_none() {
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
        let mut lines = Lines::of(endless, 1 << 20);
        assert!(matches!(lines.next().await, Ok(Some(Line::TooLong(None)))));
        assert!(lines.buffer.capacity() <= (2 << 20), "{}", lines.buffer.capacity());
    }
}
