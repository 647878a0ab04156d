//! A sync of two stores in this process.

use std::collections::VecDeque;

use bytes::Bytes;
use lattice::{
    Store,
    id::Author,
    protocol::sync::{Action, BaseNeed, Message, OwnEntries, Session, Summary},
    store::{OfferedBase, TakeBaseError, TakenBase},
};

/// Bytes of a base that are sent at once.
const PIECE_BYTES: usize = 1000;

/// One side of a sync in this process.
pub struct Side<'a> {
    pub store: &'a Store,
    /// The author of the other side.
    pub peer: Author,
    pub session: Session,
    pub inbox: VecDeque<Message>,
    pub summary: Option<Summary>,
    /// Why the base of the other side was not taken.
    pub refused: Option<TakeBaseError>,
    /// The base of the other side as far as it has come.
    pub taken: Option<TakenBase>,
    offered: Option<OfferedBase>,
}

/// Why a session has ended early.
#[derive(Debug)]
pub enum Failed {
    /// The base of the other side.
    Base(TakeBaseError),
    /// The store of this side, as text.
    Store(#[expect(dead_code, reason = "shown when a test fails")] String),
}

impl From<TakeBaseError> for Failed {
    fn from(error: TakeBaseError) -> Self {
        Self::Base(error)
    }
}

fn own(error: impl std::fmt::Display) -> Failed {
    Failed::Store(error.to_string())
}

impl Side<'_> {
    /// Does what a session asks for. Returns the messages to send. An error of a base ends the session.
    pub async fn act(&mut self, actions: Vec<Action>) -> Result<Vec<Message>, Failed> {
        let (mut actions, mut sent) = (VecDeque::from(actions), Vec::new());
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(message) => sent.push(message),
                Action::Find(tips) => {
                    let lacking = self.store.lacks(tips).await.map_err(own)?;
                    actions.extend(self.session.on_missing(lacking));
                }
                Action::Read(ranges) => {
                    let mut outgoing = self.store.outgoing(&ranges).map_err(own)?;
                    loop {
                        let frame = outgoing.next_frame(1 << 16).map_err(own)?;
                        if frame.is_empty() {
                            break;
                        }
                        actions.extend(self.session.on_entries_read(frame));
                    }
                    actions.extend(self.session.on_read_end());
                }
                Action::Ingest(entries) => {
                    let _outcomes = self.store.ingest_verified(entries).await.map_err(own)?;
                }
                Action::ReadBase => {
                    self.offered = self.store.offered_base();
                    let parts = self.offered.as_ref().map(OfferedBase::parts);
                    self.session.on_base_opened(parts.unwrap_or_default());
                    let manifest = self.offered.as_ref().map(OfferedBase::manifest);
                    for piece in manifest.unwrap_or_default().chunks(PIECE_BYTES) {
                        let piece = Bytes::copy_from_slice(piece);
                        actions.extend(self.session.on_piece_read(piece));
                    }
                    actions.extend(self.session.on_read_end());
                }
                Action::ReadPart(part, from_chunk) => {
                    let offered = self.offered.as_ref().unwrap();
                    let mut part = offered.part(&part, from_chunk).unwrap().unwrap();
                    while let Some(piece) = part.next_piece(PIECE_BYTES).unwrap() {
                        actions.extend(self.session.on_piece_read(piece));
                    }
                    actions.extend(self.session.on_read_end());
                }
                Action::CheckBase(manifest) => {
                    let begins = self.session.their_begins();
                    let taken = self.store.take_base(&manifest, begins, &self.peer);
                    match taken.await {
                        Ok(mut taken) => {
                            let want = taken.next_part()?;
                            self.taken = Some(taken);
                            actions.extend(self.session.on_part_wanted(want));
                        }
                        Err(error) if error.is_fault() => return Err(error.into()),
                        Err(error) => {
                            self.refused = Some(error);
                            actions.extend(self.session.on_base_refused());
                        }
                    }
                }
                Action::Keep(piece, last) => {
                    let taken = self.taken.as_mut().unwrap();
                    taken.keep(&piece, last)?;
                    if last {
                        let want = taken.next_part()?;
                        actions.extend(self.session.on_part_wanted(want));
                    }
                }
                Action::Install => {
                    self.taken.take().unwrap().install().await?;
                    actions.extend(self.session.on_installed());
                }
                Action::Finish(summary) => self.summary = Some(summary),
            }
        }
        Ok(sent)
    }

    /// Handles a message that has come. Returns the messages to send.
    pub async fn handle(&mut self, message: Message) -> Result<Vec<Message>, Failed> {
        let actions = self.session.handle(message).unwrap();
        self.act(actions).await
    }
}

/// Begins a sync of two stores: the hello is in the inbox of the second.
pub async fn begin<'a>(one: &'a Store, other: &'a Store) -> [Side<'a>; 2] {
    let missing = one.missing().await.unwrap();
    let own = |store: &Store| OwnEntries {
        counting: store.frontier(),
        spent: store.spent_keys().unwrap(),
    };
    let (session, hello) = Session::open(one.id(), own(one), missing).unwrap();
    let accepting = Session::accept(one.id(), own(other)).unwrap();
    let side = |store: &'a Store, peer: Author, session: Session| Side {
        session: session
            .beginning_at(&store.begins())
            .wishing(store.base_wish(&peer))
            .with_pieces_of(PIECE_BYTES),
        store,
        peer,
        inbox: VecDeque::new(),
        summary: None,
        refused: None,
        taken: None,
        offered: None,
    };
    let mut sides = [
        side(one, other.author(), session),
        side(other, one.author(), accepting),
    ];
    let hello = sides[0].session.hello_with_wish(hello);
    sides[1].inbox.push_back(hello);
    sides
}

/// Syncs two stores until all is the same, after bases that have to be installed first. Returns how many
/// bases were.
pub async fn sync_all(one: &Store, other: &Store) -> usize {
    let mut installed = 0;
    for _session in 0..4 {
        let summaries = sync(one, other).await;
        let bases = summaries.iter().filter(|it| it.base == BaseNeed::Installed);
        installed += bases.count();
        if summaries.iter().all(|summary| summary.same) {
            return installed;
        }
    }
    panic!("still not the same");
}

/// Syncs two stores as two nodes do. Returns the counts of each of them.
pub async fn sync(one: &Store, other: &Store) -> [Summary; 2] {
    let sides = sync_sides(one, other).await;
    sides.map(|side| side.summary.expect("it has ended"))
}

/// Like `sync`. Returns the sides.
pub async fn sync_sides<'a>(one: &'a Store, other: &'a Store) -> [Side<'a>; 2] {
    let mut sides = begin(one, other).await;
    while sides.iter().any(|side| side.summary.is_none()) {
        for at in [0, 1] {
            if let Some(message) = sides[at].inbox.pop_front() {
                let sent = sides[at].handle(message).await.unwrap();
                sides[1 - at].inbox.extend(sent);
            }
        }
    }
    one.settle().await;
    other.settle().await;
    sides
}
