//! Refusals of the token endpoint.

use shared::audit::{Event, Name};
use shared::{ClientId, Request};

use crate::Authz;
use crate::client_auth::Unauthenticated;
use crate::endpoint;
use crate::error::{Code, OAuthError};

/// Why the token endpoint refused. The variant is for the log and the audit trail; the client gets only the
/// error code of RFC 6749 §5.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Client(#[from] Unauthenticated),
    #[error("grant_type_missing")]
    GrantTypeMissing,
    #[error("grant_type_unsupported")]
    GrantTypeUnsupported,
    #[error("grant_type_not_registered")]
    GrantTypeNotRegistered,
    #[error("code_missing")]
    CodeMissing,
    #[error("code_unknown")]
    CodeUnknown,
    #[error("code_replayed")]
    CodeReplayed,
    #[error("verifier_missing")]
    VerifierMissing,
    #[error("verifier_malformed")]
    VerifierMalformed,
    #[error("verifier_wrong")]
    VerifierWrong,
    #[error("redirect_uri_differs")]
    RedirectUriDiffers,
    #[error("resource_missing")]
    ResourceMissing,
    #[error("resource_unknown")]
    ResourceUnknown,
    #[error("scope_exceeds_registration")]
    ScopeExceedsRegistration,
    #[error("resource_differs")]
    ResourceDiffers,
    #[error("scope_exceeds_grant")]
    ScopeExceedsGrant,
    #[error("refresh_token_missing")]
    RefreshTokenMissing,
    #[error("refresh_token_unknown")]
    RefreshTokenUnknown,
    #[error("refresh_token_reused")]
    RefreshTokenReused,
    #[error("grant_ended")]
    GrantEnded,
    #[error("device_code_missing")]
    DeviceCodeMissing,
    #[error("device_code_unknown")]
    DeviceCodeUnknown,
    #[error("device_code_spent")]
    DeviceCodeSpent,
    #[error("device_pending")]
    DevicePending,
    #[error("device_slow_down")]
    DeviceSlowDown,
    #[error("device_expired")]
    DeviceExpired,
    #[error("device_denied")]
    DeviceDenied,
    #[error("device_policy")]
    DevicePolicy,
}

impl endpoint::Refusal for Refusal {
    fn wire(self, authz: &Authz) -> OAuthError {
        let (code, description) = match self {
            Self::Client(why) => return why.wire(),
            Self::GrantTypeMissing => (Code::InvalidRequest, "grant_type is missing"),
            Self::GrantTypeUnsupported => {
                (Code::UnsupportedGrantType, "this server does not support this grant type")
            }
            Self::GrantTypeNotRegistered => {
                (Code::UnauthorizedClient, "the client may not use this grant type")
            }
            Self::CodeMissing => (Code::InvalidRequest, "code is missing"),
            Self::VerifierMissing => (Code::InvalidRequest, "code_verifier is missing"),
            Self::VerifierMalformed => (Code::InvalidRequest, "code_verifier is malformed"),
            Self::RefreshTokenMissing => (Code::InvalidRequest, "refresh_token is missing"),
            Self::CodeUnknown | Self::CodeReplayed | Self::VerifierWrong | Self::RedirectUriDiffers => {
                (Code::InvalidGrant, "the code is invalid, expired, used, or was issued for another request")
            }
            Self::RefreshTokenUnknown | Self::RefreshTokenReused | Self::GrantEnded => {
                (Code::InvalidGrant, "the grant is invalid, expired or revoked")
            }
            Self::ResourceDiffers => (Code::InvalidTarget, "the grant is for another resource"),
            // RFC 8707 §2: "invalid, missing, unknown, or malformed"
            Self::ResourceMissing => return authz.resource_missing(),
            Self::ResourceUnknown => {
                (Code::InvalidTarget, "the resource is not one this server issues tokens for")
            }
            Self::ScopeExceedsRegistration => {
                (Code::InvalidScope, "the scope is malformed or wider than the client may have")
            }
            Self::DeviceCodeMissing => (Code::InvalidRequest, "device_code is missing"),
            Self::DeviceCodeUnknown | Self::DeviceCodeSpent => {
                (Code::InvalidGrant, "the device code is invalid, used, or was issued to another client")
            }
            Self::DevicePending => (Code::AuthorizationPending, "the user has not answered yet"),
            Self::DeviceSlowDown => {
                (Code::SlowDown, "the user has not answered yet; wait five seconds longer between requests")
            }
            Self::DeviceExpired => (Code::ExpiredToken, "the device code has expired"),
            Self::DeviceDenied => (Code::AccessDenied, "the user refused"),
            Self::DevicePolicy => (Code::AccessDenied, "none of the granted scopes is allowed now"),
            Self::ScopeExceedsGrant => (Code::InvalidScope, "the scope is malformed or wider than granted"),
        };
        OAuthError::new(code, description)
    }
}

impl Refusal {
    /// The audit record of the refusal.
    pub(crate) fn record(self, claimed: Option<&ClientId>, request: &Request) -> Event {
        let name = match self {
            Self::Client(_) => Name::ClientAuthFailed,
            _ => Name::TokenRefused,
        };
        let event = Event::denied(name, &self.to_string()).request(request);
        match claimed {
            Some(client) => event.client(client),
            None => event,
        }
    }
}
