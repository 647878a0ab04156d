//! What the root store says of this node and its stores.

use bytes::Bytes;

use crate::{
    node::{
        error::OpenError,
        node::{Node, Root},
    },
    protocol::{entry::Op, membership::genesis::Genesis},
    store::{Write, WriteError},
};

impl Node {
    /// Writes what the root store says of this node and its stores, where it does not say it yet.
    /// In the root store of another node: once this node is let in.
    ///
    /// # Errors
    /// `Write`, `Read`.
    pub async fn introduce(&self) -> Result<(), OpenError> {
        let Root { store, genesis } = self.root_and_genesis();
        let own = self.id();
        if self.members().role(&own).is_none() {
            return Ok(());
        }
        let info = format!(
            r#"{{"name":"{}","version":"{}","os":"{}"}}"#,
            self.0.config.name.escape_default(),
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS
        );
        let mut said = vec![
            put(genesis.key(), genesis.encode()),
            put(format!("/nodes/{own}/info").into(), info.into()),
            put(format!("/nodes/{own}/status").into(), "active".into()),
        ];
        for row in self.0.meta.stores()?.iter().filter(|row| !row.root) {
            said.extend(listing(&row.name, &row.genesis).ops);
        }
        let mut ops = Vec::new();
        for op in said {
            if store.get(op.key()).await?.is_none() {
                ops.push(op);
            }
        }
        if ops.is_empty() {
            return Ok(());
        }
        let written = store.write_own(Write {
            ops,
            atomic: true,
            condition: None,
            cause: None,
        });
        match written.await {
            // They wait for the first start after a repair, which needs an open node; or nobody
            // would believe them.
            Ok(_)
            | Err(WriteError::OwnLogCut { .. } | WriteError::Reader | WriteError::Removed) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What the root store says of a store.
pub(super) fn listing(name: &str, genesis: &Genesis) -> Write {
    let name_key = format!("/stores/{}/name", genesis.store());
    let name = Bytes::copy_from_slice(name.as_bytes());
    Write {
        ops: vec![
            put(genesis.key(), genesis.encode()),
            put(name_key.into(), name),
        ],
        atomic: true,
        condition: None,
        cause: None,
    }
}

fn put(key: Bytes, value: Bytes) -> Op {
    Op::Put {
        key,
        value,
        expires_ms: None,
    }
}
