//! Scans keep the index in step with the folder.

use super::*;

#[test]
fn scans_see_what_was_added_changed_removed_and_renamed() {
    let place = Place::new(&[("a.md", "first"), ("b.md", "second"), ("c.md", "third")]);
    let docs = place.open();
    let mut generation = docs.generation();
    generation.mark_unchanged();
    assert_eq!(docs.scan().unwrap(), changes(0, 0, 0, 0));
    assert!(!generation.has_changed().unwrap());
    place.put("a.md", "fifth"); // as long as before, and within the same moment
    place.put("d.md", "fourth");
    std::fs::remove_file(place.folder().join("b.md")).unwrap();
    std::fs::rename(place.folder().join("c.md"), place.folder().join("renamed.md")).unwrap();
    assert_eq!(docs.scan().unwrap(), changes(2, 1, 2, 0));
    assert!(generation.has_changed().unwrap());
    assert_eq!(paths(&docs, "fifth"), ["a.md"]);
    assert_eq!(paths(&docs, "third"), ["renamed.md"]);
    assert_eq!(paths(&docs, "first second"), [""; 0]);
    assert_eq!(all(&docs), ["a.md", "d.md", "renamed.md"]);
}

#[test]
fn a_restart_does_not_read_unchanged_files_again() {
    let place = Place::new(&[("a.md", "aaaa"), ("b.md", "bbbb")]);
    let old = SystemTime::now() - Duration::from_hours(1);
    let age = |path| {
        let file = std::fs::File::options().write(true).open(place.folder().join(path)).unwrap();
        file.set_modified(old).unwrap();
    };
    age("a.md");
    let docs = place.open();
    // Reading the file again would give another hash.
    docs.db.write_blocking(|tx| tx.execute("UPDATE document SET hash = x'00'", [])).unwrap();
    drop(docs);
    let docs = place.open();
    assert_eq!(docs.scan().unwrap(), changes(0, 0, 0, 0));
    let known = |path: &str| docs.db.read(index::known).unwrap().remove(path).unwrap().hash;
    assert_eq!(known("a.md"), [0]);
    assert_ne!(known("b.md"), [0], "its time is too recent to say anything");
}

/// DOCS-02: a changed file is noticed even with equal metadata: a folder that a link is switched to may have
/// the same names, sizes and times, and so may a file that was rewritten or replaced and dated back.
#[test]
fn equal_sizes_and_times_hide_no_change() {
    let old = SystemTime::now() - Duration::from_hours(1);
    let place = Place::new(&[
        (".v1/guide.md", "first!"),
        (".v2/guide.md", "second"),
        ("a.md", "third!"),
        ("b.md", "fourth"),
    ]);
    let age = |path: &str| {
        let file = std::fs::File::options().write(true).open(place.folder().join(path)).unwrap();
        file.set_modified(old).unwrap();
    };
    for path in [".v1/guide.md", ".v2/guide.md", "a.md", "b.md"] {
        age(path);
    }
    symlink(".v1", place.folder().join("current")).unwrap();
    let docs = place.open();
    assert_eq!(paths(&docs, "first"), ["current/guide.md"]);
    assert_eq!(docs.scan().unwrap(), changes(0, 0, 0, 2));

    symlink(".v2", place.folder().join("next")).unwrap();
    std::fs::rename(place.folder().join("next"), place.folder().join("current")).unwrap();
    place.put("a.md", "fifth!");
    age("a.md");
    std::fs::remove_file(place.folder().join("b.md")).unwrap();
    place.put("b.md", "sixth!");
    age("b.md");
    assert_eq!(docs.scan().unwrap(), changes(0, 3, 0, 2));
    assert_eq!(paths(&docs, "second"), ["current/guide.md"]);
    assert_eq!(
        (paths(&docs, "fifth"), paths(&docs, "sixth")),
        (vec!["a.md".to_owned()], vec!["b.md".to_owned()])
    );
    assert!(paths(&docs, "first").is_empty() && paths(&docs, "third").is_empty());
    assert_eq!(docs.scan().unwrap(), changes(0, 0, 0, 2));
}

/// DOCS-02: the same if the folder's own name is a link.
#[test]
fn a_replaced_folder_is_read_again() {
    let old = SystemTime::now() - Duration::from_hours(1);
    let place = Place::new(&[("v1/guide.md", "first!"), ("v2/guide.md", "second")]);
    for path in ["v1/guide.md", "v2/guide.md"] {
        let file = std::fs::File::options().write(true).open(place.folder().join(path)).unwrap();
        file.set_modified(old).unwrap();
    }
    let link = place.dir.path().join("current");
    symlink(place.folder().join("v1"), &link).unwrap();
    let docs = Docs::open(&place.index(), Folder::Directory(link.clone()), &Clock::system()).unwrap();
    assert_eq!(paths(&docs, "first"), ["guide.md"]);
    std::fs::remove_file(&link).unwrap();
    symlink(place.folder().join("v2"), &link).unwrap();
    assert_eq!(docs.scan().unwrap(), changes(0, 1, 0, 0));
    assert_eq!(paths(&docs, "second"), ["guide.md"]);
}

const BOOK: &[(&str, &str)] = &[("start.md", "# Start\n\nHere."), ("users.md", "# Users\n\nPasskeys.")];

#[test]
fn another_folder_is_another_index() {
    let place = Place::new(&[("a.md", "first")]);
    drop(place.open());
    let docs = Docs::open(&place.index(), Folder::Directory(place.outside()), &Clock::system()).unwrap();
    assert_eq!(all(&docs), ["secret.md"]);
    drop(docs);
    let docs = Docs::open(&place.index(), Folder::Handbook(BOOK), &Clock::system()).unwrap();
    assert_eq!(all(&docs), ["start.md", "users.md"]);
    assert_eq!(docs.scan().unwrap(), changes(0, 0, 0, 0));
    assert_eq!(paths(&docs, "passkeys"), ["users.md"]);
    drop(Arc::new(docs).watch());
}

/// Waits for changing scans until `done`, or fails.
fn eventually(docs: &Docs, done: impl Fn() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut generation = docs.generation();
    runtime.block_on(async {
        let waiting = async {
            while !done() {
                generation.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the change was not noticed");
    });
}

#[test]
fn a_watched_folder_is_kept_up_with() {
    let place = Place::new(&[("a.md", "first")]);
    let docs = Arc::new(place.open());
    let watch = Arc::clone(&docs).watch();
    place.put("new/b.md", "second");
    eventually(&docs, || paths(&docs, "second") == ["new/b.md"]);
    place.put("a.md", "changed");
    eventually(&docs, || paths(&docs, "changed") == ["a.md"]);
    std::fs::remove_dir_all(place.folder().join("new")).unwrap();
    eventually(&docs, || all(&docs) == ["a.md"]);
    drop(watch);
    assert_eq!(Arc::strong_count(&docs), 1, "the thread has ended");
}
