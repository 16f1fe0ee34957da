//! Checks the claims of a token whose signature is valid (RFC 9068 §4, RFC 7519 §4.1).

use std::time::Duration;

use shared::{AccessToken, ResourceUri, Timestamp};

/// Why a token with a valid signature is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRefusal {
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another resource")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is from the future")]
    IssuedInFuture,
}

/// Checks a token's claims in the order of RS-05.
///
/// # Errors
/// See [`TokenRefusal`].
pub fn check(
    token: &AccessToken,
    issuer: &str,
    aud: &ResourceUri,
    now: Timestamp,
    leeway: Duration,
) -> Result<(), TokenRefusal> {
    if token.iss != issuer {
        return Err(TokenRefusal::Issuer);
    }
    // Exact equality: a prefix, the bare origin or another path is refused (RS-06).
    if token.aud != *aud {
        return Err(TokenRefusal::Audience);
    }
    // RFC 7519 §4.1.4: "the current date/time MUST be before the expiration date/time"
    if now >= Timestamp::from_seconds(token.exp) + leeway {
        return Err(TokenRefusal::Expired);
    }
    if token.nbf.is_some_and(|nbf| now + leeway < Timestamp::from_seconds(nbf)) {
        return Err(TokenRefusal::NotYetValid);
    }
    if Timestamp::from_seconds(token.iat) > now + leeway {
        return Err(TokenRefusal::IssuedInFuture);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::token;

    const LEEWAY: Duration = Duration::from_mins(1);
    /// In the middle of the lifetime of [`token`], which is 1000 to 1900.
    const NOW: Timestamp = Timestamp(1_500_000);

    fn checked(change: impl Fn(&mut AccessToken), now: Timestamp) -> Result<(), TokenRefusal> {
        let mut changed = token();
        let (issuer, aud) = (changed.iss.clone(), changed.aud.clone());
        change(&mut changed);
        check(&changed, &issuer, &aud, now, LEEWAY)
    }

    #[test]
    fn an_ordinary_token_is_acceptable() {
        assert_eq!(checked(|_| {}, NOW), Ok(()));
        assert_eq!(checked(|t| t.nbf = Some(1000), NOW), Ok(()));
    }

    /// RS-05: the issuer is compared byte for byte.
    #[test]
    fn another_issuer_is_refused() {
        for bad in ["", "http://localhost:8080/", "HTTP://localhost:8080", "http://localhost", "https://evil"]
        {
            assert_eq!(checked(|t| bad.clone_into(&mut t.iss), NOW), Err(TokenRefusal::Issuer), "{bad}");
        }
    }

    /// RS-06: a prefix, the origin and another path are other audiences.
    #[test]
    fn another_audience_is_refused() {
        for bad in [
            "http://localhost:8080",
            "http://localhost:8080/mcp/",
            "http://localhost:8080/mcp/docs",
            "http://localhost:8080/mc",
            "http://localhost:8080/MCP",
            "https://localhost:8080/mcp",
        ] {
            let other = ResourceUri::parse(bad).unwrap();
            assert_eq!(checked(|t| t.aud = other.clone(), NOW), Err(TokenRefusal::Audience), "{bad}");
        }
        let empty: ResourceUri = serde_json::from_str("\"\"").unwrap();
        assert_eq!(checked(|t| t.aud = empty.clone(), NOW), Err(TokenRefusal::Audience));
    }

    /// RS-05: each date is checked to the millisecond, including the leeway.
    #[test]
    fn dates_hold_to_the_millisecond() {
        assert_eq!(checked(|_| {}, Timestamp(1_959_999)), Ok(()));
        assert_eq!(checked(|_| {}, Timestamp(1_960_000)), Err(TokenRefusal::Expired));
        assert_eq!(checked(|_| {}, Timestamp(940_000)), Ok(()));
        assert_eq!(checked(|_| {}, Timestamp(939_999)), Err(TokenRefusal::IssuedInFuture));
        assert_eq!(checked(|t| t.nbf = Some(1560), NOW), Ok(()));
        assert_eq!(checked(|t| t.nbf = Some(1561), NOW), Err(TokenRefusal::NotYetValid));
    }

    /// RS-05: extreme dates are refused and cause no panic.
    #[test]
    fn absurd_dates_are_refused() {
        assert_eq!(checked(|t| t.exp = i64::MIN, NOW), Err(TokenRefusal::Expired));
        assert_eq!(checked(|t| t.iat = i64::MAX, NOW), Err(TokenRefusal::IssuedInFuture));
        assert_eq!(checked(|t| t.nbf = Some(i64::MAX), NOW), Err(TokenRefusal::NotYetValid));
        assert_eq!(checked(|t| t.exp = i64::MAX, NOW), Ok(()));
    }
}
