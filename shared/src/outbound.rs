//! The one outbound HTTP client: every request that this program makes to another host goes through it (CIMD-06,
//! OPS-08, SRC-12).
//!
//! A [`Destination`] is one origin that the configuration names. For each new connection its name is resolved once,
//! every address is checked, and one of those addresses is dialled. A redirect is an answer like any other: nothing here
//! follows it. What goes wrong says whether the request had left (SRC-08).

mod body;
mod connection;
mod failure;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::Full;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

pub use body::Body;
use connection::{Connection, Lost, Pool};
pub use failure::{Failure, NoAnswer, NotSent};

use crate::network::{Network, is_never_dialled};
use crate::tls;
pub use crate::tls::{Identity, Trust};

/// How long connecting may take: the name, the address, and TLS.
const CONNECTING: Duration = Duration::from_secs(5);

/// One origin that requests may go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destination {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// What stands in `Host`.
    pub authority: String,
    pub security: Security,
    /// Where its addresses must be; with none named, anywhere but at those that are never dialled.
    pub networks: Vec<Network>,
}

/// How a connection is secured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Security {
    /// Not at all.
    Plain,
    Tls(Trust),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    /// The path and the query.
    pub path: String,
    /// All but `Host` and the length.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether it may be sent again when a kept connection breaks before the answer.
    pub repeatable: bool,
}

/// The head of an answer, and its body, which is still to be read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// The way to one destination, with a few connections kept for the next requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    destination: Arc<Destination>,
    pool: Pool,
}

impl Outbound {
    pub fn new(destination: Destination) -> Self {
        Self { destination: Arc::new(destination), pool: Pool::default() }
    }

    /// Where it leads.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Sends a request and reads the head of the answer.
    ///
    /// To drop this, or the [`Body`] before its end, closes the connection.
    ///
    /// # Errors
    /// [`Failure::NotSent`] only where the other side cannot have read the request.
    pub async fn send(&self, outgoing: &Outgoing, deadline: Instant) -> Result<Answer, Failure> {
        let request = outgoing.to(&self.destination.authority)?;
        if let Some(kept) = self.pool.take() {
            match self.exchange(kept, request.clone(), deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Lost::Before) => {}
                // One that was kept may have been closed meanwhile.
                Err(Lost::After(NoAnswer::Broken(_))) if outgoing.repeatable => {}
                Err(Lost::After(why)) => return Err(why.into()),
            }
        }
        let connected = timeout_at(deadline.min(Instant::now() + CONNECTING), self.connect()).await;
        let fresh = connected.map_err(|_| NotSent::TooSlow)??;
        self.exchange(fresh, request, deadline).await.map_err(|lost| match lost {
            Lost::Before => NotSent::Unreachable("it closed the connection at once".to_owned()).into(),
            Lost::After(why) => why.into(),
        })
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Answer, Lost> {
        let response = match timeout_at(deadline, connection.send(request)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(Lost::After(NoAnswer::TooSlow)),
        };
        let (parts, incoming) = response.into_parts();
        let body = Body::new(incoming, connection, self.pool.clone());
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    async fn connect(&self) -> Result<Connection, NotSent> {
        let to = &*self.destination;
        let addresses = to.addresses().await?;
        // The addresses that were checked are the ones that are dialled: nothing is resolved twice.
        let tcp = TcpStream::connect(&addresses[..]).await.map_err(|error| NotSent::unreachable(&error))?;
        tcp.set_nodelay(true).map_err(|error| NotSent::unreachable(&error))?;
        match &to.security {
            Security::Plain => Connection::over(tcp).await,
            Security::Tls(trust) => Connection::over(tls::connect(trust, &to.host, tcp).await?).await,
        }
    }
}

impl Destination {
    /// Every address that its name stands for, if all of them may be dialled.
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

    /// One good address does not make up for another one: the next connection might go there.
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
    /// A request without a body, which can be repeated.
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
