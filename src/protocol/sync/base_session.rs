//! Bases in a session: asked for, taken and served.

use bytes::Bytes;

use crate::{
    id::Author,
    limits::{SYNC_FRAME_BYTES_MAX, SYNC_ITEMS_MAX},
    protocol::{
        frontier::FrontierTip,
        sync::{
            Action, BaseNeed, BaseWish, Message, PartName, PartWant, SyncError, VERSION,
            asking::Asking,
            paging::is_in_order,
            session::{Phase, Read, Serving, Session, Wants},
        },
    },
};

// Messages of the peer.
impl Session {
    /// Takes a page of the entries at which logs of the peer begin.
    pub(super) fn begins(
        &mut self,
        anchors: Vec<(Author, FrontierTip)>,
        last: bool,
    ) -> Result<Vec<Action>, SyncError> {
        if anchors.is_empty() && !(last && self.their_begins.is_empty()) {
            return Err(SyncError::Empty { message: "Begins" });
        }
        let count = self.their_begins.len().saturating_add(anchors.len());
        if count > SYNC_ITEMS_MAX {
            return Err(SyncError::TooManyTips {
                tips: count,
                tips_max: SYNC_ITEMS_MAX,
            });
        }
        if !is_in_order(self.their_begins.last(), &anchors, |(author, _)| *author) {
            return Err(SyncError::NotInOrder { what: "beginnings" });
        }
        self.their_begins.extend(anchors);
        let was_asked = self.phase == Phase::Answer;
        self.phase = if last { Phase::Tips } else { Phase::Begins };
        Ok(if was_asked {
            self.own_tips()
        } else {
            Vec::new()
        })
    }

    /// Takes a piece of the manifest of the peer's base.
    pub(super) fn manifest(&mut self, piece: &Bytes, last: bool) -> Result<Vec<Action>, SyncError> {
        let Some(manifest) = self.fetching.manifest(piece, last)? else {
            return Ok(Vec::new());
        };
        self.wants = Wants::Parts;
        Ok(if manifest.is_empty() {
            self.on_base_refused()
        } else {
            vec![Action::CheckBase(manifest)]
        })
    }

    /// Takes a piece of the part that was asked for.
    pub(super) fn part(&mut self, piece: Bytes, last: bool) -> Result<Vec<Action>, SyncError> {
        self.fetching.part(&piece, last)?;
        Ok(vec![Action::Keep(piece, last)])
    }

    /// Serves the base.
    pub(super) fn want_base(&mut self) -> Result<Vec<Action>, SyncError> {
        self.base_offer.ask()?;
        self.serving = Serving::Reading(Read::Manifest);
        Ok(vec![Action::ReadBase])
    }

    /// Serves a part of the base.
    pub(super) fn want_part(
        &mut self,
        part: PartName,
        from_chunk: u32,
    ) -> Result<Vec<Action>, SyncError> {
        self.base_offer.ask_part(&part)?;
        self.serving = Serving::Reading(Read::Part);
        Ok(vec![Action::ReadPart(part, from_chunk)])
    }
}

// Answers of the shell.
impl Session {
    /// Asks for the base of the peer as `wish` says. A side that opened the session and asks in any case
    /// sends `hello` without its frontier: else the session would end if both sides have the same entries.
    /// If this node does not get the base that it needs or wishes for, the summary says `Refused`.
    ///
    /// Called before the first message of the peer is handled.
    #[must_use]
    pub fn wishing(mut self, wish: BaseWish) -> Self {
        self.fetching.wish = wish;
        self
    }

    /// Returns the first message of a session that was opened, as its wish wants it.
    #[must_use]
    pub fn hello_with_wish(&self, mut hello: Message) -> Message {
        if let Message::Hello { frontier, .. } = &mut hello
            && self.wants_base_anyway()
        {
            *frontier = None;
        }
        hello
    }

    /// Returns whether the base is asked for also if no entries are lacking.
    pub(super) fn wants_base_anyway(&self) -> bool {
        self.fetching.wish == BaseWish::Only
    }

    /// Takes pieces of a base from `piece_bytes_min` bytes on as full ones. For tests only.
    #[doc(hidden)]
    #[must_use]
    pub fn with_pieces_of(mut self, piece_bytes_min: usize) -> Self {
        self.fetching.piece_bytes_min = piece_bytes_min;
        self
    }

