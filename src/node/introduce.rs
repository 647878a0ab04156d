//! What the root store says of its own node.

use bytes::Bytes;

use crate::{
    id::Author,
    node::{NodeConfig, OpenError},
    protocol::entry::Op,
    store::{Store, Write, WriteError},
};

/// Writes what a root store says of its node, where it does not say it yet.
pub(super) async fn introduce(
    root: &Store,
    config: &NodeConfig,
    author: &Author,
    nonce: &[u8; 32],
) -> Result<(), OpenError> {
    let info = format!(
        r#"{{"name":"{}","version":"{}","os":"{}"}}"#,
        config.name.escape_default(),
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS
    );
    let own = [
        (
            format!("/stores/{}/genesis", root.id()),
            genesis(author, nonce),
        ),
        (format!("/nodes/{author}/info"), Bytes::from(info)),
        (
            format!("/nodes/{author}/status"),
            Bytes::from_static(b"active"),
        ),
    ];
    let mut ops = Vec::new();
    for (key, value) in own {
        if root.get(key.as_bytes()).await?.is_none() {
            ops.push(Op::Put {
                key: key.into(),
                value,
                expires_ms: None,
            });
        }
    }
    if !ops.is_empty() {
        let written = root.write_own(Write {
            ops,
            atomic: true,
            condition: None,
        });
        match written.await {
            // They wait for the first start after a repair, which needs an open node.
            Ok(_) | Err(WriteError::OwnLogCut { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Proves a store's id: who founded it, and with which nonce, in hex.
pub(super) fn genesis(author: &Author, nonce: &[u8; 32]) -> Bytes {
    Bytes::from(format!("{author}{}", data_encoding::HEXLOWER.encode(nonce)))
}
