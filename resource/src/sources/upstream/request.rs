//! What an upstream is sent for an item: written again from what was authorized, and nothing of what a client sent beside it
//! (MCP-07).

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::admission::{Ask, AskKind, Completing};
use crate::item::{Kind, Offer};
use crate::sources::mcp::mirror;
use crate::sources::mcp::request::{Headers, Request};

/// The request for what is asked, by this definition of the item.
pub(super) fn of<'a>(ask: &'a Ask, offer: &'a Offer) -> Request<'a> {
    let name = || Value::from(&*offer.at_source);
    let (method, params, item) = match ask.what() {
        AskKind::Tool(_, arguments) => {
            let mirrored = mirror::written(arguments, &offer.mirrored);
            let params = format!(r#""name":{},"arguments":{}"#, name(), arguments.value());
            ("tools/call", params, Headers { name: Some(&offer.at_source), mirrored })
        }
        AskKind::Prompt(_, arguments) => {
            let params = format!(r#""name":{},"arguments":{}"#, name(), arguments.value());
            ("prompts/get", params, named(&offer.at_source))
        }
        AskKind::Resource(_, uri) => {
            ("resources/read", format!(r#""uri":{}"#, Value::from(&**uri)), named(uri))
        }
        AskKind::Completion(_, completing) => {
            ("completion/complete", completion(offer, completing), Headers::default())
        }
    };
    let memory = Some(Arc::clone(ask.memory()));
    Request { method, params, item: Some(item), most: ask.most(), memory, deadline: ask.deadline() }
}

fn named(name: &str) -> Headers<'_> {
    Headers { name: Some(name), mirrored: Vec::new() }
}

fn completion(offer: &Offer, completing: &Completing) -> String {
    let reference = match offer.kind {
        Kind::Tool | Kind::Prompt => json!({ "type": "ref/prompt", "name": &*offer.at_source }),
        // A URI as it was sent, or a template, which has one form only.
        Kind::Resource | Kind::Template => json!({ "type": "ref/resource", "uri": completing.name }),
    };
    let mut params = format!(r#""ref":{reference},"argument":{}"#, completing.argument);
    if let Some(context) = &completing.context {
        let _ = write!(params, r#","context":{context}"#);
    }
    params
}
