//! Commands inside messages. They are completed with the `--config` and `--data-dir` of the current command, so
//! that they can be copied.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::{ArgMatches, Command};
use shared::shell;

/// The beginning of a command.
const PROGRAM: &str = "portcullis ";

static GIVEN: OnceLock<GivenPaths> = OnceLock::new();

/// The paths given to the program.
#[derive(Debug, Default)]
struct GivenPaths {
    config: Option<String>,
    data_dir: Option<String>,
    /// All commands.
    commands: Command,
}

/// Stores the paths of this process; printed commands are completed with them.
pub(crate) fn remember(commands: Command, matches: &ArgMatches) {
    let mut given = GivenPaths { commands, ..GivenPaths::default() };
    let mut level = Some(matches);
    while let Some(matches) = level {
        let path = |id| matches.try_get_one::<PathBuf>(id).ok().flatten().map(|path| option(path));
        given.config = path("config").or(given.config);
        given.data_dir = path("data_dir").or(given.data_dir);
        level = matches.subcommand().map(|(_, deeper)| deeper);
    }
    // A second call, as in tests, changes nothing.
    let _ = GIVEN.set(given);
}

/// The path, quoted for a shell in any directory.
fn option(path: &Path) -> String {
    shell::word(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy())
}

/// The text with every command in it completed.
pub(crate) fn complete(text: &str) -> Cow<'_, str> {
    match GIVEN.get() {
        Some(given) if given.config.is_some() || given.data_dir.is_some() => given.complete(text),
        _ => Cow::Borrowed(text),
    }
}

impl GivenPaths {
    fn complete<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut completed = String::new();
        let mut rest = text;
        while let Some(found) = rest.find(PROGRAM) {
            let (before, command) = rest.split_at(found);
            let begins = !before.ends_with(|c: char| c.is_alphanumeric() || "-_./".contains(c));
            let (length, options) =
                if begins { self.options(command) } else { (PROGRAM.len(), String::new()) };
            completed.push_str(before);
            completed.push_str(&command[..length]);
            if !command[length..].starts_with(&options) {
                completed.push_str(&options);
            }
            rest = &command[length..];
        }
        if completed.is_empty() {
            return Cow::Borrowed(text);
        }
        completed.push_str(rest);
        Cow::Owned(completed)
    }

    /// The length of the command's name at the start of the text, and its additional options.
    fn options(&self, text: &str) -> (usize, String) {
        let mut command = &self.commands;
        let mut length = PROGRAM.len();
        loop {
            let word = text[length..].split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next();
            let Some(deeper) = word.and_then(|word| command.find_subcommand(word)) else { break };
            (command, length) = (deeper, length + deeper.get_name().len());
            match text[length..].strip_prefix(' ') {
                Some(_) if deeper.has_subcommands() => length += 1,
                _ => break,
            }
        }
        let named = !std::ptr::eq(command, &raw const self.commands);
        if !named || command.has_subcommands() {
            return (length, String::new());
        }
        let takes_data_dir = command.get_arguments().any(|argument| argument.get_id() == "data_dir");
        let data_dir = self.data_dir.as_ref().filter(|_| takes_data_dir);
        let all = [("--config", self.config.as_ref()), ("--data-dir", data_dir)];
        let options = all.map(|(name, path)| path.map(|path| format!(" {name} {path}")).unwrap_or_default());
        (length, options.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> GivenPaths {
        let commands = crate::commands::command();
        let matches = commands.clone().try_get_matches_from(arguments).unwrap();
        let mut given = GivenPaths { commands, ..GivenPaths::default() };
        let leaf = matches.subcommand().unwrap().1;
        let leaf = leaf.subcommand().map_or(leaf, |(_, deeper)| deeper);
        let path = |id: &str| leaf.get_one::<PathBuf>(id).map(|path| option(path));
        (given.config, given.data_dir) = (path("config"), path("data_dir"));
        given
    }

    #[test]
    fn a_command_carries_what_its_message_was_given() {
        let both =
            given(&["portcullis", "user", "list", "--config", "/etc/p.toml", "--data-dir", "/srv/my data"]);
        let options = "--config /etc/p.toml --data-dir '/srv/my data'";
        for (text, completed) in [
            ("`portcullis user list` shows all", format!("`portcullis user list {options}` shows all")),
            ("portcullis setup-link", format!("portcullis setup-link {options}")),
            ("portcullis user link ada", format!("portcullis user link {options} ada")),
            ("portcullis client new-secret", "portcullis client new-secret --config /etc/p.toml".to_owned()),
            ("portcullis client catalogue list.", format!("portcullis client catalogue list {options}.")),
            ("portcullis: portcullis check, then", format!("portcullis: portcullis check {options}, then")),
        ] {
            assert_eq!(both.complete(text), completed);
            assert_eq!(both.complete(&completed), completed, "completed twice");
        }
        for same in [
            "portcullis.toml",
            "Portcullis 1 is ready",
            "the portcullis user guide",
            "my-portcullis user list",
            "portcullis user",
        ] {
            assert_eq!(both.complete(same), same);
        }
    }

    #[test]
    fn nothing_is_added_that_was_not_given() {
        let none = given(&["portcullis", "setup-link"]);
        assert_eq!(none.complete("portcullis setup-link"), "portcullis setup-link");
    }
}
