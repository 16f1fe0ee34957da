//! The contents of the folder, read through a handle that cannot lead outside.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _};

use super::DocsError;
use super::section::Kind;

/// The deepest nesting of folders.
const MAX_DEPTH: usize = 32;
/// The most documents.
const MAX_FILES: usize = 200_000;
/// The largest document in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Where the documents are.
#[derive(Clone, Debug)]
pub enum Folder {
    /// In the program itself: paths and texts.
    Handbook(&'static [(&'static str, &'static str)]),
    /// On disk.
    Directory(PathBuf),
}

/// An open folder.
pub(super) enum Root {
    Handbook(&'static [(&'static str, &'static str)]),
    Directory(Dir),
}

/// A document that was found, not yet read.
#[derive(Debug)]
pub(super) struct FoundDocument {
    pub path: String,
    pub kind: Kind,
    pub stamp: Stamp,
}

/// A fingerprint that tells whether a file is unchanged without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub size: i64,
    /// Nanoseconds since 1970; `None` if only reading can tell.
    pub modified: Option<i64>,
    /// Properties that cannot be set: the inode's change time (`ctime`), and which file it is. A folder that a
    /// link is switched to may have the same names, sizes and times.
    pub identity: Option<Identity>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// Nanoseconds since 1970.
    pub changed: i64,
    pub device: i64,
    pub inode: i64,
}

/// Why a file is not in the index.
#[derive(Debug, thiserror::Error)]
pub(super) enum Skip {
    #[error("it is larger than {} MiB", MAX_BYTES >> 20)]
    Large,
    #[error("it holds binary data")]
    Binary,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is UTF-16; save it as UTF-8")]
    Utf16,
    #[error("it is UTF-32; save it as UTF-8")]
    Utf32,
    #[error("it is not a regular file")]
    NotRegular,
    #[error("its name is not printable text")]
    Name,
    #[error("it is more than {MAX_DEPTH} folders deep")]
    Deep,
    #[error("there are more than {MAX_FILES} documents")]
    Many,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Folder {
    /// Identifies the folder: an index of another one is not used.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::Handbook(_) => "handbook".to_owned(),
            Self::Directory(path) => {
                // Not canonicalised: a link that is switched from release to release is one folder.
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!("folder {}", path.to_string_lossy())
            }
        }
    }

    /// Checks that it can be read.
    ///
    /// # Errors
    /// [`DocsError::Folder`] if not.
    pub fn check(&self) -> Result<(), DocsError> {
        self.root().map(drop)
    }

    /// Opens it again, so that a replaced folder is used.
    pub(super) fn root(&self) -> Result<Root, DocsError> {
        match self {
            Self::Handbook(pages) => Ok(Root::Handbook(pages)),
            Self::Directory(path) => open_root(path).map(Root::Directory),
        }
    }
}

fn open_root(path: &Path) -> Result<Dir, DocsError> {
    let listed = Dir::open_ambient_dir(path, cap_std::ambient_authority()).and_then(|dir| {
        dir.entries()?;
        Ok(dir)
    });
    listed.map_err(|error| {
        let problem = match error.kind() {
            io::ErrorKind::NotFound => "the folder does not exist".to_owned(),
            io::ErrorKind::NotADirectory => "it is not a folder".to_owned(),
            io::ErrorKind::PermissionDenied => "this user cannot read it".to_owned(),
            _ => error.to_string(),
        };
        DocsError::Folder { path: path.to_owned(), problem }
    })
}

impl Root {
    /// Everything in the folder that may be a document, and how many other things there are.
    pub(super) fn walk(&self, warned: &mut Warned) -> (Vec<FoundDocument>, u32) {
        match self {
            Self::Handbook(pages) => {
                let found = |(path, text): &(&str, &str)| FoundDocument {
                    path: (*path).to_owned(),
                    kind: Kind::of(path).unwrap_or(Kind::Text),
                    stamp: built_in(text),
                };
                (pages.iter().map(found).collect(), 0)
            }
            Self::Directory(dir) => {
                let mut walk = Walk { dir, warned, found: Vec::new(), skipped: 0, seen: HashSet::new() };
                walk.run();
                (walk.found, walk.skipped)
            }
        }
    }

