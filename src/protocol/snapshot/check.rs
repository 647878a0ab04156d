//! The check of a snapshot: its blocks in order, each entry authentic and after the one before it.
//!
//! A store may lack its first entries. Then the state that they made comes before its branches; it has no
//! signatures but the one over the whole file. Its bytes are passed on: `state::base` has their form.

use std::mem;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message as _;
use zeroize::Zeroizing;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    limits::{RUN_ENTRIES_MAX, STORE_NAME_CHARS_MAX},
    protocol::{
        anchor::Anchor,
        chain::Tip,
        entry::{Entry, EntryError, SignedEntry, VerifiedEntry},
        hlc::Hlc,
        membership::genesis::Genesis,
        run,
        signed::count_items,
        snapshot::{
            Block, Manifest, SnapshotError,
            block::Kind,
            manifest::{Contents, short},
        },
    },
    wire::snapshot as wire,
};

/// The content of a block, once it is checked.
#[derive(Debug)]
pub enum Checked {
    /// A store begins.
    Store(SnapshotStore),
    /// First entries of the store were removed. These are the bytes of the manifest of their state; its
    /// pieces follow.
    Base(Bytes),
    /// The next bytes of a part of that state; true for the last ones of the part.
    Piece(Bytes, bool),
    /// A branch of this author begins in the store, after entries that were removed or not.
    Branch(Author, Option<BranchBegin>),
    /// The next entries of the branch, each with the time at which it arrived, ms since 1970. Some are
    /// kept back until those that vouch for them have come. May be empty.
    Entries(Vec<(VerifiedEntry, u64)>),
    /// The secret key of the node.
    Key(Zeroizing<[u8; 32]>),
    /// The end: the file is whole.
    Manifest(Manifest),
}

/// The place from which on a branch has its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchBegin {
    /// The last entry that was removed.
    pub anchor: Anchor,
    /// When it arrived at the node that made the snapshot, ms since 1970.
    pub arrived_ms: u64,
    /// Place of the first entry of the branch, which was removed.
    pub first: Seq,
    /// The entry before that one, on another branch; `None` when `first` is 1.
    pub forked_from: Option<EntryId>,
}

/// A store in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStore {
    /// The node and the nonce from which its id follows.
    pub genesis: Genesis,
    /// Its name on the node that made the snapshot.
    pub name: String,
    /// Whether it is the root store.
    pub root: bool,
    /// The root store under which it is private; `None` if it belongs to the mesh.
    pub private_under: Option<StoreId>,
}

/// Checks the blocks of a file, in order.
#[derive(Debug, Default)]
pub struct SnapshotChecker {
    // Stores so far, the one that is read last.
    stores: Vec<(SnapshotStore, u64)>,
    branch: Option<Branch>,
    // The author of the last branch that has ended in this store.
    ended: Option<Author>,
    // Whether the store has the state of entries that were removed.
    has_base: bool,
    key: Option<Author>,
    is_done: bool,
}

// The branch that is read.
#[derive(Debug)]
struct Branch {
    author: Author,
    // Whether it is not the author's first branch: it may leave another one at any entry.
    is_fork: bool,
    // The entry before the next one; at first the one after which the branch begins late.
    before: Option<Tip>,
    is_empty: bool,
    // Entries that are not verified yet, with their arrivals: a run that has not ended, so fewer than
    // RUN_ENTRIES_MAX.
    run: Vec<(Entry, u64)>,
}

