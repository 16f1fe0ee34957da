//! `WWW-Authenticate` (RFC 6750 §3, RFC 9728 §5.1). The first challenge already names the endpoint's useful
//! scopes, because many clients cannot step up later.

use http::{HeaderValue, StatusCode};
use shared::Scope;

use super::{Invalid, Refused};

/// The challenges of one endpoint, prepared once.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    metadata: String,
    absent: HeaderValue,
    malformed: HeaderValue,
    invalid: HeaderValue,
    expired: HeaderValue,
}

const MALFORMED: &str = "Send one Authorization header: Bearer, a space, the token.";
const INVALID: &str = "The access token is not valid here.";
const EXPIRED: &str = "The access token has expired.";

impl Challenges {
    /// The challenges of an endpoint whose metadata is at this URL.
    pub(crate) fn new(metadata: &str, scope: &Scope) -> Self {
        let asking = if scope.is_empty() { String::new() } else { format!(", scope=\"{scope}\"") };
        let invalid_token = |description| {
            header(&format!(
                "Bearer error=\"invalid_token\", error_description=\"{description}\", resource_metadata=\"{metadata}\"{asking}"
            ))
        };
        Self {
            metadata: metadata.to_owned(),
            absent: header(&format!("Bearer resource_metadata=\"{metadata}\"{asking}")),
            malformed: header(&format!(
                "Bearer error=\"invalid_request\", error_description=\"{MALFORMED}\", resource_metadata=\"{metadata}\""
            )),
            invalid: invalid_token(INVALID),
            expired: invalid_token(EXPIRED),
        }
    }

    /// The answer to refused credentials: status, challenge, and text.
    pub(crate) fn answer(&self, refused: &Refused) -> (StatusCode, HeaderValue, &'static str) {
        match refused {
            Refused::Absent => {
                let words =
                    "Authorization is required: see resource_metadata in the WWW-Authenticate header.";
                (StatusCode::UNAUTHORIZED, self.absent.clone(), words)
            }
            Refused::Malformed => (StatusCode::BAD_REQUEST, self.malformed.clone(), MALFORMED),
            Refused::Invalid(why) => self.invalid(why),
            // Answered before this; no challenge would help.
            Refused::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                self.absent.clone(),
                "The token cannot be checked right now.",
            ),
        }
    }

    /// One description for all causes, so that it reveals nothing; only expiry is distinguished (RS-03).
    fn invalid(&self, why: &Invalid) -> (StatusCode, HeaderValue, &'static str) {
        let (challenge, words) =
            if why.expired() { (&self.expired, EXPIRED) } else { (&self.invalid, INVALID) };
        (StatusCode::UNAUTHORIZED, challenge.clone(), words)
    }

    /// The challenge for a step-up: the token's scopes and the missing ones, because some clients request
    /// exactly what they read here (RS-11).
    pub(crate) fn insufficient(&self, all: &Scope) -> HeaderValue {
        header(&format!(
            "Bearer error=\"insufficient_scope\", scope=\"{all}\", resource_metadata=\"{}\"",
            self.metadata
        ))
    }
}

fn header(text: &str) -> HeaderValue {
    // Scope tokens have neither quotes nor backslashes (RFC 6749 §3.3); nor do URLs.
    HeaderValue::from_str(text).expect("scopes, URLs and our words are visible ASCII")
}

#[cfg(test)]
mod tests {
    use shared::Digest;

    use super::*;

    fn challenges() -> Challenges {
        Challenges::new("http://localhost:1/.well-known/x", &"docs.read".parse().unwrap())
    }

    fn invalid(reason: &'static str) -> Refused {
        Refused::Invalid(Invalid { reason, token: Digest::of(b""), verified: None })
    }

    /// RS-02: without credentials there is no `error`.
    #[test]
    fn a_challenge_without_credentials_has_no_error() {
        let (status, challenge, _) = challenges().answer(&Refused::Absent);
        assert_eq!(status, 401);
        assert_eq!(
            challenge,
            "Bearer resource_metadata=\"http://localhost:1/.well-known/x\", scope=\"docs.read\""
        );
    }

    /// RS-03: one description for all causes except expiry.
    #[test]
    fn causes_look_the_same_except_expiry() {
        let bad = challenges().answer(&invalid("signature"));
        for reason in ["audience", "issuer", "revoked", "key_removed", "claims", "not_a_jwt"] {
            assert_eq!(challenges().answer(&invalid(reason)), bad, "{reason}");
        }
        assert_eq!(bad.0, 401);
        assert_eq!(
            bad.1,
            "Bearer error=\"invalid_token\", error_description=\"The access token is not valid here.\", resource_metadata=\"http://localhost:1/.well-known/x\", scope=\"docs.read\""
        );
        let expired = challenges().answer(&invalid("expired"));
        assert!(expired.1.to_str().unwrap().contains("error_description=\"The access token has expired.\""));
    }

    /// RS-04: a malformed header is an invalid request.
    #[test]
    fn a_malformed_header_is_the_requests_fault() {
        let (status, challenge, _) = challenges().answer(&Refused::Malformed);
        assert_eq!(status, 400);
        assert!(challenge.to_str().unwrap().starts_with("Bearer error=\"invalid_request\", "));
    }

    /// An endpoint without a default scope names none.
    #[test]
    fn an_empty_scope_is_left_out() {
        let (_, challenge, _) = Challenges::new("http://x", &Scope::empty()).answer(&Refused::Absent);
        assert_eq!(challenge, "Bearer resource_metadata=\"http://x\"");
    }
}
