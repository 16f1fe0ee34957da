//! The gate: one pipeline for every request to the endpoint. It answers every refusal itself, and
//! what it lets through it has written anew (MCP-07).

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde_json::{Value, json};
use shared::Request;

use super::call::Call;
use super::era::{self, Era};
use super::front::{self, Front};
use super::handler::{Admitted, Ended};
use super::message::Message;
use super::record::{self, Subject};
use super::refusal::{FORBIDDEN, INVALID_PARAMS, INVALID_REQUEST, Refusal, UNAUTHENTICATED};
use super::{mirror, tools};
use crate::Resource;
use crate::bearer::{Checked, Refused};
use crate::policy::Decision;

/// Larger bodies are refused (standards §1).
const LARGEST: usize = 1 << 20;
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// `/mcp`, whatever the method.
pub(crate) async fn gate(State(resource): State<Resource>, request: axum::extract::Request) -> Response {
    let front = resource.front();
    let origin = front.check_origin(request.headers()).map(|origin| origin.cloned());
    let host = front.check_host(request.uri(), request.headers());
    let (origin, answer) = match (host, origin) {
        (Ok(()), Ok(origin)) => (origin, answer(&resource, request).await),
        (Err(refusal), origin) => (origin.ok().flatten(), Err(refusal)),
        (Ok(()), Err(refusal)) => (None, Err(refusal)),
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    Front::share(&mut response, origin);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if is(response.headers(), CONTENT_TYPE, b"text/event-stream") {
        response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    response
}

async fn answer(resource: &Resource, http: axum::extract::Request) -> Result<Response, Refusal> {
    let began = Instant::now();
    let (parts, body) = http.into_parts();
    match parts.method {
        Method::POST => {}
        Method::OPTIONS => return Ok(Front::preflight(&parts.headers)),
        _ => return Err(method_not_allowed()),
    }
    bounded(&parts.headers)?;
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let request = Request::from(peer);
    let caller = authenticate(resource, &parts.headers, &request).await?;
    media_types(&parts.headers)?;
    let body = read(body).await?;
    let message = Message::parse(&body)?;
    let id = message.id.clone();
    let exchange = Exchange { resource, headers: &parts.headers, request: &request, began };
    exchange.answer(&message, &caller).await.map_err(|refusal| refusal.about(id.as_ref()))
}

/// GET and DELETE belong to sessions, and there are none (MCP-02).
fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, "Use POST.").header(ALLOW, front::METHODS)
}

/// What says that it is too large is not even begun with.
fn bounded(headers: &HeaderMap) -> Result<(), Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST as u64) { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "The body is larger than 1 MiB.")
}

/// Who calls: decided before anything of the body is looked at (RS-01).
async fn authenticate(
    resource: &Resource,
    headers: &HeaderMap,
    request: &Request,
) -> Result<Checked, Refusal> {
    let checked = resource.bearer().check_headers(headers, resource.clock().now());
    let caller = match checked {
        Ok(caller) => caller,
        Err(refused) => return Err(unauthenticated(resource, &refused, request).await),
    };
    let status = resource.bearer().status();
    if status.is_seen(caller.token()) {
        return Ok(caller);
    }
    // REFRESH-06: before anything is decided on a token, its refresh token counts as received.
    let (status, seen) = (Arc::clone(status), caller.clone());
    let marked = resource.db().write(move |tx| status.mark_seen(tx, seen.token())).await;
    marked.map_err(|fault| {
        tracing::error!(db.fault = %fault, "a token could not be marked as seen");
        Refusal::unavailable()
    })?;
    Ok(caller)
}

/// The challenge. Bad tokens go on record first, absent credentials do not.
async fn unauthenticated(resource: &Resource, refused: &Refused, request: &Request) -> Refusal {
    if let Refused::Invalid(invalid) = refused
        && let Err(unavailable) = resource.denials().record(invalid, request).await
    {
        return unavailable;
    }
    let (status, challenge, words) = resource.challenges().answer(refused);
    let code = if status == StatusCode::UNAUTHORIZED { UNAUTHENTICATED } else { INVALID_REQUEST };
    Refusal::new(status, code, words).header(WWW_AUTHENTICATE, challenge)
}

