//! The JSON objects and the lines of the snapshot commands.

use std::path::Path;

use indicatif::{BinaryBytes, HumanCount};
use lattice::protocol::snapshot::{Contents, Manifest};
use serde::Serialize;

use crate::cli::{
    exit::Failure,
    input::time::date_time,
    output::{
        object::{hex, not_empty, short},
        print::{Output, escape},
    },
};

/// A snapshot file.
#[derive(Serialize)]
pub(super) struct Snapshot {
    r#type: String,
    file: String,
    bytes: u64,
    created_ms: u64,
    /// The node that made it.
    node: String,
    /// Absent if the node had no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// True if the file has the node's secret key.
    key: bool,
    stores: Vec<Store>,
}

#[derive(Serialize)]
struct Store {
    store: String,
    name: String,
    root: bool,
    private: bool,
    entries: u64,
    /// Earlier entries, which were removed from the logs; their state is in the file.
    removed_entries: u64,
    keys: u64,
    /// Absent if the state lacked entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_root: Option<String>,
}

impl Snapshot {
    /// `kind`: `snapshot_` and what was done with the file, or `snapshot`.
    pub(super) fn new(kind: &str, file: &Path, bytes: u64, manifest: &Manifest) -> Self {
        let stores = root_first(manifest).into_iter().map(|store| Store {
            store: store.id.to_string(),
            name: store.name.clone(),
            root: store.root,
            private: store.private,
            entries: store.entries,
            removed_entries: store.removed_entries,
            keys: store.keys,
            state_root: store.state_root.map(|root| hex(&root)),
        });
        Self {
            r#type: kind.to_owned(),
            file: file.display().to_string(),
            bytes,
            created_ms: manifest.created_ms,
            node: manifest.node.to_string(),
            name: not_empty(&manifest.name),
            key: manifest.has_key,
            stores: stores.collect(),
        }
    }
}

/// Prints what a file has in it, under the word for what was done with it.
pub(super) fn print(
    out: &mut Output,
    kind: &'static str,
    file: &Path,
    bytes: u64,
    manifest: &Manifest,
) -> Result<(), Failure> {
    if out.json {
        let kind = match kind {
            "snapshot" => kind.to_owned(),
            done => format!("snapshot_{done}"),
        };
        return out.object(&Snapshot::new(&kind, file, bytes, manifest));
    }
    let key = match manifest.has_key {
        true => "with the key of the node",
        false => "without its key",
    };
    out.line(&format!(
        "{kind} {}  {}, made {} by {}, {key}",
        escape(file.as_os_str().as_encoded_bytes()),
        BinaryBytes(bytes),
        date_time(manifest.created_ms),
        named(manifest),
    ))?;
    for store in root_first(manifest) {
        let private = if store.private { ", private" } else { "" };
        out.line(&format!(
            "  {:<16} {}, {}{private}",
            escape(store.name.as_bytes()),
            entries(store),
            counted(store.keys, "key", "keys"),
        ))?;
    }
    Ok(())
}

/// Returns how many entries of a store are in a snapshot, and of how many their state.
pub(super) fn entries(store: &Contents) -> String {
    let entries = counted(store.entries, "entry", "entries");
    match store.removed_entries {
        0 => entries,
        removed => {
            let removed = counted(removed, "earlier one", "earlier ones");
            format!("{entries} and the state of {removed}")
        }
    }
}

/// Returns the stores of a snapshot, the root store first.
pub(super) fn root_first(manifest: &Manifest) -> Vec<&Contents> {
    let mut stores: Vec<&Contents> = manifest.stores.iter().collect();
    stores.sort_by_key(|store| (!store.root, &store.name));
    stores
}

/// Returns the name of the node that made a snapshot, or the beginning of its id.
pub(super) fn named(manifest: &Manifest) -> String {
    match manifest.name.as_str() {
        "" => format!("node {}", short(&manifest.node.0)),
        name => format!("{} ({})", escape(name.as_bytes()), short(&manifest.node.0)),
    }
}

/// Returns a number with its noun.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    let noun = if count == 1 { one } else { many };
    format!("{} {noun}", HumanCount(count))
}
