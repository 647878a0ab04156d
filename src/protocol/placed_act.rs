//! Placed act: an anchors act as an entry of the root store makes it.
//!
//! A put without expiry at `/stores/{store}/anchors`, with a value that is an [`AnchorsAct`], is an act
//! about the store. Its `through` must not be after the stamp of the entry: an entry that is stamped far
//! ahead is held everywhere, so an admin whose clock is wrong ends no value early.

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, StoreId},
    limits::SEQ_MAX,
    protocol::{
        anchors_act::AnchorsAct,
        entry::{Entry, Op},
        frontier::FrontierTip,
    },
};

/// An anchors act that its entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedAct {
    /// Author of the entry that makes it.
    pub by: Author,
    /// Place of the entry in the root store.
    pub at: FrontierTip,
    /// Store that the act is about.
    pub store: StoreId,
    /// Entries that its entry cites: among them the acts about the store that its admin knew last.
    pub cites: Vec<EntryId>,
    /// The act.
    pub act: AnchorsAct,
}

impl PlacedAct {
    /// Returns the act as it will be, once `by` has published it: its entry cites `cites`. The entry has no id
    /// yet.
    pub fn to_be(by: Author, store: StoreId, cites: Vec<EntryId>, act: AnchorsAct) -> Self {
        let at = FrontierTip {
            seq: SEQ_MAX,
            id: EntryId([0; 32]),
        };
        Self {
            by,
            at,
            store,
            cites,
            act,
        }
    }

    /// Returns the anchors acts of a root-store entry. Each has another store.
    ///
    /// An act whose `through` is after the entry's own stamp is none.
    pub fn of(entry: &Entry) -> Vec<Self> {
        let acts = entry.ops.iter().filter_map(act);
        acts.filter(|(_, act)| act.through_ms() <= entry.header.hlc.wall_ms)
            .map(|(store, act)| Self {
                by: entry.author(),
                at: FrontierTip::of(entry),
                store,
                cites: entry.header.parents.iter().map(|it| it.id).collect(),
                act,
            })
            .collect()
    }
}

/// Returns the store that `op` is an anchors act about, and the act; `None` if it is no such act.
pub fn act(op: &Op) -> Option<(StoreId, AnchorsAct)> {
    match op {
        Op::Put {
            key,
            value,
            expires_ms: None,
        } => Some((anchors_key_store(key)?, AnchorsAct::decode(value)?)),
        Op::Put { .. } | Op::Delete { .. } => None,
    }
}

/// Returns the root-store key of anchors acts about `store`: `/stores/{store}/anchors`.
pub fn anchors_key(store: &StoreId) -> Bytes {
    Bytes::from(format!("/stores/{store}/{ANCHORS_NAME}"))
}

/// Returns the store that a put at `key` is an act about; `None` unless `key` is exactly the
/// `anchors_key` of a store.
pub fn anchors_key_store(key: &[u8]) -> Option<StoreId> {
    let rest = key.strip_prefix(b"/stores/")?;
    let store = rest.strip_suffix(ANCHORS_NAME.as_bytes())?;
    let store: StoreId = str::from_utf8(store.strip_suffix(b"/")?)
        .ok()?
        .parse()
        .ok()?;
    (anchors_key(&store) == key).then_some(store)
}

/// Name of the key of anchors acts, below the prefix of its store.
pub const ANCHORS_NAME: &str = "anchors";

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::protocol::{
        entry::{
            sign,
            tests::{AUTHOR_A, entry},
        },
        frontier::Frontier,
    };

    const STORE: StoreId = StoreId([1; 16]);

    fn through(through_ms: u64) -> AnchorsAct {
        AnchorsAct::new(1, None, through_ms, Frontier::default(), None).unwrap()
    }

    #[test]
    fn acts_are_puts_without_expiry_and_not_ahead_of_their_entry() {
        let put = |key: Bytes, value: Bytes, expires_ms| Op::Put {
            key,
            value,
            expires_ms,
        };
        let other = StoreId([2; 16]);
        let header = entry(AUTHOR_A, 1, None, 999, "/k").header.clone();
        let ops = vec![
            put(anchors_key(&STORE), through(0).encode(), None),
            // Its `through` is 1000.
            put(anchors_key(&other), through(1000).encode(), None),
            put(
                anchors_key(&StoreId([3; 16])),
                through(0).encode(),
                Some(9999),
            ),
            put(anchors_key(&StoreId([4; 16])), Bytes::new(), None),
            put(Bytes::from("/k"), through(0).encode(), None),
            Op::Delete {
                key: anchors_key(&StoreId([5; 16])),
            },
        ];
        let sign = |wall_ms| {
            let mut header = header.clone();
            header.hlc.wall_ms = wall_ms;
            sign(&SigningKey::from_bytes(&AUTHOR_A), header, ops.clone()).unwrap()
        };
        let stores = |wall_ms| -> Vec<StoreId> {
            let acts = PlacedAct::of(&sign(wall_ms)).into_iter();
            acts.map(|placed| placed.store).collect()
        };
        assert_eq!(stores(999), [STORE]);
        assert_eq!(stores(1000), [STORE, other]);
        let entry = sign(1000);
        let [first, second] = &PlacedAct::of(&entry)[..] else {
            panic!("two acts")
        };
        assert_eq!(
            (first.by, first.at),
            (entry.author(), FrontierTip::of(&entry))
        );
        assert_eq!((&first.act, &second.act), (&through(0), &through(1000)));
    }

    #[test]
    fn m13_only_the_anchors_key_is_about_a_store() {
        assert_eq!(anchors_key_store(&anchors_key(&STORE)), Some(STORE));
        let hostile = [
            format!("/stores/{STORE}/anchors/"),
            format!("/stores/{STORE}/anchorss"),
            format!("/stores//{STORE}/anchors"),
            format!("/stores/../{STORE}/anchors"),
            format!(
                "/stores/{}/anchors",
                StoreId([0xab; 16]).to_string().to_uppercase()
            ),
            format!("/stores/{}/anchors", STORE.to_string().replace('-', "")),
            format!("stores/{STORE}/anchors"),
            format!("/stores/{STORE}anchors"),
            "/stores/anchors".to_owned(),
            String::new(),
        ];
        for key in hostile {
            assert_eq!(anchors_key_store(key.as_bytes()), None, "{key:?}");
        }
    }
}
