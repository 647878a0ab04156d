//! The manifest: what a snapshot should have in it, signed by the node that made it.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message as _;

use crate::{
    id::{Author, StoreId},
    limits::{NODE_NAME_CHARS_MAX, STORE_NAME_CHARS_MAX},
    protocol::signed::{count_items, is_by, sign},
    wire::snapshot as wire,
};

/// The content that a snapshot should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// When the snapshot was begun, by the clock of the node, ms since 1970.
    pub created_ms: u64,
    /// The node that made it.
    pub node: Author,
    /// Name of that node; empty if it had none.
    pub name: String,
    /// Whether the file has the node's secret key.
    pub has_key: bool,
    /// Its stores.
    pub stores: Vec<Contents>,
    /// BLAKE3 hash of the file before the manifest.
    pub hash: [u8; 32],
    /// Notes of the node about other members, such as their addresses: bytes as it keeps them.
    pub peers: Vec<(Author, Bytes)>,
}

/// The part of a store that a snapshot should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Id of the store.
    pub id: StoreId,
    /// Name of the store on the node that made the snapshot.
    pub name: String,
    /// Whether it is the root store.
    pub root: bool,
    /// Whether it is a private store.
    pub private: bool,
    /// Number of entries.
    pub entries: u64,
    /// Number of keys in the state, deleted ones too.
    pub keys: u64,
    /// Root of the state that the entries make; `None` if the state lacked entries.
    pub state_root: Option<[u8; 32]>,
    /// Number of earlier entries, which were removed from the logs: their state is there. 0 if none was.
    pub removed_entries: u64,
}

impl Manifest {
    /// Signs the manifest with the key of its node, and returns the body of its block.
    pub fn sign(&self, key: &SigningKey) -> Bytes {
        let manifest = Bytes::from(self.message().encode_to_vec());
        let signature = sign(DOMAIN, key, &manifest);
        let signed = wire::SignedManifest {
            manifest,
            signature,
        };
        signed.encode_to_vec().into()
    }

    /// Reads the body of a block. `None` if it is malformed, or not signed by the node that it names.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let signed = wire::SignedManifest::decode(body).ok()?;
        let signature: &[u8; 64] = signed.signature.as_ref().try_into().ok()?;
        // The list takes no more memory than bytes.
        count_items(&signed.manifest, STORES_FIELD, CONTENTS_BYTES_MIN)?;
        count_items(&signed.manifest, PEERS_FIELD, PEER_BYTES_MIN)?;
        let message = wire::Manifest::decode(signed.manifest.clone()).ok()?;
        let manifest = Self::of(message)?;
        let by_node = is_by(&manifest.node, DOMAIN, &signed.manifest, signature);
        by_node.then_some(manifest)
    }

    fn message(&self) -> wire::Manifest {
        wire::Manifest {
            created_ms: self.created_ms,
            node: Bytes::copy_from_slice(&self.node.0),
            name: self.name.clone(),
            key: self.has_key,
            stores: self.stores.iter().map(Contents::message).collect(),
            hash: Bytes::copy_from_slice(&self.hash),
            peers: self.peers.iter().map(peer).collect(),
        }
    }

    fn of(message: wire::Manifest) -> Option<Self> {
        let stores = message.stores.into_iter().map(Contents::of);
        let peers = message.peers.into_iter();
        let peers = peers.map(|peer| Some((Author::from_slice(&peer.node)?, peer.note)));
        Some(Self {
            created_ms: message.created_ms,
            node: Author::from_slice(&message.node)?,
            name: short(message.name, NODE_NAME_CHARS_MAX)?,
            has_key: message.key,
            stores: stores.collect::<Option<_>>()?,
            hash: message.hash.as_ref().try_into().ok()?,
            peers: peers.collect::<Option<_>>()?,
        })
    }
}

impl Contents {
    fn message(&self) -> wire::Contents {
        wire::Contents {
            id: Bytes::copy_from_slice(&self.id.0),
            name: self.name.clone(),
            root: self.root,
            private: self.private,
            entries: self.entries,
            keys: self.keys,
            state_root: self
                .state_root
                .map(|root| Bytes::copy_from_slice(&root))
                .unwrap_or_default(),
            removed_entries: self.removed_entries,
        }
    }

    fn of(message: wire::Contents) -> Option<Self> {
        let state_root = match message.state_root.len() {
            0 => None,
            _given => Some(message.state_root.as_ref().try_into().ok()?),
        };
        Some(Self {
            id: StoreId::from_slice(&message.id)?,
            name: short(message.name, STORE_NAME_CHARS_MAX)?,
            root: message.root,
            private: message.private,
            entries: message.entries,
            keys: message.keys,
            state_root,
            removed_entries: message.removed_entries,
        })
    }
}

fn peer((node, note): &(Author, Bytes)) -> wire::Peer {
    wire::Peer {
        node: Bytes::copy_from_slice(&node.0),
        note: note.clone(),
    }
}

/// Returns `name` unless it has more than `chars_max` characters.
pub(super) fn short(name: String, chars_max: usize) -> Option<String> {
    (name.chars().count() <= chars_max).then_some(name)
}

const DOMAIN: &[u8] = b"lattice/snapshot/v1\0";
const STORES_FIELD: u32 = 5;
// An id, with its tag and length.
const CONTENTS_BYTES_MIN: usize = 18;
const PEERS_FIELD: u32 = 7;
const PEER_BYTES_MIN: usize = 34;
