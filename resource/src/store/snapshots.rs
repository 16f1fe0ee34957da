//! Sources, and what each listed in its last complete walk (SRC-02).

use shared::audit::{self, Event, Name};
use shared::db::{Conn, params};
use shared::id::random_128;
use shared::{Digest, Fault, Timestamp, Tx};

/// A source as it is remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Where it is reached; another one there is another source.
    pub(crate) target: String,
    pub(crate) added_at: Timestamp,
    pub(crate) era: Option<String>,
    /// Of its definitions.
    pub(crate) digest: Option<Digest>,
    pub(crate) walked_at: Option<Timestamp>,
}

/// All of them, the one that was added first at the beginning.
pub(crate) fn all(conn: &Conn<'_>) -> Result<Vec<Stored>, Fault> {
    conn.query(
        "SELECT id, name, target, added_at, era, digest, walked_at FROM source ORDER BY added_at, name",
        params![],
        |row| {
            Ok(Stored {
                id: row.get(0)?,
                name: row.get(1)?,
                target: row.get(2)?,
                added_at: row.get(3)?,
                era: row.get(4)?,
                digest: row.get(5)?,
                walked_at: row.get(6)?,
            })
        },
    )
}

/// What a source listed, in its order.
pub(crate) fn definitions(conn: &Conn<'_>, id: &str) -> Result<Vec<String>, Fault> {
    conn.query(
        "SELECT definition FROM source_item WHERE source_id = ?1 ORDER BY position",
        params![id],
        |row| row.get(0),
    )
}

/// Makes the rows follow the configuration: names with where each is reached. What is gone, or is reached elsewhere, goes
/// with all that was known of it.
pub(crate) fn follow(tx: &Tx<'_>, configured: &[(String, String)]) -> Result<Vec<Stored>, Fault> {
    let stored = all(tx)?;
    let stays = |source: &Stored| {
        configured.iter().any(|(name, target)| *name == source.name && *target == source.target)
    };
    for source in stored.iter().filter(|source| !stays(source)) {
        tx.execute("DELETE FROM source WHERE id = ?1", params![source.id])?;
        audit::append(tx, event(Event::allowed(Name::SourceRemoved), source))?;
    }
    let known = |name: &str| stored.iter().any(|source| source.name == name && stays(source));
    for (name, target) in configured.iter().filter(|(name, _)| !known(name)) {
        let id = format!("src_{}", random_128());
        tx.execute(
            "INSERT INTO source (id, name, target, added_at) VALUES (?1, ?2, ?3, ?4)",
            params![id, name, target, tx.now()],
        )?;
        let (name, target, added_at) = (name.clone(), target.clone(), tx.now());
        let source = Stored { id, name, target, added_at, era: None, digest: None, walked_at: None };
        audit::append(tx, event(Event::allowed(Name::SourceAdded), &source))?;
    }
    all(tx)
}

/// Whether this source is still there.
pub(crate) fn exists(conn: &Conn<'_>, id: &str) -> Result<bool, Fault> {
    Ok(conn.query_row("SELECT 1 FROM source WHERE id = ?1", params![id], |_| Ok(()))?.is_some())
}

/// Puts a complete walk in place of the one before.
pub(crate) fn replace(
    tx: &Tx<'_>,
    id: &str,
    era: Option<&str>,
    digest: &Digest,
    definitions: &[String],
) -> Result<(), Fault> {
    tx.execute("DELETE FROM source_item WHERE source_id = ?1", params![id])?;
    for (position, definition) in (0_i64..).zip(definitions) {
        tx.execute(
            "INSERT INTO source_item (source_id, position, definition) VALUES (?1, ?2, ?3)",
            params![id, position, definition],
        )?;
    }
    tx.execute("UPDATE source SET digest = ?2 WHERE id = ?1", params![id, digest])?;
    walked(tx, id, era)
}

/// Notes that a walk was complete now, and what the source speaks.
pub(crate) fn walked(tx: &Tx<'_>, id: &str, era: Option<&str>) -> Result<(), Fault> {
    tx.execute("UPDATE source SET walked_at = ?2, era = ?3 WHERE id = ?1", params![id, tx.now(), era])?;
    Ok(())
}

/// A record about a source: its name, id and where it is reached.
pub(crate) fn event(event: Event, source: &Stored) -> Event {
    let event = event.by_server().subject(&source.id).detail("name", source.name.as_str());
    event.detail("target", source.target.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{App, NOW};

    fn configured(sources: &[(&str, &str)]) -> Vec<(String, String)> {
        sources.iter().map(|(name, target)| ((*name).to_owned(), (*target).to_owned())).collect()
    }

    /// SRC-02, PIN-02: what a source listed stays while its name and its address do, and is gone with either.
    #[tokio::test]
    async fn a_source_is_another_one_elsewhere() {
        let app = App::start();
        let follow = async |sources: &[(&str, &str)]| {
            let configured = configured(sources);
            app.db.write(move |tx| super::follow(tx, &configured)).await.unwrap()
        };
        let first = follow(&[("a", "http://a/mcp"), ("b", "http://b/mcp")]).await;
        let names: Vec<_> = first.iter().map(|source| (source.name.as_str(), source.added_at)).collect();
        assert_eq!(names, [("a", NOW), ("b", NOW)]);
        let (a, digest) = (first[0].id.clone(), Digest::of(b"x"));
        let written = ["{\"n\": 1}".to_owned(), "{}".to_owned()];
        let id = a.clone();
        app.db.write(move |tx| replace(tx, &id, Some("legacy"), &digest, &written)).await.unwrap();
        let again = follow(&[("a", "http://a/mcp"), ("c", "http://c/mcp")]).await;
        assert_eq!((again[0].id.as_str(), again[0].walked_at, again.len()), (a.as_str(), Some(NOW), 2));
        assert_eq!(app.db.read(|conn| definitions(conn, &a)).unwrap(), ["{\"n\": 1}", "{}"]);
        let moved = follow(&[("a", "http://elsewhere/mcp"), ("c", "http://c/mcp")]).await;
        assert!(moved.iter().all(|source| source.id != a && source.walked_at.is_none()));
        assert!(app.db.read(|conn| definitions(conn, &a)).unwrap().is_empty());
        let counts = ["source.added", "source.removed"].map(|name| app.records(name).len());
        assert_eq!(counts, [4, 2]);
    }
}
