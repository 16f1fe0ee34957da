//! All output of the program. It escapes strangers' text for terminals, completes offered commands with their
//! options, and treats a full or closed output as an error without a panic.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use rustix::fs::{FileType, OFlags};
use serde::Serialize;
use shared::terminal;

use crate::hints;

/// Prints lines on standard output; an error if that fails.
macro_rules! say {
    () => { $crate::output::print(format_args!("")) };
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}
pub(crate) use say;

/// Prints lines on standard error, ignoring errors.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::remark(&format!($($text)*), "\n") };
}
pub(crate) use note;

/// See [`say`].
///
/// # Errors
/// If standard output is full or closed.
pub(crate) fn print(text: Arguments<'_>) -> anyhow::Result<()> {
    write(&(lines(&hints::complete(&text.to_string())) + "\n"))
}

/// Prints a value as one line of JSON on standard output.
///
/// # Errors
/// If standard output is full or closed.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let document = serde_json::to_string(value)?;
    write(&(terminal::safe_json(&document).into_owned() + "\n"))
}

/// Prints clap's text unchanged: it has no text of strangers.
///
/// # Errors
/// If standard output is full or closed.
pub(crate) fn help(text: &str) -> anyhow::Result<()> {
    write(text)
}

/// Whether the command has changed something.
static CHANGED: AtomicBool = AtomicBool::new(false);

/// The command has changed something, which stays if its answer cannot be printed.
pub(crate) fn changed() {
    CHANGED.store(true, Ordering::Relaxed);
}

/// Refuses to go on if nobody reads what is printed, for commands whose answer is shown once.
///
/// At its start the Rust runtime opens `/dev/null` for reading and writing in place of a closed standard output; a caller that
/// discards the output on purpose opens it for writing alone.
///
/// # Errors
/// If standard output is closed.
pub(crate) fn require_reader() -> anyhow::Result<()> {
    let stdout = io::stdout();
    let is_null = rustix::fs::fstat(&stdout).is_ok_and(|stat| {
        let null = rustix::fs::stat("/dev/null").map(|null| null.st_rdev);
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && null == Ok(stat.st_rdev)
    });
    let is_ours = rustix::fs::fcntl_getfl(&stdout).is_ok_and(|flags| flags.contains(OFlags::RDWR));
    anyhow::ensure!(
        !(is_null && is_ours),
        "standard output is closed, and the answer is shown only once; nothing was done. Run the command where its output can be read"
    );
    Ok(())
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    // Flush here, where the error is handled: at the end of the process it would be ignored.
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.context(if CHANGED.load(Ordering::Relaxed) {
        "cannot write to standard output; the command's changes stay in effect: `portcullis audit tail` shows them"
    } else {
        "cannot write to standard output"
    })
}

/// Prints on standard error; errors are ignored, because there is no other output.
pub(crate) fn remark(text: &str, end: &str) {
    let _ = io::stderr().lock().write_all((lines(&hints::complete(text)) + end).as_bytes());
}

/// Lines that a terminal only displays.
fn lines(text: &str) -> String {
    text.split('\n').map(terminal::safe).collect::<Vec<_>>().join("\n")
}

/// The format of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Text,
    Json,
}

/// The destination of the log. Each write is one event on one line; other parties' text in it must not control
/// a terminal, and an unreadable log must not stop the server.
#[derive(Debug)]
pub(crate) struct Log<W> {
    pub(crate) format: Format,
    pub(crate) to: W,
}

impl<W: Write> Write for Log<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.format {
            Format::Text => terminal::safe(line),
            Format::Json => terminal::safe_json(line),
        };
        let _ = self.to.write_all((line.into_owned() + "\n").as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
