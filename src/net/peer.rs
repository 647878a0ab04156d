//! The notes about one peer: its connections, when it was heard of, and what it may cause here.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};

use crate::{
    id::{Author, StoreId},
    limits::{
        GOSSIP_WASTE_PER_S, GOSSIP_WASTE_RESERVE, PEER_LEFT_OVER_FULL, PEER_SYNCS_MAX,
        STATEMENTS_PER_S, STATEMENTS_RESERVE, STATUSES_PER_S, STATUSES_RESERVE, WISHES_PER_S,
        WISHES_RESERVE,
    },
    net::{
        address::Addresses, base_refusal::BaseRefusal, error::PeerError, gate::AGAIN, live::Live,
    },
    protocol::ack::AckPlace,
    protocol::peer::{Allowance, BaseGiver, Lag, Rate, Strikes},
};

/// The notes about one peer.
#[derive(Debug)]
pub(super) struct Peer {
    // Addresses that the peer itself reported last, or that the user gave.
    pub(super) addresses: Addresses,
    // Addresses that another node reported last. Dialled in addition to `addresses`, never instead.
    pub(super) hinted: Addresses,
    // The addresses that were last written to disk, and when. `None` before the first time.
    pub(super) news: Option<(Addresses, Instant)>,
    // Newest last; closed ones are dropped by `live`. Two when both sides dialled at once, at most
    // PEER_CONNECTIONS_MAX.
    pub(super) connections: Vec<Live>,
    // Changes when entries came that another instance of the node may be missing. Each connection
    // waits for it; dropped with the table.
    pub(super) copies: Arc<watch::Sender<u64>>,
    // Wall clock of this node when the peer was last heard of, ms since 1970. 0 before the first
    // time.
    pub(super) seen_ms: u64,
    // True once it has closed a connection because it stops. Cleared by a connection.
    pub(super) has_stopped: bool,
    // Milliseconds that its clock is ahead, by its last status; `None` before the first one.
    pub(super) skew_ms: Option<i64>,
    // Cleared by a connection and by a sync that went well.
    pub(super) error: Option<PeerError>,
    // Outcome of the first sync since the start.
    pub(super) compared: Compared,
    pub(super) strikes: Strikes,
    // The text of its last strike.
    pub(super) misbehaved: Option<String>,
    // Whether others are asked first for a base.
    pub(super) giver: BaseGiver,
    // Why its last base was not taken.
    pub(super) refusal: Option<BaseRefusal>,
    // Whether one of both nodes is missing entries of the other.
    pub(super) lag: Lag,
    // Zero of the clock of `lag`, `strikes`, `giver` and the allowances.
    pub(super) began: Instant,
    // Statuses of it that are answered.
    pub(super) statuses: Allowance,
    // Syncs that messages in gossip make this node wish for.
    pub(super) wishes: Allowance,
    // True while a wish is put off. Set by `wish`, cleared by `wish_is_due`.
    pub(super) is_put_off: bool,
    // Gossip messages that it delivered and that were of no use.
    pub(super) waste: Allowance,
    // Acks and announcements in gossip that it has signed.
    pub(super) statements: Allowance,
    // Locked while a status of it is answered.
    pub(super) status_turn: Arc<tokio::sync::Mutex<()>>,
    // PEER_SYNCS_MAX permits, one for each sync that it has opened. Never closed.
    pub(super) syncs: Arc<Semaphore>,
    // A permit for a comparison that it has opened. Never closed.
    pub(super) compares: Arc<Semaphore>,
    // Places of the acks of other members that were sent to it. Emptied by each new connection.
    pub(super) relayed: BTreeMap<(StoreId, Author), AckPlace>,
    // Notified by a connection, an address or a wish to sync. The peer's task waits for it while it
    // has no connection.
    pub(super) wake: Arc<Notify>,
    // Notified when there is something to sync. The peer's task waits for it while it has a
    // connection.
    pub(super) wanted: Arc<Notify>,
    // Notified when the acks of both sides differ for too long. The peer's task waits for it while
    // it has a connection.
    pub(super) due: Arc<Notify>,
    // Notified of each new connection. Dials that are under way wait for it.
    pub(super) came: Arc<Notify>,
}

