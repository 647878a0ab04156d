//! A sync of one store over one stream: the shell around `protocol::sync`.
//!
//! Reading and writing go on side by side, so two nodes that have much to send never wait for each
//! other. Every wait has a timeout.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    id::Author,
    limits::{
        BASE_WANT_TIMEOUT, SYNC_ANSWER_TIMEOUT, SYNC_FRAME_BYTES_MAX, SYNC_FRAMES_AHEAD,
        SYNC_WORK_TIMEOUT,
    },
    net::{
        base_refusal::BaseRefusal,
        bases::{BaseFailure, Bases, Source},
        error::{BUSY, NO_STORE, PeerError, UPDATE},
        mesh::Mesh,
        turns::Own,
    },
    pace::{self, Pace},
    protocol::sync::{
        Action, BaseNeed, FrameDecoder, Message, OwnEntries, Session, Summary, SyncError, WaitsFor,
    },
    store::{IngestError, Ingested, Outgoing, Store},
};

/// First byte of a stream that syncs.
pub(super) const STREAM: u8 = 2;

/// Syncs `store` with `node`, both ways. `progress` is called with the number of entries that have
/// come so far. `Store::base_progress` says how much of a base has.
///
/// After a session in which a base was installed (`Summary::base`), the next one brings the entries after
/// it. There is one session of a peer and a store at a time; this one waits for its turn. Returns
/// `None` when the peer has refused it because its own session of the store does the same work.
///
/// # Errors
/// `PeerError`.
pub(super) async fn open(
    mesh: &Arc<Mesh>,
    node: &Author,
    connection: &Connection,
    store: &Store,
    progress: impl Fn(u64) + Send + Sync,
) -> Result<Option<Summary>, PeerError> {
    let turn = mesh.turns.of(node, &store.id());
    let own = turn.open().await;
    let (mut send, receive) = connection.open_bi().await?;
    send.write_all(&[STREAM]).await?;
    let missing = store.missing().await.map_err(PeerError::own)?;
    let begins = store.begins();
    let own_entries = own_entries(store).await?;
    let (session, hello) = Session::open(store.id(), own_entries, missing)?;
    let bases = Bases::of(mesh, node, store);
    let session = bases.with_wish(session.beginning_at(&begins));
    let frames = Frames::start(mesh, send);
    frames.send(session.hello_with_wish(hello), None)?;
    let shell = Shell {
        mesh,
        node,
        store,
        progress,
        frames,
        reader: Reader::new(receive),
        own: Some(&own),
        ingesting: None,
        bases,
    };
    match shell.run(session, Vec::new()).await {
        Ok(summary) => Ok(Some(summary)),
        Err(PeerError::Busy) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn own_entries(store: &Store) -> Result<OwnEntries, PeerError> {
    let reading = store.clone();
    let spent = tokio::task::spawn_blocking(move || reading.spent_keys()).await;
    let spent = spent.map_err(PeerError::own)?;
    Ok(OwnEntries {
        counting: store.frontier(),
        spent: spent.map_err(PeerError::own)?,
    })
}

/// Serves a sync that `node` has opened.
///
/// # Errors
/// `PeerError`.
pub(super) async fn accept(
    mesh: &Arc<Mesh>,
    node: &Author,
    mut send: SendStream,
    receive: RecvStream,
) -> Result<(), PeerError> {
    let mut reader = Reader::new(receive);
    let hello = reader.next(SYNC_ANSWER_TIMEOUT).await?;
    let hello = hello.map_err(|error| blame(mesh, node, error))?;
    let Message::Hello { store: id, .. } = &hello else {
        let what = "a sync that does not begin with a hello";
        mesh.strike(node, what);
        return Err(PeerError::Malformed { what });
    };
    let Some(store) = mesh.node.shared_store(id) else {
        // It is not open here yet, or never will be. The peer did nothing wrong.
        drop(send.reset(NO_STORE.into()));
        return Ok(());
    };
    let turn = mesh.turns.of(node, id);
    let Some(_served) = turn.serve(&mesh.node.id(), node).await else {
        drop(send.reset(BUSY.into()));
        return Ok(());
    };
    let begins = store.begins();
    let session = Session::accept(*id, own_entries(&store).await?)?;
    let bases = Bases::of(mesh, node, &store);
    let mut session = bases.with_wish(session.beginning_at(&begins));
    let actions = match session.handle(hello) {
        Err(error @ SyncError::WrongVersion { .. }) => {
            drop(send.reset(UPDATE.into()));
            return Err(error.into());
        }
        handled => handled?,
    };
    let frames = Frames::start(mesh, send);
    let shell = Shell {
        mesh,
        node,
        store: &store,
        progress: |_entries| {},
        frames,
        reader,
        own: None,
        ingesting: None,
        bases,
    };
    let summary = shell.run(session, actions).await?;
    if summary.base == BaseNeed::Installed {
        // The entries after the base.
        mesh.peers.wanted(node).notify_one();
    }
    Ok(())
}

/// One session, its stream, and the store that it reads and writes.
struct Shell<'a, P> {
    mesh: &'a Arc<Mesh>,
    node: &'a Author,
    store: &'a Store,
    progress: P,
    frames: Frames,
    reader: Reader,
    // `Some` in a session that this side has opened.
    own: Option<&'a Own<'a>>,
    // The entries of the last message, while the store takes them. Joined before the next ones.
    ingesting: Option<JoinHandle<Result<Vec<Ingested>, IngestError>>>,
    bases: Bases,
}

/// Something on its way to the peer.
enum Reading {
    Entries(Outgoing),
    Base(Source),
}

impl<P: Fn(u64) + Send + Sync> Shell<'_, P> {
    async fn run(mut self, session: Session, actions: Vec<Action>) -> Result<Summary, PeerError> {
        match self.drive(session, actions).await {
            Ok(summary) => self.finish(summary).await,
            Err(error) => {
                if self.bases.is_coming() && !matches!(error, PeerError::Own { .. }) {
                    self.mesh.peers.base_failed(self.node);
                }
                Err(error)
            }
        }
    }

    // Goes on until the session has ended.
    async fn drive(
        &mut self,
        mut session: Session,
        actions: Vec<Action>,
    ) -> Result<Summary, PeerError> {
        let (mesh, node) = (self.mesh, self.node);
        let mut outgoing = None;
        if let Some(summary) = self.act(&mut session, actions, &mut outgoing).await? {
            return Ok(summary);
        }
        loop {
            let awaited = session.waits_for();
            let wait = match awaited {
                Some(WaitsFor::Base) => self.bases.wait(),
                other => patience(other),
            };
            // While the base is installed, the peer may have nothing more to send.
            let is_idle = awaited.is_none() && self.bases.is_installing();
            let actions = tokio::select! {
                room = self.frames.room(), if session.is_reading() => {
                    Self::read_on(&mut session, &mut outgoing, room, &self.frames).await?
                }
                installed = self.bases.installed(), if self.bases.is_installing() => {
                    installed.map_err(|failed| self.note_failure(failed))?;
                    mesh.peers.base_given(node);
                    session.on_installed()
                }
                message = self.reader.next(wait), if !is_idle => {
                    let blame = |error| blame(mesh, node, error);
                    let message = match message {
                        Err(PeerError::Silent { .. }) if awaited == Some(WaitsFor::Base) => {
                            self.bases.come(None)?;
                            continue;
                        }
                        message => message?.map_err(blame)?,
                    };
                    self.bases.come(Some(&message))?;
                    if let Some(own) = self.own {
                        own.answered();
                    }
                    let (returned, handled) = handle(session, message).await?;
                    session = returned;
                    if let Err(SyncError::PeerTooOld { .. }) = &handled {
                        self.frames.reset(UPDATE);
                    }
                    handled.map_err(blame)?
                }
            };
            if let Some(summary) = self.act(&mut session, actions, &mut outgoing).await? {
                return Ok(summary);
            }
            (self.progress)(session.summary().received);
        }
    }

    // Does the actions of the session, in order. Returns its summary when it has ended.
    async fn act(
        &mut self,
        session: &mut Session,
        actions: Vec<Action>,
        outgoing: &mut Option<Reading>,
    ) -> Result<Option<Summary>, PeerError> {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(message) => self.frames.send(message, None)?,
                Action::Find(tips) => {
                    self.ingested().await?;
                    let lacking = self.store.lacks(tips).await.map_err(PeerError::own)?;
                    actions.extend(session.on_missing(lacking));
                }
                Action::Read(ranges) => {
                    let store = self.store.clone();
                    let reading = tokio::task::spawn_blocking(move || store.outgoing(&ranges));
                    let reading = reading.await.map_err(PeerError::own)?;
                    let reading = reading.map_err(PeerError::own)?;
                    if let Some(pruned) = reading.pruned() {
                        tracing::warn!(
                            node = %self.node,
                            store = %self.store.id(),
                            %pruned,
                            "a peer needs entries that this node no longer has"
                        );
                    }
                    *outgoing = Some(Reading::Entries(reading));
                }
                Action::ReadBase => {
                    *outgoing = Some(Reading::Base(self.bases.offer(self.store, session)));
                }
                Action::ReadPart(part, from_chunk) => {
                    let part = self.bases.read_part(part, from_chunk).await?;
                    *outgoing = Some(Reading::Base(part));
                }
                Action::CheckBase(manifest) => {
                    let checked = self.bases.check(self.store, &manifest, session).await;
                    actions.extend(checked.map_err(|failed| self.note_failure(failed))?);
                }
                Action::Keep(piece, last) => {
                    let kept = self.bases.keep(piece, last, session).await;
                    actions.extend(kept.map_err(|failed| self.note_failure(failed))?);
                }
                Action::Install => {
                    self.ingested().await?;
                    if self.bases.is_ahead_of(&self.mesh.node.id()) {
                        self.mesh.hold_own_writes(self.store);
                    }
                    self.bases.install();
                }
                Action::Ingest(entries) => {
                    self.ingested().await?;
                    let store = self.store.clone();
                    let ingesting = async move { store.ingest_verified(entries).await };
                    self.ingesting = Some(tokio::spawn(ingesting));
                }
                Action::Finish(summary) => {
                    self.ingested().await?;
                    return Ok(Some(summary));
                }
            }
        }
        Ok(None)
    }

    // Waits until the entries that came last are on disk. Meanwhile the next message was read and
    // checked.
    async fn ingested(&mut self) -> Result<(), PeerError> {
        if let Some(ingesting) = self.ingesting.take() {
            let ingested = ingesting.await.map_err(PeerError::own)?;
            let outcomes = ingested.map_err(PeerError::own)?;
            self.note(&outcomes);
        }
        Ok(())
    }

    fn note(&self, outcomes: &[Ingested]) {
        let applied = outcomes
            .iter()
            .filter(|it| matches!(it, Ingested::Applied(_)));
        let (applied, all) = (applied.count(), outcomes.len());
        tracing::debug!(node = %self.node, store = %self.store.id(), applied, all, "entries of a sync were stored");
        for outcome in outcomes {
            if let Ingested::Refused(reason) = outcome {
                tracing::warn!(node = %self.node, %reason, "an entry was refused");
            }
        }
    }

    // Reads the next entries for the peer, and sends them.
    async fn read_on(
        session: &mut Session,
        outgoing: &mut Option<Reading>,
        room: OwnedSemaphorePermit,
        frames: &Frames,
    ) -> Result<Vec<Action>, PeerError> {
        let source = outgoing
            .take()
            .expect("a Read action comes before a session reads");
        let mut source = match source {
            Reading::Entries(source) => source,
            Reading::Base(source) => {
                let (source, read) = read_piece(session, source).await?;
                *outgoing = source.map(Reading::Base);
                return send_read(read, room, frames);
            }
        };
        let reading = tokio::task::spawn_blocking(move || {
            let frame = source.next_frame(READ_AHEAD_BYTES);
            (source, frame)
        });
        let (source, frame) = reading.await.map_err(PeerError::own)?;
        let frame = frame.map_err(PeerError::own)?;
        if frame.is_empty() {
            return Ok(session.on_read_end());
        }
        *outgoing = Some(Reading::Entries(source));
        send_read(session.on_entries_read(frame), room, frames)
    }

    async fn finish(self, summary: Summary) -> Result<Summary, PeerError> {
        if summary.base == BaseNeed::None {
            // All that the peer has of this node's own log is here.
            self.mesh.own_tails.release(&self.store.id());
        }
        if summary.received > 0 || summary.base == BaseNeed::Installed {
            self.store.settle().await;
            self.mesh.acknowledge(self.store);
            self.mesh.announce(self.store).await;
            self.mesh.peers.wake_copies(self.node);
            self.inform_forked();
        }
        let is_chosen = self.bases.is_chosen && summary.base != BaseNeed::Installed;
        if is_chosen || summary.base == BaseNeed::Refused {
            let why = self.bases.refused.unwrap_or(BaseRefusal::NoBase);
            if self.mesh.peers.is_new_refusal(self.node, &why) {
                tracing::warn!(node = %self.node, store = %self.store.id(), %why, "a base was not taken");
            }
            return Err(PeerError::Base { why });
        }
        Ok(summary)
    }

    // Returns the error; strikes the peer if it is at fault.
    fn note_failure(&self, failed: BaseFailure) -> PeerError {
        let BaseFailure { is_fault, error } = failed;
        if is_fault {
            self.mesh.strike(self.node, &error.to_string());
        }
        error
    }
}

