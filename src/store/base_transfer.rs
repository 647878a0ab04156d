//! Bases between peers: the base of this store as a peer gets it, and one of a peer that takes the place of
//! entries which this node lacks and which no member has any more.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use crate::{
    id::Author,
    protocol::{
        anchor::Anchor,
        anchors_act::BaseHash,
        frontier::{Frontier, FrontierTip},
        sync::{PartName, PartWant},
    },
    state::{
        Base, BaseManifest, Incoming, IncomingError, OutgoingPart, Progress, StateError, check_rows,
    },
    store::{
        InstallError, Shared, Store,
        shared::base_dir,
        writer::{command::Command, queue::Queue},
    },
};

/// Why a base that a peer offers is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeBaseError {
    /// The peer sent something that is not the manifest of a base.
    #[error("the peer sent something that is not the manifest of a base of this store")]
    Malformed,
    /// The base does not have entries of which the peer said that it has removed them.
    #[error("the peer has removed entry {seq} of {}, and its base does not have it", author.short())]
    Lacks {
        /// Author of the entry.
        author: Author,
        /// Seq of the entry at which the log of the peer begins.
        seq: u64,
    },
    /// No act of an admin names the base, so anybody may have made it.
    #[error(
        "no admin has named the base that the peer offers ({}): it is taken once such an act is here",
        hash_text(hash)
    )]
    NotNamed {
        /// Hash of the base.
        hash: BaseHash,
    },
    /// A base of another peer is being taken.
    #[error("the base of another peer is being taken")]
    Busy,
    /// The bytes that came are not those that their name says, or could not be kept.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// It does not fit what is here.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// The newest base, as a peer gets it.
#[derive(Debug, Clone)]
pub struct OfferedBase(Arc<Base>);

/// A base of a peer on its way into this store. One at a time; what has come stays on the disk when it is
/// dropped, and the next attempt goes on there.
#[derive(Debug)]
pub struct TakenBase {
    incoming: Incoming,
    shared: Arc<Shared>,
    queue: Queue,
    _turn: OwnedMutexGuard<()>,
}

impl TakeBaseError {
    /// Returns whether the peer is at fault: no honest one sends this.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Malformed
            | Self::Lacks { .. }
            | Self::Incoming(IncomingError::Forged { .. } | IncomingError::Cut) => true,
            Self::NotNamed { .. }
            | Self::Busy
            | Self::Incoming(IncomingError::Disk(_))
            | Self::Install(_) => false,
        }
    }
}

impl Store {
    /// Returns the entries at which logs begin: neither they nor any before are here.
    pub fn begins(&self) -> Frontier {
        let begins = self.shared.log.begins().into_iter();
        begins
            .map(|(author, begin)| (author, begin.anchor.tip()))
            .collect()
    }

    /// Returns the newest base; `None` when there is none.
    pub fn offered_base(&self) -> Option<OfferedBase> {
        self.shared.base.newest().map(OfferedBase)
    }

    /// Takes the base with this manifest, of which a peer said that its logs begin at `begins`. What is
    /// here of it already is found; nothing is asked for.
    ///
    /// Reads files.
    ///
    /// # Errors
    /// `TakeBaseError`; nothing has changed.
    pub async fn take_base(
        &self,
        manifest: &[u8],
        begins: &[(Author, FrontierTip)],
    ) -> Result<TakenBase, TakeBaseError> {
        let manifest = BaseManifest::of_peer(manifest).ok_or(TakeBaseError::Malformed)?;
        if manifest.store != self.shared.id {
            return Err(TakeBaseError::Malformed);
        }
        for (author, begin) in begins {
            let anchor = manifest.anchor(author);
            let has = |anchor: &Anchor| anchor.seq > begin.seq || anchor.tip() == *begin;
            if !anchor.is_some_and(has) {
                let (author, seq) = (*author, begin.seq);
                return Err(TakeBaseError::Lacks { author, seq });
            }
        }
        self.shared.check_named(&manifest)?;
        let turn = Arc::clone(&self.shared.taking).try_lock_owned();
        let turn = turn.map_err(|_held| TakeBaseError::Busy)?;
        let (anchors, keeps) = (manifest.anchors.clone(), self.shared.keeps());
        let check = |reply| Command::CheckInstall(anchors, keeps, reply);
        let checked = self.queue.ask(check).await;
        checked.map_err(|_closed| InstallError::Closed)??;
        let shared = Arc::clone(&self.shared);
        let begun = tokio::task::spawn_blocking(move || {
            let own = shared.base.newest();
            let incoming = Incoming::begin(
                &shared.disk,
                base_dir(&shared.dir),
                own.as_deref(),
                manifest,
            );
            (incoming, shared)
        });
        let (incoming, shared) = begun.await.map_err(|_panic| InstallError::Closed)?;
        let incoming = incoming.map_err(IncomingError::Disk)?;
        shared.show_progress(incoming.progress());
        Ok(TakenBase {
            incoming,
            shared,
            queue: self.queue.clone(),
            _turn: turn,
        })
    }

