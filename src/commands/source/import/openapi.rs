//! `portcullis source import openapi FILE`: the operations of an OpenAPI 3 description as tools of a `kind = "rest"` source
//! (REST-01). It is a beginning to edit: an API has more operations than a model should see.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use super::LeftOut;

/// The most operations of one description.
const MOST: usize = 200;
/// The longest name of a tool, which leaves room for the source's.
const LONGEST_NAME: usize = 39;
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The tables, and what has no place in them.
pub(super) struct Described {
    pub(super) toml: String,
    pub(super) left_out: Vec<LeftOut>,
}

/// Reads a description.
///
/// # Errors
/// If it is not OpenAPI 3 in JSON, or has nothing that can be a tool.
pub(super) fn read(path: &Path, text: &str, name: &str) -> anyhow::Result<Described> {
    let document: Value = serde_json::from_str(text).with_context(|| {
        format!("{} is not JSON; convert a description in YAML to JSON first", path.display())
    })?;
    if !document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")) {
        bail!("{} is not an OpenAPI 3 description; convert older ones (Swagger 2) first", path.display());
    }
    let url = document["servers"][0]["url"].as_str().filter(|url| url.starts_with("http"));
    let mut toml =
        format!("[sources.{name}]\nkind = \"rest\"\nurl = {}\n", quoted(url.unwrap_or("https://HOST")));
    let (mut left_out, mut taken) = (Vec::new(), Vec::new());
    let paths = document["paths"].as_object().into_iter().flatten();
    let all = paths.flat_map(|(path, item)| METHODS.iter().map(move |method| (path, item, *method)));
    for (path, item, method) in all.filter(|(_, item, method)| item[*method].is_object()).take(MOST) {
        let operation = Operation { document: &document, path, item, method };
        match operation.table(name, &mut taken) {
            Ok(table) => toml.push_str(&table),
            Err(why) => left_out.push(LeftOut { name: format!("{} {path}", method.to_uppercase()), why }),
        }
    }
    if taken.is_empty() {
        bail!("{} describes no operation that can be a tool", path.display());
    }
    Ok(Described { toml, left_out })
}

struct Operation<'d> {
    document: &'d Value,
    path: &'d str,
    item: &'d Value,
    method: &'d str,
}

impl<'d> Operation<'d> {
    /// Its table, or why it cannot be a tool.
    fn table(&self, source: &str, taken: &mut Vec<String>) -> Result<String, String> {
        let described = &self.item[self.method];
        let name = self.name(taken);
        let mut table = format!("\n[sources.{source}.tools.{name}]\n");
        let text =
            ["summary", "description"].map(|member| described[member].as_str().unwrap_or_default().trim());
        let description = if text[0].is_empty() { text[1] } else { text[0] };
        let description = if description.is_empty() {
            format!("{} {}", self.method.to_uppercase(), self.path)
        } else {
            description.to_owned()
        };
        let _ = writeln!(table, "description = {}", quoted(&description));
        if self.method != "get" {
            let _ = writeln!(table, "method = \"{}\"", self.method.to_uppercase());
        }
        let _ = writeln!(table, "path = {}", quoted(self.path));
        let (mut query, mut params) = (Vec::new(), String::new());
        for param in self.parameters() {
            let (Some(name), place) = (param["name"].as_str(), param["in"].as_str().unwrap_or_default())
            else {
                continue;
            };
            let required = param["required"] == true;
            match (place, self.param(name, &param["schema"], required, param["description"].as_str())) {
                ("path", Some(line)) => params.push_str(&line),
                ("query", Some(line)) => {
                    query.push(format!("{} = \"{{{name}}}\"", key(name)));
                    params.push_str(&line);
                }
                _ if required => return Err(format!("its argument `{name}` cannot be written as one")),
                _ => {}
            }
        }
        if !query.is_empty() {
            let _ = writeln!(table, "query = {{ {} }}", query.join(", "));
        }
        self.body(described, &mut table, &mut params)?;
        taken.push(name);
        Ok(table + &params)
    }

    /// A JSON body whose members are arguments.
    fn body(&self, described: &Value, table: &mut String, params: &mut String) -> Result<(), String> {
        let body = self.resolved(&described["requestBody"]);
        if !body.is_object() {
            return Ok(());
        }
        let schema = self.resolved(&body["content"]["application/json"]["schema"]);
        let Some(properties) = schema["properties"].as_object() else {
            return if body["required"] == true {
                Err("its body is not a JSON object with named members".to_owned())
            } else {
                Ok(())
            };
        };
        if self.method == "get" {
            return Err("it has a body, which GET does not carry".to_owned());
        }
        let required =
            |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
        let mut members = Vec::new();
        for (name, property) in properties {
            if params.contains(&format!("params.{} =", key(name))) {
                return Err(format!("two of its arguments are called `{name}`"));
            }
            match self.param(name, property, required(name), property["description"].as_str()) {
                Some(line) => {
                    members.push(format!("{} = \"{{{name}}}\"", key(name)));
                    params.push_str(&line);
                }
                None if required(name) => {
                    return Err(format!("the member `{name}` of its body is not a text, number or boolean"));
                }
                None => {}
            }
        }
        let _ = writeln!(table, "body = {{ {} }}", members.join(", "));
        Ok(())
    }

