//! What strangers make this server do (RATE-05), as a debug build sees it: every unit of work is counted on the thread that
//! does it, and none of it may be done on the writer's thread. A release build neither counts nor looks.
//!
//! Reading JSON is the exception: a document that was taken once, and is stored, may be read again in a job.

use std::cell::Cell;

/// A unit of work that strangers can ask for as often as they like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// One parameter of a form or a query was decoded.
    Parameter,
    /// One member of a JSON object was read.
    Member,
    /// One signature was checked or made.
    Signature,
}

thread_local! {
    static DONE: [Cell<u64>; 3] = const { [const { Cell::new(0) }; 3] };
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// This thread is the one that everybody's writes wait for.
pub(crate) fn this_thread_writes() {
    WRITES.set(true);
}

/// Counts a unit of work that is about to be done.
///
/// # Panics
/// In a debug build on the writer's thread: while it works for one stranger, everybody else's writes wait.
#[inline]
pub fn done(what: Work) {
    if cfg!(debug_assertions) {
        assert!(
            what == Work::Member || !WRITES.get(),
            "{what:?} on the writer's thread: do it before the job, and hand the job what came of it"
        );
        DONE.with(|done| done[what as usize].update(|count| count + 1));
    }
}

/// How many units this thread has done; always 0 in a release build.
pub fn so_far(what: Work) -> u64 {
    DONE.with(|done| done[what as usize].get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, Db, Fault, schema};

    /// RATE-05: a job that did a stranger's work would fail, and a test with it.
    #[test]
    fn work_is_counted_and_kept_from_the_writer() {
        done(Work::Member);
        assert_eq!((so_far(Work::Member), so_far(Work::Signature)), (1, 0));
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("x.db"), &schema::SCHEMA, None, &Clock::system()).unwrap();
        let outcome = db.write_blocking(|_| {
            done(Work::Signature);
            Ok(())
        });
        assert!(matches!(outcome, Err(Fault::Storage(_))), "{outcome:?}");
    }
}
