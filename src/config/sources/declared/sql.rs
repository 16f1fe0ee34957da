//! `kind = "sql"`: a database, and the queries that are its tools (SQL-01).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use resource::sources::declared::sql::{Database, PostgresServer, Query, SqlSource, SqliteFile};
use resource::sources::declared::{DeclaredKind, DeclaredSource};
use url::Url;

use super::{Declared, Server, Texts, params};
use crate::config::keys::Key;
use crate::config::sources::{ShownCredentials, timeout};

/// The keys of the source.
const KEYS: [&str; 15] = [
    "kind",
    "database",
    "password",
    "ca",
    "client_cert",
    "client_key",
    "networks",
    "plaintext",
    "timeout",
    "describe",
    "select",
    "functions",
    "max_rows",
    "max_size",
    "queries",
];
/// The keys of a query.
const QUERY_KEYS: [&str; 4] = ["title", "description", "sql", "params"];
/// How long a statement may run by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most rows by default, and at all.
const ROWS: usize = 200;
const MOST_ROWS: usize = 10_000;

#[derive(Default)]
struct Said<'t> {
    database: Option<(&'t str, String)>,
    /// A key that only a server has.
    of_server: Option<String>,
    timeout: Option<Duration>,
    describe: bool,
    select: bool,
    functions: Vec<String>,
    rows: Option<usize>,
    most: Option<usize>,
    queries: Vec<Query>,
}

pub(super) fn read(table: &Key<'_>, folder: &Path) -> anyhow::Result<Declared> {
    let (mut said, mut server) = (Said::default(), Server::default());
    for key in table.keys()? {
        match key.name {
            "kind" => {}
            "database" => said.database = Some((key.text()?, key.at())),
            "password" | "ca" | "client_cert" | "client_key" | "networks" | "plaintext" => {
                said.of_server = Some(key.name.to_owned());
                server.read(&key, folder)?;
            }
            "timeout" => said.timeout = Some(timeout(&key)?),
            "describe" => said.describe = key.boolean()?,
            "select" => said.select = key.boolean()?,
            "functions" => {
                let names = key.one_or_list()?;
                said.functions = names
                    .iter()
                    .map(|name| Ok(name.text()?.to_lowercase()))
                    .collect::<anyhow::Result<_>>()?;
            }
            "max_rows" => said.rows = Some(rows(&key)?),
            "max_size" => said.most = Some(super::size(&key)?),
            "queries" => said.queries = key.keys()?.iter().map(query).collect::<anyhow::Result<_>>()?,
            _ => return Err(key.unknown(&KEYS)),
        }
    }
    if !said.functions.is_empty() && !said.select {
        bail!(
            "[sources.{}] at {} has `functions`, which are for a free SELECT; write select = true, or remove it",
            table.name,
            table.at()
        );
    }
    let (database, shown) = database(table, &said, server, folder)?;
    let sql = SqlSource {
        database,
        queries: said.queries,
        select: said.select,
        describe: said.describe,
        functions: said.functions,
        rows: said.rows.unwrap_or(ROWS),
        most: said.most.unwrap_or(super::MOST),
    };
    let source = DeclaredSource {
        name: table.name.to_owned(),
        timeout: said.timeout.unwrap_or(TIMEOUT),
        kind: DeclaredKind::Sql(sql),
        own_secret: false,
    };
    Ok(Declared { source, shown, at: table.at() })
}

fn database<'t>(
    table: &Key<'t>,
    said: &Said<'t>,
    mut server: Server<'t>,
    folder: &Path,
) -> anyhow::Result<(Database, ShownCredentials)> {
    let like =
        "write it like database = \"sqlite:inventory.db\" or \"postgres://reader@db.lab.internal/inventory\"";
    let (name, at) = (table.name, table.at());
    let Some((text, place)) = &said.database else {
        bail!("[sources.{name}] at {at} has no `database`; {like}")
    };
    match text.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => {
            if let Some(key) = &said.of_server {
                bail!("[sources.{name}] at {at} has `{key}`, and its database is a file; remove it");
            }
            let (shown, path) = ((*text).to_owned(), folder.join(path));
            Ok((
                Database::Sqlite(SqliteFile { shown, path, data_dir: PathBuf::new() }),
                ShownCredentials::default(),
            ))
        }
        Some(("postgres" | "postgresql", _)) => {
            let wrong = || anyhow!("`database` at {place} is not an address; {like}");
            let url = Url::parse(text).map_err(|_| wrong())?;
            if url.password().is_some() {
                bail!(
                    "`database` at {place} holds a password; write it as `password`, which says where it is kept"
                );
            }
            let database = url.path().trim_start_matches('/');
            let plain = |text: &str| !text.is_empty() && !text.contains(['%', '/']);
            if url.host().is_none()
                || !plain(url.username())
                || !plain(database)
                || url.query().is_some()
                || url.fragment().is_some()
            {
                return Err(wrong());
            }
            server.address.reached_by_postgres(&url, text);
            let reached = server.fits(table)?;
            let server = PostgresServer {
                shown: (*text).to_owned(),
                destination: reached.address.destination,
                user: url.username().to_owned(),
                database: database.to_owned(),
            };
            Ok((Database::Postgres(server), reached.shown))
        }
        _ => bail!("`database` at {place} is `{text}`; {like}"),
    }
}

/// The source as it is for a server with this data directory.
///
/// # Errors
/// If a file may not be opened.
pub(super) fn placed(sql: &mut SqlSource, data_dir: &Path) -> anyhow::Result<()> {
    match &mut sql.database {
        Database::Sqlite(file) => {
            data_dir.clone_into(&mut file.data_dir);
            file.checked().map(drop).map_err(anyhow::Error::msg).context("its database cannot be used")
        }
        Database::Postgres(_) => Ok(()),
    }
}

/// `[sources.NAME.queries.QUERY]`.
fn query(table: &Key<'_>) -> anyhow::Result<Query> {
    let (mut texts, mut sql, mut arguments) = (Texts::default(), None, Vec::new());
    for key in table.keys()? {
        match key.name {
            "title" => texts.title = Some(key.text()?.to_owned()),
            "description" => texts.description = Some(key.prose()?.to_owned()),
            "sql" => sql = Some(key.prose()?.to_owned()),
            "params" => arguments = params::read(&key)?,
            _ => return Err(key.unknown(&QUERY_KEYS)),
        }
    }
    let Some(sql) = sql else {
        bail!(
            "the query `{}` at {} has no `sql`; write a SELECT with :name for its parameters",
            table.name,
            table.at()
        )
    };
    Ok(Query { text: texts.fits(table)?, sql, params: arguments })
}

fn rows(key: &Key<'_>) -> anyhow::Result<usize> {
    let rows = key.number()?.as_u64().and_then(|rows| usize::try_from(rows).ok());
    rows.filter(|rows| (1..=MOST_ROWS).contains(rows))
        .ok_or_else(|| anyhow!("`max_rows` at {} must be from 1 to {MOST_ROWS}", key.at()))
}
