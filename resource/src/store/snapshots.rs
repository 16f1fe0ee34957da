//! Sources, and each one's last complete listing (SRC-02).

use serde_json::value::RawValue;
use shared::audit::{self, Event, Name};
use shared::db::{Conn, params};
use shared::id::random_128;
use shared::{Fault, Timestamp, Tx};

use crate::item::{Counts, Kind};

/// A stored source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Its target; with another one it is another source.
    pub(crate) target: String,
    pub(crate) added_at: Timestamp,
    pub(crate) era: Option<String>,
    pub(crate) walked_at: Option<Timestamp>,
}

/// All sources, in the order in which they were added.
pub(crate) fn all(conn: &Conn<'_>) -> Result<Vec<Stored>, Fault> {
    conn.query(
        "SELECT id, name, target, added_at, era, walked_at FROM source ORDER BY added_at, name",
        params![],
        |row| {
            Ok(Stored {
                id: row.get(0)?,
                name: row.get(1)?,
                target: row.get(2)?,
                added_at: row.get(3)?,
                era: row.get(4)?,
                walked_at: row.get(5)?,
            })
        },
    )
}

/// What a source listed, kind after kind, each in its order.
pub(crate) fn definitions(conn: &Conn<'_>, id: &str) -> Result<Vec<(Kind, Box<RawValue>)>, Fault> {
    let mut all = Vec::new();
    let query = "SELECT kind, definition FROM source_item WHERE source_id = ?1 ORDER BY kind, position";
    conn.for_each(query, params![id], |row| {
        let (kind, definition): (String, String) = (row.get(0)?, row.get(1)?);
        let kind = Kind::ALL.into_iter().find(|known| column(*known) == kind);
        let definition = RawValue::from_string(definition);
        all.extend(kind.zip(definition.ok()));
        Ok(true)
    })?;
    Ok(all)
}

/// How many items of each kind a source listed.
pub(crate) fn counts(conn: &Conn<'_>, id: &str) -> Result<Counts, Fault> {
    let rows = conn.query(
        "SELECT kind, count(*) FROM source_item WHERE source_id = ?1 GROUP BY kind",
        params![id],
        |row| Ok((row.get::<String>(0)?, row.get::<i64>(1)?)),
    )?;
    let count = |kind| {
        let row = rows.iter().find(|(known, _)| known == column(kind));
        row.and_then(|(_, count)| usize::try_from(*count).ok()).unwrap_or(0)
    };
    Ok(Counts::by(count))
}

/// The word for a kind in the table.
fn column(kind: Kind) -> &'static str {
    match kind {
        Kind::Tool => "tool",
        Kind::Prompt => "prompt",
        Kind::Resource => "resource",
        Kind::Template => "template",
    }
}

/// Updates the rows from the configuration: names and targets. A source that was removed, or has another
/// target, is deleted with everything known of it.
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
        let source = Stored { id, name, target, added_at, era: None, walked_at: None };
        audit::append(tx, event(Event::allowed(Name::SourceAdded), &source))?;
    }
    all(tx)
}

/// Whether this source is still there.
pub(crate) fn exists(conn: &Conn<'_>, id: &str) -> Result<bool, Fault> {
    Ok(conn.query_row("SELECT 1 FROM source WHERE id = ?1", params![id], |_| Ok(()))?.is_some())
}

/// Puts a complete walk of one kind in place of the one before.
pub(crate) fn replace(tx: &Tx<'_>, id: &str, kind: Kind, definitions: &[Box<RawValue>]) -> Result<(), Fault> {
    tx.execute("DELETE FROM source_item WHERE source_id = ?1 AND kind = ?2", params![id, column(kind)])?;
    for (position, definition) in (0_i64..).zip(definitions) {
        tx.execute(
            "INSERT INTO source_item (source_id, kind, position, definition) VALUES (?1, ?2, ?3, ?4)",
            params![id, column(kind), position, definition.get()],
        )?;
    }
    Ok(())
}

/// Stores that a listing was completed now, and the source's era.
pub(crate) fn walked(tx: &Tx<'_>, id: &str, era: Option<&str>) -> Result<(), Fault> {
    tx.execute("UPDATE source SET walked_at = ?2, era = ?3 WHERE id = ?1", params![id, tx.now(), era])?;
    Ok(())
}

/// Adds a source's name, id and target to an audit record.
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

    /// SRC-02, PIN-02: a source's listing stays while its name and target do, and is deleted with either.
    #[tokio::test]
    async fn a_source_at_another_address_counts_as_another_source() {
        let app = App::start();
        let follow = async |sources: &[(&str, &str)]| {
            let configured = configured(sources);
            app.db.write(move |tx| super::follow(tx, &configured)).await.unwrap()
        };
        let first = follow(&[("a", "http://a/mcp"), ("b", "http://b/mcp")]).await;
        let names: Vec<_> = first.iter().map(|source| (source.name.as_str(), source.added_at)).collect();
        assert_eq!(names, [("a", NOW), ("b", NOW)]);
        let a = first[0].id.clone();
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let (tools, prompts) = ([raw("{\"n\": 1}"), raw("{}")], [raw("{\"p\":1}")]);
        let id = a.clone();
        let written = move |tx: &Tx<'_>| {
            replace(tx, &id, Kind::Tool, &tools[1..])?;
            replace(tx, &id, Kind::Prompt, &prompts)?;
            replace(tx, &id, Kind::Tool, &tools)?;
            walked(tx, &id, Some("legacy"))
        };
        app.db.write(written).await.unwrap();
        let again = follow(&[("a", "http://a/mcp"), ("c", "http://c/mcp")]).await;
        assert_eq!((again[0].id.as_str(), again[0].walked_at, again.len()), (a.as_str(), Some(NOW), 2));
        let kept = app.db.read(|conn| definitions(conn, &a)).unwrap();
        let kept: Vec<_> = kept.iter().map(|(kind, text)| (*kind, text.get())).collect();
        let expected = [(Kind::Prompt, "{\"p\":1}"), (Kind::Tool, "{\"n\": 1}"), (Kind::Tool, "{}")];
        assert_eq!(kept, expected);
        let counts = app.db.read(|conn| counts(conn, &a)).unwrap();
        assert_eq!((counts.tools, counts.prompts, counts.resources, counts.templates), (2, 1, 0, 0));
        let moved = follow(&[("a", "http://elsewhere/mcp"), ("c", "http://c/mcp")]).await;
        assert!(moved.iter().all(|source| source.id != a && source.walked_at.is_none()));
        assert!(app.db.read(|conn| definitions(conn, &a)).unwrap().is_empty());
        let counts = ["source.added", "source.removed"].map(|name| app.records(name).len());
        assert_eq!(counts, [4, 2]);
    }
}
