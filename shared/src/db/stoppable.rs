//! Statements that end before their time when somebody says so.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::Fault;

/// How many steps of SQLite's virtual machine pass between two questions. The full-text index takes a few for each page
/// that it reads, so this is some tens of pages.
const STEPS: std::ffi::c_int = 200;

/// Runs a job whose statements end as soon as `stop` says so; `None` if they did.
pub(super) fn run<T>(
    connection: &mut Connection,
    stop: impl Fn() -> bool + Send + 'static,
    job: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    let stopped = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stopped);
    let handler = move || {
        let stops = stop();
        if stops {
            asked.store(true, Ordering::Relaxed);
        }
        stops
    };
    connection.progress_handler(STEPS, Some(handler))?;
    let done = catch_unwind(AssertUnwindSafe(|| job(connection)));
    // The next job on this connection has nothing to do with it, also if this one panicked.
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match done {
        Ok(Err(_)) if stopped.load(Ordering::Relaxed) => Ok(None),
        Ok(other) => other.map(Some),
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDLESS: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    fn count(connection: &Connection, sql: &str) -> Result<i64, Fault> {
        Ok(connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// LIMIT-04: a statement without end ends when it is told to, and its connection is as good as before.
    #[test]
    fn an_endless_statement_is_stopped() {
        let mut connection = Connection::open_in_memory().unwrap();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counting = Arc::clone(&asked);
        let stop = move || counting.fetch_add(1, Ordering::Relaxed) >= 3;
        assert_eq!(run(&mut connection, stop, |c| count(c, ENDLESS)).unwrap(), None);
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9999) SELECT count(*) FROM n";
        assert_eq!(count(&connection, many).unwrap(), 9999);
        assert_eq!(asked.load(Ordering::Relaxed), 4, "nobody is asked any more");
    }

    /// LIMIT-04: a fault of a job that nobody stopped stays a fault.
    #[test]
    fn a_fault_does_not_count_as_a_stop() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(run(&mut connection, || false, |c| count(c, "SELECT nothing")).is_err());
    }
}