    /// Answers [`Action::CheckBase`] and the last piece of [`Action::Keep`] with the next part that is not
    /// here; `None`: all are.
    ///
    /// # Panics
    /// When neither is open.
    pub fn on_part_wanted(&mut self, want: Option<PartWant>) -> Vec<Action> {
        assert!(self.is_deciding(), "the base is asked about");
        let Some(want) = want else {
            self.wants = Wants::Installing;
            return vec![Action::Send(Message::Done), Action::Install];
        };
        self.fetching.ask(want);
        let PartWant {
            part, from_chunk, ..
        } = want;
        vec![Action::Send(Message::WantPart { part, from_chunk })]
    }

    /// Answers [`Action::CheckBase`]: this node does not take the base.
    ///
    /// # Panics
    /// When it is not open.
    pub fn on_base_refused(&mut self) -> Vec<Action> {
        assert!(self.is_deciding(), "the base is asked about");
        self.summary.base = BaseNeed::Refused;
        self.done()
    }

    /// Answers [`Action::Install`].
    ///
    /// # Panics
    /// When it is not open.
    pub fn on_installed(&mut self) -> Vec<Action> {
        assert_eq!(self.wants, Wants::Installing, "an Install is open");
        self.summary.base = BaseNeed::Installed;
        self.wants = Wants::Done;
        self.finish_if_done()
    }

    /// Begins the answer to [`Action::ReadBase`]: the base has these parts.
    ///
    /// # Panics
    /// When it is not open.
    pub fn on_base_opened(&mut self, parts: impl IntoIterator<Item = PartName>) {
        let is_open = self.serving == Serving::Reading(Read::Manifest);
        assert!(is_open, "a ReadBase is open");
        self.base_offer.open(parts.into_iter().collect());
    }

    /// Answers a part of [`Action::ReadBase`] or [`Action::ReadPart`]: `piece` was read for the peer.
    ///
    /// # Panics
    /// When neither is open; when `piece` is empty or longer than `SYNC_FRAME_BYTES_MAX`.
    pub fn on_piece_read(&mut self, piece: Bytes) -> Vec<Action> {
        assert!((1..=SYNC_FRAME_BYTES_MAX).contains(&piece.len()), "a piece");
        let last = false;
        vec![Action::Send(match self.serving {
            Serving::Reading(Read::Manifest) => Message::Manifest { piece, last },
            Serving::Reading(Read::Part) => Message::Part { piece, last },
            Serving::Reading(Read::Entries) | Serving::Idle | Serving::Done => {
                panic!("a ReadBase or ReadPart is open")
            }
        })]
    }

    /// Returns the entries at which logs of the peer begin.
    pub fn their_begins(&self) -> &[(Author, FrontierTip)] {
        &self.their_begins
    }

    /// Ends the wants of this side.
    pub(super) fn done(&mut self) -> Vec<Action> {
        self.wants = Wants::Done;
        let mut actions = vec![Action::Send(Message::Done)];
        actions.extend(self.finish_if_done());
        actions
    }

    fn is_deciding(&self) -> bool {
        self.wants == Wants::Parts && !self.fetching.is_part_open()
    }

    /// Looks for the places at which logs of the peer begin. Entries before them are not asked for.
    pub(super) fn find_begins(&mut self) -> Vec<Action> {
        if self.wants_base_anyway() {
            return self.ask_for_base();
        }
        let is_unknown = |(author, anchor): &&(Author, FrontierTip)| {
            !self.offer.own().tips(author).contains(anchor)
                && anchor.seq > self.offer.begin_of(author)
        };
        let unknown: Vec<_> = self
            .their_begins
            .iter()
            .filter(is_unknown)
            .copied()
            .collect();
        if unknown.is_empty() {
            return self.compare();
        }
        self.wants = Wants::FindingBegins;
        vec![Action::Find(unknown)]
    }

    /// Goes on after `find_begins`: with the base if this node is missing some of them.
    pub(super) fn on_begins_missing(&mut self, missing: &[(Author, FrontierTip)]) -> Vec<Action> {
        if missing.is_empty() {
            return self.compare();
        }
        if self.fetching.wish == BaseWish::Never {
            self.summary.base = BaseNeed::Refused;
            return self.done();
        }
        self.ask_for_base()
    }

    // A peer gives none in the first version.
    fn ask_for_base(&mut self) -> Vec<Action> {
        if self.speaks < VERSION {
            self.summary.base = BaseNeed::Refused;
            return self.done();
        }
        self.wants = Wants::Manifest;
        self.summary.base = BaseNeed::Open;
        vec![Action::Send(Message::WantBase)]
    }

    fn compare(&mut self) -> Vec<Action> {
        self.asking = Asking::new(self.offer.own(), &self.theirs, &self.lost);
        let theirs = self.their_begins.iter();
        let begins = theirs.map(|(author, anchor)| (*author, anchor.seq));
        self.asking.not_before(begins.chain(self.offer.begins()));
        self.find()
    }
}
