//! The closed set of supported requests (MCP-06). Other methods are refused.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::era::Era;
use super::refusal::{INVALID_PARAMS, METHOD_NOT_FOUND, Refusal};
use crate::admission::{Completing, ItemRequest};
use crate::item::{Arguments, Kind};

pub(crate) const CALL_TOOL: &str = "tools/call";
pub(crate) const GET_PROMPT: &str = "prompts/get";
pub(crate) const READ_RESOURCE: &str = "resources/read";
pub(crate) const COMPLETE: &str = "completion/complete";

/// A parsed request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Call {
    /// `server/discover`, modern.
    Discover,
    /// `initialize`, legacy, with its parameters.
    Initialize(Map<String, Value>),
    /// `ping`, legacy.
    Ping,
    /// The items of a kind; the cursor says after which one.
    List(Kind, Option<String>),
    /// Something that is done with one item.
    Item(ItemCall),
}

/// What is wanted of which item.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ItemCall {
    pub(crate) method: &'static str,
    pub(crate) kind: Kind,
    /// A name, or a URI as it was sent, or a template.
    pub(crate) name: String,
    pub(crate) asked: ItemRequest,
}

impl Call {
    /// Parses a request. Members that are not used are dropped (MCP-07).
    pub(crate) fn of(method: &str, params: Map<String, Value>, era: Era) -> Result<Self, Refusal> {
        let modern = era == Era::Modern;
        match method {
            "server/discover" if modern => Ok(Self::Discover),
            "initialize" if !modern => Ok(Self::Initialize(initialize(params))),
            "ping" if !modern => Ok(Self::Ping),
            "tools/list" => list(Kind::Tool, params),
            "prompts/list" => list(Kind::Prompt, params),
            "resources/list" => list(Kind::Resource, params),
            "resources/templates/list" => list(Kind::Template, params),
            CALL_TOOL => call(params),
            GET_PROMPT => prompt(params),
            READ_RESOURCE => read(params),
            COMPLETE => complete(params),
            _ => Err(not_found(modern)),
        }
    }
}

/// The parameters of `initialize` that are used.
fn initialize(mut params: Map<String, Value>) -> Map<String, Value> {
    params.retain(|name, _| {
        ["protocolVersion", "capabilities", "clientInfo", "_meta"].contains(&name.as_str())
    });
    params
}

fn list(kind: Kind, mut params: Map<String, Value>) -> Result<Call, Refusal> {
    match params.remove("cursor") {
        None | Some(Value::Null) => Ok(Call::List(kind, None)),
        Some(Value::String(cursor)) => Ok(Call::List(kind, Some(cursor))),
        Some(_) => Err(unknown_cursor()),
    }
}

/// A cursor that no list of ours has named.
pub(super) fn unknown_cursor() -> Refusal {
    invalid("`cursor` was not issued by this server")
}

fn call(mut params: Map<String, Value>) -> Result<Call, Refusal> {
    let name = text(&mut params, "name")?;
    let arguments = arguments(&mut params)?;
    answers_nothing(&params)?;
    Ok(Call::Item(ItemCall {
        method: CALL_TOOL,
        kind: Kind::Tool,
        name,
        asked: ItemRequest::Call(Arc::new(arguments.into())),
    }))
}

fn prompt(mut params: Map<String, Value>) -> Result<Call, Refusal> {
    let name = text(&mut params, "name")?;
    let arguments = arguments(&mut params)?;
    // MCP prompts: `arguments?: { [key: string]: string }`
    if !arguments.values().all(Value::is_string) {
        return Err(invalid("`arguments` of a prompt must be strings"));
    }
    answers_nothing(&params)?;
    let arguments: Arguments = arguments.into();
    Ok(Call::Item(ItemCall {
        method: GET_PROMPT,
        kind: Kind::Prompt,
        name,
        asked: ItemRequest::Call(Arc::new(arguments)),
    }))
}

fn read(mut params: Map<String, Value>) -> Result<Call, Refusal> {
    let name = text(&mut params, "uri")?;
    answers_nothing(&params)?;
    Ok(Call::Item(ItemCall { method: READ_RESOURCE, kind: Kind::Resource, name, asked: ItemRequest::Read }))
}

fn complete(mut params: Map<String, Value>) -> Result<Call, Refusal> {
    let Some(Value::Object(mut reference)) = params.remove("ref") else {
        return Err(invalid("`ref` must be an object"));
    };
    let (kind, member) = match reference.get("type").and_then(Value::as_str) {
        Some("ref/prompt") => (Kind::Prompt, "name"),
        Some("ref/resource") => (Kind::Template, "uri"),
        _ => return Err(invalid("`ref.type` must be \"ref/prompt\" or \"ref/resource\"")),
    };
    let name = text(&mut reference, member)?;
    let completing =
        Completing { name: name.clone(), argument: typed(&mut params)?, context: context(&mut params)? };
    Ok(Call::Item(ItemCall {
        method: COMPLETE,
        kind,
        name,
        asked: ItemRequest::Complete(Arc::new(completing)),
    }))
}

/// The argument that is being typed.
fn typed(params: &mut Map<String, Value>) -> Result<Value, Refusal> {
    let Some(Value::Object(mut argument)) = params.remove("argument") else {
        return Err(invalid("`argument` must be an object"));
    };
    let (name, value) = (text(&mut argument, "name")?, text(&mut argument, "value")?);
    Ok(json!({ "name": name, "value": value }))
}

/// The arguments before it, which are text.
fn context(params: &mut Map<String, Value>) -> Result<Option<Value>, Refusal> {
    let mut context = match params.remove("context") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(invalid("`context` must be an object")),
    };
    let arguments = arguments(&mut context)?;
    if !arguments.values().all(Value::is_string) {
        return Err(invalid("`context.arguments` must be strings"));
    }
    Ok(Some(json!({ "arguments": arguments })))
}

fn text(params: &mut Map<String, Value>, member: &str) -> Result<String, Refusal> {
    match params.remove(member) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(invalid(&format!("`{member}` must be a string"))),
    }
}

fn arguments(params: &mut Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    match params.remove("arguments") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(arguments)) => Ok(arguments),
        Some(_) => Err(invalid("`arguments` must be an object")),
    }
}

/// These members would answer a question of ours, and none is asked yet (MCP-13).
fn answers_nothing(params: &Map<String, Value>) -> Result<(), Refusal> {
    for member in ["inputResponses", "requestState"] {
        if params.get(member).is_some_and(|value| !value.is_null()) {
            return Err(invalid(&format!("`{member}` does not answer a request from this server")));
        }
    }
    Ok(())
}

fn invalid(message: &str) -> Refusal {
    Refusal::bad_request(INVALID_PARAMS, format!("Invalid params: {message}"))
}

fn not_found(modern: bool) -> Refusal {
    let status = if modern { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Refusal::new(status, METHOD_NOT_FOUND, "Method not found")
}