impl SnapshotChecker {
    /// Checks the next block. `hash`: of all bytes of the file before it.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn next(
        &mut self,
        block: &Block,
        hash: &dyn Fn() -> [u8; 32],
    ) -> Result<Vec<Checked>, SnapshotError> {
        let damaged = |what: String| SnapshotError::Damaged {
            offset: block.offset,
            what,
        };
        let checked = match block.kind {
            Kind::Entries => return self.entries(&block.body).map_err(damaged),
            Kind::Store => self.store(&block.body),
            Kind::Base => self.base(&block.body),
            Kind::Piece => self.piece(&block.body),
            Kind::Branch => self.begin_branch(&block.body),
            Kind::Key => self.key(&block.body),
            Kind::Manifest => self.manifest(&block.body, hash),
        };
        let (rest, next) = checked.map_err(damaged)?;
        let rest = rest.filter(|rest| !rest.is_empty()).map(Checked::Entries);
        Ok(rest.into_iter().chain([next]).collect())
    }

    /// Returns whether the manifest was read.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    fn store(&mut self, body: &[u8]) -> Result<Next, String> {
        let rest = self.end_branch()?;
        let message = wire::Store::decode(body).map_err(|_reason| MALFORMED)?;
        let store = SnapshotStore::of(message).ok_or(MALFORMED)?;
        let id = store.genesis.store();
        if self.stores.iter().any(|(it, _)| it.genesis.store() == id) {
            return Err(format!("store {id} is there twice"));
        }
        if self.stores.len() >= STORES_MAX {
            return Err("it has more stores than a node can have".to_owned());
        }
        (self.ended, self.has_base) = (None, false);
        self.stores.push((store.clone(), 0));
        Ok((rest, Checked::Store(store)))
    }

    fn base(&mut self, body: &Bytes) -> Result<Next, String> {
        let message = wire::Base::decode(body.clone()).map_err(|_reason| MALFORMED)?;
        let is_due = self.is_before_branches() && !self.has_base;
        let may_have = self.stores.last().is_some_and(|(store, _)| !store.root);
        if !is_due || !may_have {
            return Err("a state of removed entries where none is due".to_owned());
        }
        self.has_base = true;
        Ok((None, Checked::Base(message.manifest)))
    }

    fn piece(&self, body: &Bytes) -> Result<Next, String> {
        let message = wire::Piece::decode(body.clone()).map_err(|_reason| MALFORMED)?;
        if !self.is_before_branches() || !self.has_base {
            return Err("a piece of a state where none is due".to_owned());
        }
        Ok((None, Checked::Piece(message.piece, message.last)))
    }

    fn is_before_branches(&self) -> bool {
        self.branch.is_none() && self.ended.is_none()
    }

    fn begin_branch(&mut self, body: &[u8]) -> Result<Next, String> {
        let rest = self.end_branch()?;
        let message = wire::Branch::decode(body).map_err(|_reason| MALFORMED)?;
        let author = Author::from_slice(&message.author).ok_or(MALFORMED)?;
        let begin = message.begin.map(BranchBegin::of);
        let begin = begin.map(|begin| begin.ok_or(MALFORMED)).transpose()?;
        if self.stores.is_empty() {
            return Err("a branch before the first store".to_owned());
        }
        if self.ended.is_some_and(|last| author < last) {
            return Err("the branches are not in order".to_owned());
        }
        // Only the first branch of an author: the others left it later.
        if begin.is_some() && (!self.has_base || self.ended == Some(author)) {
            return Err("a branch begins late where none can".to_owned());
        }
        self.branch = Some(Branch {
            author,
            is_fork: self.ended == Some(author),
            before: begin.map(|begin| begin.anchor.into()),
            is_empty: begin.is_none(),
            run: Vec::new(),
        });
        Ok((rest, Checked::Branch(author, begin)))
    }

    fn entries(&mut self, body: &Bytes) -> Result<Vec<Checked>, String> {
        let (store, count) = self.stores.last_mut().ok_or(MALFORMED)?;
        let branch = self.branch.as_mut().ok_or("entries without a branch")?;
        count_items(body, ENTRIES_FIELD, ENTRY_BYTES_MIN).ok_or(MALFORMED)?;
        let message = wire::Entries::decode(body.clone()).map_err(|_reason| MALFORMED)?;
        let mut verified = Vec::new();
        for wire::Entry { entry, arrived_ms } in message.entries {
            let entry = SignedEntry::decode(entry).and_then(SignedEntry::parse);
            let entry = entry.map_err(|error| error.to_string())?;
            if entry.header.store != store.genesis.store() {
                return Err("an entry of another store".to_owned());
            }
            *count = count.saturating_add(1);
            branch.add(entry, arrived_ms, &mut verified)?;
        }
        Ok(vec![Checked::Entries(verified)])
    }

    fn end_branch(&mut self) -> Result<Option<Vec<(VerifiedEntry, u64)>>, String> {
        let Some(mut branch) = self.branch.take() else {
            return Ok(None);
        };
        if branch.is_empty {
            return Err("a branch without entries".to_owned());
        }
        self.ended = Some(branch.author);
        let mut verified = Vec::new();
        branch.verify(&mut verified)?;
        Ok(Some(verified))
    }

    fn key(&mut self, body: &[u8]) -> Result<Next, String> {
        if self.key.is_some() || !self.stores.is_empty() {
            return Err("a key where none is due".to_owned());
        }
        let seed: [u8; 32] = body.try_into().map_err(|_length| MALFORMED)?;
        let seed = Zeroizing::new(seed);
        let key = SigningKey::from_bytes(&seed);
        self.key = Some(Author(key.verifying_key().to_bytes()));
        Ok((None, Checked::Key(seed)))
    }

    fn manifest(&mut self, body: &[u8], hash: &dyn Fn() -> [u8; 32]) -> Result<Next, String> {
        let rest = self.end_branch()?;
        let manifest = Manifest::decode(body).ok_or("the manifest is not signed by its node")?;
        if manifest.hash != hash() {
            return Err("it is not the file that its node has signed".to_owned());
        }
        if self.stores.iter().filter(|(store, _)| store.root).count() != 1 {
            return Err("it has no root store, or several".to_owned());
        }
        let is_as_said = |((store, entries), contents): (&(SnapshotStore, u64), &Contents)| {
            contents.id == store.genesis.store()
                && contents.entries == *entries
                && contents.root == store.root
        };
        let mut pairs = self.stores.iter().zip(&manifest.stores);
        if self.stores.len() != manifest.stores.len() || !pairs.all(is_as_said) {
            return Err("the manifest names other stores or entries".to_owned());
        }
        let key = self.key.is_some_and(|key| key == manifest.node);
        if key != manifest.has_key || self.key.is_some() != key {
            return Err("its key is not the one of its node".to_owned());
        }
        self.is_done = true;
        Ok((rest, Checked::Manifest(manifest)))
    }
}

