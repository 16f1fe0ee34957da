//! Messages and their signature: HMAC-SHA-256 over `TIMESTAMP.DELIVERY.BODY`, in lower-case hexadecimal (HOOK-01).

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use shared::Timestamp;
use shared::id::random_128;
use shared::outbound::Outgoing;

const DELIVERY: HeaderName = HeaderName::from_static("portcullis-delivery");
const TIMESTAMP: HeaderName = HeaderName::from_static("portcullis-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("portcullis-signature");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A message with its id, which is the same in every attempt.
pub(super) struct Delivery {
    id: String,
    body: String,
}

impl Delivery {
    pub(super) fn new(tool: &str, user: &str, arguments: &Map<String, Value>) -> Self {
        let id = format!("dlv_{}", random_128());
        let body = json!({ "delivery": id, "tool": tool, "user": user, "arguments": arguments }).to_string();
        Self { id, body }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The request that carries it.
    pub(super) fn post(&self, path: &str, key: &[u8], now: Timestamp) -> Outgoing {
        let mut headers = self.headers(&self.body, key, now);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (path, body) = (path.to_owned(), self.body.clone().into());
        // Only the code that knows the delivery id sends it again, never the connection.
        Outgoing { method: Method::POST, path, headers, body, repeatable: false }
    }

    /// The question how far it is.
    pub(super) fn question(&self, path: &str, key: &[u8], now: Timestamp) -> Outgoing {
        let headers = self.headers("", key, now);
        Outgoing { headers, ..Outgoing::get(&format!("{path}?delivery={}", self.id)) }
    }

    fn headers(&self, body: &str, key: &[u8], now: Timestamp) -> HeaderMap {
        let seconds = now.seconds().to_string();
        let signature = format!("sha256={}", signature(key, &seconds, &self.id, body));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::ACCEPT, "application/json"),
            (header::USER_AGENT, "portcullis"),
            (DELIVERY, self.id.as_str()),
            (IDEMPOTENCY_KEY, self.id.as_str()),
            (TIMESTAMP, seconds.as_str()),
            (SIGNATURE, signature.as_str()),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

fn signature(key: &[u8], seconds: &str, delivery: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(format!("{seconds}.{delivery}.{body}").as_bytes());
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HOOK-01: the signature is what any other implementation makes of it:
    /// `printf '1800000000.dlv_x.{}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn a_signature_covers_time_delivery_and_body() {
        let made = signature(b"secret", "1800000000", "dlv_x", "{}");
        assert_eq!(made, "446a377d534b5b5173e2177a53895f3a4d55502e6c7e2a31e86dbd61a59782ad");
        for (key, seconds, delivery, body) in [
            ("other", "1800000000", "dlv_x", "{}"),
            ("secret", "1800000001", "dlv_x", "{}"),
            ("secret", "1800000000", "dlv_y", "{}"),
            ("secret", "1800000000", "dlv_x", "{ }"),
        ] {
            assert_ne!(signature(key.as_bytes(), seconds, delivery, body), made);
        }
    }
}
