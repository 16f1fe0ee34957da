//! One request past the door: which era, what it asks for, whether it may, what came of it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use shared::{Request, Scope};

use super::call::{Call, ToolCall};
use super::era::{self, Era};
use super::gate::unauthenticated;
use super::handler::{Admitted, Ended};
use super::media;
use super::message::Message;
use super::mirror;
use super::record::{self, Subject};
use super::refusal::{FORBIDDEN, INVALID_PARAMS, INVALID_REQUEST, Refusal};
use super::tools::Tool;
use crate::Resource;
use crate::bearer::Checked;
use crate::policy::Decision;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request whose sender is known.
pub(crate) struct Exchange<'e> {
    pub(crate) resource: &'e Resource,
    pub(crate) headers: &'e HeaderMap,
    pub(crate) request: &'e Request,
    pub(crate) began: Instant,
}

impl Exchange<'_> {
    /// Answers a message of this caller.
    pub(crate) async fn answer(&self, message: &Message, caller: &Checked) -> Result<Response, Refusal> {
        let era = era::decide(self.headers, message)?;
        self.no_session(era, message)?;
        if message.is_notification() {
            return notification(message);
        }
        self.mirrored(era, message)?;
        let call = Arc::new(Call::of(message, era)?);
        // Reading the body may have taken a while (RS-08).
        let caller = match self.resource.bearer().recheck(caller, self.resource.clock().now()) {
            Ok(caller) => caller,
            Err(refused) => return Err(unauthenticated(self.resource, &refused, self.request).await),
        };
        let admitted = Admitted {
            call: Arc::clone(&call),
            era,
            decision: self.decide(&caller, &call),
            caller,
            ended: Arc::new(OnceLock::new()),
        };
        if let Call::Tool(tool) = call.as_ref() {
            return self.call_tool(tool, message, admitted).await;
        }
        let (status, body) = self.hand_on(message, admitted, Vec::new()).await?;
        Ok(json_response(status, body))
    }

    /// None was given out, so a legacy client with one starts anew (MCP 2025-11-25, session
    /// management); the modern era knows none (MCP-12).
    fn no_session(&self, era: Era, message: &Message) -> Result<(), Refusal> {
        let presented = self.headers.contains_key("mcp-session-id");
        if era == Era::Modern || message.method == "initialize" || !presented {
            return Ok(());
        }
        let words = "There is no such session; send initialize again.";
        Err(Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, words))
    }

    /// MCP-05. On older revisions the mirror headers are ignored, never trusted.
    fn mirrored(&self, era: Era, message: &Message) -> Result<(), Refusal> {
        if era != Era::Modern {
            return Ok(());
        }
        mirror::check_method(self.headers, &message.method)?;
        let source = match message.method.as_str() {
            "tools/call" | "prompts/get" => "name",
            "resources/read" => "uri",
            _ => return Ok(()),
        };
        mirror::check_name(self.headers, message.params.get(source).and_then(Value::as_str))
    }

    /// Protocol methods need only a valid token; tools have the policy (MCP-08).
    fn decide(&self, caller: &Checked, call: &Call) -> Decision {
        match call {
            Call::Tool(tool) => {
                self.resource.tools().decide(&caller.token().scope, caller.entitled(), &tool.name)
            }
            Call::Discover | Call::Initialize | Call::Ping | Call::Tools => Decision::Allow,
        }
    }

    /// A tool call: decided, done, recorded, answered; no answer leaves unrecorded (AUDIT-04).
    async fn call_tool(
        &self,
        call: &ToolCall,
        message: &Message,
        admitted: Admitted,
    ) -> Result<Response, Refusal> {
        let tools = self.resource.tools();
        let caller = admitted.caller.clone();
        let subject = Subject {
            request: self.request,
            caller: &caller,
            resource: self.resource.uri(),
            tool: &call.name,
            needs: tools.needs(&call.name),
            arguments: &call.arguments,
        };
        if admitted.decision != Decision::Allow {
            record::write(self.resource.db(), subject.refused(&admitted.decision)).await?;
        }
        let tool = match &admitted.decision {
            Decision::Allow => tools.find(&call.name).ok_or_else(Refusal::internal)?,
            Decision::ScopeMissing { needed } => return Err(self.insufficient_scope(&caller, needed)),
            Decision::NotEntitled | Decision::Unknown => return Err(unknown_tool(&call.name)),
        };
        let mirrored = self.mirrored_arguments(tool, call, admitted.era)?;
        let ended = Arc::clone(&admitted.ended);
        let (status, body) = self.hand_on(message, admitted, mirrored).await?;
        let result = match ended.get() {
            Some(Ended::Answered) => "ok",
            Some(Ended::ToolError) => "tool_error",
            None => "error",
        };
        let made = subject.made(result, body.len(), self.began.elapsed());
        record::write(self.resource.db(), made).await?;
        Ok(json_response(status, body))
    }

    /// MCP-05, for the arguments that the tool wants mirrored: checked, and written anew.
    fn mirrored_arguments(
        &self,
        tool: &Tool,
        call: &ToolCall,
        era: Era,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
        if era != Era::Modern {
            return Ok(Vec::new());
        }
        mirror::check_parameters(self.headers, &call.arguments, tool.mirrored())?;
        Ok(mirror::written(&call.arguments, tool.mirrored()))
    }

    /// RS-11: the challenge lists what the token holds and what lacks, so that nothing is lost by
    /// asking for exactly that.
    fn insufficient_scope(&self, caller: &Checked, needed: &Scope) -> Refusal {
        let all = caller.token().scope.union(needed);
        let words = format!("Insufficient scope: this tool needs {needed}. Sign in again and allow it.");
        Refusal::new(StatusCode::FORBIDDEN, FORBIDDEN, words)
            .header(WWW_AUTHENTICATE, self.resource.challenges().insufficient(&all))
            .data(json!({ "error": "insufficient_scope", "scope": all }))
    }

    /// Hands the request to the protocol library: the body written anew, and no header of the
    /// client's, so neither its token nor its cookies go any further (MCP-07, RS-15).
    async fn hand_on(
        &self,
        message: &Message,
        admitted: Admitted,
        mirrored: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(StatusCode, Bytes), Refusal> {
        let body = admitted.call.rewritten(message).to_string();
        let mut request = http::Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if *admitted.call != Call::Initialize {
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
        let (parts, body) = self.resource.mcp().handle(request).await.into_parts();
        let Ok(body) = body.collect().await;
        if !media::is(&parts.headers, CONTENT_TYPE, b"application/json") {
            // It refuses some things in plain text, and what the gate writes is none of them.
            let status = parts.status.as_u16();
            tracing::error!(http.status = status, "the protocol library refused what the gate had written");
            return Err(Refusal::internal());
        }
        Ok((parts.status, body.to_bytes()))
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
