//! `kind = "sql"`: queries on a database as tools (SQL-01, 02). The engine itself is made to read only; what a free `SELECT`
//! may be is decided by a parser before the engine sees it.

mod named;
pub mod postgres;
mod rows;
mod select;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlparser::dialect::{Dialect, PostgreSqlDialect, SQLiteDialect};

use super::param::{self, Param, ParamKind};
use super::tool::{Tool, ToolText};
use crate::admission::Ask;
use crate::item::{Arguments, Effect, SourceName};
use crate::sources::Outcome;
use crate::sources::identity::Credentials;
use crate::sources::own::{answered, problem};
use named::Named;
use postgres::Postgres;
pub use postgres::PostgresServer;
use rows::{Caps, Rows};
use shared::Timestamp;
use sqlite::Sqlite;
pub use sqlite::SqliteFile;

/// The name of the tool that runs a free `SELECT`.
pub const SELECT: &str = "select";
/// The name of the tool that shows the tables.
pub const DESCRIBE: &str = "describe";
/// The longest free `SELECT`, in characters.
const LONGEST: u32 = 8192;

/// A database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqlSource {
    pub database: Database,
    pub queries: Vec<Query>,
    /// Whether any single `SELECT` may be run.
    pub select: bool,
    /// Whether its tables are shown.
    pub describe: bool,
    /// Further functions that a free `SELECT` may call, in lower case.
    pub functions: Vec<String>,
    /// The most rows of a result.
    pub rows: usize,
    /// The most bytes of a result.
    pub most: usize,
}

/// Where the data is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Database {
    Sqlite(SqliteFile),
    Postgres(PostgresServer),
}

/// A named query with typed parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    pub text: ToolText,
    /// With `:name` for each parameter.
    pub sql: String,
    pub params: Vec<Param>,
}

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The database, or what protects it, does not accept the statement. For a model to read.
    Statement(String),
    /// The database cannot be used. Nothing was done.
    Away(String),
}

/// A statement that is ready to be run, with its values in order.
#[derive(Debug)]
struct Ready {
    sql: String,
    values: Vec<Value>,
    /// What a free `SELECT` calls; `None` for a statement of the configuration.
    functions: Option<Vec<String>>,
}

impl Database {
    /// Where it is, for people.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Sqlite(file) => &file.shown,
            Self::Postgres(server) => &server.shown,
        }
    }

    fn dialect(&self) -> Box<dyn Dialect + Send> {
        match self {
            Self::Sqlite(_) => Box::new(SQLiteDialect {}),
            Self::Postgres(_) => Box::new(PostgreSqlDialect {}),
        }
    }
}

/// The tools of a database: the queries in their order, then `select` and `describe` if they are there.
pub(super) fn tools(source: &str, sql: &SqlSource) -> Result<Vec<Tool>, String> {
    let mut tools = Vec::new();
    for query in &sql.queries {
        if query.text.name == SELECT || query.text.name == DESCRIBE {
            return Err(format!(
                "the query `{0}` has the name of a tool that there is; name it otherwise",
                query.text.name
            ));
        }
        query.check(&*sql.database.dialect())?;
        tools.push(Tool::new(source, &query.text, &query.params, rows::schema(), Effect::ReadOnly)?);
    }
    if sql.select {
        let text = ToolText {
            name: SELECT.to_owned(),
            title: Some(format!("Query {source}")),
            description: format!(
                "Runs one SELECT statement on the database `{source}` and returns its rows. It can only read. Call {source}_{DESCRIBE} first, if it is there, for the names of tables and columns. At most {} rows come back, so write LIMIT, WHERE and aggregates.",
                sql.rows
            ),
        };
        let kind = ParamKind::Text { longest: Some(LONGEST), pattern: None, choices: Vec::new() };
        let description = Some("One SELECT statement.".to_owned());
        let param = Param { name: "sql".to_owned(), description, required: true, default: None, kind };
        tools.push(Tool::new(source, &text, &[param], rows::schema(), Effect::ReadOnly)?);
    }
    if sql.describe {
        let text = ToolText {
            name: DESCRIBE.to_owned(),
            title: Some(format!("Tables of {source}")),
            description: format!(
                "Shows the tables and views of the database `{source}` with their columns and types."
            ),
        };
        tools.push(Tool::new(source, &text, &[], rows::schema(), Effect::ReadOnly)?);
    }
    if tools.is_empty() {
        return Err(format!(
            "it has no tools; declare a query in [sources.{source}.queries.NAME], or write describe = true or select = true"
        ));
    }
    Ok(tools)
}