/// MCP-04.
fn media_types(headers: &HeaderMap) -> Result<(), Refusal> {
    let encoded = headers.get_all(CONTENT_ENCODING).iter().any(|value| value != "identity");
    if encoded
        || headers.get_all(CONTENT_TYPE).iter().count() != 1
        || !is(headers, CONTENT_TYPE, b"application/json")
    {
        let words = "Send Content-Type: application/json.";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, words));
    }
    if !accepts(headers, "application", "json") || !accepts(headers, "text", "event-stream") {
        let words = "Send Accept: application/json, text/event-stream.";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, words));
    }
    Ok(())
}

/// Whether a header names this media type, whatever its parameters; a charset can only be UTF-8.
fn is(headers: &HeaderMap, name: HeaderName, media_type: &[u8]) -> bool {
    headers.get(name).is_some_and(|value| {
        let mut parts = value.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let essence = parts.next().unwrap_or_default();
        let charset = |part: &[u8]| part.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"charset="));
        let utf8 = |part: &[u8]| {
            part[8..].trim_ascii().to_ascii_lowercase() == b"utf-8" || &part[8..] == b"\"utf-8\""
        };
        essence.eq_ignore_ascii_case(media_type) && parts.filter(|part| charset(part)).all(utf8)
    })
}

/// Whether `Accept` allows a media type, by name or by a range, and not with a weight of zero.
fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let lists = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (range_kind, range_subtype) =
            parts.next().and_then(|name| name.split_once('/')).unwrap_or_default();
        let matches = |range: &str, name: &str| range == "*" || range.eq_ignore_ascii_case(name);
        let refused = |part: &str| {
            part.split_once('=').is_some_and(|(name, weight)| {
                name.eq_ignore_ascii_case("q") && weight.parse::<f32>().is_ok_and(|weight| weight == 0.0)
            })
        };
        matches(range_kind, kind) && matches(range_subtype, subtype) && !parts.any(refused)
    })
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, LARGEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Refusal::bad_request(INVALID_REQUEST, "The body could not be read.")),
    }
}

/// One request, past the door.
struct Exchange<'e> {
    resource: &'e Resource,
    headers: &'e HeaderMap,
    request: &'e Request,
    began: Instant,
}

