//! Bases between peers: the base of this store as a peer gets it, and one of a peer that takes the place of
//! entries which this node lacks and which no member has any more.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::{
    id::Author,
    limits::BASE_TRIES_MAX,
    log::InstallCause,
    protocol::{
        anchor::Anchor,
        anchors_act::BaseHash,
        finality::CollectionsHash,
        frontier::{Frontier, FrontierTip},
        sync::{BaseChoice, BaseRank, PartWant},
    },
    state::{
        Base, BaseManifest, Incoming, IncomingError, ManifestError, Progress, StateError,
        check_rows,
    },
    store::{
        InstallError, OfferedBase, Shared, Store,
        shared::base_dir,
        writer::{command::Command, install::InstallTerms, queue::Queue},
    },
};

/// Why a base that a peer offers is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeBaseError {
    /// The peer sent something that is not the manifest of a base of this store, or of one that is too large.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
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
        "no admin has named the base that the peer offers ({}): it is taken once such an act is here, or \
         when a user chooses the state of that peer with `lattice repair --state-from`",
        hash_text(hash)
    )]
    NotNamed {
        /// Hash of the base.
        hash: BaseHash,
    },
    /// A base of another peer is being taken.
    #[error("the base of another peer is being taken")]
    Busy,
    /// A newer act of an admin names another base, of which parts are here.
    #[error(
        "the base that the peer offers ({}) is not the newest one, which is being taken ({})",
        hash_text(hash),
        hash_text(newer)
    )]
    Older {
        /// Hash of the base.
        hash: BaseHash,
        /// Hash of the base that is being taken.
        newer: BaseHash,
    },
    /// All of the base has come, and several times it was not what its hash says.
    #[error(
        "the base that the peer offers ({}) was refused {BASE_TRIES_MAX} times after all of it had come: either it is malformed, or the disk gives back other bytes",
        hash_text(hash)
    )]
    Unfit {
        /// Hash of the base.
        hash: BaseHash,
    },
    /// The bytes that came are not those that their name says, or could not be kept.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// It does not fit what is here.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// A base of a peer on its way into this store. One at a time; what has come stays on the disk when it is
/// dropped, and the next attempt goes on there.
#[derive(Debug)]
pub struct TakenBase {
    incoming: Incoming,
    cause: InstallCause,
    shared: Arc<Shared>,
    queue: Queue,
    _turn: OwnedMutexGuard<()>,
}

impl TakeBaseError {
    /// Returns whether the peer is at fault: no honest one sends this.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Manifest(ManifestError::Malformed)
            | Self::Lacks { .. }
            | Self::Incoming(IncomingError::Forged { .. } | IncomingError::Cut) => true,
            // A peer passes on a base that an admin has named, whatever is in it.
            Self::Manifest(ManifestError::TooLarge { .. })
            | Self::Incoming(IncomingError::Unsound { .. })
            | Self::NotNamed { .. }
            | Self::Busy
            | Self::Older { .. }
            | Self::Unfit { .. }
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

    /// Returns whether a base of a peer is being taken.
    pub fn is_taking_base(&self) -> bool {
        self.shared.taking.try_lock().is_err()
    }

