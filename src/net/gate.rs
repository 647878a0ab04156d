//! The gate: who gets a connection, on any protocol, in both directions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use iroh::{
    EndpointAddr,
    endpoint::{
        AfterHandshakeOutcome, BeforeConnectOutcome, Connection, EndpointHooks, VarInt,
        WeakConnectionHandle,
    },
};

use crate::{
    id::Author,
    net::{HELLO_ALPN, endpoint::node_of},
};

/// Lets members in, and strangers only as far as the hello protocol. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    members: BTreeSet<Author>,
    // Weak: a strong handle would keep a connection open that nobody uses any more.
    connections: BTreeMap<Author, Vec<WeakConnectionHandle>>,
}

impl Gate {
    /// From now on `members` are let in. Connections of all others are closed.
    pub(super) fn admit(&self, members: BTreeSet<Author>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let out: Vec<_> = open.connections.keys().copied().collect();
        for node in out {
            if members.contains(&node) {
                continue;
            }
            for connection in open.connections.remove(&node).unwrap_or_default() {
                if let Some(connection) = connection.upgrade() {
                    connection.close(VarInt::from_u32(NOT_A_MEMBER), REASON);
                }
            }
        }
        open.members = members;
    }

    /// True when `node` is let in.
    pub(super) fn admits(&self, node: &Author) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.members.contains(node)
    }

    /// Returns who is let in.
    pub(super) fn members(&self) -> BTreeSet<Author> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.members.clone()
    }

    fn enter(&self, node: Author, connection: WeakConnectionHandle) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.members.contains(&node) {
            return false;
        }
        let connections = open.connections.entry(node).or_default();
        connections.retain(|known| known.upgrade().is_some());
        connections.push(connection);
        true
    }
}

impl EndpointHooks for Gate {
    async fn before_connect<'a>(
        &'a self,
        remote: &'a EndpointAddr,
        alpn: &'a [u8],
    ) -> BeforeConnectOutcome {
        if alpn == HELLO_ALPN || self.admits(&node_of(&remote.id)) {
            BeforeConnectOutcome::Accept
        } else {
            BeforeConnectOutcome::Reject
        }
    }

    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        let node = node_of(&connection.remote_id());
        if connection.alpn() == HELLO_ALPN || self.enter(node, connection.weak_handle()) {
            AfterHandshakeOutcome::Accept
        } else {
            // The same answer to everybody: a stranger learns nothing of who is a member.
            AfterHandshakeOutcome::Reject {
                error_code: VarInt::from_u32(NOT_A_MEMBER),
                reason: REASON.to_vec(),
            }
        }
    }
}

/// Application error code of a connection that the gate closed.
pub(super) const NOT_A_MEMBER: u32 = 403;
const REASON: &[u8] = b"not a member";
