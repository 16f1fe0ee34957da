//! PostgreSQL: each call in a read-only transaction of a role that cannot write, over the extended protocol, on a connection
//! that is cleaned afterwards or closed (SQL-01).

mod connection;
mod metered;
mod role;
mod value;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use shared::outbound::Destination;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Transaction;

use super::rows::{Caps, Rows};
use super::{Ready, Refusal};
use connection::Connection;
use value::{Raw, Sent};

/// Calls that run at the same time; more wait.
const MOST_CALLS: usize = 8;
/// The most connections that are kept for the next calls.
const KEPT: usize = 4;
/// How much longer than the statement the call may take.
const MARGIN: Duration = Duration::from_secs(2);

/// A database on a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresServer {
    /// Its URL as it was written, for people.
    pub shown: String,
    pub destination: Destination,
    pub user: String,
    pub database: String,
}

/// A database in use.
pub(super) struct Postgres {
    server: PostgresServer,
    /// Functions that a free `SELECT` may call though they are volatile.
    functions: Vec<String>,
    calls: Semaphore,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Postgres {
    pub(super) fn new(server: PostgresServer, functions: Vec<String>) -> Self {
        Self { server, functions, calls: Semaphore::new(MOST_CALLS), idle: Arc::default() }
    }

    /// Closes the connections that are kept.
    pub(super) fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Runs a statement. Dropping this future closes its connection.
    pub(super) async fn run(
        &self,
        password: Option<&str>,
        ready: &Ready,
        caps: Caps,
        patience: Duration,
    ) -> Result<Rows, Refusal> {
        let Ok(_place) = self.calls.acquire().await else {
            return Err(Refusal::Away("it is closed".to_owned()));
        };
        let deadline = Instant::now() + patience + MARGIN;
        let mut connection = self.taken(password, deadline).await?;
        let ran = timeout_at(deadline, self.within(&mut connection, ready, caps, patience)).await;
        let Ok(ran) = ran else { return Err(Refusal::Statement(SLOW.to_owned())) };
        if connection.is_spent() {
            return Err(Refusal::Statement(TOO_LARGE.to_owned()));
        }
        // A connection that is not certainly clean is closed.
        if timeout_at(deadline, connection.clean()).await.is_ok_and(|cleaned| cleaned) {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(connection);
            }
        }
        ran
    }

    /// The tables and views with their columns, as far as the role may see them.
    pub(super) async fn describe(
        &self,
        password: Option<&str>,
        caps: Caps,
        patience: Duration,
    ) -> Result<Rows, Refusal> {
        let sql = "SELECT table_schema::text AS schema, table_name::text AS \"table\", column_name::text AS \"column\", data_type::text AS type, \
             is_nullable = 'YES' AS nullable FROM information_schema.columns \
             WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY table_schema, table_name, ordinal_position";
        let ready = Ready { sql: sql.to_owned(), values: Vec::new(), functions: None };
        self.run(password, &ready, caps, patience).await
    }

