//! One authenticated request: its era, its call, the decision and the answer.

use std::time::Instant;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use shared::{Request, Scope};

use super::answer::Answer;
use super::call::{CALL_TOOL, Call, GET_PROMPT, ItemCall, READ_RESOURCE};
use super::era::{self, Era};
use super::message::Message;
use super::refusal::{INVALID_PARAMS, INVALID_REQUEST, Refusal};
use super::reply;
use super::session::{SESSION_HEADER, Session, SessionNotStarted};
use super::{GateContext, lifecycle, lists, media, mirror, no_endpoint, unauthenticated};
use crate::Resource;
use crate::admission::{CallEnd, CallId, ItemRequest, ParsedCall};
use crate::bearer::CheckedToken;
use crate::item::{Item, Kind};
use crate::progress::Token;
use crate::registry::{RequestedItem, Snapshot};

/// A request whose caller is authenticated.
pub(crate) struct Exchange<'e> {
    pub(crate) resource: &'e Resource,
    /// The endpoint that it was sent to, and the items that there are.
    pub(crate) at: &'e GateContext,
    pub(crate) headers: &'e HeaderMap,
    pub(crate) request: &'e Request,
    pub(crate) began: Instant,
}

/// A parsed request.
struct ParsedRequest {
    id: Value,
    era: Era,
    session: Option<Session>,
    caller: CheckedToken,
    at: GateContext,
    /// The token by which the client asked for progress.
    token: Option<Token>,
}

impl Exchange<'_> {
    /// Answers a message of this caller.
    pub(crate) async fn answer(&self, message: Message, caller: &CheckedToken) -> Result<Response, Refusal> {
        let era = era::decide(self.headers, &message)?;
        let (era, session) = self.in_session(era, &message, caller).await?;
        let Some(id) = message.id.clone() else {
            return self.notification(&message, session.as_ref());
        };
        self.mirrored(era, &message)?;
        let token = message.meta("progressToken").and_then(Token::of);
        let call = Call::of(&message.method, message.params, era)?;
        let (at, caller) = self.settle(&call, caller).await?;
        let understood = ParsedRequest { id, era, session, caller, at, token };
        match call {
            Call::Discover => Ok(Answer::whole(&understood.id, lifecycle::discover()).into_response()),
            Call::Initialize(params) => self.initialize(params, understood).await,
            Call::Ping => Ok(Answer::result(&understood.id, era, b"").into_response()),
            Call::List(kind, cursor) => {
                let ParsedRequest { id, caller, at, .. } = &understood;
                Ok(lists::list(id, era, (at, caller), kind, cursor.as_deref())?.into_response())
            }
            Call::Item(call) => self.use_item(call, understood).await,
        }
    }

    /// The caller as they are now, and the items that there are now: what the call is decided by. Reading the body may have
    /// taken a while, and only now it is known what the token is for (RS-08). Both are of one moment, also while a reload
    /// replaces rules and groups (POL-04).
    async fn settle(
        &self,
        call: &Call,
        caller: &CheckedToken,
    ) -> Result<(GateContext, CheckedToken), Refusal> {
        let (registry, bearer) = (self.resource.registry(), self.resource.bearer());
        loop {
            let look = registry.look();
            let at = self.at.in_snapshot(&look.snapshot).ok_or_else(no_endpoint)?;
            let check = bearer.check_for(self.needs(&at, call, caller).as_ref());
            let confirmed = bearer.confirm(caller, self.resource.clock().now(), check).await;
            match confirmed {
                _ if !registry.still_holds(&look) => {}
                Ok(caller) => return Ok((at, caller)),
                Err(refused) => {
                    return Err(unauthenticated(self.resource, &at.profile, &refused, self.request).await);
                }
            }
        }
    }

    /// The era of a request, and its session if it names one. The modern era has no sessions, and `initialize`
    /// starts a new one (MCP-12).
    async fn in_session(
        &self,
        era: Era,
        message: &Message,
        caller: &CheckedToken,
    ) -> Result<(Era, Option<Session>), Refusal> {
        if era == Era::Modern || message.method == "initialize" {
            return Ok((era, None));
        }
        let session = self.resource.sessions().named(self.headers, caller).await?;
        match &session {
            // MCP-01: in a session, an absent header means the negotiated revision.
            Some(known) if !self.headers.contains_key(era::VERSION_HEADER) => {
                Ok((Era::Legacy(known.version), session))
            }
            // MCP 2025-06-18 and 2025-11-25 transports: "The protocol version sent by the client SHOULD be the one
            // negotiated during initialization".
            Some(known) if era != Era::Legacy(known.version) => Err(known.speaks_another()),
            _ => Ok((era, session)),
        }
    }

    /// Handles a notification. Only a cancellation has an effect, and only in the session of its call (MCP-16).
    /// A request method without an id is not treated as a notification.
    fn notification(&self, message: &Message, session: Option<&Session>) -> Result<Response, Refusal> {
        if !message.method.starts_with("notifications/") {
            return Err(Refusal::bad_request(INVALID_REQUEST, "This method is a request and needs an `id`."));
        }
        if message.method == "notifications/cancelled"
            && let (Some(session), Some(request)) = (session, message.params.get("requestId"))
        {
            self.resource.admission().cancel(&call_id(session, request));
        }
        Ok(StatusCode::ACCEPTED.into_response())
    }

    /// MCP-05: older revisions ignore the headers that repeat the body.
    fn mirrored(&self, era: Era, message: &Message) -> Result<(), Refusal> {
        if era != Era::Modern {
            return Ok(());
        }
        mirror::check_method(self.headers, &message.method)?;
        let source = match message.method.as_str() {
            CALL_TOOL | GET_PROMPT => "name",
            READ_RESOURCE => "uri",
            _ => return Ok(()),
        };
        mirror::check_name(self.headers, message.params.get(source).and_then(Value::as_str))
    }

    /// `initialize`, which starts a session if it succeeds; clients may ignore the session.
    async fn initialize(
        &self,
        params: Map<String, Value>,
        understood: ParsedRequest,
    ) -> Result<Response, Refusal> {
        let ParsedRequest { id, era, caller, .. } = understood;
        let Some(result) = lifecycle::initialize(params, era) else {
            let words = "Invalid params for initialize";
            return Err(Refusal::new(StatusCode::OK, INVALID_PARAMS, words));
        };
        let session = match self.resource.sessions().begin(&caller, era.version()).await {
            Ok(session) => session,
            Err(SessionNotStarted::Token(refused)) => {
                return Err(unauthenticated(self.resource, &self.at.profile, &refused, self.request).await);
            }
            Err(SessionNotStarted::Refused(refusal)) => return Err(refusal),
        };
        let mut response = Answer::whole(&id, &result).into_response();
        response.headers_mut().insert(SESSION_HEADER, session);
        Ok(response)
    }

    /// Something that is done with an item: admitted, done and answered; or refused.
    async fn use_item(&self, call: ItemCall, understood: ParsedRequest) -> Result<Response, Refusal> {
        let ParsedRequest { id, era, session, caller, at, token } = understood;
        let admission = self.resource.admission();
        let wanted = ParsedCall {
            method: call.method,
            sought: self.sought(&at.snapshot, &call, &caller),
            asked: call.asked.clone(),
            era,
            caller: caller.clone(),
            request: self.request.clone(),
            began: self.began,
            id: session.as_ref().map(|session| call_id(session, &id)),
            session: session.map(|session| session.name().into()),
            closing_cancels: era == Era::Modern,
        };
        let answer = {
            let id = id.clone();
            move |ending: &CallEnd<'_>| Answer::ended(&id, era, ending)
        };
        let agree = |item: &Item, asked: &ItemRequest| match (era, asked) {
            (Era::Modern, ItemRequest::Call(arguments)) => {
                mirror::check_parameters(self.headers, arguments, &item.offer.mirrored)
            }
            _ => Ok(()),
        };
        let admitted = admission.call(&at.profile, &at.snapshot, wanted, agree, answer).await;
        let (resource, request) = (self.resource.clone(), self.request.clone());
        let asked = reply::Asked { resource, at: self.at.clone(), id, era, caller, request, call, token };
        match admitted {
            Ok(ongoing) => asked.answer(ongoing, media::accepts_events(self.headers)).await,
            Err(denied) => Ok(asked.ended(Err(denied)).await?.into_response()),
        }
    }

    /// The item that a call names. What is completed may be a template, or a resource by its URI (MCP completion,
    /// reference types).
    fn sought(&self, snapshot: &Snapshot, call: &ItemCall, caller: &CheckedToken) -> RequestedItem {
        let admission = self.resource.admission();
        let sought = admission.sought(caller, call.kind, call.name.clone());
        if call.kind == Kind::Template && snapshot.seek(&sought).is_none() {
            return admission.sought(caller, Kind::Resource, call.name.clone());
        }
        sought
    }

    /// The scopes that the call needs; `None` if it needs only a valid token.
    fn needs(&self, at: &GateContext, call: &Call, caller: &CheckedToken) -> Option<Scope> {
        let Call::Item(call) = call else { return None };
        let item = at.snapshot.seek_at(&at.profile, &self.sought(&at.snapshot, call, caller));
        Some(item.and_then(|item| item.needs.scopes().cloned()).unwrap_or_default())
    }
}

