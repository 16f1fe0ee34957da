//! The SQL outside this folder that only SQLite understands, in one list: what a second engine would have to
//! replace. `schema.sql`, the migrations and this folder are for SQLite only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A construct of SQLite, where it is used, and why.
const DIALECT: [(&str, &[&str], &str); 12] = [
    (
        "rowid",
        &[
            "authz/src/store/client_reports.rs",
            "authz/src/store/client_secrets.rs",
            "authz/src/store/clients/unused.rs",
            "authz/src/store/devices.rs",
            "authz/src/store/passkeys.rs",
            "resource/src/sources/docs/index.rs",
            "shared/src/share.rs",
        ],
        "rows of one millisecond keep the order in which they came; a row of any table can be named",
    ),
    (
        "INDEXED BY",
        &["shared/src/share.rs"],
        "the planner must not read a whole table where a stranger waits",
    ),
    (
        "instr(",
        &["authz/src/store/client_documents.rs", "authz/src/store/clients.rs"],
        "a text within a text, without the wildcards that LIKE would see in it",
    ),
    (" IS NOT ?", &["authz/src/store/transactions.rs"], "no handle is different from every handle"),
    ("LIMIT -1", &["resource/src/store/sessions.rs"], "all rows but the newest"),
    ("min(?", &["authz/src/store/grants.rs"], "the smaller of two values (LEAST elsewhere)"),
    (
        "= min(",
        &["authz/src/store/client_secrets.rs", "keys/src/store.rs"],
        "the smaller of two values (LEAST elsewhere)",
    ),
    ("iif(", &["authz/src/store/client_documents.rs"], "one of two values (CASE elsewhere)"),
    ("json_", &["resource/src/sources/docs/index.rs"], "the headings of a document in one column"),
    ("fts5", &["resource/src/sources/docs/index.rs"], "the full-text index of the documents"),
    ("PRAGMA", &["resource/src/sources/docs/index.rs"], "an index that is damaged is made again"),
    ("STRICT", &["resource/src/sources/docs/index.rs"], "columns hold only their own type"),
];

/// Other constructs of SQLite, which are not used outside this folder.
const UNUSED: [&str; 9] = [
    "INSERT OR ",
    "UPDATE OR ",
    "REPLACE INTO",
    "ATTACH ",
    "VACUUM",
    "sqlite_schema",
    "unixepoch",
    "GLOB ",
    "changes()",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        // Tests; `histories` is one of them. And databases of the site's own, which tools read: they are not the store.
        if ["tests", "testing", "histories"].contains(&name.as_str())
            || path.ends_with("shared/src/db")
            || path.ends_with("resource/src/sources/declared/sql")
        {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "db" {
            found.push(path);
        }
    }
}

/// The string literals with SQL in a file, up to its tests.
fn statements(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let literals = code.split('"').skip(1).step_by(2);
    let sql = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "PRAGMA ", " WHERE ", " ORDER BY "];
    literals.filter(|text| sql.iter().any(|word| text.contains(word))).map(str::to_owned).collect()
}

/// This list names every statement that a second engine must replace.
#[test]
fn what_sqlite_alone_understands_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for crate_name in ["authz", "keys", "resource", "shared"] {
        sources(&root.join(crate_name).join("src"), &mut files);
    }
    let using = |word: &str| -> BTreeSet<String> {
        let uses = |path: &&PathBuf| {
            statements(&fs::read_to_string(path).unwrap()).iter().any(|sql| sql.contains(word))
        };
        let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        files.iter().filter(uses).map(relative).collect()
    };
    for (word, listed, reason) in DIALECT {
        let listed: BTreeSet<String> = listed.iter().map(|&path| path.to_owned()).collect();
        assert_eq!(using(word), listed, "`{word}`: {reason}");
    }
    for word in UNUSED {
        assert_eq!(using(word), BTreeSet::new(), "`{word}` is not listed");
    }
}

/// No code outside this folder names the engine.
#[test]
fn nothing_outside_this_folder_names_the_engine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in ["src", "authz/src", "keys/src", "resource/src", "shared/src"] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 250, "{}", files.len());
    for path in files {
        let source = fs::read_to_string(&path).unwrap();
        let product = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        assert!(!product.contains("rusqlite"), "{}", path.display());
    }
}
