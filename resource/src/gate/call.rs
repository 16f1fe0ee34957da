//! What a request asks for, out of the few things that there are (MCP-06). A method that is not
//! named here is never handed on.

use http::StatusCode;
use serde_json::{Map, Value};

use super::era::Era;
use super::refusal::{INVALID_PARAMS, METHOD_NOT_FOUND, Refusal};
use crate::item::Arguments;

/// The method that calls a tool.
pub(crate) const CALL_TOOL: &str = "tools/call";

/// A request that is understood.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Call {
    /// `server/discover`, modern.
    Discover,
    /// `initialize`, legacy, with its parameters.
    Initialize(Map<String, Value>),
    /// `ping`, legacy.
    Ping,
    /// `tools/list`.
    Tools,
    /// `tools/call`.
    Tool(ToolCall),
}

/// Which tool is called, and what with.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    pub(crate) arguments: Arguments,
}

impl Call {
    /// Reads what a request asks for. Members that nobody looks at go no further (MCP-07).
    pub(crate) fn of(method: &str, params: Map<String, Value>, era: Era) -> Result<Self, Refusal> {
        let modern = era == Era::Modern;
        match method {
            "server/discover" if modern => Ok(Self::Discover),
            "initialize" if !modern => Ok(Self::Initialize(initialize(params))),
            "ping" if !modern => Ok(Self::Ping),
            "tools/list" => list(&params),
            CALL_TOOL => call(params),
            _ => Err(not_found(modern)),
        }
    }
}

/// The parameters of `initialize` that are read.
fn initialize(mut params: Map<String, Value>) -> Map<String, Value> {
    params.retain(|name, _| {
        ["protocolVersion", "capabilities", "clientInfo", "_meta"].contains(&name.as_str())
    });
    params
}

fn list(params: &Map<String, Value>) -> Result<Call, Refusal> {
    // One page holds them all, so no cursor is one of ours.
    match params.get("cursor") {
        None | Some(Value::Null) => Ok(Call::Tools),
        Some(_) => Err(invalid("`cursor` was not issued by this server")),
    }
}

fn call(mut params: Map<String, Value>) -> Result<Call, Refusal> {
    let Some(Value::String(name)) = params.remove("name") else {
        return Err(invalid("`name` must be a string"));
    };
    let arguments = match params.remove("arguments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(invalid("`arguments` must be an object")),
    };
    // They would answer a question of ours, and no tool asks any (MCP-13).
    for member in ["inputResponses", "requestState"] {
        if params.get(member).is_some_and(|value| !value.is_null()) {
            return Err(invalid(&format!("`{member}` does not answer a request from this server")));
        }
    }
    Ok(Call::Tool(ToolCall { name, arguments: arguments.into() }))
}

fn invalid(message: &str) -> Refusal {
    Refusal::bad_request(INVALID_PARAMS, format!("Invalid params: {message}"))
}

fn not_found(modern: bool) -> Refusal {
    let status = if modern { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Refusal::new(status, METHOD_NOT_FOUND, "Method not found")
}