impl<P> Shell<'_, P> {
    // A peer has brought entries: those of connected members that have forked may be news to them.
    fn inform_forked(&self) {
        let frontier = self.store.frontier();
        for (author, tips) in frontier.by_author() {
            if tips.len() > 1 && author != *self.node {
                self.mesh.peers.inform(&author);
            }
        }
    }
}

fn blame(mesh: &Mesh, node: &Author, error: SyncError) -> PeerError {
    if error.is_fault() {
        mesh.strike(node, &error.to_string());
    }
    error.into()
}

// Reads the next piece of a base for the peer. Returns the source unless it has ended, and the actions.
async fn read_piece(
    session: &mut Session,
    mut source: Source,
) -> Result<(Option<Source>, Vec<Action>), PeerError> {
    let reading = tokio::task::spawn_blocking(move || {
        let piece = source.next_piece();
        (source, piece)
    });
    let (source, piece) = reading.await.map_err(PeerError::own)?;
    Ok(match piece? {
        Some(piece) => (Some(source), session.on_piece_read(piece)),
        None => (None, session.on_read_end()),
    })
}

// Sends what was read; the first message takes the room. Returns the other actions.
fn send_read(
    actions: Vec<Action>,
    room: OwnedSemaphorePermit,
    frames: &Frames,
) -> Result<Vec<Action>, PeerError> {
    let mut room = Some(room);
    let mut others = Vec::new();
    for action in actions {
        match action {
            Action::Send(message) => frames.send(message, room.take())?,
            other => others.push(other),
        }
    }
    Ok(others)
}

