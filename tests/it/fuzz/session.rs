//! Both sides of a sync, with messages that are changed, repeated, made up, and out of turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId, Seq},
    limits::{SYNC_ITEMS_MAX, SYNC_WANTS_MAX},
    protocol::{
        entry::{VerifiedEntry, sign},
        frontier::{FrontierTip, MissingRange},
        sync::{Action, Decision, Message, PartName, PartWant, Session, SyncError, Turn},
    },
};

use super::messages::honest_messages;
use crate::support::{
    model::{AUTHORS, Replica, STORE, header, key_of, put},
    mutator::{Corpus, number, soaked},
    random::{Random, for_each_seed},
};

struct End {
    session: Session,
    replica: Replica,
    // Ranges of the last Want that was sent, and what came for them.
    asked: Vec<MissingRange>,
    answer: BTreeSet<EntryId>,
    // Frames that the session asked to read, not handed over yet. `None`: no read is open.
    reading: Option<VecDeque<Bytes>>,
    is_over: bool,
    received: u64,
}

#[derive(Debug, Default)]
struct Seen {
    finished: u64,
    refused: u64,
    ingested: u64,
    errors: BTreeMap<&'static str, u64>,
}

impl End {
    fn new(session: Session, replica: Replica) -> Self {
        Self {
            session,
            replica,
            asked: Vec::new(),
            answer: BTreeSet::new(),
            reading: None,
            is_over: false,
            received: 0,
        }
    }

    /// Handles a message, whatever it is. Returns the messages that the session sends.
    fn handle(&mut self, message: Message, seen: &mut Seen) -> Vec<Message> {
        let items = match &message {
            Message::Tips { tips, .. } => tips.len(),
            Message::Want { ranges, .. } => ranges.len(),
            Message::Entries(entries) => entries.len(),
            _other => 0,
        };
        match self.session.handle(message) {
            Ok(_) if self.is_over => panic!("a session goes on after its end"),
            Ok(actions) => self.act(actions, seen),
            Err(error) => {
                *seen.errors.entry(name(&error)).or_default() += 1;
                assert!(!self.is_over || matches!(error, SyncError::OutOfTurn { .. }));
                self.is_over = true;
                self.reading = None;
                assert_eq!(self.session.waits_for(), None);
                assert!(!self.session.is_reading());
                seen.refused += 1;
                assert!(self.session.summary().received <= self.received + items as u64 + 256);
                Vec::new()
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>, seen: &mut Seen) -> Vec<Message> {
        let mut sent = Vec::new();
        let mut actions: VecDeque<Action> = actions.into();
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(message) => {
                    if let Message::Want { ranges, .. } = &message {
                        self.asked.extend(ranges);
                    }
                    sent.push(message);
                }
                Action::Find(tips) => {
                    assert!(tips.len() <= SYNC_ITEMS_MAX);
                    let is_missing = |(_, tip): &(Author, FrontierTip)| {
                        !self.replica.entries.contains_key(&tip.id)
                    };
                    let missing = tips.into_iter().filter(is_missing).collect();
                    // The answer before has ended.
                    self.asked.clear();
                    self.answer.clear();
                    actions.extend(self.session.on_missing(missing));
                }
                Action::Read(ranges) => {
                    assert!(self.reading.is_none() && self.session.is_reading());
                    self.reading = Some(self.read(&ranges));
                }
                Action::Ingest(entries) => {
                    seen.ingested += entries.len() as u64;
                    self.received += entries.len() as u64;
                    self.assert_asked_for(&entries);
                    for entry in &entries {
                        assert_eq!(entry.header.store, STORE);
                        let is_vouched = entries.iter().any(|it| it.header.prev == Some(entry.id));
                        assert!(
                            entry.verifies() || is_vouched,
                            "{} is not authentic",
                            entry.id
                        );
                        if self.replica.missing(entry).is_none() {
                            self.replica.apply(entry);
                        }
                    }
                }
                Action::ReadBase => {
                    self.session.on_base_opened([PartName([7; 32])]);
                    actions.extend(self.session.on_piece_read(Bytes::from_static(b"base")));
                    actions.extend(self.session.on_read_end());
                }
                Action::ReadPart(part, _from_chunk) => {
                    assert_eq!(part, PartName([7; 32]), "it was offered");
                    actions.extend(self.session.on_read_end());
                }
                Action::CheckBase(manifest) => {
                    assert!(!manifest.is_empty());
                    let want = PartWant {
                        part: PartName([7; 32]),
                        from_chunk: 0,
                        bytes_max: 100,
                    };
                    actions.extend(if manifest.len().is_multiple_of(2) {
                        self.session.on_part_wanted(Some(want))
                    } else {
                        self.session.on_base_refused()
                    });
                }
                Action::Keep(piece, last) => {
                    assert!(piece.len() <= 100, "no more than was asked for");
                    if last {
                        actions.extend(self.session.on_part_wanted(None));
                    }
                }
                Action::Install => actions.extend(self.session.on_installed()),
                Action::Finish(summary) => {
                    assert!(actions.is_empty(), "no action follows");
                    assert_eq!(summary, self.session.summary());
                    assert!(summary.wants <= SYNC_WANTS_MAX);
                    self.is_over = true;
                    seen.finished += 1;
                }
            }
        }
        let received = self.session.summary().received;
        assert_eq!(received, self.received, "each entry is handed over once");
        sent
    }