    async fn taken(&self, password: Option<&str>, deadline: Instant) -> Result<Connection, Refusal> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match kept {
                Some(kept) if kept.is_open() && kept.is_with(password) => return Ok(kept),
                Some(_) => {}
                None => break,
            }
        }
        Connection::open(&self.server, password, deadline).await.map_err(Refusal::Away)
    }

    async fn within(
        &self,
        connection: &mut Connection,
        ready: &Ready,
        caps: Caps,
        patience: Duration,
    ) -> Result<Rows, Refusal> {
        connection.allow();
        let begun = connection.client.build_transaction().read_only(true).start().await;
        let transaction = begun.map_err(|error| refusal(&error))?;
        let ran = self.read(&transaction, ready, caps, patience).await;
        let _ = transaction.rollback().await;
        ran
    }

    async fn read(
        &self,
        transaction: &Transaction<'_>,
        ready: &Ready,
        caps: Caps,
        patience: Duration,
    ) -> Result<Rows, Refusal> {
        let ms = patience.as_millis();
        let limits = format!(
            "SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}; SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL work_mem = '16MB'",
            ms + MARGIN.as_millis()
        );
        transaction.batch_execute(&limits).await.map_err(|error| refusal(&error))?;
        if let Some(functions) = &ready.functions {
            self.allow(transaction, functions).await?;
        }
        let statement = transaction.prepare(&ready.sql).await.map_err(|error| refusal(&error))?;
        let columns = statement.columns();
        if columns.is_empty() {
            return Err(Refusal::Statement("Only statements that return rows can be run.".to_owned()));
        }
        if let Some(column) = columns.iter().find(|column| !value::is_known(column.type_())) {
            return Err(Refusal::Statement(format!(
                "The column `{0}` has the type {1}, which cannot be shown; select {0}::text instead.",
                column.name(),
                column.type_().name()
            )));
        }
        let values: Vec<Sent> = ready.values.iter().map(Sent::of).collect();
        let portal =
            transaction.bind_raw(&statement, values.iter()).await.map_err(|error| refusal(&error))?;
        let most = i32::try_from(caps.rows + 1).unwrap_or(i32::MAX);
        let found = transaction.query_portal_raw(&portal, most).await.map_err(|error| refusal(&error))?;
        let mut found = std::pin::pin!(found);
        let mut rows = Rows::new(columns.iter().map(|column| column.name().to_owned()).collect(), caps);
        while let Some(row) = found.next().await {
            let row = row.map_err(|error| refusal(&error))?;
            let values = columns.iter().enumerate().map(|(at, column)| {
                let raw = row.try_get::<_, Option<Raw<'_>>>(at).map_err(|error| refusal(&error))?;
                Ok(raw.map_or(Value::Null, |raw| value::of(column.type_(), raw.0)))
            });
            if !rows.push(values.collect::<Result<_, Refusal>>()?) {
                break;
            }
        }
        Ok(rows)
    }

    /// Refuses a free `SELECT` that calls a function which may have effects.
    async fn allow(&self, transaction: &Transaction<'_>, functions: &[String]) -> Result<(), Refusal> {
        let asked: Vec<&String> = functions.iter().filter(|name| !self.functions.contains(name)).collect();
        let sql = "SELECT p.proname::text FROM pg_catalog.pg_proc p \
             WHERE p.proname::text = ANY($1) AND (p.provolatile = 'v' OR p.prosecdef) LIMIT 1";
        let volatile = transaction.query(sql, &[&asked]).await.map_err(|error| refusal(&error))?;
        match volatile.first() {
            Some(row) => Err(Refusal::Statement(format!(
                "The function `{}` may have effects, so it cannot be called here. Use others, or ask an administrator to list it in `functions`.",
                row.get::<_, &str>(0)
            ))),
            None => Ok(()),
        }
    }
}

const TOO_LARGE: &str =
    "The result is too large. Select fewer columns or shorter values, for example with left().";
const SLOW: &str = "The statement took too long and was ended. Use WHERE, LIMIT or fewer joins.";

/// An error of the database in words that a model can act on.
fn refusal(error: &tokio_postgres::Error) -> Refusal {
    let Some(said) = error.as_db_error() else {
        return Refusal::Away(words(error));
    };
    if *said.code() == tokio_postgres::error::SqlState::QUERY_CANCELED {
        return Refusal::Statement(SLOW.to_owned());
    }
    let hint = said.hint().map(|hint| format!(" Hint: {hint}")).unwrap_or_default();
    let place = match said.position() {
        Some(tokio_postgres::error::ErrorPosition::Original(at)) => format!(" (at character {at})"),
        _ => String::new(),
    };
    Refusal::Statement(format!("The database refused the statement: {}{place}.{hint}", said.message()))
}

/// An error with what the database says, which holds no password.
fn words(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return said.message().to_owned();
    }
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
