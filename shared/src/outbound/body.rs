//! The body of a response, read as needed.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::connection::{Connection, Pool};
use super::failure::NoAnswer;
use super::memory::{GivenUp, HeldMemory};

/// A streamed body. Dropping it before its end closes the connection, which tells the other side that the
/// response is no longer wanted.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    connection: Option<Connection>,
    pool: Pool,
}

impl Body {
    pub(super) fn new(incoming: Incoming, connection: Connection, pool: Pool) -> Self {
        Self { incoming, connection: Some(connection), pool }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If the response is incomplete.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        loop {
            match self.incoming.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(NoAnswer::broken(&error)),
                None => {
                    self.connection.take().into_iter().for_each(|connection| self.pool.keep(connection));
                    return Ok(None);
                }
            }
        }
    }

    /// The whole body, up to this many bytes.
    ///
    /// # Errors
    /// If it is longer or incomplete.
    pub async fn read(self, most: usize) -> Result<Bytes, NoAnswer> {
        self.read_counted(most, None).await
    }

    /// The same, with its memory counted here.
    ///
    /// # Errors
    /// As [`Body::read`], and if there is no memory left.
    pub async fn read_counted(mut self, most: usize, held: Option<&HeldMemory>) -> Result<Bytes, NoAnswer> {
        let announced = usize::try_from(self.incoming.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > most {
            return Err(NoAnswer::TooLarge(announced));
        }
        // Memory counts as it is used, not as it is announced.
        let mut read = Vec::new();
        make_room(&mut read, announced, most);
        while let Some(chunk) = self.chunk().await? {
            let size = read.len() + chunk.len();
            if size > most {
                return Err(NoAnswer::TooLarge(size));
            }
            if let Some(held) = held {
                held.set(size).await.map_err(|GivenUp| NoAnswer::NoMemory)?;
            }
            make_room(&mut read, chunk.len(), most);
            read.extend_from_slice(&chunk);
        }
        Ok(read.into())
    }
}

/// Up to here a buffer grows as vectors do.
const SMALL: usize = 128 * 1024;

/// Makes room for this many more bytes in a buffer that will never have more than `most`. A buffer that doubles holds the old
/// bytes twice while it grows, and leaves one of every size behind. So the room for a large one is taken at once: what is
/// not written to takes no memory, and the allocator gives back so large a piece as soon as it is free.
pub fn make_room(buffer: &mut Vec<u8>, more: usize, most: usize) {
    let needed = buffer.len() + more;
    if needed > buffer.capacity() {
        let wanted = match (buffer.capacity(), needed) {
            // What is announced, as long as it is little.
            (0, ..=SMALL) => needed,
            (_, ..=SMALL) => 2 * needed,
            _ => most.max(needed),
        };
        buffer.reserve_exact(wanted - buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRC-12: a buffer has room for what comes, and never for more than twice a little or all that may come.
    #[test]
    fn a_buffer_has_room_for_what_may_come() {
        let mut buffer = Vec::new();
        for _ in 0..100 {
            make_room(&mut buffer, 100_000, 8 << 20);
            assert!(buffer.capacity() - buffer.len() >= 100_000);
            assert!(buffer.capacity() <= (2 * SMALL).max(8 << 20).max(buffer.len() + 100_000));
            buffer.resize(buffer.len() + 100_000, 0);
        }
    }
}
