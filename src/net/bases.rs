//! The bases of a sync: the one that the peer gets, and the one that comes from it.

use std::time::Duration;

use bytes::Bytes;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    id::Author,
    limits::BASE_PIECE_BYTES,
    net::{base_refusal::BaseRefusal, error::PeerError, mesh::Mesh},
    protocol::sync::{Action, BaseWish, Message, PartName, RateFloor, Session, TooSlow},
    state::OutgoingPart,
    store::{OfferedBase, Store, TakeBaseError, TakenBase},
};

/// Something of this store's base on its way to the peer.
#[derive(Debug)]
pub(super) enum Source {
    Manifest(Bytes),
    Part(OutgoingPart),
}

/// The bases of one session.
#[derive(Debug)]
pub(super) struct Bases {
    // The base that the peer gets, as it was when the peer asked for it.
    offered: Option<OfferedBase>,
    // The base that comes from the peer.
    taken: Option<TakenBase>,
    // The installation of that base. It goes on without the session.
    installing: Option<JoinHandle<Result<(), TakeBaseError>>>,
    // Counts what comes of it.
    floor: RateFloor,
    // Zero of the clock of `floor`.
    began: Instant,
    wish: BaseWish,
    peer: Author,
    /// Whether the user has chosen the state of the peer.
    pub(super) is_chosen: bool,
    /// Why the base of the peer was not taken, or will not be if one is needed.
    pub(super) refused: Option<BaseRefusal>,
}

/// Error of a base: whether the peer is at fault, and the error.
pub(super) struct BaseFailure {
    pub(super) is_fault: bool,
    pub(super) error: PeerError,
}

impl Bases {
    /// Begins a session of `store` with `node`. A base is not asked for while another peer gives one, and
    /// while this peer is asked last, unless the user has chosen its state.
    pub(super) fn of(mesh: &Mesh, node: &Author, store: &Store) -> Self {
        let wish = store.base_wish(node);
        let is_chosen = wish == BaseWish::Only;
        let refused = if store.is_taking_base() {
            Some(BaseRefusal::Busy)
        } else if is_chosen || mesh.peers.asks_for_base(node) {
            None
        } else {
            Some(BaseRefusal::AskedLast)
        };
        Self {
            offered: None,
            taken: None,
            installing: None,
            floor: RateFloor::default(),
            began: Instant::now(),
            wish: match refused {
                Some(_) => BaseWish::Never,
                None => wish,
            },
            peer: *node,
            is_chosen,
            refused,
        }
    }

    /// Returns the session, with the wish for a base.
    pub(super) fn with_wish(&self, session: Session) -> Session {
        session.wishing(self.wish)
    }

    /// Notes that this side waits for something of the base. Returns how long it may.
    pub(super) fn wait(&mut self) -> Duration {
        Duration::from_millis(self.floor.wait(self.now_ms()))
    }

    /// Counts a message that has come; `None` when none came for as long as `wait` has returned.
    ///
    /// # Errors
    /// The peer is too slow.
    pub(super) fn come(&mut self, message: Option<&Message>) -> Result<(), PeerError> {
        let bytes = match message {
            Some(Message::Manifest { piece, .. } | Message::Part { piece, .. }) => piece.len(),
            Some(_other) => return Ok(()),
            None => 0,
        };
        let come = self.floor.come(bytes as u64, self.now_ms());
        come.map_err(|slow: TooSlow| {
            let what = slow.to_string();
            let why = BaseRefusal::Other { what };
            PeerError::Base { why }
        })
    }

    /// Returns whether something of the peer's base has come, and not all.
    pub(super) fn is_coming(&self) -> bool {
        self.taken.is_some()
    }

