//! Asking for confirmation before an irreversible command.

use std::io::{BufRead, IsTerminal};

use anyhow::bail;

use crate::output::{self, note};

/// Asks for confirmation, unless it was given as an option.
///
/// # Errors
/// If the answer is no, or there is no terminal.
pub(crate) fn confirm(yes: bool, warning: &str) -> anyhow::Result<()> {
    if !warning.is_empty() {
        note!("{warning}");
    }
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nothing was done: no terminal to ask on; use --yes to continue without being asked");
    }
    output::remark("Go on? [y/N] ", "");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("nothing was done") }
}
