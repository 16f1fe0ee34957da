//! A server in a client's file, and the source that it becomes.

use std::fmt::Write;

use keys::secrets;
use shared::Secret;
use url::Url;

/// Names of the built-in sources.
const TAKEN: [&str; 2] = ["account", "docs"];
/// The longest name of a source.
const LONGEST: usize = 24;
/// Parts of the names of URL parameters that contain secrets.
const SECRETIVE: [&str; 6] = ["key", "token", "secret", "password", "auth", "sig"];

/// A server in a client's file.
pub(super) struct FoundServer {
    pub(super) name: String,
    pub(super) spoken: ServerTransport,
}

/// How a client reaches it.
pub(super) enum ServerTransport {
    Http(Remote),
    Stdio(Program),
    /// It is not taken over, and why.
    Not(String),
}

/// A server that is reached over HTTP.
pub(super) struct Remote {
    pub(super) url: String,
    pub(super) headers: Vec<(String, Template)>,
}

/// A server that is started as a program.
pub(super) struct Program {
    pub(super) command: Template,
    pub(super) args: Vec<Template>,
    pub(super) env: Vec<(String, Template)>,
    pub(super) cwd: Option<Template>,
}

/// A value with placeholders that the client fills in.
#[derive(Clone)]
pub(super) struct Template {
    /// The text before the first placeholder, such as `Bearer`.
    text: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    Literal(String),
    /// An environment variable.
    Variable(String),
    /// A value that the client asks its user for, with the prompt.
    Asked(Option<String>),
    /// A placeholder that only the editor can fill in.
    Other,
}

/// A source, as a table for the configuration, and the secrets that it names.
pub(super) struct PlannedSource {
    pub(super) name: String,
    pub(super) toml: String,
    pub(super) secrets: Vec<NeededSecret>,
}

/// A secret that a table names.
pub(super) struct NeededSecret {
    pub(super) name: String,
    /// Its value, if the file has it.
    pub(super) value: Option<Secret>,
    /// The client's prompt for it.
    pub(super) about: Option<String>,
}

impl Template {
    pub(super) fn literal(text: &str) -> Self {
        Self { text: vec![Part::Literal(text.to_owned())] }
    }

    pub(super) fn variable(name: &str) -> Self {
        Self { text: vec![Part::Variable(name.to_owned())] }
    }

    pub(super) fn bearer_in(variable: &str) -> Self {
        Self { text: vec![Part::Literal("Bearer ".to_owned()), Part::Variable(variable.to_owned())] }
    }

    /// Reads `${NAME}`, `${NAME:-…}`, `${env:NAME}` and `${input:ID}`.
    pub(super) fn parse(text: &str, about: &dyn Fn(&str) -> Option<String>) -> Self {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let Some((inner, after)) = after.split_once('}') else { break };
            if !before.is_empty() {
                parts.push(Part::Literal(before.to_owned()));
            }
            parts.push(Part::of(inner, about));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Self { text: parts }
    }

    /// The text, if it has no placeholder and no control character; `what` it is, for the reason.
    fn plain(&self, what: &str) -> Result<String, String> {
        let whole: Option<String> = self.text.iter().map(Part::literal).collect();
        let whole =
            whole.ok_or_else(|| format!("{what} has a variable in it; write its value there first"))?;
        if whole.contains(char::is_control) {
            return Err(format!("{what} has a line break or another control character in it"));
        }
        Ok(whole)
    }

    /// The same without a leading `Bearer`; `None` if there is none.
    fn bearer(&self) -> Option<Self> {
        let Some(Part::Literal(first)) = self.text.first() else { return None };
        let (scheme, rest) = first.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case("bearer ") {
            return None;
        }
        let literal = (!rest.trim().is_empty()).then(|| Part::Literal(rest.to_owned()));
        Some(Self { text: literal.into_iter().chain(self.text[1..].iter().cloned()).collect() })
    }
}

