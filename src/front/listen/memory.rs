//! The memory of connections, in bytes, by connection and origin (RATE-07).
//!
//! Everything that a client can make the server keep is charged to its connection while it is kept: the
//! connection itself, the headers and body of each request until it is answered, and each response until it is
//! sent. Charges are estimates of the process's growth, rather too high than too low.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;

/// The cost of a connection before its handshake, with TLS, and with HTTP/1 or HTTP/2. For HTTP/2 it includes
/// the window: this many bytes of bodies may be buffered before they are read.
pub(super) const ACCEPTED: usize = 8 * 1024;
pub(super) const SECURED: usize = 40 * 1024;
pub(super) const HTTP1: usize = 16 * 1024;
pub(super) const HTTP2: usize = 48 * 1024 + WINDOW as usize;
/// The bytes of bodies that an HTTP/2 client may send on a connection before they are read.
pub(super) const WINDOW: u32 = 64 * 1024;
/// The cost of a request besides its bytes, and of each header.
const REQUEST: usize = 8 * 1024;
const HEADER: usize = 256;
/// The cost of a response besides its bytes.
const ANSWER: usize = 1024;

/// The memory budget of all connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget(usize);

impl Budget {
    /// The smallest usable budget: a few of the largest requests for each of four addresses.
    pub const LEAST: Self = Self(32 << 20);

    /// A budget of this many bytes.
    pub fn of(bytes: u64) -> Self {
        Self(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// How many bytes.
    pub fn bytes(self) -> usize {
        self.0
    }

    /// The share of one address in bytes.
    pub fn share(self) -> usize {
        self.0 / 4
    }

    /// The largest charge of all connections. Allocators round up and leave gaps, so the process grows by more
    /// than the charge.
    pub(super) fn of_all(self) -> usize {
        self.0 / 2
    }

    /// The largest charge of one address's connections.
    pub(super) fn of_origin(self) -> usize {
        self.of_all() / 4
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self(256 << 20)
    }
}

/// Makes room when more is held than may be.
pub(super) trait Relief: Send + Sync {
    /// Looks whether the origin of this connection, or all origins together, hold more than they may.
    fn relieve(&self, id: u64, of_origin: usize, of_all: usize);
}

/// The charge of one connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Account(Arc<HeldBytes>);

struct HeldBytes {
    own: AtomicUsize,
    /// Including other connections of the same origin.
    of_origin: Arc<AtomicUsize>,
    /// With all other connections.
    of_all: Arc<AtomicUsize>,
    relief: Arc<dyn Relief>,
    id: u64,
}

impl Account {
    pub(super) fn new(
        id: u64,
        of_origin: Arc<AtomicUsize>,
        of_all: Arc<AtomicUsize>,
        relief: Arc<dyn Relief>,
    ) -> Self {
        Self(Arc::new(HeldBytes { own: AtomicUsize::new(0), of_origin, of_all, relief, id }))
    }

    /// The bytes of the connection.
    pub(super) fn bytes(&self) -> usize {
        self.0.own.load(Ordering::Relaxed)
    }

    /// The bytes of all connections of its origin.
    pub(super) fn bytes_of_origin(&self) -> usize {
        self.0.of_origin.load(Ordering::Relaxed)
    }

    /// Charges this many bytes until what is returned is dropped.
    pub(super) fn charge(&self, bytes: usize) -> Charge {
        let mut charge = Charge { account: self.clone(), bytes: 0 };
        charge.set(bytes);
        charge
    }

    /// Charges a request's head.
    pub(super) fn request(&self, head: &Parts) -> RequestMemory {
        let headers = head.headers.iter();
        let headers: usize = headers.map(|(name, value)| HEADER + name.as_str().len() + value.len()).sum();
        // The target is also in the request's log lines.
        let target = 2 * head.uri.path_and_query().map_or(0, |target| target.as_str().len());
        RequestMemory(Arc::new(Mutex::new(self.charge(REQUEST + target + headers))))
    }

    /// Charges an answer, of which this many bytes have arrived.
    pub(super) fn answer(&self, bytes: u64) -> Charge {
        self.charge(usize::try_from(bytes).unwrap_or(usize::MAX / 4).saturating_add(ANSWER))
    }

    fn add(&self, bytes: usize) {
        let HeldBytes { own, of_origin, of_all, relief, id } = &*self.0;
        own.fetch_add(bytes, Ordering::Relaxed);
        let of_origin = of_origin.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let of_all = of_all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        relief.relieve(*id, of_origin, of_all);
    }

    fn remove(&self, bytes: usize) {
        let HeldBytes { own, of_origin, of_all, .. } = &*self.0;
        own.fetch_sub(bytes, Ordering::Relaxed);
        of_origin.fetch_sub(bytes, Ordering::Relaxed);
        of_all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are charged for as long as this exists.
pub(super) struct Charge {
    account: Account,
    bytes: usize,
}

impl Charge {
    /// Charges this many bytes in place of what was charged before.
    pub(super) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            self.account.add(bytes - before);
        } else {
            self.account.remove(before - bytes);
        }
    }

    /// A charge without an account.
    #[cfg(test)]
    pub(super) fn of_nobody() -> Self {
        struct Nobody;
        impl Relief for Nobody {
            fn relieve(&self, _id: u64, _of_origin: usize, _of_all: usize) {}
        }
        Account::new(0, Arc::default(), Arc::default(), Arc::new(Nobody)).charge(0)
    }

    /// Charges this many bytes more.
    pub(super) fn add(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_add(bytes));
    }

    /// Moves this many bytes of the charge into a separate one.
    pub(super) fn split(&mut self, bytes: usize) -> Self {
        let moved = bytes.min(self.bytes);
        self.bytes -= moved;
        let mut split = Self { account: self.account.clone(), bytes: moved };
        split.set(bytes);
        split
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.remove(self.bytes);
    }
}

/// The memory of a request until it is answered. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RequestMemory(Arc<Mutex<Charge>>);

impl RequestMemory {
    /// Charges body bytes that were read and are kept.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(bytes);
    }
}
