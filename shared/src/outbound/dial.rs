//! Connections for other protocols than HTTP, under the same rules: the name is resolved once, every address is checked,
//! and TLS is verified (SRC-12).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{CONNECTING, Destination, NotSent, Security};
use crate::tls;

/// An open connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What is said before TLS begins on a connection, in protocols that ask for it.
#[derive(Clone, Copy, Debug)]
pub struct StartTls {
    pub request: &'static [u8],
    /// The byte that agrees.
    pub agreed: u8,
}

/// Connects.
///
/// # Errors
/// As those of a request that was not sent.
pub async fn dial(to: &Destination, start: StartTls, deadline: Instant) -> Result<Box<dyn Stream>, NotSent> {
    let limit = deadline.min(Instant::now() + CONNECTING);
    timeout_at(limit, connect(to, start)).await.map_err(|_| NotSent::TooSlow)?
}

async fn connect(to: &Destination, start: StartTls) -> Result<Box<dyn Stream>, NotSent> {
    let addresses = to.addresses().await?;
    let mut tcp = TcpStream::connect(&addresses[..]).await.map_err(|error| NotSent::unreachable(&error))?;
    tcp.set_nodelay(true).map_err(|error| NotSent::unreachable(&error))?;
    let Security::Tls(trust) = &to.security else { return Ok(Box::new(tcp)) };
    let mut answer = [0];
    let asked = async {
        tcp.write_all(start.request).await?;
        // One byte and no more: what came in clear before TLS must not count as having come after it.
        tcp.read_exact(&mut answer).await
    };
    asked.await.map_err(|error| NotSent::unreachable(&error))?;
    if answer != [start.agreed] {
        return Err(NotSent::Unproven("it does not speak TLS".to_owned()));
    }
    Ok(Box::new(tls::connect(trust, &to.host, tcp).await?))
}