    /// Returns whether the base is being installed.
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Waits for the end of the installation. Cancel-safe.
    pub(super) async fn installed(&mut self) -> Result<(), BaseFailure> {
        let Some(installing) = &mut self.installing else {
            return std::future::pending().await;
        };
        let installed = installing.await;
        self.installing = None;
        let installed = installed.map_err(|panic| BaseFailure::own(PeerError::own(panic)))?;
        installed.map_err(BaseFailure::of)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does `Action::ReadBase`.
    pub(super) fn offer(&mut self, store: &Store, session: &mut Session) -> Source {
        self.offered = store.offered_base();
        let parts = self.offered.as_ref().map(OfferedBase::parts);
        session.on_base_opened(parts.unwrap_or_default());
        let manifest = self.offered.as_ref().map(OfferedBase::manifest);
        Source::Manifest(manifest.unwrap_or_default())
    }

    /// Does `Action::ReadPart`.
    pub(super) async fn read_part(
        &self,
        part: PartName,
        from_chunk: u32,
    ) -> Result<Source, PeerError> {
        let offered = self.offered.clone().expect("the session offered its parts");
        let reading = move || offered.part(&part, from_chunk);
        let reading = tokio::task::spawn_blocking(reading).await;
        let part = reading.map_err(PeerError::own)?.map_err(PeerError::own)?;
        Ok(Source::Part(part.expect("the session offered the part")))
    }

    /// Does `Action::CheckBase`.
    pub(super) async fn check(
        &mut self,
        store: &Store,
        manifest: &Bytes,
        session: &mut Session,
    ) -> Result<Vec<Action>, BaseFailure> {
        let begins = session.their_begins();
        match store.take_base(manifest, begins, &self.peer).await {
            Ok(taken) => {
                self.taken = Some(taken);
                self.ask(session).await
            }
            Err(error) if error.is_fault() => Err(BaseFailure::of(error)),
            Err(error) => {
                self.refused = Some(BaseRefusal::from(&error));
                Ok(session.on_base_refused())
            }
        }
    }

    /// Does `Action::Keep`.
    pub(super) async fn keep(
        &mut self,
        piece: Bytes,
        last: bool,
        session: &mut Session,
    ) -> Result<Vec<Action>, BaseFailure> {
        self.work(move |taken| taken.keep(&piece, last)).await?;
        if last {
            self.ask(session).await
        } else {
            Ok(Vec::new())
        }
    }

    /// Returns whether the base that has come goes on after the end of the log of `author` here.
    pub(super) fn is_ahead_of(&self, author: &Author) -> bool {
        self.taken
            .as_ref()
            .is_some_and(|taken| taken.is_ahead_of(author))
    }

    /// Does `Action::Install`: `installed` waits for its end.
    pub(super) fn install(&mut self) {
        let taken = self.taken.take().expect("a base was checked");
        self.installing = Some(tokio::spawn(taken.install()));
    }

    async fn ask(&mut self, session: &mut Session) -> Result<Vec<Action>, BaseFailure> {
        let want = self.work(TakenBase::next_part).await?;
        Ok(session.on_part_wanted(want))
    }

    // Calls `work` with the base that comes, on a thread that may wait for the disk.
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut TakenBase) -> Result<T, TakeBaseError> + Send + 'static,
    ) -> Result<T, BaseFailure> {
        let mut taken = self.taken.take().expect("a base was checked");
        let working = tokio::task::spawn_blocking(move || {
            let done = work(&mut taken);
            (taken, done)
        });
        let (taken, done) = working
            .await
            .map_err(|panic| BaseFailure::own(PeerError::own(panic)))?;
        self.taken = Some(taken);
        done.map_err(BaseFailure::of)
    }
}

impl BaseFailure {
    fn of(error: TakeBaseError) -> Self {
        let why = BaseRefusal::from(&error);
        Self {
            is_fault: error.is_fault(),
            error: PeerError::Base { why },
        }
    }

    fn own(error: PeerError) -> Self {
        let is_fault = false;
        Self { is_fault, error }
    }
}

impl Source {
    /// Reads the next piece; `None` at the end.
    ///
    /// Reads files: not for an event loop.
    pub(super) fn next_piece(&mut self) -> Result<Option<Bytes>, PeerError> {
        match self {
            Self::Manifest(rest) => {
                let piece = rest.split_to(rest.len().min(BASE_PIECE_BYTES));
                Ok((!piece.is_empty()).then_some(piece))
            }
            Self::Part(part) => part.next_piece(BASE_PIECE_BYTES).map_err(PeerError::own),
        }
    }
}
