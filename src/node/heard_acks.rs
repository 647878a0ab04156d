//! Heard acks: the latest whole ack of each member for each store, and what they prove.
//!
//! The signed ones are kept in `meta.db`, written now and then, and passed on to members that may never meet
//! their node. To lose the latest ones is harmless: an ack only grows, and what is missing is heard again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    id::{Author, StoreId},
    limits::{ACKS_KEPT_BYTES_MAX, ACKS_KEPT_MAX},
    log::{LogError, LogReader},
    protocol::{
        ack::{Ack, AckPlace},
        finality::{Heard, Proven},
        membership::Members,
    },
};

/// The latest acks of the other members. The net lets only members and open stores in, which bounds it.
#[derive(Debug, Default)]
pub(in crate::node) struct HeardAcks {
    // Never held across an await; no file is read under it, and no other lock taken.
    latest: Mutex<BTreeMap<(StoreId, Author), Ack>>,
    // Held while logs are read. Never held across an await; no other lock is taken meanwhile.
    proven: Mutex<BTreeMap<(StoreId, Author), Proven>>,
    // The same acks as their nodes have signed them. Never held across an await; no other lock is taken
    // meanwhile.
    signed: Mutex<SignedAcks>,
}

/// A signed ack of another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedAck {
    /// Store that it is about.
    pub(crate) store: StoreId,
    /// Node that has signed it.
    pub(crate) node: Author,
    /// Its place among the acks of that node.
    pub(crate) place: AckPlace,
    /// The signed ack, encoded.
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Default)]
struct SignedAcks {
    latest: BTreeMap<(StoreId, Author), SignedAck>,
    // Those that are not on disk as they are here, or are to be removed there.
    unwritten: BTreeSet<(StoreId, Author)>,
    // Subset of `latest`: those that name authors of whom nothing was known here, so that `HeardAcks::latest`
    // has only a part of them. Cleared by `hear_all`.
    cut: BTreeSet<(StoreId, Author)>,
}

impl SignedAcks {
    // Makes room for an ack of `bytes` in place of that of `key`: longer ones are given up, the longest first.
    // False if there are none.
    fn make_room(&mut self, key: &(StoreId, Author), bytes: usize) -> bool {
        loop {
            let others = || self.latest.iter().filter(|(other, _)| *other != key);
            let sum: usize = others().map(|(_, ack)| ack.bytes.len()).sum();
            if sum.saturating_add(bytes) <= ACKS_KEPT_BYTES_MAX {
                return true;
            }
            let longest = others().max_by_key(|(_, ack)| ack.bytes.len());
            let Some((longest, _)) = longest.filter(|(_, ack)| ack.bytes.len() > bytes) else {
                return false;
            };
            let longest = *longest;
            self.latest.remove(&longest);
            self.cut.remove(&longest);
            self.unwritten.insert(longest);
        }
    }
}

/// A signed ack on disk, with the store that it is about and its node.
pub(in crate::node) type KeptAck = ((StoreId, Author), Bytes);

/// Acks that have changed since the last write to disk; `None` for one that is to be removed there.
pub(in crate::node) type UnwrittenAcks = Vec<((StoreId, Author), Option<Bytes>)>;

