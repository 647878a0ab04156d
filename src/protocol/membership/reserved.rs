//! Reserved keys: those of the root store that describe members, invites and stores, and which of
//! their ops count.
//!
//! | key | an op counts if |
//! |---|---|
//! | `/nodes/X/role` | it is an act that counts |
//! | `/nodes/X/...` | its author is X, or the entry has authority |
//! | `/invites/...` | the entry has authority |
//! | `/stores/S/genesis` | it puts, without expiry, the value that S is derived from |
//! | `/stores/S/anchors` | it is an [anchors act](crate::protocol::placed_act), and the entry has authority |
//! | `/stores/S/...` | its author founded S, in the same entry or before on its branch; or the entry has authority |
//! | anything else under these prefixes | never |
//!
//! An op that does not count is void: it changes no heads, supersedes nothing, and its entry links
//! all the same. An entry has authority if its author is the creator, or if it cites a counting
//! grant of admin to its author, and no removal cuts it off. So a writer can rename itself, and
//! nobody else.

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;

use crate::{
    id::{Author, EntryId, StoreId},
    protocol::{
        entry::{Entry, Op},
        membership::{genesis::Genesis, role},
        placed_act::{self, ANCHORS_NAME},
    },
};

/// The prefixes of reserved keys.
pub const PREFIXES: [&str; 3] = ["/nodes/", "/invites/", "/stores/"];

/// Returns whether a key, or all keys with a prefix, is reserved.
pub fn is_reserved(key: &[u8]) -> bool {
    let mut prefixes = PREFIXES.iter();
    prefixes.any(|prefix| key.starts_with(prefix.as_bytes()))
}

/// Condition under which an op of a reserved key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is an act on this node, and counts as one.
    Act(Author),
    /// Its author is this node, or its entry has authority.
    Of(Author),
    /// Its entry has authority.
    Authority,
    /// It is the genesis of this store, founded by this node.
    Genesis(StoreId, Author),
    /// Its author founded this store, or its entry has authority.
    Founder(StoreId),
    /// It never counts.
    Void,
}

/// Returns the condition under which `op` counts; `None` if its key is not reserved.
pub fn claim(op: &Op) -> Option<Claim> {
    let key = op.key().as_ref();
    if let Some(rest) = key.strip_prefix(b"/nodes/") {
        return Some(match part::<Author>(rest) {
            Some((node, b"role")) => match role::act(op) {
                Some(_) => Claim::Act(node),
                None => Claim::Void,
            },
            Some((node, _)) => Claim::Of(node),
            None => Claim::Void,
        });
    }
    if key.starts_with(b"/invites/") {
        return Some(Claim::Authority);
    }
    let rest = key.strip_prefix(b"/stores/")?;
    Some(match part::<StoreId>(rest) {
        Some((store, b"genesis")) => match op {
            Op::Put {
                key,
                value,
                expires_ms: None,
            } => match Genesis::decode(key, value) {
                Some(genesis) => Claim::Genesis(store, genesis.creator),
                None => Claim::Void,
            },
            Op::Put { .. } | Op::Delete { .. } => Claim::Void,
        },
        // The founder of a store makes nothing final there: authority does.
        Some((_, name)) if name == ANCHORS_NAME.as_bytes() => match placed_act::act(op) {
            Some(_) => Claim::Authority,
            None => Claim::Void,
        },
        Some((store, _)) => Claim::Founder(store),
        None => Claim::Void,
    })
}

/// Returns whether an entry may have reserved ops, from its encoded bytes alone.
///
/// `false` is certain, because a key is in the encoded bytes as it is. `true` is not.
pub fn may_claim(encoded: &[u8]) -> bool {
    let has = |prefix: &&str| memchr::memmem::find(encoded, prefix.as_bytes()).is_some();
    PREFIXES.iter().any(has)
}

// Splits what follows a prefix into an id, exactly as it is written, and the name after it.
fn part<T: std::str::FromStr + ToString>(rest: &[u8]) -> Option<(T, &[u8])> {
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    let (id, name) = rest.split_at_checked(slash)?;
    let (_slash, name) = name.split_first()?;
    let id = str::from_utf8(id).ok()?;
    let parsed: T = id.parse().ok()?;
    (parsed.to_string() == id && !name.is_empty()).then_some((parsed, name))
}

/// The reserved ops of a root store that count, where the entry alone does not show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counting {
    /// Node that founded the root store. Its entries have authority.
    pub creator: Author,
    /// Acts that count: the entry, and the node that it acts on.
    pub acts: BTreeSet<(EntryId, Author)>,
    /// Other entries that need authority and have it.
    pub authorized: BTreeSet<EntryId>,
    /// Entries about stores that their founder wrote, after it had put the genesis of each, with these
    /// stores in order. Shared with the next views, because it grows with the log.
    pub founders: OrdMap<EntryId, Arc<[StoreId]>>,
}

impl Counting {
    /// Returns the ops that count in a root store in which only its creator has acted.
    pub fn new(creator: Author) -> Self {
        Self {
            creator,
            acts: BTreeSet::new(),
            authorized: BTreeSet::new(),
            founders: OrdMap::new(),
        }
    }

    /// Returns whether `op` of `entry` is void.
    pub fn is_void(&self, entry: &Entry, op: &Op) -> bool {
        let author = entry.author();
        let has_authority = || author == self.creator || self.authorized.contains(&entry.id);
        let counts = match claim(op) {
            None | Some(Claim::Genesis(..)) => true,
            Some(Claim::Act(node)) => self.acts.contains(&(entry.id, node)),
            Some(Claim::Of(node)) => node == author || has_authority(),
            Some(Claim::Authority) => has_authority(),
            Some(Claim::Founder(store)) => {
                let founded = self.founders.get(&entry.id);
                founded.is_some_and(|it| it.binary_search(&store).is_ok()) || has_authority()
            }
            Some(Claim::Void) => false,
        };
        !counts
    }
}
