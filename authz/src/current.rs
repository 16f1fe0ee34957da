//! What a job may act on (SESSION-05).
//!
//! A request is looked at before its job, so that what is refused costs the writer nothing. But the job waits behind
//! others, and any of them may end the session, disable the user or delete the client that the request was let in for.
//! So a job asks again for what it acts on, in its own transaction. It asks the database, not [`crate::Status`]: memory
//! follows at the commit, and the job before it in the same batch has not been committed yet.

use std::marker::PhantomData;
use std::ops::Deref;

use shared::{Fault, Tx};

/// Something that was read in this job. Only a transaction makes one, and it cannot leave the job: a function that takes
/// a `Current<User>` cannot be given a user who was read before the job.
#[derive(Clone, Debug)]
pub(crate) struct Current<'t, T> {
    found: T,
    job: PhantomData<&'t ()>,
}

impl<'t, T> Current<'t, T> {
    /// What this question finds in the job.
    pub(crate) fn read<'c>(
        tx: &'t Tx<'c>,
        question: impl FnOnce(&'t Tx<'c>) -> Result<T, Fault>,
    ) -> Result<Self, Fault> {
        question(tx).map(|found| Self { found, job: PhantomData })
    }

    /// A part of it, or the same in another form.
    pub(crate) fn map<U>(self, to: impl FnOnce(T) -> U) -> Current<'t, U> {
        Current { found: to(self.found), job: PhantomData }
    }
}

impl<'t, T> Current<'t, Option<T>> {
    /// What was found, if anything was.
    pub(crate) fn found(self) -> Option<Current<'t, T>> {
        let Self { found, job } = self;
        found.map(|found| Current { found, job })
    }
}

impl<'t, T, E> Current<'t, Result<T, E>> {
    /// What was found, or why it does not count.
    pub(crate) fn allowed(self) -> Result<Current<'t, T>, E> {
        let Self { found, job } = self;
        found.map(|found| Current { found, job })
    }
}

impl<T> Deref for Current<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.found
    }
}
