//! Functions of the node for the net: its key, the secret of the mesh, the number of this start,
//! and notes about peers that outlive a run.

use bytes::Bytes;

use crate::{
    id::{Author, StoreId},
    node::{error::OpenError, heard_acks::SignedAck, members::MeshError, node::Node},
    protocol::{ack::Ack, announce::Announce, frontier::Frontier},
    store::StateRoot,
};

impl Node {
    /// Returns a new number for this start, greater than that of any earlier one, even if the clock
    /// was set back. Durable on return.
    ///
    /// # Errors
    /// `Open`: it cannot be written.
    pub fn incarnation(&self) -> Result<u64, MeshError> {
        let now_ms = self.clock().now_ms();
        Ok(self.0.meta.incarnation(now_ms)?)
    }

    /// Signs an ack of this node.
    pub(crate) fn sign_ack(&self, ack: &Ack) -> Bytes {
        ack.sign(&self.0.key)
    }

    /// Signs an ack of this node for a proof of `state` in `store`. It belongs to no start of the node,
    /// so it never replaces an ack that a member has.
    pub fn sign_state(&self, store: StoreId, state: &StateRoot) -> Bytes {
        self.sign_ack(&Ack {
            node: self.id(),
            store,
            incarnation: 0,
            counter: 0,
            is_part: false,
            frontier: Frontier::clone(&state.frontier),
            state: Some(state.acked()),
            root_frontier: None,
        })
    }

    /// Keeps an ack that another member has signed, as `ack`, with the tips that are of use here, and as it
    /// came, in `signed`: it may prove that entries can become final. `is_cut`: authors were left out.
    pub(crate) fn keep_ack(&self, ack: &Ack, signed: Bytes, is_cut: bool) {
        self.0.heard.keep(ack, signed, is_cut);
    }

    /// Returns the latest signed acks of other members, by store and node.
    pub(crate) fn signed_acks(&self) -> Vec<SignedAck> {
        self.0.heard.signed(&self.members())
    }

    /// Signs an announcement of this node.
    pub(crate) fn sign_announce(&self, announce: &Announce) -> Bytes {
        announce.sign(&self.0.key)
    }

    /// Returns the secret bytes of the node's key, which is also the key of its endpoint.
    pub(crate) fn seed(&self) -> [u8; 32] {
        self.0.key.to_bytes()
    }

    /// Returns the secret that only members of the mesh know: the nonce of the root store. A node
    /// learns it when it is admitted.
    pub(crate) fn mesh_secret(&self) -> [u8; 32] {
        self.root_and_genesis().genesis.nonce
    }

    /// Returns the notes about peers. Empty, and logged, if they cannot be read.
    pub(crate) fn peer_notes(&self) -> Vec<(Author, Bytes)> {
        self.0.meta.peers().unwrap_or_else(|error| {
            tracing::warn!(%error, "the notes about peers cannot be read");
            Vec::new()
        })
    }

    /// Writes the note about a peer for the next start. Durable on return.
    pub(crate) fn keep_peer_note(&self, node: &Author, body: Vec<u8>) -> Result<(), OpenError> {
        self.0.meta.keep_peer(node, &body)
    }
}
