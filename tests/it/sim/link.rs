//! A stream between two nodes with a sync session at each end.

use std::collections::VecDeque;

use bytes::Bytes;
use lattice::{
    id::Author,
    protocol::{
        frontier::{Frontier, FrontierTip},
        sync::{Action, FrameDecoder, Message, PartName, PartWant, Session, Summary},
    },
};

use crate::{
    sim::{base::Base, counters::Counters, node::Node},
    support::{model::STORE, random::Random},
};

/// Ticks in which a session must get somewhere.
const TICKS_MAX: u64 = 2000;

/// A stream between two nodes: one has opened a session, the other serves or refuses it.
#[derive(Debug)]
pub struct Link {
    // The opener, then the acceptor.
    ends: [End; 2],
    // The opener's hello and when it came. Set until the acceptor decides; never in a link that was
    // served from the start.
    hello: Option<(u64, Message)>,
    // When the opener learns that it was refused. `None` unless the acceptor has refused.
    refusal: Option<u64>,
    // The end whose peer broke a rule.
    broken: Option<usize>,
    ticks: u64,
    // Time that a message takes, at most.
    delay_max: u64,
}

#[derive(Debug)]
struct End {
    node: usize,
    // `None` at the acceptor until it serves.
    session: Option<Session>,
    decoder: FrameDecoder,
    // Messages of the peer, by the time when they come. In order: it is a stream.
    inbox: VecDeque<(u64, Bytes)>,
    // Entries that were read from the log and have yet to be sent; pieces of a base, if `is_base`.
    reading: VecDeque<Bytes>,
    is_base: bool,
    // The base that the peer gets.
    offered: Option<Base>,
    // The base that comes from the peer: its anchors, its parts, and what has come of one of them.
    taken: (Frontier, Vec<PartName>),
    coming: Option<(PartName, Vec<u8>)>,
    finished: Option<Summary>,
    bytes_sent: usize,
    // True after the first message of the peer.
    has_received: bool,
    is_hostile: bool,
}

impl Link {
    /// Opens a session from the first of two nodes to the second. The second has yet to decide
    /// whether it serves. A message takes at most `delay_max`.
    pub fn open(between: [usize; 2], nodes: &[Node], now: u64, delay_max: u64) -> Self {
        let own = nodes[between[0]].replica.frontier.clone();
        let (session, hello) = Session::open(STORE, own, Vec::new()).unwrap();
        let session = session.beginning_at(&nodes[between[0]].begins());
        let session = session.with_pieces_of(PIECE_BYTES);
        let end = |node: usize, session| End {
            node,
            session,
            decoder: FrameDecoder::default(),
            inbox: VecDeque::new(),
            reading: VecDeque::new(),
            is_base: false,
            offered: None,
            taken: (Frontier::default(), Vec::new()),
            coming: None,
            finished: None,
            bytes_sent: 0,
            has_received: false,
            is_hostile: nodes[node].is_hostile,
        };
        let mut ends = [end(between[0], Some(session)), end(between[1], None)];
        let hello = hello.encode();
        ends[0].bytes_sent += hello.len();
        ends[1].inbox.push_back((now, hello));
        Self {
            ends,
            hello: None,
            refusal: None,
            broken: None,
            ticks: 0,
            delay_max,
        }
    }

    /// Lets the acceptor serve the session before the hello has come.
    pub fn served(mut self, nodes: &[Node]) -> Self {
        self.accept(nodes);
        self
    }

    fn accept(&mut self, nodes: &[Node]) {
        let acceptor = &mut self.ends[1];
        let own = nodes[acceptor.node].replica.frontier.clone();
        let session = Session::accept(STORE, own).unwrap();
        let session = session.beginning_at(&nodes[acceptor.node].begins());
        acceptor.session = Some(session.with_pieces_of(PIECE_BYTES));
    }

    /// The hello takes its time, too, and a hostile opener sends something else instead.
    pub fn delay_hello(&mut self, random: &mut Random) {
        let delay = random.bits() % (self.delay_max + 1);
        let is_bad = self.ends[0].is_hostile && random.once_in(2);
        for (due, bytes) in &mut self.ends[1].inbox {
            *due += delay;
            if is_bad {
                *bytes = malformed(random);
            }
        }
    }

    /// Serves the session whose hello has come.
    pub fn serve(
        &mut self,
        now: u64,
        nodes: &mut [Node],
        random: &mut Random,
        counters: &mut Counters,
    ) {
        self.accept(nodes);
        let (_, hello) = self.hello.take().expect("the hello has come");
        self.handle(1, hello, now, nodes, random, counters);
    }

