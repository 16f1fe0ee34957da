//! How much memory connections hold, in bytes, and whose they are (RATE-07).
//!
//! Everything that a client can make the server keep is charged to its connection for as long as it is kept: what a
//! connection costs while it is silent, the headers and the body of each request until it is answered, and each answer
//! until it is sent. The charges are estimates, and rather too high than too low: they stand for what the process grows by.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;

/// What a connection costs before it has shaken hands, with TLS on it, and with HTTP/1 or HTTP/2 on it. For HTTP/2 the
/// window is part of it: so many bytes of bodies may lie there before anybody has asked for them.
pub(super) const ACCEPTED: usize = 8 * 1024;
pub(super) const SECURED: usize = 40 * 1024;
pub(super) const HTTP1: usize = 16 * 1024;
pub(super) const HTTP2: usize = 48 * 1024 + WINDOW as usize;
/// How many bytes of bodies an HTTP/2 client may send on a connection that nobody has read.
pub(super) const WINDOW: u32 = 64 * 1024;
/// What a request costs besides its bytes, and each of its headers.
const REQUEST: usize = 8 * 1024;
const HEADER: usize = 256;
/// What an answer costs besides its bytes.
const ANSWER: usize = 1024;

/// How much memory all connections together may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget(usize);

impl Budget {
    /// The least that a server can do its work with: a few requests of the largest size for each of four addresses.
    pub const LEAST: Self = Self(32 << 20);

    /// So many bytes, or as many as can be counted.
    pub fn of(bytes: u64) -> Self {
        Self(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// How many bytes.
    pub fn bytes(self) -> usize {
        self.0
    }

    /// How many bytes of it the connections of one address may hold.
    pub fn share(self) -> usize {
        self.0 / 4
    }

    /// How much may be charged to all connections. Allocators round up and leave gaps, so the process grows by more than
    /// what is charged.
    pub(super) fn of_all(self) -> usize {
        self.0 / 2
    }

    /// How much of it may be charged to the connections of one address.
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

/// What one connection holds. Cheap to clone.
#[derive(Clone)]
pub(super) struct Account(Arc<Held>);

struct Held {
    own: AtomicUsize,
    /// With the other connections of the same origin.
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
        Self(Arc::new(Held { own: AtomicUsize::new(0), of_origin, of_all, relief, id }))
    }

    /// How many bytes the connection holds.
    pub(super) fn bytes(&self) -> usize {
        self.0.own.load(Ordering::Relaxed)
    }

    /// How many bytes it holds together with the other connections of the same origin.
    pub(super) fn bytes_of_origin(&self) -> usize {
        self.0.of_origin.load(Ordering::Relaxed)
    }

    /// Charges so many bytes until what is returned goes.
    pub(super) fn charge(&self, bytes: usize) -> Charge {
        let mut charge = Charge { account: self.clone(), bytes: 0 };
        charge.set(bytes);
        charge
    }

    /// Charges a request's head.
    pub(super) fn request(&self, head: &Parts) -> RequestMemory {
        let headers = head.headers.iter();
        let headers: usize = headers.map(|(name, value)| HEADER + name.as_str().len() + value.len()).sum();
        // The target is in the request's log lines too.
        let target = 2 * head.uri.path_and_query().map_or(0, |target| target.as_str().len());
        RequestMemory(Arc::new(Mutex::new(self.charge(REQUEST + target + headers))))
    }

    /// Charges an answer, of which so many bytes are there.
    pub(super) fn answer(&self, bytes: u64) -> Charge {
        self.charge(usize::try_from(bytes).unwrap_or(usize::MAX / 4).saturating_add(ANSWER))
    }

    fn add(&self, bytes: usize) {
        let Held { own, of_origin, of_all, relief, id } = &*self.0;
        own.fetch_add(bytes, Ordering::Relaxed);
        let of_origin = of_origin.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let of_all = of_all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        relief.relieve(*id, of_origin, of_all);
    }

    fn remove(&self, bytes: usize) {
        let Held { own, of_origin, of_all, .. } = &*self.0;
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
    /// Charges so many bytes in place of what was charged before.
    pub(super) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            self.account.add(bytes - before);
        } else {
            self.account.remove(before - bytes);
        }
    }

    /// A charge that nobody looks at.
    #[cfg(test)]
    pub(super) fn of_nobody() -> Self {
        struct Nobody;
        impl Relief for Nobody {
            fn relieve(&self, _id: u64, _of_origin: usize, _of_all: usize) {}
        }
        Account::new(0, Arc::default(), Arc::default(), Arc::new(Nobody)).charge(0)
    }

    /// Charges so many bytes more.
    pub(super) fn add(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_add(bytes));
    }

    /// A charge of its own for so many bytes; as many of them as are charged here are charged no longer.
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

/// What a request makes the server hold until it is answered. Travels with it, cheap to clone.
#[derive(Clone)]
pub(crate) struct RequestMemory(Arc<Mutex<Charge>>);

impl RequestMemory {
    /// So many bytes of the body were read, and are kept.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(bytes);
    }
}
