//! Updates the index: new, changed and removed files since the last scan.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::folder::{FoundDocument, Root, Skip, Stamp, Warned};
use super::index::{self, IndexedFile, Write};
use super::section::Document;
use super::{Docs, DocsError};

/// The files in one transaction.
const BATCH_FILES: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;
/// A file that changed less than this ago may change again without another time stamp.
const SETTLED: Duration = Duration::from_secs(2);
const TELL_FILES: usize = 1_000;
const TELL_EVERY: Duration = Duration::from_secs(2);

/// The result of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: u32,
    pub changed: u32,
    pub removed: u32,
    /// Entries that are not documents: hidden, too large, not text, or leading outside.
    pub skipped: u32,
}

impl Changes {
    /// Whether the index was changed.
    pub fn any(&self) -> bool {
        self.added + self.changed + self.removed > 0
    }
}

/// State from one scan to the next. It is lost at a restart, which makes some files be read again.
#[derive(Default)]
pub(super) struct Scanned {
    warned: Warned,
    /// Files that are not text.
    unfit: HashMap<String, Stamp>,
}

impl Docs {
    /// Checks every file by size and time, reads those that may have changed, and updates the index. Searches
    /// continue meanwhile. Must not be called from an async task.
    ///
    /// # Errors
    /// [`DocsError::Folder`] if the folder is missing: the index stays as it was.
    pub fn scan(&self) -> Result<Changes, DocsError> {
        self.scan_until(&|| false)
    }

    /// Like [`Docs::scan`], but ends early when `stop` returns true.
    pub(super) fn scan_until(&self, stop: &dyn Fn() -> bool) -> Result<Changes, DocsError> {
        let mut scanned = self.scanned.lock().unwrap_or_else(PoisonError::into_inner);
        let root = self.folder.root()?;
        scanned.warned.begin();
        let mut scan = Scan {
            docs: self,
            root: &root,
            known: self.db.read(index::known)?,
            changes: Changes::default(),
            batch: Vec::new(),
            bytes: 0,
        };
        let result = scan.run(&mut scanned, stop);
        // Changes made before an error count too.
        if scan.changes.any() {
            self.generation.send_modify(|generation| *generation += 1);
        }
        result.map(|()| scan.changes)
    }
}

struct Scan<'a> {
    docs: &'a Docs,
    root: &'a Root,
    /// What the index holds and the folder has not yet been seen to hold.
    known: HashMap<String, IndexedFile>,
    changes: Changes,
    batch: Vec<Write>,
    bytes: usize,
}

impl Scan<'_> {
    fn run(&mut self, scanned: &mut Scanned, stop: &dyn Fn() -> bool) -> Result<(), DocsError> {
        let (found, skipped) = self.root.walk(&mut scanned.warned);
        self.changes.skipped = skipped;
        let total = found.len();
        let mut told = (0, Instant::now());
        let unfit = std::mem::take(&mut scanned.unfit);
        for (i, file) in found.into_iter().enumerate() {
            if stop() {
                return self.flush(); // nothing is removed: not everything was seen
            }
            let done = self.changes.added + self.changes.changed;
            if done as usize >= told.0 + TELL_FILES || (done > 0 && told.1.elapsed() > TELL_EVERY) {
                told = (done as usize, Instant::now());
                tracing::info!(docs.seen = i, docs.total = total, docs.indexed = done, "indexing documents");
            }
            if unfit.get(&file.path) == Some(&file.stamp) {
                self.changes.skipped += 1;
                scanned.unfit.insert(file.path, file.stamp);
            } else {
                self.file(file, scanned)?;
            }
        }
        let gone: Vec<Write> = self.known.drain().map(|(_, known)| Write::Remove(known.id)).collect();
        self.changes.removed += u32::try_from(gone.len()).unwrap_or(u32::MAX);
        for write in gone {
            self.write(write, 0)?;
        }
        self.flush()
    }

    fn file(&mut self, file: FoundDocument, scanned: &mut Scanned) -> Result<(), DocsError> {
        let known = self.known.remove(&file.path);
        if known.as_ref().is_some_and(|k| k.stamp == file.stamp && file.stamp.modified.is_some()) {
            return Ok(());
        }
        let (text, stamp) = match self.root.read(&file.path) {
            Ok(read) => read,
            Err(why) => {
                self.changes.skipped += 1;
                scanned.warned.skip(&file.path, &why);
                if let Some(known) = known {
                    self.changes.removed += 1;
                    self.write(Write::Remove(known.id), 0)?;
                }
                // A file that could not be opened may become readable without another fingerprint.
                if !matches!(why, Skip::Io(_)) {
                    scanned.unfit.insert(file.path, file.stamp);
                }
                return Ok(());
            }
        };
        let stamp = self.settled(stamp);
        let hash = Sha256::digest(text.as_bytes()).to_vec();
        match &known {
            Some(known) if known.hash == hash => {
                if known.stamp != stamp {
                    self.write(Write::Restamp(known.id, stamp), 0)?;
                }
                return Ok(());
            }
            Some(_) => self.changes.changed += 1,
            None => self.changes.added += 1,
        }
        let document = Document::parse(&file.path, file.kind, &text);
        self.write(Write::put(file.path, stamp, hash, document, known.map(|k| k.id)), text.len())
    }

    /// Drops a time so recent that a second change might have the same.
    fn settled(&self, stamp: Stamp) -> Stamp {
        // File times come from the machine's clock, right or wrong.
        let latest = (self.docs.clock.wall() - SETTLED).0;
        Stamp { modified: stamp.modified.filter(|ns| ns / 1_000_000 < latest), ..stamp }
    }

    fn write(&mut self, write: Write, bytes: usize) -> Result<(), DocsError> {
        self.batch.push(write);
        self.bytes += bytes;
        if self.batch.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DocsError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        Ok(self.docs.db.write_blocking(move |tx| index::apply(tx, &batch))?)
    }
}