    /// Returns how much has come of the base that is being taken from a peer, or was last; `None` when none
    /// was since the store was opened.
    pub fn base_progress(&self) -> Option<Progress> {
        let progress = self.shared.come.lock();
        *progress.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bases with this hash from now on, whatever the admins say. For tests only.
    #[doc(hidden)]
    pub fn trust_base(&self, hash: BaseHash) {
        let named = self.shared.named.lock();
        named.unwrap_or_else(PoisonError::into_inner).insert(hash);
    }
}

impl Shared {
    // Whether an act of an admin that counts names the base: only such a one is taken.
    fn names_base(&self, hash: &BaseHash) -> bool {
        let members = Arc::clone(&self.members.borrow());
        let mut acts = members.anchors_acts(&self.id);
        if acts.any(|placed| placed.act.base().is_some_and(|base| base.hash == *hash)) {
            return true;
        }
        let named = self.named.lock();
        named.unwrap_or_else(PoisonError::into_inner).contains(hash)
    }

    fn check_named(&self, manifest: &BaseManifest) -> Result<(), TakeBaseError> {
        let hash = BaseHash(manifest.hash());
        let is_named = self.names_base(&hash);
        is_named
            .then_some(())
            .ok_or(TakeBaseError::NotNamed { hash })
    }

    fn show_progress(&self, progress: Progress) {
        let come = self.come.lock();
        *come.unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    // This node, whose log must not end before its anchor. A node that was restored from a copy has
    // written nothing since.
    fn keeps(&self) -> Option<Author> {
        (!self.is_restored()).then_some(self.author)
    }
}

impl OfferedBase {
    /// Returns the bytes of its manifest.
    pub fn manifest(&self) -> Bytes {
        self.0.manifest().encode_for_peers()
    }

    /// Returns the hash that names it.
    pub fn hash(&self) -> BaseHash {
        BaseHash(self.0.manifest().hash())
    }

    /// Returns the names of its parts.
    pub fn parts(&self) -> Vec<PartName> {
        self.0.part_names()
    }

    /// Begins to read a part without its first `from_chunk` chunks; `None` when it has no such part.
    ///
    /// Reads files: not for an event loop.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn part(
        &self,
        part: &PartName,
        from_chunk: u32,
    ) -> Result<Option<OutgoingPart>, StateError> {
        OutgoingPart::begin(&self.0, part, from_chunk)
    }
}

impl TakenBase {
    /// Returns the part to ask for next; `None` when all are here.
    ///
    /// Reads files: not for an event loop.
    ///
    /// # Errors
    /// `Incoming`.
    pub fn next_part(&mut self) -> Result<Option<PartWant>, TakeBaseError> {
        Ok(self.incoming.next_part()?)
    }

    /// Keeps the next bytes of the part that was asked for last. `last`: no more come.
    ///
    /// Writes files: not for an event loop.
    ///
    /// # Errors
    /// `Incoming`. What was checked is kept for the next attempt.
    pub fn keep(&mut self, piece: &[u8], last: bool) -> Result<(), TakeBaseError> {
        let kept = self.incoming.keep(piece, last);
        self.shared.show_progress(self.incoming.progress());
        Ok(kept?)
    }

    /// Returns how much of it is here.
    pub fn progress(&self) -> Progress {
        self.incoming.progress()
    }

    /// Installs it: all parts are here. Entries at and before its anchors are removed from the logs, those
    /// after them stay; the state is built from both, and watches get one gap with it. Durable on return.
    /// Goes on without its caller.
    ///
    /// # Errors
    /// `TakeBaseError`. The store is as before, unless it is poisoned.
    pub async fn install(self) -> Result<(), TakeBaseError> {
        let installing = tokio::spawn(self.try_install());
        let installed = installing.await;
        installed.map_err(|_panic| InstallError::Closed)?
    }

    async fn try_install(self) -> Result<(), TakeBaseError> {
        let Self {
            incoming,
            shared,
            queue,
            _turn,
        } = self;
        let turn = Arc::clone(&shared.folding).lock_owned().await;
        let own = shared.base.newest();
        // A fold may have ended meanwhile, and its author may have lost its role.
        shared.check_named(incoming.manifest())?;
        let (number, before) = (own.as_ref().map_or(1, |own| own.manifest().number + 1), own);
        let finishing = tokio::task::spawn_blocking(move || {
            let base = incoming.finish(number, before.as_deref(), check_rows);
            (base, incoming, before)
        });
        let (base, incoming, before) = finishing.await.map_err(|_panic| InstallError::Closed)?;
        let installed = match base {
            Ok(base) => {
                let (base, keeps) = (Box::new(base), shared.keeps());
                let install = |reply| Command::Install(base, keeps, reply);
                let installed = queue.ask(install).await;
                installed.map_err(|_closed| InstallError::Closed).flatten()
            }
            Err(error) => Err(InstallError::State(error)),
        };
        // Once the store is closed, the files may be those of the next opening. While it is poisoned, the
        // new base may be in place.
        let is_open = queue.ask(Command::Missing).await.is_ok();
        let is_there = installed.is_ok() || shared.is_in_place(number);
        if is_open {
            let tidying = tokio::task::spawn_blocking(move || match is_there {
                true => incoming.end(),
                false => incoming.put_back(before.as_deref()),
            });
            if let Ok(Err(error)) = tidying.await {
                tracing::warn!(%error, "files of a base are removed at the next opening");
            }
        }
        drop(turn);
        Ok(installed?)
    }
}

impl Shared {
    // Also true when that cannot be known.
    fn is_in_place(&self, number: u64) -> bool {
        Base::is_there(self.disk.as_ref(), &base_dir(&self.dir), number).unwrap_or(true)
    }
}

fn hash_text(hash: &BaseHash) -> String {
    data_encoding::HEXLOWER.encode(&hash.0[..4])
}
