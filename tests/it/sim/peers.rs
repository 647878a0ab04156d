//! The peer life of all nodes: dials, connections, and the sessions on them.
//!
//! The shell of `src/net/peer_task.rs` and `src/net/session.rs`, without its waits and its IO.

use std::collections::BTreeSet;

use lattice::{
    id::Author,
    limits::{DIAL_TIMEOUT, PEER_CONNECTIONS_MAX, SYNC_TIE_MS_MAX},
    protocol::{
        peer::{DialStep, SyncEvent, SyncStep, busy_wait_ms, sync_step},
        sync::Decision,
    },
};

use crate::{
    sim::{
        counters::Counters,
        link::Link,
        node::Node,
        peer::{Peer, Stay, Step},
    },
    support::{model::author_of, random::Random},
};

/// Milliseconds of one tick.
pub const TICK_MS: u64 = 150;
/// Milliseconds that a message takes on most connections, at most. A peer that is asked there
/// answers within SYNC_TIE_MS_MAX: two messages, and a tick for each to be taken.
const DELAY_MS_MAX: u64 = 300;
const _: () = assert!(2 * (DELAY_MS_MAX + TICK_MS) < SYNC_TIE_MS_MAX);
/// The same on a slow connection, where a peer may be asked in vain for longer than that.
const SLOW_DELAY_MS_MAX: u64 = 1000;

/// Which nodes reach each other.
#[derive(Debug)]
pub struct Reach {
    /// Until when each node is down.
    pub down_until_ms: Vec<u64>,
    /// The side of a partition on which each node is. Nodes of one side reach each other.
    pub sides: Vec<usize>,
}

impl Reach {
    pub fn is_up(&self, node: usize, now_ms: u64) -> bool {
        self.down_until_ms[node] <= now_ms
    }

    pub fn joins(&self, [one, other]: [usize; 2], now_ms: u64) -> bool {
        self.is_up(one, now_ms) && self.is_up(other, now_ms) && self.sides[one] == self.sides[other]
    }
}

/// All that a tick works with.
#[derive(Debug)]
pub struct Tick<'a> {
    pub now_ms: u64,
    pub reach: &'a Reach,
    pub nodes: &'a mut [Node],
    pub random: &'a mut Random,
    pub counters: &'a mut Counters,
}

#[derive(Debug)]
pub struct Peers {
    ids: Vec<Author>,
    // By node, then by peer.
    peers: Vec<Vec<Peer>>,
    connections: Vec<Connection>,
    // Sessions that one of its ends has not ended, with the connection of each.
    links: Vec<(u64, u64, Link)>,
    // Pairs that were connected, the lesser index first.
    met: BTreeSet<[usize; 2]>,
    // Handle of the next connection or session.
    next: u64,
}

#[derive(Debug)]
struct Connection {
    handle: u64,
    dialler: usize,
    acceptor: usize,
    came_ms: u64,
    delay_ms_max: u64,
}

impl Connection {
    fn touches(&self, node: usize) -> bool {
        [self.dialler, self.acceptor].contains(&node)
    }
}

impl Peers {
    pub fn new(nodes: &[Node]) -> Self {
        let peers = |_: &Node| nodes.iter().map(|_| Peer::default()).collect();
        Self {
            ids: nodes.iter().map(|node| author_of(node.secret)).collect(),
            peers: nodes.iter().map(peers).collect(),
            connections: Vec::new(),
            links: Vec::new(),
            met: BTreeSet::new(),
            next: 0,
        }
    }

    /// Lets every session and every task go on. True when a session has ended.
    pub fn tick(&mut self, tick: &mut Tick<'_>) -> bool {
        let had = self.links.len();
        for (_, _, link) in &mut self.links {
            link.tick(tick.now_ms, tick.nodes, tick.random, tick.counters);
        }
        let handles: Vec<u64> = self.links.iter().map(|(handle, ..)| *handle).collect();
        for handle in handles {
            self.follow(handle, tick);
        }
        let has_ended = self.links.len() < had;
        for node in 0..self.peers.len() {
            for peer in (0..self.peers.len()).filter(|peer| *peer != node) {
                if tick.reach.is_up(node, tick.now_ms) {
                    self.run(node, peer, tick);
                }
            }
        }
        has_ended
    }

