//! One side of a sync session as a state machine: message in, actions out.

use bytes::Bytes;

use crate::{
    id::{Author, StoreId},
    limits::{
        SYNC_FRAME_BYTES_MAX, SYNC_ITEMS_MAX, SYNC_REFUSED_MAX, SYNC_UNPROVEN_BYTES_MAX,
        SYNC_UNPROVEN_MAX, SYNC_WANTS_MAX,
    },
    protocol::{
        entry::{EntryError, SignedEntry},
        frontier::{Frontier, FrontierHash, FrontierTip, MissingRange},
        run,
        sync::{
            Action, Message, Summary, SyncError, VERSION, VERSION_OLDEST, WaitsFor,
            asking::Asking,
            fetching::{BaseOffer, Fetching},
            offer::{Offer, OwnEntries},
            paging::{is_in_order, pages, wire_order},
        },
    },
};

/// One side of a session.
///
/// A session begins with [`open`](Self::open) or [`accept`](Self::accept). After that there are
/// three kinds of methods:
///
/// - [`handle`](Self::handle) takes each message of the peer, in the order in which the messages
///   arrived.
/// - `on_*` answer an action: [`on_missing`](Self::on_missing) each `Find`;
///   [`on_entries_read`](Self::on_entries_read), any number of times, then
///   [`on_read_end`](Self::on_read_end) each `Read`. Messages of the peer may arrive in between. The
///   actions about bases say how they are answered.
/// - [`waits_for`](Self::waits_for), [`is_reading`](Self::is_reading) and
///   [`summary`](Self::summary) return values, and change nothing.
///
/// All returned actions are done, in order, before the next message is handled. The session has
/// ended after `Finish` and after an error.
#[derive(Debug)]
pub struct Session {
    store: StoreId,
    // The entries that the peer may ask for.
    pub(super) offer: Offer,
    pub(super) phase: Phase,
    // The version that both sides speak. Of the opener, the newest one until the first answer.
    pub(super) speaks: u32,
    // The peer's tips, in order. Grows by pages; complete when `phase` is `Exchange`.
    pub(super) theirs: Vec<(Author, FrontierTip)>,
    // The entries at which logs of the peer begin. Grows by pages; complete when `phase` is `Tips`.
    pub(super) their_begins: Vec<(Author, FrontierTip)>,
    // Damaged entries of this node. It asks for them although the frontiers do not show them as
    // missing.
    pub(super) lost: Vec<(Author, FrontierTip)>,
    pub(super) wants: Wants,
    pub(super) asking: Asking,
    // Entries whose own signature does not verify; a later entry of this answer may vouch for
    // them. Bounded by SYNC_UNPROVEN_MAX and SYNC_UNPROVEN_BYTES_MAX; empty between two answers.
    unproven: Vec<(Bytes, EntryError)>,
    pub(super) serving: Serving,
    pub(super) fetching: Fetching,
    pub(super) base_offer: BaseOffer,
    // The peer's ranges, in order. Grows by pages until its Want is complete, then empty again.
    wanted: Vec<MissingRange>,
    wants_served: u32,
    pub(super) summary: Summary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    // The acceptor, until the opener's Hello arrives.
    Hello,
    // The opener, until the first answer.
    Answer,
    // Either side in version 2, until all beginnings of the peer's logs have arrived.
    Begins,
    // Either side, until all tips of the peer have arrived.
    Tips,
    Exchange,
    Finished,
}

// Progress of this side with its own wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    // The shell looks up entries. Also the value before the exchange, when nothing was asked yet.
    Finding,
    // A Want was sent and its answer has not ended.
    Waiting,
    // The shell looks up where the logs of the peer begin.
    FindingBegins,
    // The base was asked for, and pieces of its manifest are to come.
    Manifest,
    // The shell decides about the base, or what to ask for next; or pieces of a part are to come.
    Parts,
    // The shell installs the base.
    Installing,
    Done,
}

// Progress of this side with the peer's wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serving {
    // The peer's turn: it sends a Want or Done.
    Idle,
    // The shell reads entries, or something of the base, for the peer.
    Reading(Read),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Entries,
    Manifest,
    Part,
}

