//! The bases of a sync: the one that the peer gets, and the one that comes from it.

use bytes::Bytes;

use crate::{
    limits::SYNC_FRAME_BYTES_MAX,
    net::error::PeerError,
    protocol::sync::{Action, PartName, Session},
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
#[derive(Debug, Default)]
pub(super) struct Bases {
    // The base that the peer gets, as it was when the peer asked for it.
    offered: Option<OfferedBase>,
    // The base that comes from the peer.
    taken: Option<TakenBase>,
    /// Why the base of the peer was not taken.
    pub(super) refused: Option<String>,
}

/// Error of a base: whether the peer is at fault, and the error.
pub(super) struct BaseFailure {
    pub(super) is_fault: bool,
    pub(super) error: PeerError,
}

impl Bases {
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
        if self.refused.is_some() {
            return Ok(session.on_base_refused());
        }
        match store.take_base(manifest, session.their_begins()).await {
            Ok(taken) => {
                self.taken = Some(taken);
                self.ask(session).await
            }
            Err(error) if error.is_fault() => Err(BaseFailure::of(error)),
            Err(error) => {
                self.refused = Some(error.to_string());
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

    /// Does `Action::Install`.
    pub(super) async fn install(
        &mut self,
        session: &mut Session,
    ) -> Result<Vec<Action>, BaseFailure> {
        let taken = self.taken.take().expect("a base was checked");
        taken.install().await.map_err(BaseFailure::of)?;
        Ok(session.on_installed())
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
        let what = error.to_string();
        Self {
            is_fault: error.is_fault(),
            error: PeerError::Base { what },
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
                let piece = rest.split_to(rest.len().min(SYNC_FRAME_BYTES_MAX));
                Ok((!piece.is_empty()).then_some(piece))
            }
            Self::Part(part) => part
                .next_piece(SYNC_FRAME_BYTES_MAX)
                .map_err(PeerError::own),
        }
    }
}