    /// Notes that `node` wants to sync with `peer`.
    pub fn want(&mut self, node: usize, peer: usize) {
        self.peers[node][peer].want();
    }

    /// Returns when something goes on by itself.
    pub fn due_ms(&self, now_ms: u64) -> u64 {
        let waits = |link: &Link| {
            let came_ms = link.undecided_since();
            came_ms.map_or(u64::MAX, |came_ms| came_ms + SYNC_TIE_MS_MAX)
        };
        let links = self.links.iter();
        let links = links.map(|(_, _, link)| link.due(now_ms).min(waits(link)));
        let others = |(node, peers): (usize, &Vec<Peer>)| {
            let others = peers.iter().enumerate().filter(|(peer, _)| *peer != node);
            let due_ms = others.map(|(_, peer)| peer.due_ms(now_ms));
            due_ms.min().unwrap_or(u64::MAX)
        };
        let tasks = self.peers.iter().enumerate().map(others);
        links.chain(tasks).min().unwrap_or(u64::MAX)
    }

    /// Panics unless strikes hit hostile nodes only, and each shut-out lasted.
    pub fn assert_honest_are_let_in(&self, nodes: &[Node]) {
        for peers in &self.peers {
            for (node, peer) in nodes.iter().zip(peers) {
                let strikes = peer.strikes.total();
                assert!(strikes == 0 || node.is_hostile, "{strikes} strikes");
                peer.assert_was_shut_out();
            }
        }
    }
}

// Sessions.
impl Peers {
    // Does what follows from what a session has done in this tick.
    fn follow(&mut self, handle: u64, tick: &mut Tick<'_>) {
        let Some((_, connection, link)) = self.links.iter().find(|(known, ..)| *known == handle)
        else {
            return;
        };
        let (connection, [opener, acceptor]) = (*connection, link.nodes());
        if let Some(at) = link.broken() {
            let [one, other] = [link.nodes()[at], link.nodes()[1 - at]];
            self.end(handle, tick);
            self.strike(one, other, tick);
            return;
        }
        let finished = link.finished();
        let is_over = link.outcome().is_some();
        let refusal = link.refusal();
        let is_undecided = link.undecided_since().is_some();
        if link.is_answered() && self.peers[opener][acceptor].has_opened(handle) {
            self.peers[opener][acceptor].turn.answered();
            self.ask_again([opener, acceptor], tick);
        }
        if refusal.is_some_and(|due_ms| due_ms <= tick.now_ms) {
            self.links.retain(|(known, ..)| *known != handle);
            self.close_own(handle, [opener, acceptor], Ended::Refused, tick);
            return;
        }
        if is_undecided {
            self.decide(handle, connection, tick);
            return;
        }
        if let Some(summary) = finished[0]
            && self.peers[opener][acceptor].has_opened(handle)
        {
            self.close_own(handle, [opener, acceptor], Ended::Complete, tick);
            if summary.received > 0 {
                self.announce(opener, tick);
            }
        }
        if let Some(summary) = finished[1] {
            self.peers[acceptor][opener].end_served(handle);
            if summary.received > 0 && is_over {
                self.announce(acceptor, tick);
            }
        }
        if is_over {
            self.links.retain(|(known, ..)| *known != handle);
        }
    }

    // The turn of `node` with `peer` has changed: a session of the peer that waits is decided again.
    fn ask_again(&mut self, [node, peer]: [usize; 2], tick: &mut Tick<'_>) {
        let now_ms = tick.now_ms;
        let waits = |link: &Link| {
            let came_ms = link.undecided_since();
            link.nodes() == [peer, node] && came_ms.is_some_and(|came_ms| came_ms < now_ms)
        };
        let waiting = self.links.iter().find(|(_, _, link)| waits(link));
        if let Some((handle, connection, _)) = waiting {
            self.decide(*handle, *connection, tick);
        }
    }