    /// The text of a document, and its fingerprint as of before reading.
    pub(super) fn read(&self, path: &str) -> Result<(String, Stamp), Skip> {
        match self {
            Self::Handbook(pages) => {
                let (_, text) = pages
                    .iter()
                    .find(|(p, _)| *p == path)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                Ok(((*text).to_owned(), built_in(text)))
            }
            Self::Directory(dir) => read(dir, path),
        }
    }

    /// Device and inode: whether the folder's path still leads to the same folder.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        match self {
            Self::Handbook(_) => None,
            Self::Directory(dir) => dir.dir_metadata().ok().map(|m| (m.dev(), m.ino())),
        }
    }
}

fn read(dir: &Dir, path: &str) -> Result<(String, Stamp), Skip> {
    let mut options = OpenOptions::new();
    // A pipe in place of a file must not block the scan.
    options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = dir.open_with(path, &options)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Skip::NotRegular);
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Skip::Large);
    }
    let text = text(bytes)?;
    let text = text.strip_prefix('\u{feff}').map(ToOwned::to_owned).unwrap_or(text);
    Ok((text, stamp(&metadata)))
}

/// Decodes bytes as UTF-8, the only supported encoding.
fn text(bytes: Vec<u8>) -> Result<String, Skip> {
    if bytes.starts_with(&[0xff, 0xfe, 0, 0]) || bytes.starts_with(&[0, 0, 0xfe, 0xff]) {
        return Err(Skip::Utf32);
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || is_utf16(&bytes) {
        return Err(Skip::Utf16);
    }
    if bytes.contains(&0) {
        return Err(Skip::Binary);
    }
    String::from_utf8(bytes).map_err(|_| Skip::NotUtf8)
}

/// Whether bytes look like UTF-16 without a byte order mark: many zeros, all at even or all at odd positions.
fn is_utf16(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(4096)];
    let zeros = |from: usize| head.iter().skip(from).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    bytes.len().is_multiple_of(2) && even.min(odd) == 0 && even.max(odd) > head.len() / 4
}

fn stamp(metadata: &Metadata) -> Stamp {
    let nanoseconds = |seconds: i64, rest: i64| seconds.checked_mul(1_000_000_000)?.checked_add(rest);
    let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
    Stamp {
        size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
        modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        identity: changed.map(|changed| Identity {
            changed,
            device: metadata.dev().cast_signed(),
            inode: metadata.ino().cast_signed(),
        }),
    }
}

fn built_in(text: &str) -> Stamp {
    Stamp { size: i64::try_from(text.len()).unwrap_or(i64::MAX), modified: None, identity: None }
}

struct Walk<'a> {
    dir: &'a Dir,
    warned: &'a mut Warned,
    found: Vec<FoundDocument>,
    skipped: u32,
    /// Device and inode of everything seen: a link to something already seen is not another document, and
    /// circular links end.
    seen: HashSet<(u64, u64)>,
}

/// Links are followed after everything else was seen.
#[derive(Default)]
struct Waiting {
    folders: VecDeque<(String, usize)>,
    links: Vec<(String, usize)>,
}

