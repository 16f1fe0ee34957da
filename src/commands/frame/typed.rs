//! Reads a secret from the terminal without showing it, or from a pipe. Never from the command line, where
//! other users of this computer and the shell's history could see it.

use std::io::{IsTerminal, Read, Stdin};

use anyhow::{Context, bail};
use keys::secrets;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use shared::Secret;

use crate::output;

/// The most bytes that are read.
const MOST: u64 = 64 * 1024;
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACES: [u8; 2] = [8, 127];

/// The secret: typed at a terminal, otherwise all of standard input.
///
/// # Errors
/// If nothing was entered, or the text cannot be sent in a header.
pub(crate) fn secret(prompt: &str) -> anyhow::Result<Secret> {
    let stdin = std::io::stdin();
    let text = if stdin.is_terminal() { typed(&stdin, prompt)? } else { piped(&stdin)? };
    secrets::value(&text).map_err(|why| anyhow::anyhow!("nothing was changed: {why}"))
}

fn piped(stdin: &Stdin) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = stdin.lock().take(MOST).read_to_string(&mut text);
    read.context("the secret on standard input cannot be read")?;
    Ok(text)
}

/// Reads one line key by key. The terminal shows nothing, and its settings are restored after an interrupt.
fn typed(stdin: &Stdin, prompt: &str) -> anyhow::Result<String> {
    output::remark(prompt, "");
    let quiet = Quiet::begin(stdin)?;
    let mut line = Vec::new();
    for byte in stdin.lock().bytes() {
        match byte.context("the terminal cannot be read")? {
            b'\n' | b'\r' | END => break,
            INTERRUPT => bail!("nothing was changed"),
            key if BACKSPACES.contains(&key) => drop(line.pop()),
            key if line.len() < secrets::LONGEST * 2 => line.push(key),
            _ => {}
        }
    }
    drop(quiet);
    output::remark("", "\n");
    String::from_utf8(line).context("nothing was changed: the typed input is not valid text")
}

/// A terminal that does not show typed characters until this is dropped.
struct Quiet<'t>(&'t Stdin, Termios);

impl<'t> Quiet<'t> {
    fn begin(stdin: &'t Stdin) -> anyhow::Result<Self> {
        let before = tcgetattr(stdin).context("the terminal cannot be asked")?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(stdin, OptionalActions::Flush, &quiet)
            .context("the terminal cannot be kept from showing it")?;
        Ok(Self(stdin, before))
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // If it fails, the terminal is gone.
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}