    /// Takes the base with this manifest, of which `peer` said that its logs begin at `begins`. What is
    /// here of it already is found by the names of files, and checked before the installation; nothing is
    /// asked for.
    ///
    /// # Errors
    /// `TakeBaseError`; nothing has changed.
    pub async fn take_base(
        &self,
        manifest: &[u8],
        begins: &[(Author, FrontierTip)],
        peer: &Author,
    ) -> Result<TakenBase, TakeBaseError> {
        let mut manifest = BaseManifest::of_peer(manifest)?;
        if manifest.store != self.shared.id {
            return Err(ManifestError::Malformed.into());
        }
        for (author, begin) in begins {
            let anchor = manifest.anchor(author);
            let has = |anchor: &Anchor| anchor.seq > begin.seq || anchor.tip() == *begin;
            if !anchor.is_some_and(has) {
                let (author, seq) = (*author, begin.seq);
                return Err(TakeBaseError::Lacks { author, seq });
            }
        }
        let cause = self.install_cause(peer);
        let rank = match self.shared.check_named(&manifest) {
            Err(TakeBaseError::NotNamed { hash }) if cause == InstallCause::Chosen => {
                (u64::MAX, hash.0)
            }
            rank => rank?,
        };
        if cause == InstallCause::Chosen {
            // Heads that are gone from it by acts that do not count are gone for good. So a next base can be
            // made of it.
            if !self.bears(manifest.collected) {
                manifest.collected = CollectionsHash::NONE;
            }
            // It goes before one that was being taken.
            self.shared.choice().installed();
        }
        let turn = Arc::clone(&self.shared.taking).try_lock_owned();
        let turn = turn.map_err(|_held| TakeBaseError::Busy)?;
        let (anchors, keeps) = (manifest.anchors.clone(), self.shared.keeps());
        let terms = InstallTerms { keeps, cause };
        let check = |reply| Command::CheckInstall(anchors, terms, reply);
        let checked = self.queue.ask(check).await;
        checked.map_err(|_closed| InstallError::Closed)??;
        let shared = Arc::clone(&self.shared);
        let begun = tokio::task::spawn_blocking(move || {
            let incoming = shared.begin_base(rank, manifest);
            (incoming, shared)
        });
        let (incoming, shared) = begun.await.map_err(|_panic| InstallError::Closed)?;
        let incoming = incoming?;
        shared.show_progress(incoming.progress());
        Ok(TakenBase {
            incoming,
            cause,
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

    /// Takes bases with this hash from now on, whatever the admins say, as if the newest act named it. For
    /// tests only.
    #[doc(hidden)]
    pub fn trust_base(&self, hash: BaseHash) {
        let named = self.shared.named.lock();
        let mut named = named.unwrap_or_else(PoisonError::into_inner);
        let number = u64::MAX / 2 + named.len() as u64;
        named.insert(hash, number);
    }
}

impl Shared {
    // The bases that counting acts of admins name. Only such a one is taken.
    fn named_bases(&self) -> BTreeSet<BaseRank> {
        let members = Arc::clone(&self.members.borrow());
        let acts = members.anchors_acts(&self.id);
        let of_act =
            acts.filter_map(|placed| Some((placed.act.number(), placed.act.base()?.hash.0)));
        let mut ranks: BTreeSet<BaseRank> = of_act.collect();
        let named = self.named.lock();
        let named = named.unwrap_or_else(PoisonError::into_inner);
        ranks.extend(named.iter().map(|(hash, number)| (*number, hash.0)));
        ranks
    }

    // Returns the rank of the base among those that acts name.
    fn check_named(&self, manifest: &BaseManifest) -> Result<BaseRank, TakeBaseError> {
        let hash = BaseHash(manifest.hash());
        let named = self.named_bases().into_iter();
        let rank = named.rev().find(|(_, named)| *named == hash.0);
        let rank = rank.ok_or(TakeBaseError::NotNamed { hash })?;
        if self.choice().is_refused(&hash) {
            return Err(TakeBaseError::Unfit { hash });
        }
        Ok(rank)
    }

    // Begins with the base of `rank`, unless a newer one is being taken. Reads the directory.
    fn begin_base(
        &self,
        rank: BaseRank,
        manifest: BaseManifest,
    ) -> Result<Incoming, TakeBaseError> {
        let dir = base_dir(&self.dir);
        let mut named = self.named_bases();
        named.retain(|(_number, hash)| !self.choice().is_refused(&BaseHash(*hash)));
        let newest = named.pop_last().unwrap_or(rank);
        let now_ms = self.now_ms();
        // After a start, nothing but its parts shows that the newest base was being taken.
        if self.choice().is_empty()
            && newest != rank
            && Incoming::has_others(self.disk.as_ref(), &dir, &manifest)
                .map_err(IncomingError::Disk)?
        {
            self.choice().expect(newest, now_ms);
        }
        let chosen = self.choice().choose(rank, now_ms);
        chosen.map_err(|(_number, newer)| TakeBaseError::Older {
            hash: BaseHash(rank.1),
            newer: BaseHash(newer),
        })?;
        let own = self.base.newest();
        let damaged = self.damaged_parts.lock();
        let damaged = damaged.unwrap_or_else(PoisonError::into_inner).clone();
        let begun = Incoming::begin(&self.disk, dir, own.as_deref(), manifest, &damaged);
        Ok(begun.map_err(IncomingError::Disk)?)
    }

    fn choice(&self) -> std::sync::MutexGuard<'_, BaseChoice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut choice = self.shared.choice();
        match &kept {
            Ok(()) => choice.come(self.shared.now_ms()),
            // Other peers would pass on the same.
            Err(IncomingError::Unsound { .. }) => {
                choice.failed(BaseHash(self.incoming.manifest().hash()));
            }
            Err(_other) => {}
        }
        drop(choice);
        Ok(kept?)
    }

    /// Returns whether it has entries of `author` after the end of that log here.
    pub fn is_ahead_of(&self, author: &Author) -> bool {
        let anchor = self.incoming.manifest().anchor(author);
        let branches = self.shared.log.of(author);
        let tips = branches.iter().filter_map(|branch| branch.tip());
        let newest = tips.map(|tip| tip.seq).max().unwrap_or(0);
        anchor.is_some_and(|anchor| anchor.seq > newest)
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
            mut incoming,
            cause,
            shared,
            queue,
            _turn,
        } = self;
        let turn = Arc::clone(&shared.folding).lock_owned().await;
        let own = shared.base.newest();
        // A fold may have ended meanwhile, and its author may have lost its role.
        if cause != InstallCause::Chosen {
            shared.check_named(incoming.manifest())?;
        }
        let (number, before) = (own.as_ref().map_or(1, |own| own.manifest().number + 1), own);
        let finishing = tokio::task::spawn_blocking(move || {
            let base = incoming.finish(number, before.as_deref(), check_rows);
            (base, incoming, before)
        });
        let (base, incoming, before) = finishing.await.map_err(|_panic| InstallError::Closed)?;
        shared.note_finish(&base, &incoming);
        let installed = match base {
            Ok(base) => {
                let (base, keeps) = (Box::new(base), shared.keeps());
                let terms = InstallTerms { keeps, cause };
                let install = |reply| Command::Install(base, terms, reply);
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
        if is_there {
            shared.choice().installed();
        }
        Ok(installed?)
    }
}

impl Shared {
    // Remembers what is wrong with a base that has come, so that only that is asked for again, and not
    // without end.
    fn note_finish(&self, base: &Result<Base, StateError>, incoming: &Incoming) {
        let damaged = self.damaged_parts.lock();
        let mut damaged = damaged.unwrap_or_else(PoisonError::into_inner);
        damaged.clear();
        damaged.extend(incoming.damaged_parts());
        if let Err(error @ StateError::Damaged { .. }) = base {
            let parts = damaged.len();
            tracing::warn!(store = %self.id, %error, parts, "a base that has come is not as its hash says");
            self.choice().failed(BaseHash(incoming.manifest().hash()));
        }
    }

    // Also true when that cannot be known.
    fn is_in_place(&self, number: u64) -> bool {
        Base::is_there(self.disk.as_ref(), &base_dir(&self.dir), number).unwrap_or(true)
    }
}

fn hash_text(hash: &BaseHash) -> String {
    data_encoding::HEXLOWER.encode(&hash.0[..4])
}
