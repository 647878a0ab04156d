//! The keys in the root store that describe this node and its stores.

use bytes::Bytes;

use crate::{
    node::{
        error::OpenError,
        node::{Node, Root},
    },
    protocol::{
        entry::Op,
        membership::{genesis::Genesis, role::Role},
    },
    store::{Write, WriteError},
};

impl Node {
    /// Writes the keys in the root store that describe this node and its stores, if they are
    /// missing. Does nothing while this node is not a member of the root store's mesh.
    ///
    /// # Errors
    /// `Write`, `Read`, `Io`, `Unusable`.
    pub async fn introduce(&self) -> Result<(), OpenError> {
        let Root { store, genesis } = self.root_and_genesis();
        let own = self.id();
        if self.members().role(&own).is_none() {
            return Ok(());
        }
        let info = format!(
            r#"{{"name":{},"version":"{}","os":"{}"}}"#,
            json_string(&self.0.config.name),
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS
        );
        let mut wanted = vec![
            put(genesis.key(), genesis.encode()),
            put(format!("/nodes/{own}/info").into(), info.into()),
            put(format!("/nodes/{own}/status").into(), "active".into()),
        ];
        // The name of another's store counts from its founder or an admin only.
        let may_list = |genesis: &Genesis| {
            genesis.creator == own || self.members().role(&own) == Some(Role::Admin)
        };
        let rows = self.0.meta.stores()?;
        let rows = rows.iter().filter(|row| !row.root);
        for row in rows.filter(|row| may_list(&row.genesis)) {
            wanted.extend(listing(&row.name, &row.genesis).ops);
        }
        let mut ops = Vec::new();
        for op in wanted {
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
            // After a cut of the own log they are written at the first start after `repair`, which
            // needs an open node. A reader, a removed member and a node with a spent key may not write
            // them.
            Ok(_)
            | Err(
                WriteError::OwnLogCut { .. }
                | WriteError::Reader
                | WriteError::Removed
                | WriteError::KeySpent,
            ) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

// Returns the text as a JSON string.
fn json_string(text: &str) -> String {
    let mut json = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

/// Returns the write that lists a store in the root store.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_a_json_string() {
        let names = [
            "kitchen",
            "Zo\u{eb}'s",
            "a \"b\" \\c",
            "\u{0}\n\t\u{1f}",
            "\u{1f600}",
            "",
        ];
        for name in names {
            let json = json_string(name);
            let read: String = serde_json::from_str(&json).unwrap();
            assert_eq!(read, name, "{json}");
        }
    }
}
