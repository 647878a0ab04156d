//! The row of a store in `meta.db`.

use crate::{
    id::{Author, StoreId},
    node::store_name::DATA,
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
    /// Returns the row of the data store that belongs to the root store of `root`.
    pub(in crate::node) fn of_data(root: &Genesis) -> Self {
        let genesis = root.data();
        Self {
            id: genesis.store(),
            name: DATA.to_owned(),
            root: false,
            genesis,
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::mutator::{Corpus, fuzz};

    #[test]
    fn s20_any_bytes_are_a_row_or_none() {
        let genesis = Genesis {
            creator: Author([7; 32]),
            nonce: [9; 32],
        };
        let row = |name: &str, root| Row {
            id: genesis.store(),
            name: name.to_owned(),
            root,
            genesis,
        };
        let id = genesis.store().0;
        let rows = [row("root", true), row("", false), row("Zoë's", false)];
        let corpus = Corpus::new(rows.iter().map(Row::encode));
        fuzz(&corpus, |input| {
            let Some(row) = Row::decode(&id, input) else {
                return false;
            };
            assert_eq!(Row::decode(&id, &row.encode()), Some(row.clone()));
            assert_eq!((row.id.0, row.genesis.store()), (id, row.id));
            assert!(row.name.len() < input.len());
            true
        });
        fuzz(&Corpus::new([id]), |id| {
            Row::decode(id, &rows[0].encode()).is_some()
        });
    }
}
