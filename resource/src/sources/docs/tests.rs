use std::os::unix::fs::symlink;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

mod scans;
mod search;
mod text;

/// A folder, another folder outside of it, and an index.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(place.folder()).unwrap();
        std::fs::create_dir_all(place.outside()).unwrap();
        std::fs::write(place.outside().join("secret.md"), "# Outside\n\ntopsecret\n").unwrap();
        for (path, text) in files {
            place.put(path, text);
        }
        place
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("docs")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn index(&self) -> PathBuf {
        self.dir.path().join("docs.db")
    }

    fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.folder().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn try_open(&self) -> Result<Docs, DocsError> {
        Docs::open(&self.index(), Folder::Directory(self.folder()), &Clock::system())
    }

    fn open(&self) -> Docs {
        self.try_open().unwrap()
    }
}

fn paths(docs: &Docs, query: &str) -> Vec<String> {
    docs.search(query, None, None).unwrap().into_iter().map(|hit| hit.path).collect()
}

fn all(docs: &Docs) -> Vec<String> {
    docs.list(None, None).unwrap().documents.into_iter().map(|d| d.path).collect()
}

fn changes(added: u32, changed: u32, removed: u32, skipped: u32) -> Changes {
    Changes { added, changed, removed, skipped }
}

const GUIDE: &str = "# Guide\n\nWelcome.\n\n## Install\n\nFetch the binary.\n\n### Linux\n\nRun `portcullis serve` as a unit.\n\n### macOS\n\nDrag it.\n\n## Linuxes\n\nOther ones.\n";

// --- Refusals ---

#[test]
fn a_missing_folder_is_one_clear_error() {
    let place = Place::new(&[]);
    let open = |path: PathBuf| Docs::open(&place.index(), Folder::Directory(path), &Clock::system());
    let missing = open(place.dir.path().join("nowhere")).err().unwrap().to_string();
    assert!(missing.starts_with("--docs ") && missing.contains("the folder does not exist"), "{missing}");
    let file = open(place.outside().join("secret.md")).err().unwrap().to_string();
    assert!(file.starts_with("--docs ") && file.contains("it is not a folder"), "{file}");
    assert!(!place.index().exists(), "no index is made for no folder");
}

#[test]
fn no_path_leads_outside() {
    let place = Place::new(&[("guide.md", GUIDE)]);
    let docs = place.open();
    let absolute = place.outside().join("secret.md");
    for path in [
        "../outside/secret.md",
        "x/../../outside/secret.md",
        "./guide.md",
        "/etc/passwd",
        absolute.to_str().unwrap(),
        "%2e%2e/outside/secret.md",
        "..%2foutside%2fsecret.md",
        "..\\outside\\secret.md",
        "guide.md\0",
        "guide.md/",
        "guide.md/../../outside/secret.md",
        "",
        ".",
        "..",
        "/",
        "guide.md' OR '1'='1",
    ] {
        let answer = docs.read(path, None, None, None);
        assert!(matches!(answer, Err(ReadError::UnknownPath { .. })), "{path:?}: {answer:?}");
        assert_eq!(docs.search("Outside", None, Some(path)).unwrap(), [], "{path:?}");
    }
    assert_eq!(docs.list(Some("../"), None).unwrap().total, 0);
}

#[test]
fn links_that_lead_outside_are_skipped() {
    let place = Place::new(&[("guide.md", GUIDE)]);
    let folder = place.folder();
    symlink(place.outside().join("secret.md"), folder.join("absolute.md")).unwrap();
    symlink("../outside/secret.md", folder.join("relative.md")).unwrap();
    symlink("../outside", folder.join("dir")).unwrap();
    symlink("/etc", folder.join("etc")).unwrap();
    symlink("/proc/self/root", folder.join("magic")).unwrap();
    symlink("../docs/../outside/secret.md", folder.join("round.md")).unwrap();
    symlink("nowhere.md", folder.join("broken.md")).unwrap();
    symlink("self.md", folder.join("self.md")).unwrap();
    let docs = place.open();
    assert_eq!(all(&docs), ["guide.md"]);
    assert_eq!(docs.scan().unwrap(), changes(0, 0, 0, 8));
    assert_eq!(paths(&docs, "topsecret"), [""; 0]);
}

#[test]
fn a_file_that_becomes_a_link_outside_is_never_followed() {
    let place = Place::new(&[("a.md", "harmless"), ("d/b.md", "harmless too")]);
    let docs = place.open();
    std::fs::remove_file(place.folder().join("a.md")).unwrap();
    symlink(place.outside().join("secret.md"), place.folder().join("a.md")).unwrap();
    std::fs::remove_dir_all(place.folder().join("d")).unwrap();
    symlink(place.outside(), place.folder().join("d")).unwrap();
    // Before the next scan: the indexed text, not the path's new target.
    assert_eq!(docs.read("a.md", None, None, None).unwrap().text, "harmless");
    assert!(docs.read("d/secret.md", None, None, None).is_err());
    assert_eq!(docs.scan().unwrap(), changes(0, 0, 2, 2));
    assert!(docs.read("a.md", None, None, None).is_err());
    assert_eq!(paths(&docs, "topsecret"), [""; 0]);
}