    // Asks the turn about a session whose hello has come.
    fn decide(&mut self, handle: u64, connection: u64, tick: &mut Tick<'_>) {
        let now_ms = tick.now_ms;
        let at = self.links.iter().position(|(known, ..)| *known == handle);
        let at = at.expect("the session goes on");
        let link = &self.links[at].2;
        let [opener, acceptor] = link.nodes();
        let came_ms = link.undecided_since().expect("the hello has come");
        let own = &mut self.peers[acceptor][opener];
        if came_ms == now_ms {
            let is_open = matches!(
                own.step,
                Step::Staying {
                    stay: Stay::Syncing { .. },
                    ..
                }
            );
            tick.counters.ties += usize::from(is_open);
        }
        let ids = [self.ids[acceptor], self.ids[opener]];
        let decision = own.turn.on_peer_opens(&ids[0], &ids[1], came_ms, now_ms);
        match decision {
            Decision::Serve => {
                own.served.insert(handle);
                self.assert_serves_one(at, connection);
                tick.counters.waits_run_out += usize::from(now_ms >= came_ms + SYNC_TIE_MS_MAX);
                let link = &mut self.links[at].2;
                link.serve(now_ms, tick.nodes, tick.random, tick.counters);
                self.follow(handle, tick);
            }
            Decision::Refuse => {
                tick.counters.refused_busy += 1;
                self.links[at].2.refuse(now_ms, tick.random);
            }
            Decision::WaitUntil(until_ms) => assert!(until_ms > now_ms, "a wait ends"),
        }
    }

    // Of two nodes that answer each other in time, one serves the other.
    fn assert_serves_one(&self, at: usize, connection: u64) {
        let [opener, acceptor] = self.links[at].2.nodes();
        let is_reverse = |link: &Link| link.nodes() == [acceptor, opener] && link.is_served();
        let reverse = self.links.iter().find(|(_, _, link)| is_reverse(link));
        if let Some((_, other, link)) = reverse {
            let is_slow = [connection, *other].iter().any(|handle| {
                let connection = self.connection(*handle);
                connection.is_none_or(|connection| connection.delay_ms_max > DELAY_MS_MAX)
            });
            assert!(
                is_slow,
                "two nodes serve each other: {:?} and {link:?}, {:?}",
                self.links[at], self.peers[acceptor][opener]
            );
        }
    }

    // Ends the session at both ends before it is complete.
    fn end(&mut self, handle: u64, tick: &mut Tick<'_>) {
        let at = self.links.iter().position(|(known, ..)| *known == handle);
        let (_, _, link) = self.links.remove(at.expect("the session goes on"));
        let [opener, acceptor] = link.nodes();
        self.peers[acceptor][opener].end_served(handle);
        self.close_own(handle, [opener, acceptor], Ended::Cut, tick);
    }

    // Ends the session `handle` at its opener, unless it has ended there.
    fn close_own(
        &mut self,
        handle: u64,
        [opener, acceptor]: [usize; 2],
        ended: Ended,
        tick: &mut Tick<'_>,
    ) {
        let own = &mut self.peers[opener][acceptor];
        let Step::Staying {
            connection,
            stay: Stay::Syncing { began_ms, link },
        } = own.step
        else {
            return;
        };
        if link != handle {
            return;
        }
        own.turn.over();
        let is_open = self
            .connections
            .iter()
            .any(|known| known.handle == connection);
        let waited_ms = tick.now_ms - began_ms;
        let stay = match (ended, busy_wait_ms(waited_ms)) {
            (Ended::Complete, _) => Stay::After(SyncEvent::Synced),
            (Ended::Refused, Some(wait_ms)) => Stay::Busy {
                began_ms,
                until_ms: tick.now_ms + wait_ms,
            },
            (Ended::Refused, None) | (Ended::Cut, _) if is_open => Stay::After(SyncEvent::Failed),
            (Ended::Refused, None) | (Ended::Cut, _) => {
                own.step = Step::Next;
                self.ask_again([opener, acceptor], tick);
                return;
            }
        };
        own.step = Step::Staying { connection, stay };
        self.ask_again([opener, acceptor], tick);
    }