impl Query {
    /// Checks that the statement uses every parameter, and no others.
    fn check(&self, dialect: &dyn Dialect) -> Result<(), String> {
        let name = &self.text.name;
        let Named { names, .. } =
            Named::parse(&self.sql, dialect).map_err(|why| format!("the query `{name}`: {why}"))?;
        if let Some(unknown) = names.iter().find(|used| !self.params.iter().any(|param| param.name == **used))
        {
            return Err(format!(
                "the query `{name}` uses :{unknown}, which is not among its `params`; declare it there"
            ));
        }
        if let Some(unused) = self.params.iter().find(|param| !names.contains(&param.name)) {
            return Err(format!(
                "the query `{name}` declares `{0}` and does not use it; write :{0} into `sql`, or remove it",
                unused.name
            ));
        }
        Ok(())
    }
}

/// A database in use.
pub(super) struct Sql {
    source: SqlSource,
    engine: Engine,
}

enum Engine {
    Sqlite(Sqlite),
    Postgres(Postgres, Arc<Credentials>),
}

impl Sql {
    pub(super) fn new(source: SqlSource, credentials: Arc<Credentials>) -> Self {
        let engine = match &source.database {
            Database::Sqlite(file) => Engine::Sqlite(Sqlite::new(file.clone(), source.functions.clone())),
            Database::Postgres(server) => {
                Engine::Postgres(Postgres::new(server.clone(), source.functions.clone()), credentials)
            }
        };
        Self { source, engine }
    }

    /// Runs the tool at this place.
    pub(super) async fn run(
        &self,
        name: &SourceName,
        at: usize,
        (ask, now): (&Ask, Timestamp),
        arguments: &Arguments,
        patience: Duration,
    ) -> Outcome {
        let ready = match self.ready(at, arguments) {
            Ok(ready) => ready,
            Err(wrong) => return problem(&wrong),
        };
        let caps = Caps { rows: self.source.rows, bytes: self.source.most.min(ask.most()) };
        match self.engine.run(ready, caps, patience, now).await {
            Ok(rows) => {
                let data = rows.into_data();
                answered(&data.to_string(), &data)
            }
            Err(Refusal::Statement(why)) => problem(&why),
            Err(Refusal::Away(why)) => Outcome::NotSent(
                format!("The database `{name}` cannot be used: {why}. Nothing was done.").into(),
            ),
        }
    }

    /// The statement of the tool at this place; `None` if it shows the tables.
    fn ready(&self, at: usize, arguments: &Arguments) -> Result<Option<Ready>, String> {
        let dialect = self.source.database.dialect();
        if let Some(query) = self.source.queries.get(at) {
            let named = Named::parse(&query.sql, &*dialect)?;
            let value =
                |name: &String| param::find(&query.params, name, arguments).cloned().unwrap_or_default();
            let values = named.names.iter().map(value).collect();
            return Ok(Some(Ready { sql: named.sql, values, functions: None }));
        }
        if !self.source.select || at > self.source.queries.len() {
            return Ok(None);
        }
        let sql = arguments.get("sql").and_then(Value::as_str).unwrap_or_default();
        let functions = select::admitted(sql, dialect)?;
        Ok(Some(Ready { sql: sql.to_owned(), values: Vec::new(), functions: Some(functions) }))
    }

    /// Closes the connections that are kept.
    pub(super) fn forget(&self) {
        self.engine.forget();
    }

    /// Opens the database and runs a statement that reads nothing.
    pub(super) async fn probe(&self, patience: Duration, now: Timestamp) -> Result<(), String> {
        let ready = Ready { sql: "SELECT 1".to_owned(), values: Vec::new(), functions: None };
        let caps = Caps { rows: 1, bytes: 1024 };
        let ran = self.engine.run(Some(ready), caps, patience, now).await;
        ran.map(drop).map_err(|refusal| match refusal {
            Refusal::Statement(why) | Refusal::Away(why) => why,
        })
    }
}

impl Engine {
    /// Runs a statement, or shows the tables.
    async fn run(
        &self,
        ready: Option<Ready>,
        caps: Caps,
        patience: Duration,
        now: Timestamp,
    ) -> Result<Rows, Refusal> {
        match (self, ready) {
            (Self::Sqlite(sqlite), Some(ready)) => sqlite.run(ready, caps, patience).await,
            (Self::Sqlite(sqlite), None) => sqlite.describe(caps, patience).await,
            (Self::Postgres(postgres, credentials), ready) => {
                let who = credentials.of(None, now).map_err(|lacking| Refusal::Away(lacking.reason()))?;
                let password = who.headers.first().and_then(|(_, value)| value.to_str().ok());
                match ready {
                    Some(ready) => postgres.run(password, &ready, caps, patience).await,
                    None => postgres.describe(password, caps, patience).await,
                }
            }
        }
    }

    /// Closes the connections that are kept.
    fn forget(&self) {
        if let Self::Postgres(postgres, _) = self {
            postgres.forget();
        }
    }
}