// Returns how long the peer may be silent.
fn patience(waits_for: Option<WaitsFor>) -> Duration {
    match waits_for {
        Some(WaitsFor::Hello | WaitsFor::Answer | WaitsFor::Tips) => SYNC_ANSWER_TIMEOUT,
        // The peer reads or writes its disk, or reads the entries that this side sends.
        Some(WaitsFor::Entries | WaitsFor::Want | WaitsFor::Base) | None => SYNC_WORK_TIMEOUT,
        Some(WaitsFor::BaseWant) => BASE_WANT_TIMEOUT,
    }
}

// Checking a message full of entries takes milliseconds, so it runs on a blocking thread.
async fn handle(
    mut session: Session,
    message: Message,
) -> Result<(Session, Result<Vec<Action>, SyncError>), PeerError> {
    if !matches!(message, Message::Entries(_)) {
        let handled = session.handle(message);
        return Ok((session, handled));
    }
    let handling = tokio::task::spawn_blocking(move || {
        let mut pace = Pace::start();
        let handled = session.handle_in_steps(message, || pace.step());
        (session, handled)
    });
    handling.await.map_err(PeerError::own)
}

/// The messages of the peer, from the bytes of its stream.
struct Reader {
    receive: RecvStream,
    decoder: FrameDecoder,
    ready: std::collections::VecDeque<Message>,
}

