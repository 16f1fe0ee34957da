//! A running server's configuration, read again: its content, its digest, and which changes need a restart
//! (POL-04).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use openssl::sha::sha256;

use super::file::{self, File};
use super::given::CommandLineOptions;
use super::keys::Text;

/// The source of a server's configuration.
#[derive(Clone, Default, Debug)]
pub struct Origin {
    /// The named file; `None` to look for one.
    pub named: Option<PathBuf>,
    /// What the command line and the environment say, which counts more.
    pub given: CommandLineOptions,
}

/// A running server's configuration and its source.
#[derive(Clone, Default, Debug)]
pub struct Running {
    pub origin: Origin,
    pub reading: Reading,
}

/// One reading of the configuration.
#[derive(Clone, Default, Debug)]
pub struct Reading {
    pub file: File,
    /// The SHA-256 of the file in hexadecimal; `None` without a file.
    pub digest: Option<String>,
    /// The file and line of each key.
    places: BTreeMap<String, String>,
}

/// A failed reading, with the digest of the file if it could be read.
#[derive(Debug)]
pub struct Unreadable {
    pub digest: Option<String>,
    pub why: anyhow::Error,
}

impl Origin {
    /// Reads the configuration.
    ///
    /// # Errors
    /// The error in the file, with its name and the line.
    pub fn read(&self) -> Result<Reading, Unreadable> {
        let found = file::read(self.named.as_deref()).map_err(|why| Unreadable { digest: None, why })?;
        let Some((path, text)) = found else {
            let file = File::default().under(&self.given);
            return Ok(Reading { file, digest: None, places: BTreeMap::new() });
        };
        let digest = Some(HEXLOWER.encode(&sha256(text.as_bytes())));
        match (File::parse(&path, &text), places(&path, &text)) {
            (Ok(file), Ok(places)) => Ok(Reading { file: file.under(&self.given), digest, places }),
            (Err(why), _) | (_, Err(why)) => Err(Unreadable { digest, why }),
        }
    }
}

/// The file and line of each key.
fn places(path: &Path, text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let text = Text::new(path, text);
    let table = text.parse()?;
    Ok(text.keys(&table)?.iter().map(|key| (key.name.to_owned(), key.at())).collect())
}

impl Reading {
    /// The changes in a later reading that need a restart, in words.
    pub fn needs_restart(&self, later: &Self) -> Option<String> {
        let fixed = self.file.fixed(&later.file);
        let key = fixed.first()?;
        let restart =
            "cannot change while the server runs; restart it. Nothing else in the file was applied either";
        // A key of a table is where its table is.
        let table = key.split_once('.').map_or(*key, |(table, _)| table);
        Some(match later.places.get(table) {
            Some(at) => format!("`{key}` at {at} {restart}"),
            None => format!("`{key}` is no longer in the file, and {restart}"),
        })
    }

    /// The keys that a later reading changes.
    pub fn changes(&self, later: &Self) -> Vec<&'static str> {
        self.file.changed(&later.file)
    }
}
