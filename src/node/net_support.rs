//! What the net needs of the node: its key, the secret of the mesh, the number of this start, and
//! notes about peers that outlive it.

use bytes::Bytes;

use crate::{
    id::Author,
    node::{error::OpenError, members::MeshError, node::Node},
    protocol::ack::Ack,
};

impl Node {
    /// Returns what tells this start from those before it: a number greater than theirs, also after
    /// the clock was set back. Durable on return.
    ///
    /// # Errors
    /// `Open`: it cannot be kept.
    pub fn incarnation(&self) -> Result<u64, MeshError> {
        let now_ms = self.clock().now_ms();
        Ok(self.0.meta.incarnation(now_ms)?)
    }

    /// Signs what this node says it has.
    pub(crate) fn sign_ack(&self, ack: &Ack) -> Bytes {
        ack.sign(&self.0.key)
    }

    /// Returns the bytes of the node's key, which is also its key among peers.
    pub(crate) fn seed(&self) -> [u8; 32] {
        self.0.key.to_bytes()
    }

    /// Returns what members know and others do not: the nonce of the root store, which is told to
    /// those who are let in, and never to others.
    pub(crate) fn mesh_secret(&self) -> [u8; 32] {
        self.root_and_genesis().genesis.nonce
    }

    /// Returns what was kept of peers.
    pub(crate) fn peer_notes(&self) -> Vec<(Author, Vec<u8>)> {
        self.0.meta.peers().unwrap_or_else(|error| {
            tracing::warn!(%error, "what was known of peers cannot be read");
            Vec::new()
        })
    }

    /// Keeps what is known of a peer for the next start.
    pub(crate) fn keep_peer_note(&self, node: &Author, body: Vec<u8>) -> Result<(), OpenError> {
        self.0.meta.keep_peer(node, body)
    }
}
