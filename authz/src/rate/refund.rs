//! Responses that refund the rate limit (RATE-05).

use axum::response::Response;

/// Marks a refusal that is part of normal operation, such as "not yet". It is refunded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Harmless;

/// Marks a response that took something that a stranger does not have: a grant, a passkey, an administrator's
/// secret, a person's approval. Only these are refunded: strangers can register clients and keys and get
/// success responses with those too (RATE-05).
#[derive(Clone, Copy, Debug)]
struct Earned;

/// Marks a response as earned.
pub(crate) fn earned(mut response: Response) -> Response {
    response.extensions_mut().insert(Earned);
    response
}

pub(super) fn is_earned(response: &Response) -> bool {
    response.extensions().get::<Earned>().is_some()
}