/// The id by which a client cancels this call.
fn call_id(session: &Session, request: &Value) -> CallId {
    CallId { session: session.digest, request: request.to_string() }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::testing::{App, NOW, bearer, token};

    /// MCP-01: inside a session an absent header means the negotiated revision, and one that is there must say the same;
    /// without a session, and for `initialize`, nothing changes.
    #[tokio::test]
    async fn a_session_remembers_its_revision() {
        let app = App::start();
        let header = bearer(&token("docs.read")).parse().unwrap();
        let at = GateContext::of(&app.resource, None).unwrap();
        let caller = app.resource.bearer().check(&header, at.profile.uri(), NOW).unwrap();
        let id = app.resource.sessions().begin(&caller, "2025-11-25").await.unwrap();
        let decided = async |method: &str, named: bool, version: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if named {
                headers.insert(SESSION_HEADER, id.clone());
            }
            if let Some(version) = version {
                headers.insert(era::VERSION_HEADER, HeaderValue::from_static(version));
            }
            let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method,
                "params": { "protocolVersion": "2025-06-18" } });
            let message = Message::parse(body.to_string().as_bytes()).unwrap();
            let era = era::decide(&headers, &message).unwrap();
            let request = Request::from(None);
            let exchange = Exchange {
                resource: &app.resource,
                at: &at,
                headers: &headers,
                request: &request,
                began: Instant::now(),
            };
            exchange.in_session(era, &message, &caller).await.map(|(era, _)| era.version())
        };
        let decided = async |method: &str, named: bool, version: Option<&'static str>| {
            decided(method, named, version).await.map_err(|refusal| refusal.code())
        };
        assert_eq!(decided("ping", true, None).await, Ok("2025-11-25"));
        assert_eq!(decided("ping", true, Some("2025-11-25")).await, Ok("2025-11-25"));
        for other in ["2025-06-18", "2025-03-26"] {
            assert_eq!(decided("ping", true, Some(other)).await, Err(INVALID_REQUEST), "{other}");
        }
        assert_eq!(decided("ping", false, None).await, Ok("2025-03-26"));
        assert_eq!(decided("initialize", true, None).await, Ok("2025-06-18"));
    }
}