impl Session {
    /// Opens a session. Returns it and the first message to send.
    ///
    /// `lost` are entries below the own frontier that can no longer be read; if there are any, tips are
    /// exchanged even when the frontiers are equal.
    ///
    /// # Errors
    /// `TooManyOwnTips`.
    pub fn open(
        store: StoreId,
        own: impl Into<OwnEntries>,
        lost: Vec<(Author, FrontierTip)>,
    ) -> Result<(Self, Message), SyncError> {
        let mut session = Self::new(store, own.into(), Phase::Answer)?;
        let hello = Message::Hello {
            version: VERSION_OLDEST,
            newest: VERSION,
            store,
            frontier: lost.is_empty().then(|| session.offer.hash()),
        };
        session.lost = lost;
        Ok((session, hello))
    }

    /// Waits for a peer to open a session.
    ///
    /// # Errors
    /// `TooManyOwnTips`.
    pub fn accept(store: StoreId, own: impl Into<OwnEntries>) -> Result<Self, SyncError> {
        Self::new(store, own.into(), Phase::Hello)
    }

    fn new(store: StoreId, own: OwnEntries, phase: Phase) -> Result<Self, SyncError> {
        Ok(Self {
            store,
            phase,
            speaks: VERSION,
            theirs: Vec::new(),
            their_begins: Vec::new(),
            lost: Vec::new(),
            wants: Wants::Finding,
            asking: Asking::default(),
            unproven: Vec::new(),
            serving: Serving::Idle,
            fetching: Fetching::default(),
            base_offer: BaseOffer::default(),
            wanted: Vec::new(),
            wants_served: 0,
            offer: Offer::new(own)?,
            summary: Summary::default(),
        })
    }

    /// Notes the entries at which logs of this node begin, one for each author: it has neither them nor
    /// any entry before.
    ///
    /// Called before the first message of the peer is handled.
    #[must_use]
    pub fn beginning_at(mut self, anchors: &Frontier) -> Self {
        self.offer.begin_at(anchors);
        self
    }

    /// Handles a message of the peer. The actions of the message before must have been done.
    ///
    /// Checks one signature for each run of entries: long work for a message with many authors.
    ///
    /// # Errors
    /// The rule that the peer broke. The session has then ended; entries that the shell has already
    /// given to the store stay there.
    pub fn handle(&mut self, message: Message) -> Result<Vec<Action>, SyncError> {
        self.handle_in_steps(message, || {})
    }

    /// Like [`handle`](Self::handle), with `step` called before each entry is parsed and before
    /// each entry is checked, so that long work can yield.
    ///
    /// # Errors
    /// The same as for [`handle`](Self::handle).
    pub fn handle_in_steps(
        &mut self,
        message: Message,
        step: impl FnMut(),
    ) -> Result<Vec<Action>, SyncError> {
        let done = match (self.phase, self.wants, self.serving, message) {
            (
                Phase::Hello,
                _,
                _,
                Message::Hello {
                    version,
                    newest,
                    store,
                    frontier,
                },
            ) => self.hello((version, newest), store, frontier),
            (Phase::Answer, _, _, Message::Same)
                if self.lost.is_empty() && !self.wants_base_anyway() =>
            {
                Ok(self.same())
            }
            (Phase::Answer | Phase::Begins, _, _, Message::Begins { anchors, last }) => {
                self.begins(anchors, last)
            }
            (Phase::Answer | Phase::Tips, _, _, Message::Tips { tips, last }) => {
                self.tips(tips, last)
            }
            (Phase::Exchange, _, Serving::Idle, Message::Want { ranges, last }) => {
                self.want(ranges, last)
            }
            (Phase::Exchange, Wants::Waiting, _, Message::Entries(entries)) => {
                self.entries(entries, step)
            }
            (Phase::Exchange, Wants::Waiting, _, Message::Sent) => self.answered(),
            (Phase::Exchange, Wants::Manifest, _, Message::Manifest { piece, last }) => {
                self.manifest(&piece, last)
            }
            (Phase::Exchange, Wants::Parts, _, Message::Part { piece, last })
                if self.fetching.is_part_open() =>
            {
                self.part(piece, last)
            }
            (Phase::Exchange, _, Serving::Idle, Message::WantBase) if self.speaks >= VERSION => {
                self.want_base()
            }
            (Phase::Exchange, _, Serving::Idle, Message::WantPart { part, from_chunk }) => {
                self.want_part(part, from_chunk)
            }
            (Phase::Exchange, _, Serving::Idle, Message::Done) if self.wanted.is_empty() => {
                self.serving = Serving::Done;
                Ok(self.finish_if_done())
            }
            (_, _, _, message) => Err(SyncError::OutOfTurn {
                message: message.name(),
                phase: self.describe(),
            }),
        };
        if done.is_err() {
            self.phase = Phase::Finished;
        }
        done
    }

