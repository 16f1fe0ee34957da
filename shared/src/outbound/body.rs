//! The body of a response, read as needed.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::connection::{Connection, Pool};
use super::failure::NoAnswer;

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
    pub async fn read(mut self, most: usize) -> Result<Bytes, NoAnswer> {
        let announced = usize::try_from(self.incoming.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > most {
            return Err(NoAnswer::TooLarge(announced));
        }
        let mut read = BytesMut::with_capacity(announced);
        while let Some(chunk) = self.chunk().await? {
            if chunk.len() > most - read.len() {
                return Err(NoAnswer::TooLarge(read.len() + chunk.len()));
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read.freeze())
    }
}