impl Part {
    fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Variable(_) | Self::Asked(_) | Self::Other => None,
        }
    }

    fn of(inner: &str, about: &dyn Fn(&str) -> Option<String>) -> Self {
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match inner.split_once(':') {
            Some(("input", id)) => Self::Asked(about(id)),
            Some(("env", name)) if is_name(name) => Self::Variable(name.to_owned()),
            // A default would be a secret in a file, so the value is asked for instead.
            Some((name, default)) if is_name(name) && default == "-" => Self::Variable(name.to_owned()),
            Some((name, default)) if is_name(name) && default.starts_with('-') => Self::Other,
            None if is_name(inner) && inner.bytes().any(|b| b.is_ascii_uppercase()) => {
                Self::Variable(inner.to_owned())
            }
            _ => Self::Other,
        }
    }
}

impl PlannedSource {
    /// The source for a server, under a free name.
    ///
    /// # Errors
    /// Why it is left out.
    pub(super) fn of(found: FoundServer, taken: impl Fn(&str) -> bool) -> Result<Self, String> {
        let remote = match found.spoken {
            ServerTransport::Http(remote) => remote,
            ServerTransport::Stdio(program) => return Self::of_program(name(&found.name, taken), &program),
            ServerTransport::Not(why) => return Err(why),
        };
        check(&remote.url)?;
        let name = name(&found.name, taken);
        let mut planned = Self {
            toml: format!("[sources.{name}]\nkind = \"mcp-http\"\nurl = {}\n", quoted(&remote.url)),
            name,
            secrets: Vec::new(),
        };
        let mut headers = String::new();
        for (header, template) in &remote.headers {
            let (key, secret, template) = if header.eq_ignore_ascii_case("authorization") {
                match template.bearer() {
                    Some(token) => ("bearer", planned.name.clone(), token),
                    None => ("authorization", planned.name.clone(), template.clone()),
                }
            } else {
                ("", format!("{}.{}", planned.name, header.to_ascii_lowercase()), template.clone())
            };
            let kept = planned.kept(secret, &template)?;
            if key.is_empty() {
                let _ = write!(
                    headers,
                    "{}{} = {}",
                    if headers.is_empty() { "" } else { ", " },
                    quoted(header),
                    quoted(&kept)
                );
            } else {
                let _ = writeln!(planned.toml, "{key} = {}", quoted(&kept));
            }
        }
        if !headers.is_empty() {
            let _ = writeln!(planned.toml, "headers = {{ {headers} }}");
        }
        Ok(planned)
    }

    /// The source for a program. Nobody knows which of its variables are secrets, so all their values are.
    fn of_program(name: String, program: &Program) -> Result<Self, String> {
        let command = program.command.plain("its command")?;
        let args: Vec<String> =
            program.args.iter().map(|arg| arg.plain("an argument")).collect::<Result<_, _>>()?;
        holds_no_secret(&args)?;
        let mut toml = format!("[sources.{name}]\nkind = \"mcp-stdio\"\ncommand = {}\n", quoted(&command));
        if !args.is_empty() {
            let args: Vec<_> = args.iter().map(|arg| quoted(arg)).collect();
            let _ = writeln!(toml, "args = [{}]", args.join(", "));
        }
        if let Some(cwd) = &program.cwd {
            let _ = writeln!(toml, "cwd = {}", quoted(&cwd.plain("its working directory")?));
        }
        let mut planned = Self { toml, name, secrets: Vec::new() };
        let (mut empty, mut secret) = (Vec::new(), Vec::new());
        for (variable, template) in &program.env {
            if template.text.is_empty() || template.plain("").is_ok_and(|text| text.is_empty()) {
                empty.push(format!("{} = \"\"", quoted(variable)));
                continue;
            }
            let kept =
                planned.kept(format!("{}.{}", planned.name, variable.to_ascii_lowercase()), template)?;
            secret.push(format!("{} = {}", quoted(variable), quoted(&kept)));
        }
        for (key, values) in [("env", empty), ("secrets", secret)] {
            if !values.is_empty() {
                let _ = writeln!(planned.toml, "{key} = {{ {} }}", values.join(", "));
            }
        }
        Ok(planned)
    }