    // A sync has brought entries: some of the other nodes learn that this one differs from them.
    fn announce(&mut self, node: usize, tick: &mut Tick<'_>) {
        let hash = tick.nodes[node].replica.frontier.hash();
        for other in 0..tick.nodes.len() {
            let is_reached = other != node && tick.reach.joins([node, other], tick.now_ms);
            if is_reached
                && tick.random.once_in(2)
                && tick.nodes[other].replica.frontier.hash() != hash
            {
                self.want(other, node);
            }
        }
    }

    fn strike(&mut self, node: usize, peer: usize, tick: &mut Tick<'_>) {
        tick.counters.strikes += 1;
        if self.peers[node][peer].strike(tick.now_ms) {
            tick.counters.shut_outs += 1;
            self.tear(
                |connection| connection.touches(node) && connection.touches(peer),
                tick,
            );
        }
    }
}

// Tasks and connections.
impl Peers {
    // Lets the task of `peer` at `node` go on until it waits.
    fn run(&mut self, node: usize, peer: usize, tick: &mut Tick<'_>) {
        loop {
            let before = self.peers[node][peer].step;
            let step = match before {
                Step::Staying { connection, stay } => self.stay(node, peer, connection, stay, tick),
                _ => self.keep(node, peer, tick),
            };
            match step {
                Some(step) => self.peers[node][peer].step = step,
                None => return,
            }
        }
    }

    // Returns the next step; `None` while the task waits.
    fn keep(&mut self, node: usize, peer: usize, tick: &mut Tick<'_>) -> Option<Step> {
        let now_ms = tick.now_ms;
        let connection = self.newest(node, peer);
        let own = &mut self.peers[node][peer];
        match own.step {
            Step::Next => match own.dialer.next(true, own.shut_out_ms(now_ms), connection) {
                DialStep::End => panic!("all nodes are admitted"),
                DialStep::Wait(wait_ms) => Some(Step::ShutOut {
                    until_ms: now_ms + wait_ms,
                }),
                DialStep::Stay(connection) => {
                    let dialled = self.connection(connection)?.dialler == node;
                    Some(Step::Staying {
                        connection,
                        stay: Stay::After(SyncEvent::Connected { dialled }),
                    })
                }
                DialStep::Dial => Some(dial(tick)),
            },
            Step::ShutOut { until_ms } if until_ms <= now_ms => {
                tick.counters.shut_outs_ended += 1;
                Some(Step::Next)
            }
            Step::Dialling { due_ms, fails_ms } => {
                let dialled = self.newest_before(node, peer, now_ms);
                if dialled.is_some() {
                    return Some(Step::Next);
                }
                if due_ms > now_ms {
                    return None;
                }
                self.arrive(node, peer, fails_ms, tick)
            }
            Step::Failed { .. } if own.is_woken => {
                own.is_woken = false;
                own.dialer.on_woken();
                Some(Step::Next)
            }
            Step::Failed { until_ms } if until_ms <= now_ms => Some(Step::Next),
            Step::ShutOut { .. } | Step::Failed { .. } => None,
            Step::Staying { .. } => panic!("the task is not connected"),
        }
    }

    // A dial reaches the peer, or not. Returns the next step; `None` while it may still do.
    fn arrive(
        &mut self,
        node: usize,
        peer: usize,
        fails_ms: u64,
        tick: &mut Tick<'_>,
    ) -> Option<Step> {
        let now_ms = tick.now_ms;
        let is_shut_out = |peers: &[Vec<Peer>], one: usize, other: usize| {
            peers[one][other].shut_out_ms(now_ms).is_some()
        };
        let is_refused =
            is_shut_out(&self.peers, node, peer) || is_shut_out(&self.peers, peer, node);
        let is_reached = tick.reach.joins([node, peer], now_ms);
        if is_reached && !is_refused {
            self.connect(node, peer, tick);
            return Some(Step::Next);
        }
        tick.counters.shut_out_dials += usize::from(is_reached);
        if !is_reached && fails_ms > now_ms {
            return None;
        }
        tick.counters.dials_failed += 1;
        let own = &mut self.peers[node][peer];
        Some(Step::Failed {
            until_ms: now_ms + own.dialer.on_dial_failed(tick.random.bits()),
        })
    }

