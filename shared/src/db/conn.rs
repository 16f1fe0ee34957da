//! Statements and rows: how a job sees the database.

mod head;

use std::cell::RefCell;
use std::ops::Deref;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, ParamsFromIter, params_from_iter};

use super::{Fault, FromColumn, Params, ToColumn, Value};
use crate::clock::Timestamp;
pub use head::Head;

/// A connection for reading. Prepared statements are cached.
pub struct Conn<'c>(&'c Connection);

/// A row of a result.
pub struct Row<'r>(&'r rusqlite::Row<'r>);

impl Row<'_> {
    /// The value of a column, counted from zero.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the column holds another type or an invalid value.
    pub fn get<T: FromColumn>(&self, column: usize) -> Result<T, Fault> {
        let corrupt = |why: &dyn std::fmt::Display| Fault::Corrupt(format!("column {column}: {why}"));
        let value = self.0.get_ref(column).map_err(|error| corrupt(&error))?;
        let value = match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Text(text) => {
                Value::Text(std::str::from_utf8(text).map_err(|error| corrupt(&error))?.into())
            }
            ValueRef::Blob(bytes) => Value::Blob(bytes.into()),
        };
        T::from_column(value).map_err(|wrong| corrupt(&wrong))
    }
}

/// A parameter for SQLite.
struct Bound<'v>(Value<'v>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match &self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn bound<'v>(values: &'v [&dyn ToColumn]) -> ParamsFromIter<impl Iterator<Item = Bound<'v>>> {
    params_from_iter(values.iter().map(|value| Bound(value.to_column())))
}

impl<'c> Conn<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self(connection)
    }

    /// The only row of a result, or `None`.
    ///
    /// # Errors
    /// A database fault, or the mapping's.
    pub fn query_row<'p, T>(
        &self,
        sql: &str,
        params: impl Params<'p>,
        map: impl FnOnce(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let mut statement = self.0.prepare_cached(sql)?;
        statement.query_row(bound(params.values()), |row| Ok(map(&Row(row)))).optional()?.transpose()
    }

    /// All rows of a result.
    ///
    /// # Errors
    /// As [`Conn::query_row`].
    pub fn query<'p, T>(
        &self,
        sql: &str,
        params: impl Params<'p>,
        mut map: impl FnMut(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut found = Vec::new();
        self.for_each(sql, params, |row| {
            found.push(map(row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Calls a function for each row until it returns `false`, so that a large table needs no memory.
    ///
    /// # Errors
    /// As [`Conn::query_row`].
    pub fn for_each<'p>(
        &self,
        sql: &str,
        params: impl Params<'p>,
        mut each: impl FnMut(&Row<'_>) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(bound(params.values()))?;
        while let Some(row) = rows.next()? {
            if !each(&Row(row))? {
                break;
            }
        }
        Ok(())
    }
}

impl Conn<'_> {
    /// Executes a statement outside a job, for the writer's own bookkeeping. Answers with the number of changed
    /// rows.
    pub(crate) fn change<'p>(&self, sql: &str, params: impl Params<'p>) -> Result<usize, Fault> {
        Ok(self.0.prepare_cached(sql)?.execute(bound(params.values()))?)
    }
}

type Effect = Box<dyn FnOnce() + Send>;

/// One job's part of a transaction. It reads like a [`Conn`] and can write.
pub struct Tx<'c> {
    conn: Conn<'c>,
    now: Timestamp,
    head: &'c RefCell<Option<Head>>,
    before_commit: RefCell<Vec<Effect>>,
    after_commit: RefCell<Vec<Effect>>,
}

impl<'c> Deref for Tx<'c> {
    type Target = Conn<'c>;
    fn deref(&self) -> &Conn<'c> {
        &self.conn
    }
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection, head: &'c RefCell<Option<Head>>, now: Timestamp) -> Self {
        Self {
            conn: Conn(connection),
            now,
            head,
            before_commit: RefCell::default(),
            after_commit: RefCell::default(),
        }
    }

    /// Executes a statement; answers with the number of changed rows.
    ///
    /// # Errors
    /// A database fault.
    pub fn execute<'p>(&self, sql: &str, params: impl Params<'p>) -> Result<usize, Fault> {
        self.conn.change(sql, params)
    }

    /// The time of this job; the same for everything that it writes.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Runs `effect` before the commit, for revocations, which must take effect at once (RS-08). It does not
    /// run if the job fails; if the commit fails, memory is loaded again.
    pub fn before_commit(&self, effect: impl FnOnce() + Send + 'static) {
        self.before_commit.borrow_mut().push(Box::new(effect));
    }

    /// Runs `effect` after the commit, for permissions.
    pub fn after_commit(&self, effect: impl FnOnce() + Send + 'static) {
        self.after_commit.borrow_mut().push(Box::new(effect));
    }

    pub(crate) fn head(&self) -> &RefCell<Option<Head>> {
        self.head
    }

    pub(super) fn into_effects(self) -> (Vec<Effect>, Vec<Effect>) {
        (self.before_commit.into_inner(), self.after_commit.into_inner())
    }
}
