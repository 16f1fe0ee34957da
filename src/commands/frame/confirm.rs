//! Asking before something is done that no other command brings back.

use std::io::{BufRead, IsTerminal};

use anyhow::bail;

use crate::output::{self, note};

/// Asks whether to go on, unless that was said beforehand.
///
/// # Errors
/// If the answer is no, or nobody is there to answer.
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