    // Checks that entries were asked for, each once, and are in order.
    fn assert_asked_for(&mut self, entries: &[VerifiedEntry]) {
        assert!(entries.is_sorted_by(|before, after| before.order() < after.order()));
        for entry in entries {
            let seq = entry.header.seq;
            let mut asked = self.asked.iter();
            let has = |range: &MissingRange| range.after < seq && seq <= range.through;
            assert!(asked.any(|range| range.author == entry.author() && has(range)));
            assert!(self.answer.insert(entry.id), "{} comes twice", entry.id);
        }
        let places = self.asked.iter().map(|range| range.through - range.after);
        let places = places.fold(0, u64::saturating_add);
        assert!(
            self.answer.len() as u64 <= places,
            "no more than was asked for"
        );
    }

    // Returns the entries of the ranges in order, each once.
    fn read(&self, ranges: &[MissingRange]) -> VecDeque<Bytes> {
        let mut found = BTreeMap::new();
        for range in ranges {
            let newest = self.replica.frontier.seq(&range.author);
            assert!(range.after < range.through && range.through <= newest);
            let mut next = Some(range.tip);
            while let Some(entry) = next.and_then(|id| self.replica.entries.get(&id)) {
                let is_within = range.after < entry.header.seq && entry.header.seq <= range.through;
                if entry.author() != range.author || !is_within {
                    break;
                }
                found.insert(entry.order(), Bytes::from(entry.signed.encode()));
                next = entry.header.prev;
            }
        }
        found.into_values().collect()
    }

    // Goes on with an open read: some of the entries, or its end.
    fn read_on(&mut self, random: &mut Random, seen: &mut Seen) -> Vec<Message> {
        let Some(left) = &mut self.reading else {
            return Vec::new();
        };
        let count = random.below(left.len() + 1);
        let actions = if left.is_empty() {
            self.reading = None;
            self.session.on_read_end()
        } else {
            let entries = left.drain(..count).collect();
            self.session.on_entries_read(entries)
        };
        self.act(actions, seen)
    }
}

fn name(error: &SyncError) -> &'static str {
    match error {
        SyncError::OutOfTurn { .. } => "out of turn",
        SyncError::NotInOrder { .. } => "not in order",
        SyncError::Empty { .. } => "empty",
        SyncError::EmptyRange { .. } => "empty range",
        SyncError::RangeTooFar { .. } => "range too far",
        SyncError::TooManyRefused { .. } => "too many refused",
        _other => "other",
    }
}

// Entries that no honest node has: of a fork, of another store, badly signed.
fn hostile_entries(random: &mut Random) -> Vec<Bytes> {
    let secret = AUTHORS[random.below(3)];
    let mut last: Option<VerifiedEntry> = None;
    let count = 1 + random.below(6);
    let entries = (0..count).map(|_| {
        let seq: Seq = last.as_ref().map_or(1, |entry| entry.header.seq + 1);
        let mut header = header(1000 + seq);
        header.seq = seq;
        header.prev = last.as_ref().map(|entry| entry.id);
        if random.once_in(8) {
            header.store.0[3] ^= 1;
        }
        let ops = vec![put("/hostile", &random.bits().to_string())];
        let entry = sign(&key_of(secret), header, ops).unwrap();
        let mut signed = entry.signed.clone();
        if random.once_in(3) {
            signed.signature[9] ^= 1;
        }
        // The id covers the signature, so a later one may vouch for it.
        last = Some(signed.clone().parse().unwrap().vouched());
        Bytes::from(signed.encode())
    });
    entries.collect()
}

// A message that an attacker sends in place of `honest`, or beside it.
fn hostile(
    honest: Option<&Message>,
    corpus: &Corpus,
    ends: &[End; 2],
    random: &mut Random,
) -> Option<Message> {
    let tip = |random: &mut Random| {
        let tips: Vec<_> = ends
            .iter()
            .flat_map(|end| end.replica.frontier.iter())
            .collect();
        let (author, mut tip) = tips[random.below(tips.len())];
        if random.once_in(3) {
            tip.seq = number(random).max(1);
        }
        if random.once_in(3) {
            tip.id = EntryId([7; 32]);
        }
        (author, tip)
    };
    match random.below(6) {
        0 => honest.cloned(),
        1 => Some(Message::Entries(hostile_entries(random))),
        2 => {
            let mut tips: Vec<_> = (0..random.below(4)).map(|_| tip(random)).collect();
            tips.sort_unstable();
            let last = random.once_in(2);
            Some(Message::Tips { tips, last })
        }
        3 => {
            let mut ranges = Vec::new();
            for _ in 0..random.below(4) {
                let (author, tip) = tip(random);
                ranges.push(MissingRange {
                    author,
                    after: tip.seq.saturating_sub(random.bits() % 4),
                    through: tip.seq,
                    tip: tip.id,
                });
            }
            ranges.sort_unstable();
            let last = random.once_in(2);
            Some(Message::Want { ranges, last })
        }
        4 => {
            let bytes = honest?.clone().encode().slice(4..);
            let mutant = Corpus::new([bytes.to_vec()]).mutant(random);
            Message::decode(mutant.into()).ok()
        }
        _any => Message::decode(corpus.mutant(random).into()).ok(),
    }
}

