//! A stream between two nodes with a sync session at each end.

use std::collections::VecDeque;

use bytes::Bytes;
use lattice::protocol::sync::{Action, FrameDecoder, Session, Summary};

use crate::{
    sim::{counters::Counters, node::Node},
    support::{model::STORE, random::Random},
};

/// Ticks in which a session must get somewhere.
const TICKS_MAX: u64 = 2000;

/// Two nodes that sync.
#[derive(Debug)]
pub struct Link {
    ends: [End; 2],
    began: u64,
    // Ticks that a message takes, at most.
    delay_max: usize,
}

#[derive(Debug)]
struct End {
    node: usize,
    session: Session,
    decoder: FrameDecoder,
    // What the peer sent, by the tick when it comes. In order: it is a stream.
    inbox: VecDeque<(u64, Bytes)>,
    // What the log was read for, and has yet to be sent.
    reading: VecDeque<Bytes>,
    finished: Option<Summary>,
    bytes_sent: usize,
}

impl Link {
    /// Opens a session from the first of two nodes to the second.
    pub fn open(between: [usize; 2], nodes: &[Node], now: u64, delay_max: usize) -> Self {
        let [opener, acceptor] = between.map(|node| nodes[node].replica.frontier.clone());
        let (opener, hello) = Session::open(STORE, opener, Vec::new()).unwrap();
        let acceptor = Session::accept(STORE, acceptor).unwrap();
        let end = |node, session| End {
            node,
            session,
            decoder: FrameDecoder::default(),
            inbox: VecDeque::new(),
            reading: VecDeque::new(),
            finished: None,
            bytes_sent: 0,
        };
        let mut ends = [end(between[0], opener), end(between[1], acceptor)];
        let hello = hello.encode();
        ends[0].bytes_sent += hello.len();
        ends[1].inbox.push_back((now, hello));
        Self {
            ends,
            began: now,
            delay_max,
        }
    }

    /// True when `node` is at one of its ends.
    pub fn touches(&self, node: usize) -> bool {
        self.ends.iter().any(|end| end.node == node)
    }

    /// True when an end has sent or received entries.
    pub fn has_begun(&self) -> bool {
        let summaries = self.ends.iter().map(|end| end.session.summary());
        summaries
            .into_iter()
            .any(|summary| summary.sent + summary.received > 0)
    }

    /// Returns the nodes at its ends.
    pub fn nodes(&self) -> [usize; 2] {
        [self.ends[0].node, self.ends[1].node]
    }

    /// Returns the bytes that both ends have sent, and what they did; `None` until both are done.
    pub fn outcome(&self) -> Option<(usize, [Summary; 2])> {
        let [one, other] = &self.ends;
        let bytes = one.bytes_sent + other.bytes_sent;
        Some((bytes, [one.finished?, other.finished?]))
    }

    /// Lets each end take a message that has come, and send a part of what it reads.
    pub fn tick(
        &mut self,
        now: u64,
        nodes: &mut [Node],
        random: &mut Random,
        counters: &mut Counters,
    ) {
        assert!(
            now - self.began < TICKS_MAX,
            "a session that nobody cuts ends: {self:?}"
        );
        for at in [0, 1] {
            if let Some((_, bytes)) = self.ends[at].inbox.pop_front_if(|(due, _)| *due <= now) {
                self.receive(at, &bytes, now, nodes, random, counters);
            }
            if self.ends[at].session.is_reading() {
                self.send_some(at, now, nodes, random, counters);
            }
        }
        if let Some((_, summaries)) = self.outcome() {
            counters.same += usize::from(summaries[0].same);
            counters.complete += usize::from(!summaries[0].same);
            counters.asked_again += summaries.iter().filter(|summary| summary.wants > 1).count();
        }
    }

    fn receive(
        &mut self,
        at: usize,
        bytes: &[u8],
        now: u64,
        nodes: &mut [Node],
        random: &mut Random,
        counters: &mut Counters,
    ) {
        // A stream knows no messages: they come in pieces.
        let (head, tail) = bytes.split_at(random.below(bytes.len() + 1));
        for piece in [head, tail] {
            let messages = self.ends[at].decoder.push(piece).expect("honest bytes");
            for message in messages {
                let session = &mut self.ends[at].session;
                let actions = session.handle(message).expect("an honest peer");
                self.perform(at, actions, now, nodes, random, counters);
            }
        }
    }

    fn send_some(
        &mut self,
        at: usize,
        now: u64,
        nodes: &mut [Node],
        random: &mut Random,
        counters: &mut Counters,
    ) {
        let end = &mut self.ends[at];
        let count = end.reading.len().min(1 + random.below(8));
        let batch: Vec<Bytes> = end.reading.drain(..count).collect();
        let mut actions = end.session.on_entries_read(batch);
        if end.reading.is_empty() {
            actions.extend(end.session.on_read_end());
        }
        self.perform(at, actions, now, nodes, random, counters);
    }

    // In order. What follows from an action comes before what followed it.
    fn perform(
        &mut self,
        at: usize,
        actions: Vec<Action>,
        now: u64,
        nodes: &mut [Node],
        random: &mut Random,
        counters: &mut Counters,
    ) {
        for action in actions {
            let node = &mut nodes[self.ends[at].node];
            match action {
                Action::Send(message) => {
                    let bytes = message.encode();
                    self.ends[at].bytes_sent += bytes.len();
                    let inbox = &mut self.ends[1 - at].inbox;
                    let after = inbox.back().map_or(now, |(due, _)| *due);
                    let due = after.max(now + random.below(self.delay_max + 1) as u64);
                    inbox.push_back((due, bytes));
                }
                Action::Find(tips) => {
                    let actions = self.ends[at].session.on_missing(node.lacks(tips));
                    self.perform(at, actions, now, nodes, random, counters);
                }
                Action::Read(ranges) => self.ends[at].reading = node.read(&ranges).into(),
                Action::Ingest(entries) => {
                    entries
                        .into_iter()
                        .for_each(|entry| node.take(entry, counters));
                }
                Action::Finish(summary) => {
                    if summary.received > 0 {
                        node.settle(counters);
                    }
                    self.ends[at].finished = Some(summary);
                }
            }
        }
    }
}

/// Runs one session from start to end, with nothing between the two.
pub fn sync(
    between: [usize; 2],
    nodes: &mut [Node],
    random: &mut Random,
    counters: &mut Counters,
) -> (usize, [Summary; 2]) {
    let mut link = Link::open(between, nodes, 0, 0);
    for now in 0.. {
        link.tick(now, nodes, random, counters);
        if let Some(outcome) = link.outcome() {
            return outcome;
        }
    }
    unreachable!("a link that does not end panics")
}
