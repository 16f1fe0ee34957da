//! What a request asks for, out of the few things that there are (MCP-06). A method that is not
//! named here is never handed on.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::era::Era;
use super::message::Message;
use super::refusal::{INVALID_PARAMS, METHOD_NOT_FOUND, Refusal};

/// A request that is understood.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Call {
    /// `server/discover`, modern.
    Discover,
    /// `initialize`, legacy.
    Initialize,
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
    pub(crate) arguments: Map<String, Value>,
}

impl Call {
    /// Reads what a request asks for.
    pub(crate) fn of(message: &Message, era: Era) -> Result<Self, Refusal> {
        let modern = era == Era::Modern;
        match message.method.as_str() {
            "server/discover" if modern => Ok(Self::Discover),
            "initialize" if !modern => Ok(Self::Initialize),
            "ping" if !modern => Ok(Self::Ping),
            "tools/list" => list(message),
            "tools/call" => call(message),
            _ => Err(not_found(modern)),
        }
    }

    /// The method's name.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Discover => "server/discover",
            Self::Initialize => "initialize",
            Self::Ping => "ping",
            Self::Tools => "tools/list",
            Self::Tool(_) => "tools/call",
        }
    }

    /// The tool's name.
    pub(crate) fn tool(&self) -> Option<&str> {
        match self {
            Self::Tool(call) => Some(&call.name),
            _ => None,
        }
    }

    /// The request, written anew from what was understood (MCP-07): members that were not looked at
    /// are not in it.
    pub(crate) fn rewritten(&self, message: &Message) -> Value {
        let mut params = Map::new();
        match self {
            Self::Tool(call) => {
                params.insert("name".to_owned(), call.name.as_str().into());
                params.insert("arguments".to_owned(), call.arguments.clone().into());
            }
            Self::Initialize => {
                for member in ["protocolVersion", "capabilities", "clientInfo"] {
                    if let Some(value) = message.params.get(member) {
                        params.insert(member.to_owned(), value.clone());
                    }
                }
            }
            Self::Discover | Self::Ping | Self::Tools => {}
        }
        if let Some(meta) = message.params.get("_meta") {
            params.insert("_meta".to_owned(), meta.clone());
        }
        json!({ "jsonrpc": "2.0", "id": message.id, "method": self.method(), "params": params })
    }
}

fn list(message: &Message) -> Result<Call, Refusal> {
    // One page holds them all, so no cursor is one of ours.
    match message.params.get("cursor") {
        None | Some(Value::Null) => Ok(Call::Tools),
        Some(_) => Err(invalid("`cursor` is not one that this server gave out")),
    }
}

fn call(message: &Message) -> Result<Call, Refusal> {
    let Some(Value::String(name)) = message.params.get("name") else {
        return Err(invalid("`name` must be a string"));
    };
    let arguments = match message.params.get("arguments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments.clone(),
        Some(_) => return Err(invalid("`arguments` must be an object")),
    };
    // They would answer a question of ours, and no tool asks any (MCP-13).
    for member in ["inputResponses", "requestState"] {
        if message.params.get(member).is_some_and(|value| !value.is_null()) {
            return Err(invalid(&format!("`{member}` answers nothing that this server asked")));
        }
    }
    Ok(Call::Tool(ToolCall { name: name.clone(), arguments }))
}

fn invalid(message: &str) -> Refusal {
    Refusal::bad_request(INVALID_PARAMS, format!("Invalid params: {message}"))
}

fn not_found(modern: bool) -> Refusal {
    let status = if modern { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Refusal::new(status, METHOD_NOT_FOUND, "Method not found")
}
