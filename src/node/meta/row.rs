//! The row of a store in `meta.db`.

use crate::{
    id::{Author, StoreId},
    protocol::membership::genesis::Genesis,
};

/// The row of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Row {
    pub(in crate::node) id: StoreId,
    pub(in crate::node) name: String,
    pub(in crate::node) root: bool,
    /// The id of the store is its hash.
    pub(in crate::node) genesis: Genesis,
}

impl Row {
    /// Encodes the row without its id, which is the key.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![u8::from(self.root)];
        body.extend_from_slice(&self.genesis.creator.0);
        body.extend_from_slice(&self.genesis.nonce);
        body.extend_from_slice(self.name.as_bytes());
        body
    }

    /// Decodes a row; `None` when it is malformed, or its genesis is that of another store.
    pub(super) fn decode(id: &[u8], body: &[u8]) -> Option<Self> {
        let (root, rest) = body.split_first()?;
        let (creator, rest) = rest.split_first_chunk::<32>()?;
        let (nonce, name) = rest.split_first_chunk::<32>()?;
        let row = Self {
            id: StoreId::from_slice(id)?,
            name: String::from_utf8(name.to_vec()).ok()?,
            root: *root == 1,
            genesis: Genesis {
                creator: Author(*creator),
                nonce: *nonce,
            },
        };
        (row.genesis.store() == row.id).then_some(row)
    }
}