/// A link is switched between listing and reading.
#[test]
fn a_link_swapped_in_during_a_scan_is_refused_by_the_handle() {
    let place = Place::new(&[("a.md", "harmless"), ("d/secret.md", "harmless too")]);
    let root = Folder::Directory(place.folder()).root().unwrap();
    let (found, _) = root.walk(&mut folder::Warned::default());
    assert_eq!(found.len(), 2);
    std::fs::remove_file(place.folder().join("a.md")).unwrap();
    symlink(place.outside().join("secret.md"), place.folder().join("a.md")).unwrap();
    std::fs::rename(place.folder().join("d"), place.dir.path().join("gone")).unwrap();
    symlink("../outside", place.folder().join("d")).unwrap();
    for path in ["a.md", "d/secret.md", "../outside/secret.md", "/etc/passwd"] {
        assert!(root.read(path).is_err(), "{path}");
    }
}

#[test]
fn pipes_and_folders_with_the_name_of_a_document_hold_nothing_up() {
    let place = Place::new(&[("guide.md", GUIDE), ("folder.md/inner.md", "inner")]);
    let pipe = place.folder().join("pipe.md");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let docs = place.open();
    assert_eq!(all(&docs), ["folder.md/inner.md", "guide.md"]);
    let root = Folder::Directory(place.folder()).root().unwrap();
    assert!(matches!(root.read("pipe.md"), Err(folder::Skip::NotRegular)));
    assert!(root.read("folder.md").is_err());
}

#[test]
fn other_files_are_skipped_and_counted() {
    let place =
        Place::new(&[("guide.md", GUIDE), (".hidden.md", "x"), (".git/readme.md", "x"), ("a.png", "x")]);
    place.put("latin.txt", b"caf\xe9 au lait");
    place.put("binary.md", b"text\0text");
    place.put("huge.md", "word ".repeat(1 << 20));
    place.put("line\nbreak.md", "x");
    let mut deep = PathBuf::new();
    deep.extend(std::iter::repeat_n("d", 40));
    place.put(deep.join("deep.md").to_str().unwrap(), "x");
    let docs = place.open();
    assert_eq!(all(&docs), ["guide.md"]);
    for _ in 0..2 {
        assert_eq!(docs.scan().unwrap(), changes(0, 0, 0, 8));
    }
    // Each of these can be fixed.
    place.put("latin.txt", "café au lait");
    assert_eq!(docs.scan().unwrap(), changes(1, 0, 0, 7));
    // A document can become unreadable.
    place.put("guide.md", b"\xff\xfe");
    assert_eq!(docs.scan().unwrap(), changes(0, 0, 1, 8));
}

#[test]
fn links_in_a_circle_end() {
    let place = Place::new(&[("a/one.md", "one"), ("b/two.md", "two")]);
    symlink("../b", place.folder().join("a/b")).unwrap();
    symlink("../a", place.folder().join("b/a")).unwrap();
    symlink(".", place.folder().join("here")).unwrap();
    assert_eq!(all(&place.open()), ["a/one.md", "b/two.md"]);
}

/// As Kubernetes mounts files: through links inside the folder, to a hidden one.
#[test]
fn links_that_stay_inside_are_followed() {
    let place = Place::new(&[("..2026_11/guide.md", GUIDE)]);
    symlink("..2026_11", place.folder().join("..data")).unwrap();
    symlink("..data/guide.md", place.folder().join("guide.md")).unwrap();
    let docs = place.open();
    assert_eq!(all(&docs), ["guide.md"]);
    assert_eq!(docs.read("guide.md", None, None, None).unwrap().text, GUIDE);
}