impl Branch {
    // Checks that `entry` is the next one; entries that are verified then are added to `verified`.
    fn add(
        &mut self,
        entry: Entry,
        arrived_ms: u64,
        verified: &mut Vec<(VerifiedEntry, u64)>,
    ) -> Result<(), String> {
        let header = &entry.header;
        if entry.author() != self.author {
            return Err("an entry of another author".to_owned());
        }
        let follows = match self.before {
            Some(before) => {
                header.prev == Some(before.id)
                    && Some(header.seq) == before.seq.checked_add(1)
                    && header.hlc > before.hlc
            }
            None => header.seq == 1 || self.is_fork,
        };
        if !follows {
            return Err(format!(
                "entry {} of {} does not follow the one before it",
                header.seq,
                self.author.short()
            ));
        }
        if header.seq.is_multiple_of(RUN_ENTRIES_MAX) {
            self.verify(verified)?;
        }
        self.before = Some(Tip {
            seq: header.seq,
            id: entry.id,
            hlc: header.hlc,
        });
        self.is_empty = false;
        self.run.push((entry, arrived_ms));
        Ok(())
    }

    fn verify(&mut self, verified: &mut Vec<(VerifiedEntry, u64)>) -> Result<(), String> {
        let (entries, arrived): (Vec<_>, Vec<_>) = mem::take(&mut self.run).into_iter().unzip();
        let entries = entries.into_iter().map(Ok::<_, EntryError>).collect();
        for (entry, arrived_ms) in run::verify(entries, || {}).into_iter().zip(arrived) {
            let entry = entry.map_err(|error| {
                let author = self.author.short();
                format!("an entry of {author} is not authentic: {error}")
            })?;
            verified.push((entry, arrived_ms));
        }
        Ok(())
    }
}