impl Walk<'_> {
    fn run(&mut self) {
        let mut waiting = Waiting::default();
        waiting.folders.push_back((String::new(), 0));
        if let Ok(metadata) = self.dir.dir_metadata() {
            self.seen.insert((metadata.dev(), metadata.ino()));
        }
        loop {
            while let Some((folder, depth)) = waiting.folders.pop_front() {
                if self.found.len() >= MAX_FILES {
                    return self.skip(&folder, &Skip::Many);
                }
                if let Err(error) = self.folder(&folder, depth, &mut waiting) {
                    self.skip(&folder, &error.into());
                }
            }
            if waiting.links.is_empty() {
                return;
            }
            let mut links = std::mem::take(&mut waiting.links);
            links.sort();
            for (link, depth) in links {
                if let Err(skip) = self.link(&link, depth, &mut waiting) {
                    self.skip(&link, &skip);
                }
            }
        }
    }

    fn folder(&mut self, folder: &str, depth: usize, waiting: &mut Waiting) -> io::Result<()> {
        let entries =
            if folder.is_empty() { self.dir.entries()? } else { self.dir.open_dir(folder)?.entries()? };
        let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(cap_std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let lossy = name.to_string_lossy();
            let path = if folder.is_empty() { lossy.to_string() } else { format!("{folder}/{lossy}") };
            if lossy.starts_with('.') {
                self.skipped += 1;
            } else if name.to_str().is_none_or(|name| name.contains(char::is_control)) {
                self.skip(&path, &Skip::Name);
            } else {
                let result = match entry.file_type() {
                    Ok(kind) if kind.is_symlink() => {
                        waiting.links.push((path.clone(), depth));
                        Ok(())
                    }
                    Ok(_) => {
                        entry.metadata().map_err(Skip::Io).and_then(|m| self.entry(&path, depth, &m, waiting))
                    }
                    Err(error) => Err(error.into()),
                };
                if let Err(skip) = result {
                    self.skip(&path, &skip);
                }
            }
        }
        Ok(())
    }

    /// A link is followed beneath the folder's handle; one that leads outside is an error there.
    fn link(&mut self, path: &str, depth: usize, waiting: &mut Waiting) -> Result<(), Skip> {
        let metadata = self.dir.metadata(path)?;
        if self.seen.contains(&(metadata.dev(), metadata.ino())) {
            self.skipped += 1;
            return Ok(());
        }
        self.entry(path, depth, &metadata, waiting)
    }

    fn entry(
        &mut self,
        path: &str,
        depth: usize,
        metadata: &Metadata,
        waiting: &mut Waiting,
    ) -> Result<(), Skip> {
        if metadata.is_dir() {
            if depth >= MAX_DEPTH {
                return Err(Skip::Deep);
            }
            self.seen.insert((metadata.dev(), metadata.ino()));
            waiting.folders.push_back((path.to_owned(), depth + 1));
            return Ok(());
        }
        if !metadata.is_file() {
            return Err(Skip::NotRegular);
        }
        let Some(kind) = Kind::of(path) else {
            self.skipped += 1; // a picture, a program: nothing to tell
            return Ok(());
        };
        if metadata.len() > MAX_BYTES {
            return Err(Skip::Large);
        }
        if self.found.len() >= MAX_FILES {
            return Err(Skip::Many);
        }
        self.seen.insert((metadata.dev(), metadata.ino()));
        self.found.push(FoundDocument { path: path.to_owned(), kind, stamp: stamp(metadata) });
        Ok(())
    }

    fn skip(&mut self, path: &str, why: &Skip) {
        self.skipped += 1;
        self.warned.skip(path, why);
    }
}

/// A warning is not repeated: scans run every minute.
#[derive(Default)]
pub(super) struct Warned {
    before: HashSet<String>,
    now: HashSet<String>,
}

impl Warned {
    /// Begins a new scan; warnings that do not occur again are forgotten.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    pub(super) fn skip(&mut self, path: &str, why: &Skip) {
        let about = if matches!(why, Skip::Many) { "" } else { path };
        let told = format!("{about}: {why}");
        if !self.before.contains(&told) && !self.now.contains(&told) {
            tracing::warn!(docs.path = ?path, docs.why = %why, "not indexed");
        }
        self.now.insert(told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DOCS-02: the reason names the encoding, so that the file can be fixed.
    #[test]
    fn encodings_are_named() {
        let utf16 = |text: &str, big: bool| -> Vec<u8> {
            let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
            text.encode_utf16().flat_map(bytes).collect()
        };
        let why = |bytes: Vec<u8>| text(bytes).unwrap_err().to_string();
        for big in [false, true] {
            for words in ["\u{feff}# Guide\r\n", "# Guide without its mark", "\u{feff}設定"] {
                assert_eq!(why(utf16(words, big)), "it is UTF-16; save it as UTF-8", "{words} {big}");
            }
        }
        assert_eq!(why(vec![0xff, 0xfe, 0, 0, b'#', 0, 0, 0]), "it is UTF-32; save it as UTF-8");
        assert_eq!(why(vec![0, 0, 0xfe, 0xff, 0, 0, 0, b'#']), "it is UTF-32; save it as UTF-8");
        for binary in [&b"\x7fELF\0\0\0\x01\0\x02"[..], b"text with a NUL\0 in it", b"\0", b"\0\0\0\0"] {
            assert_eq!(why(binary.to_vec()), "it holds binary data", "{binary:?}");
        }
        assert_eq!(why(b"Gr\xfc\xdfe".to_vec()), "it is not UTF-8");
        assert_eq!(text("\u{feff}Grüße".into()).unwrap(), "\u{feff}Grüße");
        assert_eq!(text(Vec::new()).unwrap(), "");
    }
}