#[test]
fn unknown_paths_and_headings_say_what_there_is() {
    let place =
        Place::new(&[("guides/install.md", GUIDE), ("guides/other.md", "x"), ("misc/zebra.txt", "x")]);
    let docs = place.open();
    let error = docs.read("guides/instal.md", None, None, None).unwrap_err().to_string();
    assert_eq!(error, r#"no document "guides/instal.md"; did you mean guides/install.md, guides/other.md?"#);
    let error = docs.read("install.md", None, None, None).unwrap_err().to_string();
    assert!(error.contains("did you mean guides/install.md"), "{error}");
    let error = docs.read("\0\u{1b}[2J", None, None, None).unwrap_err().to_string();
    assert_eq!(error, r#"no document "\0\u{1b}[2J""#);
    let error = docs.read("guides/install.md", Some("Windows"), None, None).unwrap_err().to_string();
    assert!(error.contains("Guide > Install > Linux, Guide > Install > macOS"), "{error}");
    let error = docs.read("guides/other.md", Some(""), None, None).unwrap_err().to_string();
    assert!(error.ends_with("its headings are: (none)"), "{error}");
    let long = docs.read(&"x".repeat(100_000), Some("y"), None, None).unwrap_err().to_string();
    assert!(long.len() < 500);
}

#[test]
fn hostile_queries_are_only_words() {
    let place = Place::new(&[("guide.md", GUIDE)]);
    let docs = place.open();
    let long = "a\"b* ".repeat(20_000);
    let cjk = "東".repeat(50_000);
    for query in [
        "\"",
        "\"\"\"",
        "*",
        "^",
        "NEAR(",
        "NEAR(a b, 2)",
        "col:",
        "path:guide",
        "- x",
        "+",
        "a AND",
        "OR",
        "NOT",
        "(",
        ")",
        "{a b} : c",
        "\0",
        "a\0b",
        "';DROP TABLE document;--",
        "\u{feff}",
        "ﷺ",
        "a\u{301}\u{301}",
        "²½",
        "\u{1F600}",
        "\u{1E900}\u{1E943}",
        &long,
        &cjk,
    ] {
        docs.search(query, Some(u32::MAX), Some(query)).unwrap();
        docs.search(query, Some(0), None).unwrap();
    }
    assert_eq!(all(&docs), ["guide.md"]);
}

fn shared_docs() -> &'static Docs {
    static DOCS: OnceLock<(Place, Docs)> = OnceLock::new();
    &DOCS
        .get_or_init(|| {
            let place = Place::new(&[
                ("guide.md", GUIDE),
                ("日本.md", "# 東京\n\n京都と大阪"),
                ("x.txt", "a\"b AND \u{301}c"),
            ]);
            let docs = place.open();
            (place, docs)
        })
        .1
}

proptest! {
    /// No query is an error, and a snippet keeps its length.
    #[test]
    fn any_text_is_a_query(query in any::<String>(), prefix in any::<Option<String>>()) {
        for hit in shared_docs().search(&query, Some(50), prefix.as_deref()).unwrap() {
            prop_assert!(hit.snippet.chars().count() <= 300);
        }
    }

    #[test]
    fn any_mixture_of_operators_is_a_query(query in "[\"*^(){}:+\\-,. \0'a東ONEARD\u{301}]{0,40}") {
        shared_docs().search(&query, None, None).unwrap();
    }

    #[test]
    fn any_text_is_a_path_and_a_heading(path in any::<String>(), heading in any::<String>(), at in any::<usize>()) {
        let unknown = matches!(shared_docs().read(&path, None, None, None), Err(ReadError::UnknownPath { .. }));
        prop_assert!(unknown);
        let _ = shared_docs().read("guide.md", Some(&heading), Some(at), Some(at));
        shared_docs().list(Some(&path), None).unwrap();
    }

    /// Any text can be a document, in every format.
    #[test]
    fn any_text_is_a_document(text in any::<String>(), query in "\\PC{1,8}") {
        use section::{Document, Kind};
        for kind in [Kind::Markdown, Kind::Html, Kind::Text] {
            let document = Document::parse("a", kind, &text);
            for section in &document.sections {
                prop_assert!(document.text.is_char_boundary(section.start));
                let marked = snippet::snippet(&section.body, &Query::parse(&query).needles());
                prop_assert!(marked.chars().count() <= 300);
            }
        }
    }
}

#[test]
fn a_damaged_index_is_rebuilt() {
    let place = Place::new(&[("guide.md", GUIDE)]);
    drop(place.open());
    let whole = std::fs::read(place.index()).unwrap();
    let mut holes = whole.clone();
    holes[4096..].fill(0x5a);
    let mut newer = whole.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    let mut foreign = whole.clone();
    foreign[68..72].copy_from_slice(b"XXXX");
    for damaged in
        [b"no database".repeat(100), holes, newer, foreign, whole[..whole.len() / 2].to_vec(), vec![]]
    {
        std::fs::write(place.index(), damaged).unwrap();
        let docs = place.open();
        assert_eq!(paths(&docs, "unit"), ["guide.md"]);
    }
}

/// A wrong path must not delete the main database.
#[test]
fn the_main_database_is_never_deleted() {
    let place = Place::new(&[("guide.md", GUIDE)]);
    drop(Db::open(&place.index(), &shared::schema::SCHEMA, None, &Clock::system()).unwrap());
    assert!(matches!(place.try_open(), Err(DocsError::NotAnIndex(_))));
    Db::open(&place.index(), &shared::schema::SCHEMA, None, &Clock::system()).unwrap();
}

#[test]
fn a_vanished_folder_leaves_the_index_as_it_was() {
    let place = Place::new(&[("guide.md", GUIDE)]);
    let docs = place.open();
    std::fs::rename(place.folder(), place.dir.path().join("moved")).unwrap();
    assert!(matches!(docs.scan(), Err(DocsError::Folder { .. })));
    assert_eq!(paths(&docs, "unit"), ["guide.md"]);
}