    /// Refuses the session whose hello has come.
    pub fn refuse(&mut self, now: u64, random: &mut Random) {
        self.hello.take().expect("the hello has come");
        self.refusal = Some(now + random.bits() % (self.delay_max + 1));
    }

    /// Returns when the hello came on which the acceptor has to decide.
    pub fn undecided_since(&self) -> Option<u64> {
        self.hello.as_ref().map(|(came, _)| *came)
    }

    /// True while the acceptor serves a session and neither end is done.
    pub fn is_served(&self) -> bool {
        self.ends[1].session.is_some() && self.finished() == [None, None]
    }

    /// True after the first message of the acceptor.
    pub fn is_answered(&self) -> bool {
        self.ends[0].has_received
    }

    /// Returns when the opener learns that it was refused.
    pub fn refusal(&self) -> Option<u64> {
        self.refusal
    }

    /// Returns the end whose peer broke a rule.
    pub fn broken(&self) -> Option<usize> {
        self.broken
    }

    /// Returns what each end did; `None` at an end that is not done.
    pub fn finished(&self) -> [Option<Summary>; 2] {
        [self.ends[0].finished, self.ends[1].finished]
    }

    /// Returns when an end has something to do, `u64::MAX` when both wait for another node.
    pub fn due(&self, now: u64) -> u64 {
        let inboxes = self.ends.iter().filter_map(|end| end.inbox.front());
        let due = inboxes.map(|(due, _)| *due).chain(self.refusal).min();
        let is_reading = self.ends.iter().any(End::is_reading);
        if is_reading {
            now
        } else {
            due.unwrap_or(u64::MAX)
        }
    }

    /// True when an end has sent or received entries.
    pub fn has_begun(&self) -> bool {
        let sessions = self.ends.iter().filter_map(|end| end.session.as_ref());
        sessions
            .map(Session::summary)
            .any(|summary| summary.sent + summary.received > 0)
    }

