//! The configuration of a running server, read anew: what it says, its digest, and what of it cannot change while the
//! server runs (POL-04).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use openssl::sha::sha256;

use super::file::{self, File};
use super::given::Given;
use super::keys::Text;

/// Where a server's configuration comes from.
#[derive(Clone, Default, Debug)]
pub struct Origin {
    /// The file that was named; else it is looked for.
    pub named: Option<PathBuf>,
    /// What the command line and the environment say, which counts more.
    pub given: Given,
}

/// What a server runs with, and where it came from.
#[derive(Clone, Default, Debug)]
pub struct Running {
    pub origin: Origin,
    pub reading: Reading,
}

/// One reading of it.
#[derive(Clone, Default, Debug)]
pub struct Reading {
    pub file: File,
    /// The SHA-256 of the file's text, in hexadecimal; `None` if there is no file.
    pub digest: Option<String>,
    /// Where its keys stand.
    places: BTreeMap<String, String>,
}

/// A reading that came to nothing, with the digest of what was read, as far as there was anything.
#[derive(Debug)]
pub struct Unreadable {
    pub digest: Option<String>,
    pub why: anyhow::Error,
}

impl Origin {
    /// Reads it.
    ///
    /// # Errors
    /// Whatever is wrong with the file, with its name and the line.
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

/// Where each key of the file stands.
fn places(path: &Path, text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let text = Text::new(path, text);
    let table = text.parse()?;
    Ok(text.keys(&table)?.iter().map(|key| (key.name.to_owned(), key.at())).collect())
}

impl Reading {
    /// What differs in a later reading and can only be taken up by a restart, in words.
    pub fn needs_restart(&self, later: &Self) -> Option<String> {
        let fixed = self.file.fixed(&later.file);
        let key = fixed.first()?;
        let restart =
            "cannot change while the server runs; restart it. Nothing else in the file was taken up either";
        Some(match later.places.get(*key) {
            Some(at) => format!("`{key}` at {at} {restart}"),
            None => format!("`{key}` is no longer in the file, and {restart}"),
        })
    }

    /// The keys of which a later reading says something else.
    pub fn changes(&self, later: &Self) -> Vec<&'static str> {
        self.file.changed(&later.file)
    }
}
