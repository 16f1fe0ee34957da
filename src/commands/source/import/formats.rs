//! The files in which clients configure their MCP servers, as of November 2026: `mcpServers` of Claude Code and
//! Cursor, `servers` with `inputs` of VS Code, `[mcp_servers.NAME]` of Codex.

use std::path::Path;

use anyhow::{anyhow, bail};
use serde_json::{Map, Value};

use super::entry::{FoundServer, Program, Remote, ServerTransport, Template};
use super::jsonc;
use crate::config::toml_as_json;

/// The servers in a file.
pub(super) fn read(path: &Path, text: &str) -> anyhow::Result<Vec<FoundServer>> {
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    if is_toml { codex(path, text) } else { json(path, text) }
}

fn codex(path: &Path, text: &str) -> anyhow::Result<Vec<FoundServer>> {
    let file = toml_as_json(path, text)?;
    let Some(servers) = file["mcp_servers"].as_object() else {
        bail!("{} has no [mcp_servers.NAME], where Codex keeps its servers", path.display());
    };
    let found = |(name, server): (&String, &Value)| {
        let spoken = if server["enabled"] == false {
            ServerTransport::Not("it is switched off there (enabled = false)".to_owned())
        } else if let Some(url) = server["url"].as_str() {
            let mut headers = pairs(&server["http_headers"], Template::literal);
            headers.extend(pairs(&server["env_http_headers"], Template::variable));
            if let Some(variable) = server["bearer_token_env_var"].as_str() {
                headers.push(("Authorization".to_owned(), Template::bearer_in(variable)));
            }
            ServerTransport::Http(Remote { url: url.to_owned(), headers })
        } else {
            // Variables that Codex passes on.
            let names = server["env_vars"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let passed = names.map(|name| (name.to_owned(), Template::variable(name))).collect();
            program(server, Template::literal, passed)
        };
        FoundServer { name: name.clone(), spoken }
    };
    Ok(servers.iter().map(found).collect())
}

fn json(path: &Path, text: &str) -> anyhow::Result<Vec<FoundServer>> {
    // The parser's message would repeat content of the file.
    let file: Value = serde_json::from_str(&jsonc::plain(text)).map_err(|error| {
        anyhow!("{} is not JSON (line {}, column {})", path.display(), error.line(), error.column())
    })?;
    let places = [&file["mcpServers"], &file["servers"], &file["mcp"]["servers"]];
    let Some(servers) = places.into_iter().find_map(Value::as_object) else {
        bail!(
            "{} has neither `mcpServers` (Claude Code, Cursor) nor `servers` (VS Code); a file of Codex ends in .toml",
            path.display()
        );
    };
    let inputs = [&file["inputs"], &file["mcp"]["inputs"]].into_iter().find_map(Value::as_array);
    let inputs = inputs.map(Vec::as_slice).unwrap_or_default();
    let about = |id: &str| {
        let input = inputs.iter().find(|input| input["id"] == id)?;
        input["description"].as_str().map(str::to_owned)
    };
    let found = |(name, server): (&String, &Value)| FoundServer {
        name: name.clone(),
        spoken: spoken(server, &about),
    };
    Ok(servers.iter().map(found).collect())
}

fn spoken(server: &Value, about: &dyn Fn(&str) -> Option<String>) -> ServerTransport {
    if server["disabled"] == true {
        return ServerTransport::Not("it is switched off there (disabled)".to_owned());
    }
    let local = || program(server, |text| Template::parse(text, about), Vec::new());
    let Some(url) = server["url"].as_str().or(server["serverUrl"].as_str()) else { return local() };
    match server["type"].as_str() {
        None | Some("http" | "streamable-http" | "streamableHttp") => {}
        Some("sse") => {
            return ServerTransport::Not(
                "it uses the older HTTP+SSE transport, which is not supported; ask for its streamable HTTP address"
                    .to_owned(),
            );
        }
        Some("stdio") => return local(),
        Some(_) => return ServerTransport::Not("its `type` is not known here".to_owned()),
    }
    if server["headersHelper"].is_string() {
        return ServerTransport::Not(
            "a program makes its headers (headersHelper), which cannot be imported".to_owned(),
        );
    }
    let headers = pairs(&server["headers"], |text| Template::parse(text, about));
    ServerTransport::Http(Remote { url: url.to_owned(), headers })
}

/// A server that the client starts, with variables that it passes on.
fn program(
    server: &Value,
    template: impl Fn(&str) -> Template,
    passed: Vec<(String, Template)>,
) -> ServerTransport {
    let Some(command) = server["command"].as_str() else {
        return ServerTransport::Not("it has neither an address nor a command".to_owned());
    };
    if server["envFile"].is_string() {
        return ServerTransport::Not(
            "its variables are in a file (envFile), which is not read; write them into `env` there"
                .to_owned(),
        );
    }
    let args = server["args"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(args) = args.iter().map(|arg| arg.as_str().map(&template)).collect() else {
        return ServerTransport::Not("one of its arguments is not a string".to_owned());
    };
    let mut env = pairs(&server["env"], &template);
    env.extend(passed);
    ServerTransport::Stdio(Program {
        command: template(command),
        args,
        env,
        cwd: server["cwd"].as_str().map(template),
    })
}

fn pairs(table: &Value, template: impl Fn(&str) -> Template) -> Vec<(String, Template)> {
    let none = Map::new();
    let table = table.as_object().unwrap_or(&none);
    table.iter().filter_map(|(name, value)| Some((name.clone(), template(value.as_str()?)))).collect()
}
