//! The requests that a kill can overtake, and the kills that apply to each.

use super::kill::Kill;

/// A request that a kill can overtake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Case {
    Code,
    Refresh,
    DeviceToken,
    ClientCredentials,
    Revoke,
    Introspect,
    Authorize,
    AuthorizeForm,
    ConsentPage,
    Remembered,
    Consent,
    ConfirmedConsent,
    Confirm,
    SignInStart,
    SignIn,
    SignInForClient,
    ClientRequest,
    SetupStart,
    Setup,
    EnrolStart,
    Enrol,
    Home,
    Account,
    ChangeStart,
    Change,
    PasskeyStart,
    PasskeyConfirm,
    PasskeyFinish,
    DeviceAuthorization,
    DeviceCode,
    DeviceDecision,
    Register,
    ClientUpdate,
    ClientRemoval,
    Initialize,
}

impl Case {
    /// Its method and path, as in the table of routes.
    pub fn route(self) -> (&'static str, &'static str) {
        match self {
            Self::Code | Self::Refresh | Self::DeviceToken | Self::ClientCredentials => ("POST", "/token"),
            Self::Revoke => ("POST", "/revoke"),
            Self::Introspect => ("POST", "/introspect"),
            Self::Authorize => ("GET", "/authorize"),
            Self::AuthorizeForm => ("POST", "/authorize"),
            Self::ConsentPage | Self::Remembered => ("GET", "/consent"),
            Self::Consent | Self::ConfirmedConsent => ("POST", "/consent"),
            Self::Confirm => ("POST", "/consent/confirm"),
            Self::SignInStart => ("POST", "/login/start"),
            Self::SignIn | Self::SignInForClient => ("POST", "/login/finish"),
            Self::ClientRequest => ("POST", "/account/client-requests"),
            Self::SetupStart => ("POST", "/setup/start"),
            Self::Setup => ("POST", "/setup/finish"),
            Self::EnrolStart => ("POST", "/enrol/start"),
            Self::Enrol => ("POST", "/enrol/finish"),
            Self::Home => ("GET", "/"),
            Self::Account => ("GET", "/account"),
            Self::ChangeStart => ("POST", "/account/change/start"),
            Self::Change => ("POST", "/account/change"),
            Self::PasskeyStart => ("POST", "/account/passkeys/start"),
            Self::PasskeyConfirm => ("POST", "/account/passkeys/confirm"),
            Self::PasskeyFinish => ("POST", "/account/passkeys/finish"),
            Self::DeviceAuthorization => ("POST", "/device_authorization"),
            Self::DeviceCode => ("POST", "/device"),
            Self::DeviceDecision => ("POST", "/device/decision"),
            Self::Register => ("POST", "/register"),
            Self::ClientUpdate => ("PUT", "/register/{id}"),
            Self::ClientRemoval => ("DELETE", "/register/{id}"),
            Self::Initialize => ("POST", "/mcp"),
        }
    }

    /// Whether the request must be refused after this kill.
    pub fn is_ended_by(self, kill: Kill) -> bool {
        let user = matches!(kill, Kill::UserDisabled | Kill::UserDeleted);
        let client = matches!(kill, Kill::ClientDisabled | Kill::ClientDeleted);
        let passkey = matches!(kill, Kill::PasskeyRemoved | Kill::PasskeySuspended);
        let (lockdown, group) = (kill == Kill::Lockdown, kill == Kill::GroupLeft);
        let session = user || lockdown || matches!(kill, Kill::PasskeyRemoved | Kill::SessionsEnded);
        let grant = user || client || lockdown || kill == Kill::GrantRevoked;
        match self {
            Self::Code | Self::Refresh | Self::DeviceToken => grant || group,
            Self::ClientCredentials | Self::Revoke => client || kill == Kill::SecretReplaced,
            Self::Authorize | Self::AuthorizeForm | Self::DeviceAuthorization => client,
            // After a lost group the page still opens, and says that nothing can be allowed.
            Self::ConsentPage => session || client,
            Self::Remembered => session || client || group || kill == Kill::GrantRevoked,
            Self::Confirm | Self::Consent | Self::DeviceDecision => session || client || group,
            Self::ConfirmedConsent => session || client || passkey || group,
            Self::SignInStart => lockdown,
            Self::SignIn | Self::SignInForClient => user || passkey || lockdown,
            // The last two list suspended passkeys as well, which are refused when used.
            Self::ClientRequest
            | Self::Home
            | Self::Account
            | Self::PasskeyFinish
            | Self::ChangeStart
            | Self::PasskeyStart => session,
            Self::SetupStart | Self::Setup => lockdown || kill == Kill::LinkReplaced,
            Self::EnrolStart | Self::Enrol => user || lockdown || kill == Kill::LinkReplaced,
            Self::Change | Self::PasskeyConfirm => session || passkey,
            Self::DeviceCode => client || lockdown,
            Self::Register => lockdown || kill == Kill::InvitationDeleted,
            // A disabled client may still manage its registration (DCR-10).
            Self::ClientUpdate | Self::ClientRemoval => kill == Kill::ClientDeleted,
            Self::Introspect => {
                grant
                    || group
                    || matches!(kill, Kill::TokenRevoked | Kill::ServerDeleted | Kill::ServerSecretReplaced)
            }
            Self::Initialize => grant || kill == Kill::TokenRevoked,
        }
    }

    /// The tables and events that its refusal writes: a denied consent is a decision, and ends its sign-in.
    pub fn leaves(self) -> &'static [&'static str] {
        match self {
            Self::Consent => &["authorization_transaction", "session", "session.ended"],
            Self::ConfirmedConsent => {
                &["authorization_transaction", "session", "session.ended", "passkey", "session.step_up"]
            }
            Self::DeviceDecision => &["device_authorization", "device_transaction"],
            _ => &[],
        }
    }
}