impl HeardAcks {
    /// Keeps a whole ack that is later than the one of its node and store before. The caller has checked
    /// that it is signed by a member.
    #[cfg(feature = "net")]
    pub(in crate::node) fn hear(&self, ack: &Ack) {
        if ack.is_part {
            return;
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.get(&(ack.store, ack.node));
        if known.is_none_or(|known| known.place() < ack.place()) {
            latest.insert((ack.store, ack.node), ack.clone());
        }
    }

    /// Hears an ack, and keeps it as it was signed, if it is later than the one before. The caller has checked
    /// that a member has signed it. `is_cut`: `ack` lacks authors that the signed one names.
    #[cfg(feature = "net")]
    pub(in crate::node) fn keep(&self, ack: &Ack, bytes: Bytes, is_cut: bool) {
        let (key, place) = ((ack.store, ack.node), ack.place());
        let says_the_same = {
            let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.get(&key).is_some_and(|known| {
                let new = Ack {
                    counter: known.counter,
                    ..ack.clone()
                };
                *known == new
            })
        };
        self.hear(ack);
        if ack.is_part || bytes.len() > crate::limits::ACK_KEPT_BYTES_MAX {
            return;
        }
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = signed.latest.get(&key);
        // Members sign again and again. An ack with the same content is neither written nor passed on.
        if known.is_some_and(|known| known.place >= place || says_the_same && !is_cut)
            || known.is_none() && signed.latest.len() >= ACKS_KEPT_MAX
            || !signed.make_room(&key, bytes.len())
        {
            return;
        }
        let (store, node) = key;
        let kept = SignedAck {
            store,
            node,
            place,
            bytes,
        };
        signed.latest.insert(key, kept);
        signed.unwritten.insert(key);
        if is_cut {
            signed.cut.insert(key);
        } else {
            signed.cut.remove(&key);
        }
    }

    // Hears acks about `store` again of which only a part was of use: more authors may be known by now.
    fn hear_all(&self, store: StoreId, is_known: impl Fn(&Author) -> bool) {
        let cut: Vec<_> = {
            let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
            let cut = signed.cut.range(range(store));
            cut.filter_map(|key| Some((*key, signed.latest.get(key)?.bytes.clone())))
                .collect()
        };
        for (key, bytes) in cut {
            let Ok(ack) = Ack::open(bytes) else {
                continue;
            };
            let (ack, is_cut) = ack.known_part(&is_known);
            {
                let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
                let known = latest.get(&key);
                if known.is_none_or(|known| known.place() <= ack.place()) {
                    latest.insert(key, ack.clone());
                }
            }
            let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
            let is_same = |kept: &SignedAck| kept.place == ack.place();
            if !is_cut && signed.latest.get(&key).is_some_and(is_same) {
                signed.cut.remove(&key);
            }
        }
    }

    /// Takes acks that were read from the disk. Those that are not signed by their node are left out, and
    /// removed there.
    pub(in crate::node) fn read(&self, acks: Vec<KeptAck>) {
        for (key, bytes) in acks {
            let opened = Ack::open(bytes.clone()).ok();
            let ack = opened.filter(|ack| (ack.store, ack.node) == key && !ack.is_part);
            let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
            let has_room =
                signed.latest.len() < ACKS_KEPT_MAX && signed.make_room(&key, bytes.len());
            let Some(ack) = ack.filter(|_| has_room) else {
                signed.unwritten.insert(key);
                continue;
            };
            let (store, node) = key;
            let place = ack.place();
            let kept = SignedAck {
                store,
                node,
                place,
                bytes,
            };
            signed.latest.insert(key, kept);
            drop(signed);
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.insert(key, ack);
        }
    }

    /// Returns what is to be written to disk, and counts it as written. Acks of nodes that are no members any
    /// more are forgotten, and those about stores of which `is_open` is false.
    pub(in crate::node) fn take_unwritten(
        &self,
        members: &Members,
        is_open: impl Fn(&StoreId) -> bool,
    ) -> UnwrittenAcks {
        let is_needed =
            |(store, node): &(StoreId, Author)| members.role(node).is_some() && is_open(store);
        {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.retain(|key, _| is_needed(key));
        }
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let SignedAcks {
            latest,
            unwritten,
            cut,
        } = &mut *signed;
        latest.retain(|key, _| {
            let is_kept = is_needed(key);
            if !is_kept {
                unwritten.insert(*key);
            }
            is_kept
        });
        cut.retain(|key| latest.contains_key(key));
        let unwritten = std::mem::take(unwritten).into_iter();
        let kept = |key| latest.get(&key).map(|ack| ack.bytes.clone());
        unwritten.map(|key| (key, kept(key))).collect()
    }

    /// Counts acks as not written: writing them has failed.
    pub(in crate::node) fn not_written(&self, acks: &UnwrittenAcks) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.unwritten.extend(acks.iter().map(|(key, _)| *key));
    }

    /// Returns the latest signed acks of members, by store and node.
    #[cfg(feature = "net")]
    pub(in crate::node) fn signed(&self, members: &Members) -> Vec<SignedAck> {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let acks = signed.latest.values();
        let of_members = acks.filter(|ack| members.role(&ack.node).is_some());
        of_members.cloned().collect()
    }

