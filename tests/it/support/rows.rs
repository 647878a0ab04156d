//! Rows in memory, for trees of hashes.

use std::{collections::BTreeMap, convert::Infallible};

use lattice::protocol::merkle::{RowHash, Rows};

/// Rows by key.
#[derive(Debug, Clone)]
pub struct MemRows(pub BTreeMap<Vec<u8>, Vec<u8>>);

impl Rows for MemRows {
    type Error = Infallible;

    fn rows(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        row: &mut dyn FnMut(&[u8], &RowHash) -> bool,
    ) -> Result<(), Infallible> {
        let from = self.0.range(from.to_vec()..);
        let range = from.take_while(|(key, _)| to.is_none_or(|to| key.as_slice() < to));
        for (key, bytes) in range {
            if !row(key, &RowHash::of(bytes)) {
                break;
            }
        }
        Ok(())
    }
}