// Two replicas that share a beginning, and forks.
fn replicas(random: &mut Random) -> [Replica; 2] {
    let mut replicas = [Replica::default(), Replica::default()];
    for step in 0..random.below(12) as u64 {
        let at = random.below(2);
        let ops = vec![put(["/a", "/b"][random.below(2)], &step.to_string())];
        let entry = replicas[at].write(AUTHORS[random.below(3)], 1000 + step, ops);
        let other = &mut replicas[1 - at];
        if random.once_in(2) && other.missing(&entry).is_none() {
            other.apply(&entry);
        }
    }
    for replica in &mut replicas {
        let ops = vec![put("/own", "here")];
        replica.write(AUTHORS[random.below(3)], 5000, ops);
    }
    replicas
}

#[test]
fn n1_n4_n5_session_with_any_messages_in_any_order() {
    let messages = honest_messages().into_iter();
    let corpus = Corpus::new(messages.map(|message| message.encode()[4..].to_vec()));
    let mut seen = Seen::default();
    let mut equal = 0;
    for_each_seed(1..=soaked(2000), |random| {
        let [one, other] = replicas(random);
        let (opener, hello) = Session::open(STORE, one.frontier.clone(), Vec::new()).unwrap();
        let acceptor = Session::accept(STORE, other.frontier.clone()).unwrap();
        // Some take short pieces, too, so that bases are reached.
        let piece_bytes_min = [1, 1, 4][random.below(3)];
        let [opener, acceptor] = [opener, acceptor].map(|it| it.with_pieces_of(piece_bytes_min));
        let mut ends = [End::new(opener, one), End::new(acceptor, other)];
        // Messages on their way to each end.
        let mut ways = [VecDeque::new(), VecDeque::from([hello])];
        // Some sessions are honest: they must end well.
        let hostility = [0, 2, 6, 12][random.below(4)];
        for _step in 0..200 {
            let to = random.below(2);
            let end = &mut ends[to];
            let sent = if random.once_in(3) && end.reading.is_some() {
                end.read_on(random, &mut seen)
            } else {
                let mut message = ways[to].pop_front();
                if hostility > 0 && random.once_in(hostility) {
                    let honest = message.take();
                    let made_up = hostile(honest.as_ref(), &corpus, &ends, random);
                    // Sometimes the honest message comes after it.
                    if random.once_in(2) {
                        ways[to].extend(honest);
                    }
                    message = made_up;
                }
                let Some(message) = message else { continue };
                ends[to].handle(message, &mut seen)
            };
            ways[1 - to].extend(sent);
        }
        if hostility == 0 {
            assert!(ends.iter().all(|end| end.is_over), "an honest session ends");
            let ids = |end: &End| end.replica.entries.keys().copied().collect::<Vec<_>>();
            assert_eq!(ids(&ends[0]), ids(&ends[1]));
            equal += 1;
        }
    });
    println!("{equal} honest, {seen:?}");
    if std::env::var_os("SEED").is_none() {
        assert!(equal > 50 && seen.refused > 50 && seen.finished > 200 && seen.ingested > 500);
    }
}

#[test]
fn n8_turn_with_a_peer_that_opens_as_it_likes() {
    for_each_seed(1..=soaked(500), |random| {
        let mut turn = Turn::default();
        let mut serving = 0_u32;
        let mut is_open = false;
        let (own, peer) = (
            Author([1; 32]),
            Author([random.bits().to_le_bytes()[0]; 32]),
        );
        for _ in 0..50 {
            match random.below(5) {
                0 if turn.may_open() => {
                    assert!(!is_open && serving == 0, "one session at a time");
                    turn.opened();
                    is_open = true;
                }
                1 if is_open => turn.answered(),
                2 => {
                    turn.over();
                    is_open = false;
                }
                3 if serving > 0 => {
                    turn.served();
                    serving -= 1;
                }
                _opens => {
                    let (came_ms, now_ms) = (number(random), number(random));
                    match turn.on_peer_opens(&own, &peer, came_ms, now_ms) {
                        Decision::Serve => serving += 1,
                        Decision::Refuse => assert!(is_open),
                        Decision::WaitUntil(until_ms) => assert!(until_ms > now_ms && is_open),
                    }
                }
            }
        }
    });
}
