//! Which answers cost their sender nothing (RATE-05).

use axum::response::Response;

/// On an answer that says no in the ordinary course of things, such as "not yet": it costs nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Harmless;

/// On an answer that cost its sender what no stranger has: a grant, a passkey, a secret that an administrator handed out, a
/// person's yes. Nothing else is refunded: strangers register clients and keys of their own, for which there is an answer
/// without an error too (RATE-05).
#[derive(Clone, Copy, Debug)]
struct Earned;

/// Marks an answer that its sender paid for.
pub(crate) fn earned(mut response: Response) -> Response {
    response.extensions_mut().insert(Earned);
    response
}

pub(super) fn is_earned(response: &Response) -> bool {
    response.extensions().get::<Earned>().is_some()
}