    /// `params.NAME`; `None` if its type is not one that arguments have.
    fn param(&self, name: &str, schema: &Value, required: bool, description: Option<&str>) -> Option<String> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        let schema = self.resolved(schema);
        let kind = schema["type"].as_str().unwrap_or("string");
        if !["string", "integer", "number", "boolean"].contains(&kind)
            || !name.bytes().all(fits)
            || name.is_empty()
        {
            return None;
        }
        let mut members = vec![format!("type = \"{kind}\"")];
        if let Some(description) = description.filter(|text| !text.trim().is_empty()) {
            members.push(format!("description = {}", quoted(description)));
        }
        if !required {
            members.push("required = false".to_owned());
        }
        if kind == "string"
            && let Some(choices) = schema["enum"].as_array()
            && let Some(choices) = choices.iter().map(Value::as_str).collect::<Option<Vec<_>>>()
        {
            members
                .push(format!("in = [{}]", choices.into_iter().map(quoted).collect::<Vec<_>>().join(", ")));
        }
        if kind == "integer" {
            for (member, bound) in [("min", "minimum"), ("max", "maximum")] {
                members.extend(schema[bound].as_i64().map(|bound| format!("{member} = {bound}")));
            }
        }
        Some(format!("params.{} = {{ {} }}\n", key(name), members.join(", ")))
    }

    /// The parameters of the path, and the operation's own, which take their places.
    fn parameters(&self) -> Vec<&'d Value> {
        let own = self.item[self.method]["parameters"].as_array().into_iter().flatten();
        let mut all: Vec<&Value> = own.map(|param| self.resolved(param)).collect();
        for param in
            self.item["parameters"].as_array().into_iter().flatten().map(|param| self.resolved(param))
        {
            if !all.iter().any(|known| known["name"] == param["name"] && known["in"] == param["in"]) {
                all.push(param);
            }
        }
        all
    }

    /// What a reference within the document leads to, in one step.
    fn resolved(&self, value: &'d Value) -> &'d Value {
        let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        pointer.and_then(|pointer| self.document.pointer(pointer)).unwrap_or(value)
    }

    fn name(&self, taken: &[String]) -> String {
        let id = self.item[self.method]["operationId"].as_str();
        let text = id.map_or_else(|| format!("{}{}", self.method, self.path), str::to_owned);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = text.chars().map(plain).take(LONGEST_NAME).collect();
        let name = name.trim_matches('_').to_owned();
        let numbered = (2..)
            .map(|number| format!("{}_{number}", name.chars().take(LONGEST_NAME - 4).collect::<String>()));
        std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(name)
    }
}

/// A TOML key.
fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if name.bytes().all(bare) { name.to_owned() } else { quoted(name) }
}

/// A TOML text on one line.
fn quoted(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    Value::from(line.split_whitespace().collect::<Vec<_>>().join(" ")).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::File;

    fn described(document: &Value) -> anyhow::Result<Described> {
        read(Path::new("api.json"), &document.to_string(), "api")
    }

    /// REST-01: an API's operations become tools that the configuration accepts; what cannot be one is named with the reason.
    #[test]
    fn operations_become_tools() {
        let described = described(&json!({
            "openapi": "3.0.3", "servers": [{ "url": "https://git.lab.internal/api/v1" }],
            "components": {
                "parameters": { "owner": { "name": "owner", "in": "path", "required": true, "schema": { "type": "string" } } },
                "schemas": { "Issue": { "type": "object", "required": ["title"], "properties": {
                    "title": { "type": "string", "description": "The \"title\"\nof it" }, "closed": { "type": "boolean" }, "labels": { "type": "array" } } } },
            },
            "paths": {
                "/repos/{owner}/issues": {
                    "parameters": [{ "$ref": "#/components/parameters/owner" }],
                    "get": { "operationId": "issues.list", "summary": "Lists issues", "parameters": [
                        { "name": "state", "in": "query", "schema": { "type": "string", "enum": ["open", "closed"] } },
                        { "name": "page", "in": "query", "schema": { "type": "integer", "minimum": 1 } },
                        { "name": "X-Odd", "in": "header", "schema": { "type": "string" } } ] },
                    "post": { "operationId": "issues.create", "requestBody": { "required": true, "content": {
                        "application/json": { "schema": { "$ref": "#/components/schemas/Issue" } } } } },
                },
                "/upload": { "post": { "requestBody": { "required": true, "content": { "multipart/form-data": {} } } } },
                "/by/{ids}": { "get": { "parameters": [{ "name": "ids", "in": "path", "required": true, "schema": { "type": "array" } }] } },
            },
        }))
        .unwrap();
        let file = File::parse(Path::new("p.toml"), &described.toml).unwrap();
        assert_eq!(
            file.declared["api"].tool_names(),
            ["api_issues_list", "api_issues_create"],
            "{}",
            described.toml
        );
        assert!(
            described.toml.contains("body = { title = \"{title}\", closed = \"{closed}\" }"),
            "{}",
            described.toml
        );
        assert!(
            described.toml.contains(
                "params.state = { type = \"string\", required = false, in = [\"open\", \"closed\"] }"
            )
        );
        let left_out: Vec<_> = described.left_out.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(left_out, ["POST /upload", "GET /by/{ids}"]);
    }

    /// REST-01: what is not such a description is refused with what to do.
    #[test]
    fn other_files_are_refused() {
        for (document, says) in [
            (json!({ "swagger": "2.0" }), "convert older ones"),
            (json!({ "openapi": "3.1.0", "paths": {} }), "no operation that can be a tool"),
            (json!([]), "is not an OpenAPI 3 description"),
        ] {
            assert!(format!("{:#}", described(&document).err().unwrap()).contains(says), "{document}");
        }
        assert!(
            format!("{:#}", read(Path::new("a.yaml"), "openapi: 3.0.0", "api").err().unwrap())
                .contains("YAML")
        );
    }
}