    /// Returns what the acks prove that each member has in `store`, and forgets nodes that are no members.
    /// Reads the logs of forked authors.
    ///
    /// # Errors
    /// The disk fails.
    pub(in crate::node) fn proven(
        &self,
        (store, log): (StoreId, &LogReader),
        (root, root_log): (StoreId, &LogReader),
        members: &Members,
    ) -> Result<BTreeMap<Author, Proven>, LogError> {
        let is_member = |node: &Author| members.role(node).is_some();
        for (store, log) in [(store, log), (root, root_log)] {
            let is_here = |author: &Author| !log.of(author).is_empty();
            self.hear_all(store, |author| {
                members.get(author).is_some() || is_here(author)
            });
        }
        let pairs: Vec<(Ack, Ack)> = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.retain(|(_, node), _| is_member(node));
            let of_store = latest.range(range(store));
            let pair = |((_, node), ack): (&(StoreId, Author), &Ack)| {
                Some((ack.clone(), latest.get(&(root, *node))?.clone()))
            };
            of_store.filter_map(pair).collect()
        };
        let mut all = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, node), _| is_member(node));
        for (ack, of_root) in &pairs {
            let proven = all.entry((store, ack.node)).or_default();
            let heard = proven.hear(ack, of_root, log, root_log)?;
            if heard != Heard::Used {
                tracing::debug!(%store, node = %ack.node.short(), ?heard, "an ack is not used");
            }
        }
        let of_store = all.range(range(store));
        Ok(of_store
            .map(|((_, node), proven)| (*node, proven.clone()))
            .collect())
    }
}

fn range(store: StoreId) -> std::ops::RangeInclusive<(StoreId, Author)> {
    (store, Author([0; 32]))..=(store, Author([0xff; 32]))
}

