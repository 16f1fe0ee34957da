//! Where the memory of a line is counted while it arrives.

/// Counts the bytes of one line at a time. Short lines are not counted.
pub trait Room: Send + 'static {
    /// The line holds this many bytes now.
    ///
    /// # Errors
    /// If it finds no memory. Then it is dropped, and its request fails.
    fn grow(&mut self, bytes: usize) -> impl Future<Output = Result<(), NoRoom>> + Send;

    /// Does this work for as long as the line may stay.
    ///
    /// # Errors
    /// If its room is needed for something else.
    fn while_kept<T: Send>(
        &self,
        work: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Result<T, NoRoom>> + Send;

    /// The line is gone from here.
    fn release(&mut self);
}

/// A line was dropped because no memory was left for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// Room for every line.
#[derive(Clone, Copy, Debug)]
pub struct Unlimited;

impl Room for Unlimited {
    async fn grow(&mut self, _: usize) -> Result<(), NoRoom> {
        Ok(())
    }

    async fn while_kept<T: Send>(&self, work: impl Future<Output = T> + Send) -> Result<T, NoRoom> {
        Ok(work.await)
    }

    fn release(&mut self) {}
}