    /// Answers [`Action::Find`] with the tips that this node is missing.
    ///
    /// A tip is not missing when the logs have it and it can be read, or when its entry is held
    /// until it is due and every entry before it by `prev` is not missing.
    ///
    /// # Panics
    /// When no `Find` is open.
    pub fn on_missing(&mut self, missing: Vec<(Author, FrontierTip)>) -> Vec<Action> {
        if self.wants == Wants::FindingBegins {
            return self.on_begins_missing(&missing);
        }
        assert_eq!(self.wants, Wants::Finding, "a Find is open");
        let ranges = self.asking.next(missing);
        if ranges.is_empty() {
            return self.done();
        }
        self.wants = Wants::Waiting;
        let pages = pages(&ranges).map(|(ranges, last)| Message::Want { ranges, last });
        pages.map(Action::Send).collect()
    }

    /// Answers a part of [`Action::Read`]: `entries` were read for the peer, encoded as
    /// `SignedEntry`, in order.
    ///
    /// # Panics
    /// When no `Read` is open.
    pub fn on_entries_read(&mut self, entries: Vec<Bytes>) -> Vec<Action> {
        assert_eq!(
            self.serving,
            Serving::Reading(Read::Entries),
            "a Read is open"
        );
        let mut actions = Vec::new();
        let mut frame = Vec::new();
        let mut bytes = 0_usize;
        for entry in entries {
            let grown = bytes.saturating_add(entry.len());
            if !frame.is_empty() && grown > SYNC_FRAME_BYTES_MAX {
                actions.push(Action::Send(Message::Entries(std::mem::take(&mut frame))));
                bytes = 0;
            }
            // The protobuf framing around an entry counts, too.
            bytes = bytes.saturating_add(entry.len()).saturating_add(8);
            frame.push(entry);
            self.summary.sent = self.summary.sent.saturating_add(1);
        }
        if !frame.is_empty() {
            actions.push(Action::Send(Message::Entries(frame)));
        }
        actions
    }

    /// Ends the answer to [`Action::Read`], [`Action::ReadBase`] or [`Action::ReadPart`]: all was read.
    ///
    /// # Panics
    /// When none of them is open.
    pub fn on_read_end(&mut self) -> Vec<Action> {
        let Serving::Reading(read) = self.serving else {
            panic!("a Read is open");
        };
        self.serving = Serving::Idle;
        let (piece, last) = (Bytes::new(), true);
        vec![Action::Send(match read {
            Read::Entries => Message::Sent,
            Read::Manifest => Message::Manifest { piece, last },
            Read::Part => Message::Part { piece, last },
        })]
    }

    /// Returns the message that the session expects from the peer. `None` when the shell has to act
    /// or the session has ended.
    pub fn waits_for(&self) -> Option<WaitsFor> {
        match (self.phase, self.wants, self.serving) {
            (Phase::Hello, ..) => Some(WaitsFor::Hello),
            (Phase::Answer, ..) => Some(WaitsFor::Answer),
            (Phase::Begins | Phase::Tips, ..) => Some(WaitsFor::Tips),
            (Phase::Exchange, Wants::Manifest, _) => Some(WaitsFor::Base),
            (Phase::Exchange, Wants::Parts, _) if self.fetching.is_part_open() => {
                Some(WaitsFor::Base)
            }
            (Phase::Exchange, Wants::Waiting, _) => Some(WaitsFor::Entries),
            (Phase::Exchange, _, Serving::Idle) if self.base_offer.is_asked => {
                Some(WaitsFor::BaseWant)
            }
            (Phase::Exchange, _, Serving::Idle) => Some(WaitsFor::Want),
            (Phase::Exchange | Phase::Finished, ..) => None,
        }
    }

    /// True while the shell has something to read for the peer.
    pub fn is_reading(&self) -> bool {
        self.phase == Phase::Exchange && matches!(self.serving, Serving::Reading(_))
    }

