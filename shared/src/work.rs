//! Counts the work that strangers cause (RATE-05), in debug builds: each unit is counted on its thread, and
//! none may be done on the writer's thread. Release builds do not count.
//!
//! Parsing JSON is allowed on the writer if it is a stored document, which was accepted before; reading a name is, because
//! administrators' commands do it.

use std::cell::Cell;

/// A unit of work that strangers can cause without limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// A parameter of a form or query was decoded.
    Parameter,
    /// A member of a JSON object was parsed.
    Member,
    /// A signature was verified or made.
    Signature,
    /// A name was reduced to how it reads.
    Name,
}

thread_local! {
    static DONE: [Cell<u64>; 4] = const { [const { Cell::new(0) }; 4] };
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as the writer, for which all writes wait.
pub(crate) fn this_thread_writes() {
    WRITES.set(true);
}

/// Counts a unit of work that is about to be done.
///
/// # Panics
/// In a debug build on the writer's thread: while it works for one stranger, all other writes wait.
#[inline]
pub fn done(what: Work) {
    if cfg!(debug_assertions) {
        assert!(
            matches!(what, Work::Member | Work::Name) || !WRITES.get(),
            "{what:?} on the writer's thread: do it before the job, and hand the job what came of it"
        );
        DONE.with(|done| done[what as usize].update(|count| count + 1));
    }
}

/// The number of units on this thread; always 0 in a release build.
pub fn so_far(what: Work) -> u64 {
    DONE.with(|done| done[what as usize].get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, Db, Fault, schema};

    /// RATE-05: a job that does a stranger's work panics in tests.
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