/// Outcome of the first sync with a peer since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Compared {
    /// It has not ended.
    #[default]
    NotYet,
    /// The peer was not reached, or the sync with it failed.
    Failed,
    /// It failed because a store of this node could not be read or written.
    Unreadable,
    /// All entries that the peer has of all stores are here.
    Done,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            addresses: Addresses::default(),
            hinted: Addresses::default(),
            news: None,
            connections: Vec::new(),
            copies: Arc::default(),
            seen_ms: 0,
            has_stopped: false,
            skew_ms: None,
            error: None,
            compared: Compared::NotYet,
            strikes: Strikes::default(),
            misbehaved: None,
            giver: BaseGiver::default(),
            refusal: None,
            lag: Lag::default(),
            began: Instant::now(),
            statuses: Allowance::new(Rate {
                per_s: STATUSES_PER_S,
                reserve: STATUSES_RESERVE,
            }),
            wishes: Allowance::new(Rate {
                per_s: WISHES_PER_S,
                reserve: WISHES_RESERVE,
            }),
            is_put_off: false,
            waste: Allowance::new(Rate {
                per_s: GOSSIP_WASTE_PER_S,
                reserve: GOSSIP_WASTE_RESERVE,
            }),
            statements: Allowance::new(Rate {
                per_s: STATEMENTS_PER_S,
                reserve: STATEMENTS_RESERVE,
            }),
            status_turn: Arc::default(),
            syncs: Arc::new(Semaphore::new(PEER_SYNCS_MAX)),
            compares: Arc::new(Semaphore::new(1)),
            relayed: BTreeMap::new(),
            wake: Arc::default(),
            wanted: Arc::default(),
            due: Arc::default(),
            came: Arc::default(),
        }
    }
}

impl Peer {
    /// Returns the time since `began`, in milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Drops the connections that are closed. Returns the others.
    pub(super) fn live(&mut self) -> &[Live] {
        let has_stopped = &mut self.has_stopped;
        self.connections.retain(|live| {
            *has_stopped |= live.was_stopped();
            live.is_open()
        });
        &self.connections
    }

    /// Looks whether the peer was heard of since the last look.
    pub(super) fn listen(&mut self, now_ms: u64) {
        let had_stopped = self.has_stopped;
        self.live();
        let mut is_heard = self.has_stopped && !had_stopped;
        for live in &mut self.connections {
            is_heard |= live.listen();
        }
        if is_heard {
            self.seen_ms = now_ms;
        }
    }

    /// Closes the connection on which the peer is silent for the longest time, if that is so long that
    /// it may be one that an earlier start of the peer has left. True when one was closed.
    pub(super) fn close_left_over(&self) -> bool {
        let most_silent = self.connections.iter().max_by_key(|live| live.silence());
        let Some(live) = most_silent.filter(|live| live.silence() >= PEER_LEFT_OVER_FULL) else {
            return false;
        };
        let (code, reason) = AGAIN;
        live.connection.close(code.into(), reason);
        true
    }

    /// True if `error` only shows that the peer cannot be reached, and it has stopped.
    pub(super) fn is_away(&self, error: &PeerError) -> bool {
        let is_unreached = match error {
            PeerError::Silent { .. } | PeerError::HungUp | PeerError::Connection { .. } => true,
            PeerError::NotAKey
            | PeerError::NotAMember
            | PeerError::Removed { .. }
            | PeerError::ShutOut
            | PeerError::TooManyConnections
            | PeerError::TooManySyncs { .. }
            | PeerError::TooManyCompares
            | PeerError::Busy
            | PeerError::NoStore
            | PeerError::NeedsUpdate
            | PeerError::Base { .. }
            | PeerError::Malformed { .. }
            | PeerError::Sync(_)
            | PeerError::Own { .. } => false,
        };
        self.has_stopped && is_unreached
    }
}