    /// Returns the counts so far, also after an error.
    pub fn summary(&self) -> Summary {
        Summary {
            wants: self.asking.wants,
            lacking: self.asking.lacking,
            ..self.summary
        }
    }
}

// Messages of the peer, each in a method of its own.
impl Session {
    fn hello(
        &mut self,
        (oldest, newest): (u32, u32),
        store: StoreId,
        frontier: Option<FrontierHash>,
    ) -> Result<Vec<Action>, SyncError> {
        let speaks = newest.max(oldest).min(VERSION);
        if oldest > VERSION || speaks < VERSION_OLDEST {
            return Err(SyncError::WrongVersion {
                theirs: oldest,
                ours: VERSION,
            });
        }
        self.speaks = speaks;
        if store != self.store {
            return Err(SyncError::WrongStore {
                theirs: store,
                ours: self.store,
            });
        }
        if frontier == Some(self.offer.hash()) && !self.wants_base_anyway() {
            let mut actions = vec![Action::Send(Message::Same)];
            actions.extend(self.same());
            return Ok(actions);
        }
        self.phase = if speaks >= VERSION {
            Phase::Begins
        } else {
            Phase::Tips
        };
        Ok(self.own_tips())
    }

    fn same(&mut self) -> Vec<Action> {
        self.summary.same = true;
        self.phase = Phase::Finished;
        vec![Action::Finish(self.summary())]
    }

    fn tips(
        &mut self,
        tips: Vec<(Author, FrontierTip)>,
        last: bool,
    ) -> Result<Vec<Action>, SyncError> {
        if tips.is_empty() && !(last && self.theirs.is_empty()) {
            return Err(SyncError::Empty { message: "Tips" });
        }
        let count = self.theirs.len().saturating_add(tips.len());
        if count > SYNC_ITEMS_MAX {
            return Err(SyncError::TooManyTips {
                tips: count,
                tips_max: SYNC_ITEMS_MAX,
            });
        }
        if !is_in_order(self.theirs.last(), &tips, |tip| *tip) {
            return Err(SyncError::NotInOrder { what: "tips" });
        }
        self.theirs.extend(tips);
        let mut actions = Vec::new();
        if self.phase == Phase::Answer {
            self.phase = Phase::Tips;
            self.speaks = VERSION_OLDEST;
            actions = self.own_tips();
        }
        if last {
            self.phase = Phase::Exchange;
            if self.speaks < VERSION {
                self.offer.check_lacks_nothing(&self.theirs)?;
            }
            self.theirs
                .retain(|(author, _)| !self.offer.is_spent(author));
            self.lost.retain(|(author, _)| !self.offer.is_spent(author));
            actions.extend(self.find_begins());
        }
        Ok(actions)
    }

    fn want(&mut self, ranges: Vec<MissingRange>, last: bool) -> Result<Vec<Action>, SyncError> {
        if ranges.is_empty() {
            return Err(SyncError::Empty { message: "Want" });
        }
        let count = self.wanted.len().saturating_add(ranges.len());
        if count > SYNC_ITEMS_MAX {
            return Err(SyncError::TooManyRanges {
                ranges: count,
                ranges_max: SYNC_ITEMS_MAX,
            });
        }
        if !is_in_order(self.wanted.last(), &ranges, wire_order) {
            return Err(SyncError::NotInOrder { what: "ranges" });
        }
        ranges
            .iter()
            .try_for_each(|range| self.offer.check(range))?;
        self.wanted.extend(ranges);
        if !last {
            return Ok(Vec::new());
        }
        if self.wants_served == SYNC_WANTS_MAX {
            return Err(SyncError::TooManyWants {
                wants_max: SYNC_WANTS_MAX,
            });
        }
        self.wants_served = self.wants_served.saturating_add(1);
        let mut ranges = std::mem::take(&mut self.wanted);
        self.offer.ration(&mut ranges)?;
        self.serving = Serving::Reading(Read::Entries);
        Ok(vec![Action::Read(ranges)])
    }

