//! What a job sees of the database: statements in, rows out.

use std::cell::RefCell;
use std::ops::Deref;

use rusqlite::{Connection, OptionalExtension, Params};

use super::{Fault, FromColumn};
use crate::audit::Head;
use crate::clock::Timestamp;

/// A connection to read with. Statements are prepared once and kept.
pub struct Conn<'c>(&'c Connection);

/// One row of an answer.
pub struct Row<'r>(&'r rusqlite::Row<'r>);

impl Row<'_> {
    /// The value of a column, counted from zero.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] if the column holds something else.
    pub fn get<T: FromColumn>(&self, column: usize) -> Result<T, Fault> {
        self.0.get(column).map_err(|e| Fault::Corrupt(e.to_string()))
    }
}

impl<'c> Conn<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self(connection)
    }

    /// The one row that a query finds, or none.
    ///
    /// # Errors
    /// The database's fault, or the mapping's.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnOnce(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let mut statement = self.0.prepare_cached(sql)?;
        statement.query_row(params, |row| Ok(map(&Row(row)))).optional()?.transpose()
    }

    /// All rows that a query finds.
    ///
    /// # Errors
    /// As [`Conn::query_row`].
    pub fn query<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut map: impl FnMut(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut found = Vec::new();
        self.for_each(sql, params, |row| {
            found.push(map(row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Hands over row by row until the answer is `false`, so that a large table needs no memory.
    ///
    /// # Errors
    /// As [`Conn::query_row`].
    pub fn for_each(
        &self,
        sql: &str,
        params: impl Params,
        mut each: impl FnMut(&Row<'_>) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            if !each(&Row(row))? {
                break;
            }
        }
        Ok(())
    }
}

type Effect = Box<dyn FnOnce() + Send>;

/// One job's part of a transaction. It reads like a [`Conn`], and writes.
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

    /// Changes rows and says how many.
    ///
    /// # Errors
    /// The database's fault.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize, Fault> {
        Ok(self.conn.0.prepare_cached(sql)?.execute(params)?)
    }

    /// The time of this job; the same for everything it writes.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Publishes to memory before the commit: for what must stop at once (RS-08). It does not run
    /// if the job fails; if the commit fails, memory is loaded anew.
    pub fn before_commit(&self, effect: impl FnOnce() + Send + 'static) {
        self.before_commit.borrow_mut().push(Box::new(effect));
    }

    /// Publishes to memory after the commit: for what becomes allowed.
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
