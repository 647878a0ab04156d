//! Rows: the rows of a store, as a tree reads them.

use crate::protocol::merkle::RowHash;

/// The rows of one state, which does not change while it is read.
pub trait Rows {
    /// Why rows cannot be read.
    type Error;

    /// Gives `row` the rows from `from` (inclusive) to `to` (exclusive; `None` for all that
    /// follow), in key order, until it returns false.
    ///
    /// # Errors
    /// Some rows cannot be read.
    fn rows(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &RowHash) -> bool,
    ) -> Result<(), Self::Error>;
}