#[cfg(feature = "net")]
#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use std::convert::Infallible;

    use super::*;
    use crate::{
        id::EntryId,
        protocol::{
            entry::Parent,
            frontier::{Frontier, FrontierTip},
            hlc::Hlc,
            membership::{
                acts::Acts,
                role::{Act, Role},
            },
        },
    };

    const STORE: StoreId = StoreId([7; 16]);

    fn signed(key: u8, store: StoreId, counter: u64) -> (Ack, Bytes) {
        let key = SigningKey::from_bytes(&[key; 32]);
        let ack = Ack {
            node: Author(key.verifying_key().to_bytes()),
            store,
            incarnation: 10,
            counter,
            is_part: false,
            frontier: Frontier::default(),
            state: None,
            root_frontier: None,
        };
        let bytes = ack.sign(&key);
        (ack, bytes)
    }

    fn latest(heard: &HeardAcks) -> Vec<((StoreId, Author), AckPlace)> {
        let signed = heard.signed.lock().unwrap();
        let acks = signed.latest.iter();
        acks.map(|(key, ack)| (*key, ack.place)).collect()
    }

    /// An admin that was restarted had to meet each member again before anything could become final.
    #[test]
    fn signed_acks_are_written_and_read_again_and_an_older_one_is_no_news() {
        let heard = HeardAcks::default();
        let (ack, bytes) = signed(1, STORE, 5);
        heard.keep(&ack, bytes.clone(), false);
        let tip = FrontierTip {
            seq: 3,
            id: EntryId([3; 32]),
        };
        let old = Ack {
            frontier: [(ack.node, tip)].into_iter().collect(),
            ..signed(1, STORE, 4).0
        };
        heard.keep(&old, old.sign(&SigningKey::from_bytes(&[1; 32])), false);
        let key = (STORE, ack.node);
        assert_eq!(latest(&heard), [(key, (10, 5))]);
        let unwritten = std::mem::take(&mut heard.signed.lock().unwrap().unwritten);
        assert_eq!(unwritten.into_iter().collect::<Vec<_>>(), [key]);

        let again = HeardAcks::default();
        let (_, other) = signed(2, STORE, 5);
        let mut bad = bytes.to_vec();
        bad[20] ^= 1;
        let stranger = Author([9; 32]);
        again.read(vec![
            (key, bytes),
            // The row of another store, a row that was changed, and that of another node.
            ((StoreId([8; 16]), ack.node), signed(1, STORE, 9).1),
            ((StoreId([9; 16]), ack.node), bad.into()),
            ((STORE, stranger), other),
        ]);
        assert_eq!(latest(&again), [(key, (10, 5))]);
        assert_eq!(again.latest.lock().unwrap().get(&key), Some(&ack));
        assert_eq!(again.signed.lock().unwrap().unwritten.len(), 3);
    }

    #[test]
    fn n8_acks_that_are_kept_are_bounded() {
        let heard = HeardAcks::default();
        let (ack, bytes) = signed(1, STORE, 5);
        for n in 0..ACKS_KEPT_MAX + 10 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            let store = StoreId(id);
            heard.keep(
                &Ack {
                    store,
                    ..ack.clone()
                },
                bytes.clone(),
                false,
            );
        }
        let long = vec![0; crate::limits::ACK_KEPT_BYTES_MAX + 1];
        heard.keep(&ack, long.into(), false);
        assert_eq!(heard.signed.lock().unwrap().latest.len(), ACKS_KEPT_MAX);
    }

    /// The number of acks was bounded, and each one's length: 256 MiB. Short ones push long ones out.
    #[test]
    fn n8_bytes_of_acks_that_are_kept_are_bounded() {
        let heard = HeardAcks::default();
        let (ack, _bytes) = signed(1, STORE, 5);
        let keep = |n: usize, bytes: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            let store = StoreId(id);
            let ack = Ack {
                store,
                ..ack.clone()
            };
            heard.keep(&ack, vec![0; bytes].into(), false);
        };
        let bytes_of = || {
            let signed = heard.signed.lock().unwrap();
            let latest = signed.latest.values();
            latest.map(|ack| ack.bytes.len()).collect::<Vec<_>>()
        };
        let longest = crate::limits::ACK_KEPT_BYTES_MAX;
        let full = ACKS_KEPT_BYTES_MAX / longest;
        (0..full + 10).for_each(|n| keep(n, longest));
        assert_eq!(bytes_of(), vec![longest; full]);
        (1000..1500).for_each(|n| keep(n, 500));
        let bytes = bytes_of();
        assert_eq!(bytes.iter().filter(|it| **it == 500).count(), 500);
        assert!(bytes.iter().sum::<usize>() <= ACKS_KEPT_BYTES_MAX);
        assert_eq!(bytes.len(), 500 + full - 4, "no more than had to go");
        // Those are removed from the disk, too.
        assert_eq!(heard.signed.lock().unwrap().unwritten.len(), 500 + full);
    }

    #[test]
    fn acks_about_stores_that_were_closed_are_removed() {
        let heard = HeardAcks::default();
        let (ack, bytes) = signed(1, STORE, 5);
        heard.keep(&ack, bytes, false);
        let other = StoreId([8; 16]);
        let (of_other, bytes) = signed(1, other, 6);
        heard.keep(&of_other, bytes.clone(), false);
        let members = members(ack.node, &[]);
        let unwritten = heard.take_unwritten(&members, |store| *store == other);
        let expected = [((STORE, ack.node), None), ((other, ack.node), Some(bytes))];
        assert_eq!(unwritten, expected);
        let latest = heard.latest.lock().unwrap();
        assert_eq!(latest.keys().collect::<Vec<_>>(), [&(other, ack.node)]);
    }

    // The members of a mesh of `creator`, who has granted a role to `writers`.
    fn members(creator: Author, writers: &[Author]) -> Members {
        let grants = writers.iter().map(|it| (*it, Act::Grant(Role::Writer)));
        let acts = Acts {
            place: Parent {
                hlc: Hlc::ZERO,
                author: creator,
                id: EntryId([1; 32]),
                seq: 1,
            },
            cites: Vec::new(),
            needs_authority: false,
            anchors: Vec::new(),
            founds: Vec::new(),
            describes: Vec::new(),
            acts: grants.collect(),
        };
        let leads = |_: &Author, _, _| Ok::<_, Infallible>(Some(true));
        let Ok(members) = Members::evaluate(creator, StoreId([1; 16]), [&acts], leads);
        members
    }

    /// The rest of such an ack was lost until its node signed again: nothing became final meanwhile.
    #[test]
    fn ack_that_names_an_unknown_author_is_heard_again_once_that_is_a_member() {
        let heard = HeardAcks::default();
        let (ack, _bytes) = signed(1, STORE, 5);
        let new = Author([9; 32]);
        let tip = FrontierTip {
            seq: 3,
            id: EntryId([3; 32]),
        };
        let ack = Ack {
            frontier: [(new, tip)].into_iter().collect(),
            ..ack
        };
        let bytes = ack.sign(&SigningKey::from_bytes(&[1; 32]));
        let before = members(ack.node, &[]);
        let (cut, is_cut) = ack
            .clone()
            .known_part(|author| before.get(author).is_some());
        assert!(is_cut && cut.frontier.is_empty());
        heard.keep(&cut, bytes, is_cut);
        let log = LogReader::default();
        let root = StoreId([1; 16]);
        let tips = |members: &Members| {
            heard.proven((STORE, &log), (root, &log), members).unwrap();
            let latest = heard.latest.lock().unwrap();
            latest[&(STORE, ack.node)].frontier.tips(&new).to_vec()
        };
        assert_eq!(tips(&before), []);
        assert_eq!(tips(&members(ack.node, &[new])), [tip]);
        assert!(heard.signed.lock().unwrap().cut.is_empty());
    }
}