impl Exchange<'_> {
    async fn answer(&self, message: &Message, caller: &Checked) -> Result<Response, Refusal> {
        let era = era::decide(self.headers, message)?;
        if let Era::Legacy(_) = era
            && message.method != "initialize"
            && self.headers.contains_key("mcp-session-id")
        {
            // None was given out, so the client starts anew (MCP 2025-11-25, session management).
            let words = "There is no such session; send initialize again.";
            return Err(Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, words));
        }
        if message.is_notification() {
            return notification(message);
        }
        if era == Era::Modern {
            mirror::check_method(self.headers, &message.method)?;
            if matches!(message.method.as_str(), "tools/call" | "resources/read" | "prompts/get") {
                let source = if message.method == "resources/read" { "uri" } else { "name" };
                let name = message.params.get(source).and_then(Value::as_str);
                mirror::check_name(self.headers, name)?;
            }
        }
        let call = Call::of(message, era)?;
        // Reading the body may have taken a while (RS-08).
        let caller = match self.resource.bearer().recheck(caller, self.resource.clock().now()) {
            Ok(caller) => caller,
            Err(refused) => return Err(unauthenticated(self.resource, &refused, self.request).await),
        };
        match &call {
            Call::CallTool { name, .. } => {
                let decision = self.decide(&caller, name);
                self.call(call, era, message, caller, decision).await
            }
            // Protocol methods need only a valid token (MCP-08).
            _ => {
                let admitted = self.admitted(call, era, caller);
                let (status, body) = self.hand_on(admitted, message, Vec::new()).await?;
                Ok(json_response(status, body))
            }
        }
    }

    fn decide(&self, caller: &Checked, tool: &str) -> Decision {
        self.resource.tools().decide(&caller.token().scope, caller.entitled(), tool)
    }

    /// A tool call: decided, recorded, answered, in an order in which no answer leaves unrecorded.
    async fn call(
        &self,
        call: Call,
        era: Era,
        message: &Message,
        caller: Checked,
        decision: Decision,
    ) -> Result<Response, Refusal> {
        let Call::CallTool { name, arguments } = &call else {
            return Err(Refusal::internal());
        };
        let (name, arguments) = (Arc::clone(name), arguments.clone());
        let tools = self.resource.tools();
        let subject = Subject {
            request: self.request,
            caller: &caller,
            resource: self.resource.uri(),
            tool: &name,
            needs: tools.needs(&name),
            arguments: &arguments,
        };
        if decision != Decision::Allow {
            record::write(self.resource.db(), subject.refused(&decision)).await?;
        }
        let tool = match &decision {
            Decision::Allow => tools.find(&name).ok_or_else(Refusal::internal)?,
            Decision::ScopeMissing { needed } => return Err(self.insufficient_scope(&caller, needed)),
            Decision::NotEntitled | Decision::Unknown => return Err(unknown_tool(&name)),
        };
        let mirrored = self.mirrored(era, tool, &arguments)?;
        let admitted = self.admitted(call.clone(), era, caller.clone());
        let ended = Arc::clone(&admitted.ended);
        let (status, body) = self.hand_on(admitted, message, mirrored).await?;
        let result = match ended.get() {
            Some(Ended::Answered) => "ok",
            Some(Ended::ToolError) => "tool_error",
            None => "error",
        };
        let made = subject.made(result, body.len(), self.began.elapsed());
        record::write(self.resource.db(), made).await?;
        Ok(json_response(status, body))
    }

    /// MCP-05, for the arguments that the tool wants mirrored.
    fn mirrored(
        &self,
        era: Era,
        tool: &tools::Tool,
        arguments: &serde_json::Map<String, Value>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
        if era != Era::Modern {
            return Ok(Vec::new());
        }
        mirror::check_parameters(self.headers, arguments, tool.mirrored())?;
        Ok(mirror::written(arguments, tool.mirrored()))
    }

    /// RS-11: the challenge lists what the token holds and what lacks, so that nothing is lost by
    /// asking for exactly that.
    fn insufficient_scope(&self, caller: &Checked, needed: &shared::Scope) -> Refusal {
        let all = caller.token().scope.union(needed);
        let words = format!("Insufficient scope: this tool needs {needed}. Sign in again and allow it.");
        Refusal::new(StatusCode::FORBIDDEN, FORBIDDEN, words)
            .header(WWW_AUTHENTICATE, self.resource.challenges().insufficient(&all))
            .data(json!({ "error": "insufficient_scope", "scope": all }))
    }

    fn admitted(&self, call: Call, era: Era, caller: Checked) -> Admitted {
        Admitted {
            call: Arc::new(call),
            era,
            decision: Decision::Allow,
            caller,
            ended: Arc::new(OnceLock::new()),
        }
    }

    /// Hands the request to the protocol library: the body written anew, and no header of the
    /// client's, so neither its token nor its cookies go any further (MCP-07, RS-15).
    async fn hand_on(
        &self,
        admitted: Admitted,
        message: &Message,
        mirrored: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(StatusCode, Bytes), Refusal> {
        let body = admitted.call.rewritten(message).to_string();
        let mut request = http::Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if admitted.call.as_ref() != &Call::Initialize {
            headers.insert(era::VERSION_HEADER, HeaderValue::from_static(admitted.era.version()));
        }
        if admitted.era == Era::Modern {
            headers.insert(mirror::METHOD_HEADER, HeaderValue::from_static(admitted.call.method()));
            if let Some(name) = admitted.call.tool() {
                headers.insert(mirror::NAME_HEADER, mirror::encoded(name));
            }
            headers.extend(mirrored);
        }
        request.extensions_mut().insert(admitted);
        let response = self.resource.mcp().handle(request).await;
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await;
        let body = body.to_bytes();
        if !is(&parts.headers, CONTENT_TYPE, b"application/json") {
            let status = parts.status.as_u16();
            tracing::error!(http.status = status, "the protocol library refused what the gate had written");
            return Err(Refusal::internal());
        }
        Ok((parts.status, body))
    }
}

/// Nothing that a client can tell us needs doing without a session. What is no notification by name
/// does not become one for lack of an id.
fn notification(message: &Message) -> Result<Response, Refusal> {
    if message.method.starts_with("notifications/") {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    Err(Refusal::bad_request(INVALID_REQUEST, "This method is a request, and needs an `id`."))
}

/// Unknown and not entitled look the same (MCP-09).
fn unknown_tool(name: &str) -> Refusal {
    let name: String = name.chars().take(128).collect();
    Refusal::new(StatusCode::OK, INVALID_PARAMS, format!("Unknown tool: {name}"))
}

fn json_response(status: StatusCode, body: Bytes) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body).into_response()
}

#[cfg(test)]
mod tests;