    /// The reference to a secret, as written in the configuration.
    fn kept(&mut self, name: String, template: &Template) -> Result<String, String> {
        let (value, about) = match template.text.as_slice() {
            [Part::Variable(variable)] => return Ok(format!("env:{variable}")),
            [Part::Asked(about)] => (None, about.clone()),
            parts => {
                let whole: Option<String> = parts.iter().map(Part::literal).collect();
                // A value with several parts is asked for as a whole.
                let fit = |text: String| {
                    secrets::value(&text)
                        .map_err(|why| format!("the secret `{name}` cannot be imported: {why}"))
                };
                (whole.map(fit).transpose()?, Some("the whole value".to_owned()))
            }
        };
        let kept = format!("secret:{name}");
        self.secrets.push(NeededSecret { name, value, about });
        Ok(kept)
    }
}

/// Whether the URL can be in the configuration: it must not contain a secret.
fn check(url: &str) -> Result<(), String> {
    if url.contains("${") {
        return Err("its address has a variable in it; write the address there first".to_owned());
    }
    // The parser's message does not repeat the URL, which may contain a secret.
    let url = Url::parse(url).map_err(|why| format!("its address cannot be read: {why}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "its address holds a password; remove it there, and keep it with `portcullis secret set`"
                .to_owned(),
        );
    }
    let secretive = |name: &str| SECRETIVE.iter().any(|part| name.to_ascii_lowercase().contains(part));
    match url.query_pairs().find(|(name, _)| secretive(name)) {
        Some((name, _)) => Err(format!(
            "its address holds a secret (`{name}`), which would stand in the configuration; ask whether the server takes it in a header"
        )),
        None => Ok(()),
    }
}

/// Whether arguments hold no secret: other programs of this computer can read them, and they would stand in the
/// configuration.
fn holds_no_secret(args: &[String]) -> Result<(), String> {
    let advice = "which would stand in the configuration; ask whether the server takes it in its environment";
    for (place, arg) in args.iter().enumerate() {
        if let Ok(url) = Url::parse(arg)
            && url.password().is_some()
        {
            return Err(format!("one of its arguments is an address with a password, {advice}"));
        }
        let (option, value) =
            arg.split_once('=').map_or((arg.as_str(), None), |(option, value)| (option, Some(value)));
        let follows = || args.get(place + 1).is_some_and(|next| !next.starts_with('-'));
        let name = option.trim_start_matches('-').to_ascii_lowercase();
        let is_secretive = ["key", "token", "secret", "password"].iter().any(|part| name.contains(part));
        let is_option = option.starts_with('-') || value.is_some();
        if is_option && is_secretive && (value.is_some() || follows()) {
            return Err(format!("its arguments hold a secret (`{option}`), {advice}"));
        }
    }
    Ok(())
}

/// A valid, free name for the source, similar to this one.
fn name(found: &str, taken: impl Fn(&str) -> bool) -> String {
    let fits =
        |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c) { c } else { '-' };
    let lower: String = found.to_ascii_lowercase().chars().map(fits).collect();
    let lower = lower.trim_matches(['-', '_']);
    let begins = lower.starts_with(|c: char| c.is_ascii_lowercase());
    let whole = if begins { lower.to_owned() } else { format!("mcp-{lower}") };
    let cut = |end: &str| {
        format!("{}{end}", whole[..whole.len().min(LONGEST - end.len())].trim_end_matches(['-', '_']))
    };
    let is_free = |name: &String| !TAKEN.contains(&name.as_str()) && !taken(name);
    let numbered = (2_u32..).map(|number| cut(&format!("-{number}")));
    std::iter::once(cut("")).chain(numbered).find(is_free).unwrap_or_default()
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let visible: String = text.chars().filter(|c| !c.is_control()).collect();
    // A JSON string without control characters is also a TOML string.
    serde_json::Value::from(visible).to_string()
}