    fn connect(&mut self, dialler: usize, acceptor: usize, tick: &mut Tick<'_>) {
        let pair = [dialler.min(acceptor), dialler.max(acceptor)];
        tick.counters.reconnects += usize::from(!self.met.insert(pair));
        let is_slow = tick.random.once_in(4);
        self.connections.push(Connection {
            handle: self.next,
            dialler,
            acceptor,
            came_ms: tick.now_ms,
            delay_ms_max: if is_slow {
                SLOW_DELAY_MS_MAX
            } else {
                DELAY_MS_MAX
            },
        });
        self.next += 1;
        self.peers[dialler][acceptor].is_woken = true;
        self.peers[acceptor][dialler].is_woken = true;
        let between = self.between(dialler, acceptor).count();
        assert!(between <= PEER_CONNECTIONS_MAX, "{between} connections");
    }

    // Returns the next step of a connected peer's task; `None` while it waits.
    fn stay(
        &mut self,
        node: usize,
        peer: usize,
        connection: u64,
        stay: Stay,
        tick: &mut Tick<'_>,
    ) -> Option<Step> {
        let now_ms = tick.now_ms;
        let is_open = self.connection(connection).is_some();
        let own = &mut self.peers[node][peer];
        let stay = match stay {
            Stay::After(event) => {
                // A hostile node does not rest.
                let is_rude = tick.nodes[node].is_hostile && event == SyncEvent::Failed;
                let event = if is_rude { SyncEvent::Wanted } else { event };
                match sync_step(event, tick.random.bits()) {
                    SyncStep::Sync => Stay::Opening { began_ms: now_ms },
                    SyncStep::Rest(wait_ms) => Stay::Resting {
                        until_ms: now_ms + wait_ms,
                    },
                    SyncStep::Listen(wait_ms) => Stay::Listening {
                        until_ms: now_ms + wait_ms,
                    },
                    SyncStep::Exchange => Stay::Exchanging {
                        until_ms: now_ms + 2 * DELAY_MS_MAX,
                    },
                }
            }
            Stay::Opening { .. } if !own.turn.may_open() => return None,
            Stay::Opening { .. } | Stay::Listening { .. } if !is_open => return Some(Step::Next),
            Stay::Opening { began_ms } => Stay::Syncing {
                began_ms,
                link: self.open(node, peer, connection, tick),
            },
            Stay::Syncing { .. } => return None,
            Stay::Busy { began_ms, until_ms } if until_ms <= now_ms => Stay::Opening { began_ms },
            Stay::Resting { until_ms } if until_ms <= now_ms => Stay::After(SyncEvent::Rested),
            Stay::Listening { .. } if own.is_wanted => {
                own.is_wanted = false;
                Stay::After(SyncEvent::Wanted)
            }
            Stay::Listening { until_ms } if until_ms <= now_ms => Stay::After(SyncEvent::Due),
            Stay::Exchanging { until_ms } if until_ms <= now_ms => {
                tick.counters.exchanges += 1;
                Stay::After(SyncEvent::Exchanged)
            }
            Stay::Busy { .. }
            | Stay::Resting { .. }
            | Stay::Listening { .. }
            | Stay::Exchanging { .. } => return None,
        };
        Some(Step::Staying { connection, stay })
    }

    fn open(&mut self, node: usize, peer: usize, connection: u64, tick: &mut Tick<'_>) -> u64 {
        let (handle, now_ms) = (self.next, tick.now_ms);
        self.next += 1;
        let delay_max = self
            .connection(connection)
            .expect("it is open")
            .delay_ms_max;
        let own = &mut self.peers[node][peer];
        own.turn.opened();
        let mut link = Link::open([node, peer], tick.nodes, now_ms, delay_max);
        link.delay_hello(tick.random);
        self.links.push((handle, connection, link));
        handle
    }

