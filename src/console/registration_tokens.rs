//! `portcullis registration-token …`.

use super::confirm::confirm;
use super::execute;
use super::print::{moment, table, text};
use crate::commands::registration_token::RegistrationToken;
use crate::config::File;
use crate::control::{self, registration_tokens::Request};
use crate::output::{self, note, say};

/// `portcullis registration-token …`.
pub(crate) fn registration_token(command: RegistrationToken, file: &File) -> anyhow::Result<()> {
    let (common, request) = match command {
        RegistrationToken::Add(c) => {
            let lifetime_ms = u64::try_from(c.expires.as_millis()).unwrap_or(u64::MAX);
            (c.common, Request::Add { label: c.label, lifetime_ms })
        }
        RegistrationToken::List(common) => (common, Request::List),
        RegistrationToken::Delete(c) => {
            confirm(c.yes, &format!("The token `{}` will no longer register clients.", c.label))?;
            (c.common, Request::Delete { label: c.label })
        }
    };
    let answer = execute(&common.data.path(file), control::Request::RegistrationToken(request), file)?;
    if common.json {
        output::json(&answer)?;
        return Ok(());
    }
    if let Some(tokens) = answer["registration_tokens"].as_array() {
        table(&["LABEL", "MADE", "WORKS UNTIL", "SHA-256"], tokens, |token| {
            let digest = format!("{}…", text(token, "sha256_8"));
            vec![text(token, "label"), moment(&token["created_at"]), moment(&token["expires_at"]), digest]
        })?;
    } else if let Some(secret) = answer["initial_access_token"].as_str() {
        let until = moment(&answer["registration_token"]["expires_at"]);
        say!("It works until {until}, and is shown this once:\n\n  {secret}")?;
    } else {
        say!("Registration token deleted. It no longer registers clients.")?;
    }
    if answer["needed"] == false {
        note!(
            "\nRegistration does not require a token at the moment: [registration] in portcullis.toml does not say mode = \"token\"."
        );
    }
    Ok(())
}
