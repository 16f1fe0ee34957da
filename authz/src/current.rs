//! Data that a job may act on (SESSION-05).
//!
//! A request is checked before its job, so that refusals cost the writer nothing. The job waits behind others,
//! and any of them may end the session, disable the user or delete the client of the request. So a job checks
//! again in its own transaction. It asks the database and not [`crate::Status`]: memory is updated at the
//! commit, and an earlier job of the same batch has not been committed yet.

use std::marker::PhantomData;
use std::ops::Deref;

use shared::{Fault, Tx};

/// A value that was read in this job. Only a transaction can make one, and it cannot leave the job: a function
/// that takes a `Current<User>` cannot be called with a user who was read before the job.
#[derive(Clone, Debug)]
pub(crate) struct Current<'t, T> {
    found: T,
    job: PhantomData<&'t ()>,
}

impl<'t, T> Current<'t, T> {
    /// Runs a query in the job.
    pub(crate) fn read<'c>(
        tx: &'t Tx<'c>,
        question: impl FnOnce(&'t Tx<'c>) -> Result<T, Fault>,
    ) -> Result<Self, Fault> {
        question(tx).map(|found| Self { found, job: PhantomData })
    }

    /// A part of the value, or the value in another form.
    pub(crate) fn map<U>(self, to: impl FnOnce(T) -> U) -> Current<'t, U> {
        Current { found: to(self.found), job: PhantomData }
    }
}

impl<'t, T> Current<'t, Option<T>> {
    /// The value, if the query found one.
    pub(crate) fn found(self) -> Option<Current<'t, T>> {
        let Self { found, job } = self;
        found.map(|found| Current { found, job })
    }
}

impl<'t, T, E> Current<'t, Result<T, E>> {
    /// The value, or the reason why it does not count.
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