impl SnapshotStore {
    /// Returns the body of the block with which the store begins.
    pub fn encode(&self) -> Bytes {
        let id = |id: &StoreId| Bytes::copy_from_slice(&id.0);
        let message = wire::Store {
            id: id(&self.genesis.store()),
            creator: Bytes::copy_from_slice(&self.genesis.creator.0),
            nonce: Bytes::copy_from_slice(&self.genesis.nonce),
            name: self.name.clone(),
            root: self.root,
            private_under: self.private_under.as_ref().map(id).unwrap_or_default(),
        };
        message.encode_to_vec().into()
    }

    fn of(message: wire::Store) -> Option<Self> {
        let genesis = Genesis {
            creator: Author::from_slice(&message.creator)?,
            nonce: message.nonce.as_ref().try_into().ok()?,
        };
        let private_under = match message.private_under.len() {
            0 => None,
            _given => Some(StoreId::from_slice(&message.private_under)?),
        };
        let is_whole = message.id == genesis.store().0.as_slice()
            && !(message.root && private_under.is_some());
        is_whole.then_some(Self {
            genesis,
            name: short(message.name, STORE_NAME_CHARS_MAX)?,
            root: message.root,
            private_under,
        })
    }
}

impl BranchBegin {
    fn message(&self) -> wire::Begin {
        let Anchor { seq, id, hlc } = self.anchor;
        let bytes = |id: EntryId| Bytes::copy_from_slice(&id.0);
        wire::Begin {
            seq,
            id: bytes(id),
            wall_ms: hlc.wall_ms,
            counter: hlc.counter,
            arrived_ms: self.arrived_ms,
            first: self.first,
            forked_from: self.forked_from.map(bytes).unwrap_or_default(),
        }
    }

    fn of(message: wire::Begin) -> Option<Self> {
        let forked_from = match message.forked_from.len() {
            0 => None,
            _given => Some(EntryId::from_slice(&message.forked_from)?),
        };
        let anchor = Anchor {
            seq: message.seq,
            id: EntryId::from_slice(&message.id)?,
            hlc: Hlc::new(message.wall_ms, message.counter)?,
        };
        let first = message.first;
        let is_sound = anchor.seq >= first && first > 0 && (first == 1) == forked_from.is_none();
        is_sound.then_some(Self {
            anchor,
            arrived_ms: message.arrived_ms,
            first,
            forked_from,
        })
    }
}

/// Returns the body of the block with the state of entries that were removed. `manifest`: as peers get it.
pub fn base_body(manifest: Bytes) -> Bytes {
    wire::Base { manifest }.encode_to_vec().into()
}

/// Returns the body of a block with the next bytes of a part of that state.
pub fn piece_body(piece: Bytes, last: bool) -> Bytes {
    wire::Piece { piece, last }.encode_to_vec().into()
}

/// Returns the body of the block with which a branch of `author` begins.
pub fn branch_body(author: &Author, begin: Option<&BranchBegin>) -> Bytes {
    let branch = wire::Branch {
        author: Bytes::copy_from_slice(&author.0),
        begin: begin.map(BranchBegin::message),
    };
    branch.encode_to_vec().into()
}

/// Returns the body of a block with these encoded entries and the times at which they arrived.
pub fn entries_body(entries: Vec<(Bytes, u64)>) -> Bytes {
    let entries = entries
        .into_iter()
        .map(|(entry, arrived_ms)| wire::Entry { entry, arrived_ms });
    let entries = entries.collect();
    wire::Entries { entries }.encode_to_vec().into()
}

// Entries that a block has let through, and what it is.
type Next = (Option<Vec<(VerifiedEntry, u64)>>, Checked);

const MALFORMED: &str = "the block is malformed";
const ENTRIES_FIELD: u32 = 1;
// A signed entry has a key and a signature.
const ENTRY_BYTES_MIN: usize = 96;
// More than the stores of all members that a node opens.
const STORES_MAX: usize = 1 << 16;