    /// Returns the nodes at its ends: the opener, then the acceptor.
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
        self.ticks += 1;
        assert!(
            self.ticks < TICKS_MAX,
            "a session that nobody cuts ends: {self:?}"
        );
        for at in [0, 1] {
            if let Some((_, bytes)) = self.ends[at].inbox.pop_front_if(|(due, _)| *due <= now) {
                self.receive(at, &bytes, now, nodes, random, counters);
            }
            if self.broken.is_some() {
                return;
            }
            if self.ends[at].is_reading() {
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
        self.ends[at].has_received = true;
        // A stream knows no messages: they come in pieces.
        let (head, tail) = bytes.split_at(random.below(bytes.len() + 1));
        for piece in [head, tail] {
            let messages = match self.ends[at].decoder.push(piece) {
                Ok(messages) => messages,
                Err(error) => return self.blame(at, &error.to_string()),
            };
            for message in messages {
                match &self.ends[at].session {
                    Some(_) => self.handle(at, message, now, nodes, random, counters),
                    None if matches!(message, Message::Hello { .. }) => {
                        self.hello = Some((now, message));
                    }
                    None => self.blame(at, "it does not begin with a hello"),
                }
            }
        }
    }

    fn handle(
        &mut self,
        at: usize,
        message: Message,
        now: u64,
        nodes: &mut [Node],
        random: &mut Random,
        counters: &mut Counters,
    ) {
        match self.session(at).handle(message) {
            Ok(actions) => self.perform(at, actions, now, nodes, random, counters),
            Err(error) => self.blame(at, &error.to_string()),
        }
    }

    // The shell strikes the peer for each of these.
    fn blame(&mut self, at: usize, error: &str) {
        let peer = &self.ends[1 - at];
        assert!(peer.is_hostile, "an honest peer is blamed: {error}");
        self.broken = Some(at);
    }

    fn session(&mut self, at: usize) -> &mut Session {
        let session = self.ends[at].session.as_mut();
        session.expect("messages are handled once the session is served")
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
        let (is_last, is_base) = (end.reading.is_empty(), end.is_base);
        let session = self.session(at);
        let mut actions = Vec::new();
        if is_base {
            for piece in batch {
                actions.extend(session.on_piece_read(piece));
            }
        } else {
            actions = session.on_entries_read(batch);
        }
        if is_last {
            actions.extend(session.on_read_end());
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
                    let is_bad = self.ends[at].is_hostile && random.once_in(3);
                    let bytes = if is_bad {
                        malformed(random)
                    } else {
                        message.encode()
                    };
                    self.ends[at].bytes_sent += bytes.len();
                    let inbox = &mut self.ends[1 - at].inbox;
                    let after = inbox.back().map_or(now, |(due, _)| *due);
                    let due = after.max(now + random.bits() % (self.delay_max + 1));
                    inbox.push_back((due, bytes));
                }
                Action::Find(tips) => {
                    let lacking = node.lacks(tips);
                    let actions = self.session(at).on_missing(lacking);
                    self.perform(at, actions, now, nodes, random, counters);
                }
                Action::Read(ranges) => {
                    self.ends[at].is_base = false;
                    self.ends[at].reading = node.read(&ranges).into();
                }
                Action::Ingest(entries) => {
                    entries
                        .into_iter()
                        .for_each(|entry| node.take(entry, counters));
                }
                Action::ReadBase => {
                    let base = node.base.clone();
                    let names = base.as_ref().map(Base::names).unwrap_or_default();
                    self.session(at).on_base_opened(names);
                    let manifest = base.as_ref().map(Base::manifest).unwrap_or_default();
                    self.ends[at].read_pieces(&manifest);
                    self.ends[at].offered = base;
                }
                Action::ReadPart(name, _from_chunk) => {
                    let base = self.ends[at].offered.as_ref().unwrap();
                    let part = base.parts.iter().find(|(it, _)| *it == name);
                    let part = part.unwrap().1.clone();
                    self.ends[at].read_pieces(&part);
                }
                Action::CheckBase(manifest) => {
                    let (anchors, names) = Base::read(manifest);
                    let is_in_base =
                        |(author, here): (Author, FrontierTip)| anchors.seq(&author) >= here.seq;
                    let actions = if node.begins().iter().all(is_in_base) {
                        self.ends[at].taken = (anchors, names);
                        self.next_part(at, nodes)
                    } else {
                        self.session(at).on_base_refused()
                    };
                    self.perform(at, actions, now, nodes, random, counters);
                }
                Action::Keep(piece, last) => {
                    let (name, part) = self.ends[at].coming.as_mut().unwrap();
                    part.extend_from_slice(&piece);
                    if last {
                        let name = *name;
                        let part: Bytes = std::mem::take(part).into();
                        assert_eq!(blake3::hash(&part).as_bytes(), &name.0);
                        let before = node.parts.insert(name, part);
                        assert_eq!(before, None, "what is here is not asked for again");
                        counters.parts += 1;
                        let actions = self.next_part(at, nodes);
                        self.perform(at, actions, now, nodes, random, counters);
                    }
                }
                Action::Install => {
                    let (anchors, names) = std::mem::take(&mut self.ends[at].taken);
                    node.install(anchors, &names);
                    node.settle(counters);
                    counters.bases += 1;
                    let actions = self.session(at).on_installed();
                    self.perform(at, actions, now, nodes, random, counters);
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

impl Link {
    // Asks for the next part that the node does not have.
    fn next_part(&mut self, at: usize, nodes: &[Node]) -> Vec<Action> {
        let end = &mut self.ends[at];
        let mut names = end.taken.1.iter();
        let node = &nodes[end.node];
        let next = names.find(|name| !node.parts.contains_key(*name)).copied();
        end.coming = next.map(|name| (name, Vec::new()));
        self.session(at).on_part_wanted(next.map(|part| PartWant {
            part,
            from_chunk: 0,
            bytes_max: 1 << 20,
        }))
    }
}

impl End {
    // Sends these bytes in small pieces.
    fn read_pieces(&mut self, bytes: &Bytes) {
        self.is_base = true;
        let pieces = bytes.chunks(PIECE_BYTES);
        self.reading = pieces.map(Bytes::copy_from_slice).collect();
    }

    fn is_reading(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_reading)
    }
}

// Bytes of a base that are sent at once.
const PIECE_BYTES: usize = 100;

// Bytes that break a rule wherever they come: a length above the maximum, or a message that an
// acceptor sends, from which no session goes on.
fn malformed(random: &mut Random) -> Bytes {
    match random.below(3) {
        0 => Bytes::from_static(&[0xff; 5]),
        1 => Bytes::from_static(&[0, 0, 0, 1, 0xff]),
        _ => Message::Want {
            ranges: Vec::new(),
            last: false,
        }
        .encode(),
    }
}

/// Runs one session from start to end, with nothing between the two.
pub fn sync(
    between: [usize; 2],
    nodes: &mut [Node],
    random: &mut Random,
    counters: &mut Counters,
) -> (usize, [Summary; 2]) {
    let mut link = Link::open(between, nodes, 0, 0).served(nodes);
    for now in 0.. {
        link.tick(now, nodes, random, counters);
        if let Some(outcome) = link.outcome() {
            return outcome;
        }
    }
    unreachable!("a link that does not end panics")
}