    /// Closes connections at both ends, and with them their sessions.
    fn tear(&mut self, is_torn: impl Fn(&Connection) -> bool, tick: &mut Tick<'_>) {
        let torn: Vec<_> = self.connections.extract_if(.., |it| is_torn(it)).collect();
        for connection in torn {
            let [one, other] = [connection.dialler, connection.acceptor];
            self.cut(|_, on| on == connection.handle, tick);
            self.peers[one][other].is_woken = true;
            self.peers[other][one].is_woken = true;
        }
    }

    fn cut(&mut self, is_cut: impl Fn(u64, u64) -> bool, tick: &mut Tick<'_>) {
        let cut = self
            .links
            .iter()
            .filter(|(handle, on, _)| is_cut(*handle, *on));
        let cut: Vec<_> = cut
            .map(|(handle, _, link)| (*handle, link.has_begun()))
            .collect();
        for (handle, has_begun) in cut {
            tick.counters.cut += 1;
            tick.counters.cut_midway += usize::from(has_begun);
            self.end(handle, tick);
        }
    }

    /// Cuts one session, or all sessions of its connection with it.
    pub fn cut_any(&mut self, tick: &mut Tick<'_>) {
        if self.links.is_empty() {
            return;
        }
        let at = tick.random.below(self.links.len());
        let (cut, connection) = (self.links[at].0, self.links[at].1);
        if tick.random.once_in(2) {
            self.cut(|handle, _| handle == cut, tick);
        } else {
            self.tear(|it| it.handle == connection, tick);
        }
    }

    /// Closes the connections between nodes that do not reach each other any more.
    pub fn part(&mut self, tick: &mut Tick<'_>) {
        let (reach, now_ms) = (tick.reach, tick.now_ms);
        self.tear(|it| !reach.joins([it.dialler, it.acceptor], now_ms), tick);
    }

    /// Stops `node`: its connections are closed, and it begins again with new tasks.
    pub fn stop(&mut self, node: usize, tick: &mut Tick<'_>) {
        self.tear(|connection| connection.touches(node), tick);
        self.peers[node].fill_with(Peer::default);
    }

    fn connection(&self, handle: u64) -> Option<&Connection> {
        let mut connections = self.connections.iter();
        connections.find(|connection| connection.handle == handle)
    }

    fn between(&self, one: usize, other: usize) -> impl Iterator<Item = &Connection> {
        let is_between = move |it: &&Connection| it.touches(one) && it.touches(other);
        self.connections.iter().filter(is_between)
    }

    // Returns the newest connection. Of two that came in the same tick, each side takes its own
    // for the newer: it learns last that it was answered.
    fn newest(&self, node: usize, peer: usize) -> Option<u64> {
        let age = |it: &&Connection| (it.came_ms, it.dialler == node, it.handle);
        self.between(node, peer).max_by_key(age).map(|it| it.handle)
    }

    // Returns a connection that came in an earlier tick: a dial stops for that.
    fn newest_before(&self, node: usize, peer: usize, now_ms: u64) -> Option<u64> {
        let mut between = self.between(node, peer);
        between.find(|it| it.came_ms < now_ms).map(|it| it.handle)
    }
}

// Begins a dial. A network reports at once that a node is not there, or never.
fn dial(tick: &mut Tick<'_>) -> Step {
    let due_ms = tick.now_ms + TICK_MS + tick.random.bits() % (2 * TICK_MS);
    let is_silent = tick.random.once_in(2);
    let silence_ms = u64::try_from(DIAL_TIMEOUT.as_millis()).unwrap();
    Step::Dialling {
        due_ms,
        fails_ms: if is_silent {
            tick.now_ms + silence_ms
        } else {
            due_ms
        },
    }
}

// How an own session has ended.
#[derive(Debug, Clone, Copy)]
enum Ended {
    Complete,
    Refused,
    Cut,
}
