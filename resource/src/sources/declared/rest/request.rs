//! The request that an operation makes of a call's arguments.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use shared::outbound::Outgoing;

use super::Operation;
use super::path::encode;
use crate::item::Arguments;
use crate::sources::declared::param;

/// The longest path with query, in bytes.
const LONGEST: usize = 8 * 1024;

/// # Errors
/// If an argument does not fit into its place, in words for a model.
pub(super) fn of(
    operation: &Operation,
    prefix: &str,
    arguments: &Arguments,
    who: &[(HeaderName, HeaderValue)],
) -> Result<Outgoing, String> {
    let value = |name: &str| param::find(&operation.params, name, arguments);
    let mut path = format!("{prefix}{}", operation.path.filled(|name| value(name).map(param::text))?);
    let mut mark = '?';
    for (name, slot) in &operation.query {
        let Some(text) = slot.value(&operation.params, arguments) else { continue };
        path.push(mark);
        encode(name, &mut path);
        path.push('=');
        encode(&text, &mut path);
        mark = '&';
    }
    if path.len() > LONGEST {
        return Err(format!(
            "The arguments make an address of more than {LONGEST} bytes; send shorter ones."
        ));
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("portcullis"));
    for (name, slot) in &operation.headers {
        let Some(text) = slot.value(&operation.params, arguments) else { continue };
        headers.insert(
            name,
            visible(&text).ok_or_else(|| {
                let argument = slot.argument().unwrap_or(name.as_str());
                format!("`{argument}` must be visible ASCII on one line: it is sent in a header.")
            })?,
        );
    }
    let body = operation.body.as_ref().map(|body| body.filled(&value).to_string());
    if body.is_some() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    // What says who asks comes last, so that no declared header takes its place.
    for (name, value) in who {
        headers.insert(name.clone(), value.clone());
    }
    Ok(Outgoing {
        method: operation.method.clone(),
        path,
        headers,
        body: body.unwrap_or_default().into(),
        repeatable: matches!(operation.method, Method::GET | Method::HEAD),
    })
}

/// A header's value: printable ASCII, so that no line ends early and no server reads it in two ways.
fn visible(text: &str) -> Option<HeaderValue> {
    let fits = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    fits.then(|| HeaderValue::from_str(text).ok())?
}
