//! The gate: which nodes get a connection, on any protocol, in both directions.

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

use tokio::time::Instant;

use crate::{
    id::Author,
    limits::{PEER_CONNECTIONS_ALL_MAX, PEER_LEFT_OVER, PEER_LEFT_OVER_FULL},
    net::{address::node_of, alpn::HELLO_ALPN},
    protocol::peer::ShutOut,
};

/// Lets members in, and strangers only as far as the hello protocol. A member that misbehaves is
/// shut out for a while. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(
    // Never held across an await; no other lock is taken meanwhile.
    Arc<Mutex<Open>>,
);

#[derive(Debug)]
struct Open {
    // Zero of the clock of `shut_out`.
    began: Instant,
    // Replaced whole by `admit`.
    members: BTreeSet<Author>,
    // Open connections on all protocols but hello; those that are closed go when the next one
    // comes, or at the next look. At most PEER_CONNECTIONS_ALL_MAX each. Weak: a strong handle would
    // keep a connection
    // open that no task uses any more.
    // Oldest first.
    connections: BTreeMap<Author, Vec<Entered>>,
    // Subset of `members`. An entry whose time has come is removed when it is next looked at.
    shut_out: BTreeMap<Author, ShutOut>,
}

impl Default for Open {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            members: BTreeSet::new(),
            connections: BTreeMap::new(),
            shut_out: BTreeMap::new(),
        }
    }
}

/// A connection that was let in, and when its node was last heard on it.
#[derive(Debug)]
struct Entered {
    connection: WeakConnectionHandle,
    // Datagrams that had come at the last look, and the time of the first look that found as many.
    datagrams: u64,
    heard: Instant,
}

/// Why a connection is closed: a code and a reason.
pub(super) type Verdict = (u32, &'static [u8]);

impl Gate {
    /// Lets in `members` from now on. Closes the connections of all other nodes.
    pub(super) fn admit(&self, members: BTreeSet<Author>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<_> = open.connections.keys().copied().collect();
        for node in known.iter().filter(|node| !members.contains(node)) {
            open.hang_up(node, NOT_A_MEMBER);
        }
        open.shut_out.retain(|node, _| members.contains(node));
        open.members = members;
    }

    /// Closes all connections of `node`. It is let in again after `wait_ms`, not before.
    pub(super) fn shut_out(&self, node: &Author, wait_ms: u64) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shut_out = ShutOut::new(open.now_ms(), wait_ms);
        open.shut_out.insert(*node, shut_out);
        open.hang_up(node, SHUT_OUT);
    }

    /// Closes all connections for the reason `why`. Their nodes may connect again at once.
    pub(super) fn hang_up_all(&self, why: Verdict) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<_> = open.connections.keys().copied().collect();
        known.iter().for_each(|node| open.hang_up(node, why));
    }

    /// Returns the milliseconds for which `node` is still shut out; `None` when it is not.
    pub(super) fn shut_out_ms(&self, node: &Author) -> Option<u64> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.shut_out_ms(node)
    }

    /// True when `node` is a member.
    pub(super) fn admits(&self, node: &Author) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.members.contains(node)
    }

    /// Returns the nodes that are let in.
    pub(super) fn members(&self) -> BTreeSet<Author> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.members.clone()
    }

    fn enter(&self, node: Author, connection: WeakConnectionHandle) -> Result<(), Verdict> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.members.contains(&node) {
            return Err(NOT_A_MEMBER);
        }
        if open.shut_out_ms(&node).is_some() {
            return Err(SHUT_OUT);
        }
        let connections = open.connections.entry(node).or_default();
        connections.retain(|known| known.open().is_some());
        if connections.len() >= PEER_CONNECTIONS_ALL_MAX {
            // A node that starts again and again leaves dead ones.
            let is_dead = |known: &Entered| known.heard.elapsed() >= PEER_LEFT_OVER_FULL;
            let Some(dead) = connections.iter().position(is_dead) else {
                return Err(BUSY);
            };
            connections.remove(dead).close();
        }
        connections.push(Entered {
            connection,
            datagrams: 0,
            heard: Instant::now(),
        });
        Ok(())
    }

    /// Looks on which connections their nodes were heard since the last look. Closes those on which
    /// a node is silent since it has made a later one: it was killed and has started again.
    pub(super) fn close_left_over(&self) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for connections in open.connections.values_mut() {
            connections.retain_mut(Entered::listen);
            let is_silent = |known: &Entered| known.heard.elapsed() >= PEER_LEFT_OVER;
            let heard = connections.iter().rposition(|known| !is_silent(known));
            let earlier = heard.and_then(|newest| connections.get(..newest));
            let left_over = earlier.unwrap_or_default().iter();
            left_over
                .filter(|known| is_silent(known))
                .for_each(Entered::close);
        }
    }
}

impl Open {
    fn hang_up(&mut self, node: &Author, (code, reason): Verdict) {
        for known in self.connections.remove(node).unwrap_or_default() {
            if let Some(connection) = known.open() {
                connection.close(VarInt::from_u32(code), reason);
            }
        }
    }

    fn shut_out_ms(&mut self, node: &Author) -> Option<u64> {
        let left_ms = self.shut_out.get(node)?.left_ms(self.now_ms());
        if left_ms.is_none() {
            self.shut_out.remove(node);
        }
        left_ms
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Entered {
    fn open(&self) -> Option<Connection> {
        let connection = self.connection.upgrade()?;
        connection.close_reason().is_none().then_some(connection)
    }

    // Looks whether datagrams have come since the last look. False when it is closed.
    fn listen(&mut self) -> bool {
        let Some(connection) = self.open() else {
            return false;
        };
        let datagrams = connection.stats().udp_rx.datagrams;
        if datagrams != self.datagrams {
            (self.datagrams, self.heard) = (datagrams, Instant::now());
        }
        true
    }

    fn close(&self) {
        if let Some(connection) = self.open() {
            let (code, reason) = AGAIN;
            connection.close(code.into(), reason);
        }
    }
}

impl EndpointHooks for Gate {
    async fn before_connect<'a>(
        &'a self,
        remote: &'a EndpointAddr,
        alpn: &'a [u8],
    ) -> BeforeConnectOutcome {
        let node = node_of(&remote.id);
        if alpn == HELLO_ALPN || (self.admits(&node) && self.shut_out_ms(&node).is_none()) {
            BeforeConnectOutcome::Accept
        } else {
            BeforeConnectOutcome::Reject
        }
    }

    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        let node = node_of(&connection.remote_id());
        if connection.alpn() == HELLO_ALPN {
            return AfterHandshakeOutcome::Accept;
        }
        match self.enter(node, connection.weak_handle()) {
            Ok(()) => AfterHandshakeOutcome::Accept,
            Err((code, reason)) => AfterHandshakeOutcome::Reject {
                error_code: VarInt::from_u32(code),
                reason: reason.to_vec(),
            },
        }
    }
}

/// The same for all strangers: the refusal does not show whether a node ever was a member.
pub(super) const NOT_A_MEMBER: Verdict = (403, b"not a member");
/// Only a member can be shut out, so only a member sees this.
pub(super) const SHUT_OUT: Verdict = (400, b"misbehaved");
/// Connections are made again after a sleep of the machine.
pub(super) const AGAIN: Verdict = (0, b"again");
/// This node stops.
pub(super) const STOPPED: Verdict = (1, b"stopped");
/// A peer has too many connections, or opens too many syncs.
pub(super) const BUSY: Verdict = (429, b"too many connections");