impl Reader {
    fn new(receive: RecvStream) -> Self {
        Self {
            receive,
            decoder: FrameDecoder::default(),
            ready: std::collections::VecDeque::new(),
        }
    }

    // Returns the next message. The inner error is a rule that the peer broke. Cancel-safe: bytes
    // are in the decoder, or still in the stream.
    async fn next(&mut self, wait: Duration) -> Result<Result<Message, SyncError>, PeerError> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Ok(message));
            }
            let chunk = timeout_at(deadline, self.receive.read_chunk(READ_BYTES_MAX))
                .await
                .map_err(|_elapsed| PeerError::Silent { wait })??
                .ok_or(PeerError::HungUp)?;
            let pushed = self.decoder.push(&chunk);
            pace::turn();
            match pushed {
                Ok(messages) => self.ready.extend(messages),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

/// Something for the task that writes to the stream.
enum Out {
    Frame(Bytes),
    // Ends the stream with this code; what was not sent yet is lost.
    Reset(u32),
}

/// The messages to the peer, written to the stream by a task of their own.
struct Frames {
    // Sent to by the session. Its receiver is dropped when the stream fails. Dropping the sender
    // ends the stream after all messages were written.
    queue: mpsc::UnboundedSender<(Out, Option<OwnedSemaphorePermit>)>,
    // SYNC_FRAMES_AHEAD permits. A message of entries waits for one, given back when it is written.
    // Other messages do not wait: the peer needs them to go on, and the session bounds their
    // number.
    slots: Arc<Semaphore>,
}

impl Frames {
    #[expect(
        clippy::disallowed_methods,
        reason = "entries wait for a slot; a session sends a bounded number of other messages"
    )]
    fn start(mesh: &Arc<Mesh>, mut send: SendStream) -> Self {
        let (queue, mut frames) = mpsc::unbounded_channel::<(Out, Option<OwnedSemaphorePermit>)>();
        mesh.spawn(async move {
            while let Some((out, room)) = frames.recv().await {
                let frame = match out {
                    Out::Frame(frame) => frame,
                    Out::Reset(code) => return drop(send.reset(code.into())),
                };
                let deadline = Instant::now() + SYNC_WORK_TIMEOUT;
                for piece in frame.chunks(WRITE_BYTES_MAX) {
                    match timeout_at(deadline, send.write_all(piece)).await {
                        Ok(Ok(())) => pace::turn(),
                        // The next send, or the reader, gets the error.
                        Ok(Err(_)) | Err(_) => return,
                    }
                }
                drop(room);
            }
            drop(send.finish());
        });
        Self {
            queue,
            slots: Arc::new(Semaphore::new(SYNC_FRAMES_AHEAD)),
        }
    }

    async fn room(&self) -> OwnedSemaphorePermit {
        let slots = Arc::clone(&self.slots);
        match slots.acquire_owned().await {
            Ok(room) => room,
            Err(_closed) => std::future::pending().await,
        }
    }

    fn send(&self, message: Message, room: Option<OwnedSemaphorePermit>) -> Result<(), PeerError> {
        let sent = self.queue.send((Out::Frame(message.encode()), room));
        sent.map_err(|_ended| PeerError::HungUp)
    }

    // A stream that has failed already is as good as reset.
    fn reset(&self, code: u32) {
        drop(self.queue.send((Out::Reset(code), None)));
    }
}

// Entries that are read at once fit one message with their framing.
const READ_AHEAD_BYTES: usize = SYNC_FRAME_BYTES_MAX / 8 * 7;
const READ_BYTES_MAX: usize = 64 << 10;
const WRITE_BYTES_MAX: usize = 64 << 10;
