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
use super::handler::{Admitted, Ended};
use super::media;
use super::message::Message;
use super::mirror;
use super::record::{self, Subject};
use super::refusal::{FORBIDDEN, INVALID_PARAMS, INVALID_REQUEST, Refusal};
use super::session::SESSION_HEADER;
use super::tools::Tool;
use super::unauthenticated;
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
        let era = self.in_session(era, message, caller).await?;
        if message.is_notification() {
            return notification(message);
        }
        self.mirrored(era, message)?;
        let call = Arc::new(Call::of(message, era)?);
        // Reading the body may have taken a while, and now it is known what the token is for (RS-08).
        let bearer = self.resource.bearer();
        let check = match call.as_ref() {
            Call::Tool(tool) => bearer.check_for(Some(&self.resource.tools().needs(&tool.name))),
            Call::Discover | Call::Initialize | Call::Ping | Call::Tools => bearer.check_for(None),
        };
        let caller = match bearer.confirm(caller, self.resource.clock().now(), check).await {
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
        match call.as_ref() {
            Call::Tool(tool) => self.call_tool(tool, message, admitted).await,
            Call::Initialize => self.initialize(message, admitted).await,
            Call::Discover | Call::Ping | Call::Tools => {
                let (status, body) = self.hand_on(message, admitted, Vec::new()).await?;
                Ok(json_response(status, body))
            }
        }
    }

    /// The era, seen from the session that the request names, if it does. The modern one knows none,
    /// and `initialize` begins another (MCP-12).
    async fn in_session(&self, era: Era, message: &Message, caller: &Checked) -> Result<Era, Refusal> {
        if era == Era::Modern || message.method == "initialize" {
            return Ok(era);
        }
        match self.resource.sessions().named(self.headers, caller).await? {
            // MCP-01: inside a session an absent header means the negotiated revision.
            Some(session) if !self.headers.contains_key(era::VERSION_HEADER) => {
                Ok(Era::Legacy(session.version))
            }
            _ => Ok(era),
        }
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
            Call::Tool(tool) => self.resource.tools().decide_for(caller, &tool.name),
            Call::Discover | Call::Initialize | Call::Ping | Call::Tools => Decision::Allow,
        }
    }

    /// `initialize`, and if it succeeds, a session: it costs a client nothing to take no notice.
    async fn initialize(&self, message: &Message, admitted: Admitted) -> Result<Response, Refusal> {
        let (caller, era, ended) = (admitted.caller.clone(), admitted.era, Arc::clone(&admitted.ended));
        let (status, body) = self.hand_on(message, admitted, Vec::new()).await?;
        let mut response = json_response(status, body);
        if ended.get() == Some(&Ended::Answered) {
            let id = self.resource.sessions().begin(&caller, era.version()).await?;
            response.headers_mut().insert(SESSION_HEADER, id);
        }
        Ok(response)
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
            Decision::Allow | Decision::AboveCeiling { .. } => {
                tools.find(&call.name).ok_or_else(Refusal::internal)?
            }
            Decision::ScopeMissing { needed } => return Err(self.insufficient_scope(&caller, needed)),
            Decision::NotEntitled | Decision::NoUser | Decision::Unknown => {
                return Err(unknown_tool(&call.name));
            }
        };
        let mirrored = self.mirrored_arguments(tool, call, admitted.era)?;
        let (allowed, ended) = (admitted.decision == Decision::Allow, Arc::clone(&admitted.ended));
        let (status, body) = self.hand_on(message, admitted, mirrored).await?;
        if !allowed {
            return Ok(json_response(status, body)); // no call was made, and the refusal is on record
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{App, NOW, bearer, token};

    /// MCP-01: inside a session an absent header means the negotiated revision, one that is there
    /// means itself; without a session, and for `initialize`, nothing changes.
    #[tokio::test]
    async fn a_session_remembers_its_revision() {
        let app = App::start();
        let header = bearer(&token("docs.read")).parse().unwrap();
        let caller = app.resource.bearer().check(&header, NOW).unwrap();
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
                headers: &headers,
                request: &request,
                began: Instant::now(),
            };
            exchange.in_session(era, &message, &caller).await.unwrap().version()
        };
        assert_eq!(decided("ping", true, None).await, "2025-11-25");
        assert_eq!(decided("ping", true, Some("2025-06-18")).await, "2025-06-18");
        assert_eq!(decided("ping", false, None).await, "2025-03-26");
        assert_eq!(decided("initialize", true, None).await, "2025-06-18");
    }
}