    fn entries(
        &mut self,
        entries: Vec<Bytes>,
        mut step: impl FnMut(),
    ) -> Result<Vec<Action>, SyncError> {
        if entries.is_empty() {
            return Err(SyncError::Empty { message: "Entries" });
        }
        let unproven = std::mem::take(&mut self.unproven);
        let checked = unproven.len();
        let mut all: Vec<Bytes> = unproven.into_iter().map(|(bytes, _)| bytes).collect();
        for bytes in entries {
            self.asking.count()?;
            // A copy: one entry that waits must not keep a whole message in memory.
            all.push(Bytes::copy_from_slice(&bytes));
        }
        let parse = |bytes: &Bytes| {
            step();
            SignedEntry::decode(bytes.clone())?.parse()
        };
        let parsed: Vec<_> = all.iter().map(parse).collect();
        for entry in parsed.iter().skip(checked).flatten() {
            self.asking.check(entry, self.store)?;
        }
        let mut good = Vec::with_capacity(parsed.len());
        for (bytes, entry) in all.into_iter().zip(run::verify(parsed, step)) {
            match entry {
                Ok(entry) => good.push(entry),
                Err(refused) => self.keep_or_refuse(bytes, refused)?,
            }
        }
        let received = u64::try_from(good.len()).unwrap_or(u64::MAX);
        self.summary.received = self.summary.received.saturating_add(received);
        Ok(vec![Action::Ingest(good)])
    }

    fn answered(&mut self) -> Result<Vec<Action>, SyncError> {
        for (_, refused) in std::mem::take(&mut self.unproven) {
            self.refuse(refused)?;
        }
        Ok(self.find())
    }

    fn keep_or_refuse(&mut self, bytes: Bytes, refused: EntryError) -> Result<(), SyncError> {
        let kept = self.unproven.iter().map(|(bytes, _)| bytes.len());
        let kept = kept.fold(bytes.len(), usize::saturating_add);
        let fits = self.unproven.len() < SYNC_UNPROVEN_MAX && kept <= SYNC_UNPROVEN_BYTES_MAX;
        if fits && matches!(refused, EntryError::BadSignature { .. }) {
            self.unproven.push((bytes, refused));
            return Ok(());
        }
        self.refuse(refused)
    }

    fn refuse(&mut self, refused: EntryError) -> Result<(), SyncError> {
        if matches!(refused, EntryError::NeedsNewer { .. }) {
            self.summary.newer = self.summary.newer.saturating_add(1);
            return Ok(());
        }
        self.summary.refused = self.summary.refused.saturating_add(1);
        if self.summary.refused > SYNC_REFUSED_MAX {
            return Err(SyncError::TooManyRefused {
                refused_max: SYNC_REFUSED_MAX,
                last: refused,
            });
        }
        Ok(())
    }
}

// Messages of this side.
impl Session {
    pub(super) fn own_tips(&self) -> Vec<Action> {
        let (begins, tips) = (self.offer.anchors(), self.offer.tips());
        let begins = pages(&begins).map(|(anchors, last)| Message::Begins { anchors, last });
        let begins = begins.filter(|_| self.speaks >= VERSION);
        let tips = pages(&tips).map(|(tips, last)| Message::Tips { tips, last });
        begins.chain(tips).map(Action::Send).collect()
    }

    pub(super) fn find(&mut self) -> Vec<Action> {
        self.wants = Wants::Finding;
        let tips = self.asking.find();
        if tips.is_empty() {
            return self.on_missing(tips);
        }
        vec![Action::Find(tips)]
    }

    pub(super) fn finish_if_done(&mut self) -> Vec<Action> {
        if self.wants != Wants::Done || self.serving != Serving::Done {
            return Vec::new();
        }
        self.phase = Phase::Finished;
        vec![Action::Finish(self.summary())]
    }

    fn describe(&self) -> &'static str {
        match (self.phase, self.wants, self.serving) {
            (Phase::Hello, ..) => "its Hello was due",
            (Phase::Answer, ..) => "the answer to a Hello was due",
            (Phase::Begins, ..) => "its Begins were due",
            (Phase::Tips, ..) => "its Tips were due",
            (Phase::Finished, ..) => "the session has ended",
            (Phase::Exchange, Wants::Waiting, Serving::Idle) => "entries or a Want were due",
            (Phase::Exchange, Wants::Waiting, _) => "only entries were due",
            (Phase::Exchange, Wants::Manifest | Wants::Parts, Serving::Idle) => {
                "something of its base or a Want were due"
            }
            (Phase::Exchange, _, Serving::Idle) => "only a Want was due",
            (Phase::Exchange, ..) => "nothing was due",
        }
    }
}
