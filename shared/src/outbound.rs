//! The only outbound HTTP client: all requests of this program to other hosts go through it (CIMD-06, OPS-08,
//! SRC-12).
//!
//! A [`Destination`] is one origin from the configuration. For each new connection its name is resolved once,
//! every address is checked, and a checked address is connected to. Redirects are not followed. A failure says
//! whether the request had been sent (SRC-08).

mod body;
mod connection;
pub mod dial;
mod failure;
pub mod memory;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::Full;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

pub use body::{Body, make_room};
use connection::{Connection, LostRequest, Pool};
pub use failure::{CertificateRefused, Failure, NoAnswer, NotSent};

use crate::network::{Network, is_never_dialled};
use crate::tls;
pub use crate::tls::{Identity, Trust};

/// The time limit for connecting: resolving the name, TCP, and TLS.
const CONNECTING: Duration = Duration::from_secs(5);

/// An origin that requests may be sent to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destination {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// The value of `Host`.
    pub authority: String,
    pub security: Security,
    /// The networks that its addresses must be in. If empty, any address except those that are never connected
    /// to.
    pub networks: Vec<Network>,
}

/// How a connection is secured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Security {
    /// Plain HTTP.
    Plain,
    Tls(Trust),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    /// The path and the query.
    pub path: String,
    /// All except `Host` and the length.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether it may be sent again if a reused connection breaks before the response.
    pub repeatable: bool,
}

/// A response: its head, and the body to be read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// The client for one destination, with a small pool of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    destination: Arc<Destination>,
    pool: Pool,
}

impl Outbound {
    pub fn new(destination: Destination) -> Self {
        Self { destination: Arc::new(destination), pool: Pool::default() }
    }

    /// Its destination.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Closes the connections that are kept for the next requests.
    pub fn forget(&self) {
        self.pool.clear();
    }

    /// Sends a request and reads the head of the response.
    ///
    /// Dropping this future, or the [`Body`] before its end, closes the connection.
    ///
    /// # Errors
    /// [`Failure::NotSent`] only if the other side cannot have read the request.
    pub async fn send(&self, outgoing: &Outgoing, deadline: Instant) -> Result<Answer, Failure> {
        let request = outgoing.to(&self.destination.authority)?;
        if let Some(kept) = self.pool.take() {
            match self.exchange(kept, request.clone(), deadline).await {
                Ok(answer) => return Ok(answer),
                Err(LostRequest::Before | LostRequest::Refused(_)) => {}
                // A reused connection may have been closed by the other side meanwhile.
                Err(LostRequest::After(NoAnswer::Broken(_))) if outgoing.repeatable => {}
                Err(LostRequest::After(why)) => return Err(why.into()),
            }
        }
        let connected = timeout_at(deadline.min(Instant::now() + CONNECTING), self.connect()).await;
        let fresh = connected.map_err(|_| NotSent::TooSlow)??;
        self.exchange(fresh, request, deadline).await.map_err(|lost| match lost {
            LostRequest::Before => NotSent::Unreachable("it closed the connection at once".to_owned()).into(),
            LostRequest::Refused(why) => NotSent::Certificate(why).into(),
            LostRequest::After(why) => why.into(),
        })
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Answer, LostRequest> {
        let response = match timeout_at(deadline, connection.send(request)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(LostRequest::After(NoAnswer::TooSlow)),
        };
        let (parts, incoming) = response.into_parts();
        let body = Body::new(incoming, connection, self.pool.clone());
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    async fn connect(&self) -> Result<Connection, NotSent> {
        let to = &*self.destination;
        let addresses = to.addresses().await?;
        // Connect to the checked addresses, without resolving the name again.
        let tcp = TcpStream::connect(&addresses[..]).await.map_err(|error| NotSent::unreachable(&error))?;
        tcp.set_nodelay(true).map_err(|error| NotSent::unreachable(&error))?;
        match &to.security {
            Security::Plain => Connection::over(tcp).await,
            Security::Tls(trust) => Connection::over(tls::connect(trust, &to.host, tcp).await?).await,
        }
    }
}

impl Destination {
    /// All addresses of the name, if all of them are allowed.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, NotSent> {
        let found: Vec<IpAddr> = if let Ok(address) = self.host.parse() {
            vec![address]
        } else {
            let found = lookup_host((&*self.host, self.port)).await;
            found.map_err(|error| NotSent::unreachable(&error))?.map(|found| found.ip()).collect()
        };
        self.check(&found)?;
        Ok(found.into_iter().map(|address| SocketAddr::new(address.to_canonical(), self.port)).collect())
    }

    /// Every address must be allowed, because the next connection might use another one.
    fn check(&self, found: &[IpAddr]) -> Result<(), NotSent> {
        let admitted = |address: &IpAddr| {
            self.networks.iter().any(|network| network.admits(*address))
                || (self.networks.is_empty() && !is_never_dialled(*address))
        };
        match found.iter().find(|address| !admitted(address)) {
            Some(outside) => Err(NotSent::Address(*outside)),
            None if found.is_empty() => Err(NotSent::Unreachable("its name has no address".to_owned())),
            None => Ok(()),
        }
    }
}

impl Outgoing {
    /// A GET request without a body, which may be repeated.
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            repeatable: true,
        }
    }

    fn to(&self, authority: &str) -> Result<Request<Full<Bytes>>, NotSent> {
        let request = Request::builder().method(self.method.clone()).uri(&self.path);
        let request = request.header(header::HOST, authority).body(Full::new(self.body.clone()));
        let mut request = request.map_err(|error| NotSent::Unwritable(error.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
