//! Cited ahead: parents that applied entries cite and that are not in the log.
//!
//! An author may cite an entry that does not come here: its author was removed, or somebody holds it
//! back. Such an entry is applied without that parent. If the parent comes later and counts after
//! all, it must find the heads as if it had come first: it is superseded already at each key of an
//! entry that cites it. So the state keeps what was cited, and by whom, until the state is built
//! again.
//!
//! An entry that cites absent parents gets a number, in the order in which this node applied them.
//! There are two kinds of facts:
//!
//! ```text
//! reference   `r`, BLAKE3 of the reference 32, number u64 big-endian -> nothing
//! keys        `k`, number u64 big-endian -> BLAKE3 of each key of the entry 32, sorted
//! ```
//! The hash is of all parts of the reference: one that does not name the parent exactly supersedes
//! nothing. Facts take space in proportion to the references, not to references times keys.
//!
//! An entry may have a thousand references, so in memory they are apart from other facts, as plain
//! values: a tree of them that a view shares is copied without an allocation for each.

use bytes::Bytes;

use crate::{
    protocol::entry::{Entry, Parent},
    state::{
        StateError,
        facts::{KEYS, REFERENCE},
        flushed::Flushed,
        view::{Reference, View},
    },
};

impl View {
    /// Returns for each op of `entry` whether an applied entry that wrote its key has cited `entry`
    /// before it came.
    ///
    /// Takes time in proportion to the entries that cite it.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn cited_ahead(&self, entry: &Entry) -> Result<Vec<bool>, StateError> {
        let mut cited = vec![false; entry.ops.len()];
        if self.citers == 0 {
            return Ok(cited);
        }
        let citers = self.citers_of(&entry.as_parent())?;
        if citers.is_empty() {
            return Ok(cited);
        }
        let keys = entry.ops.iter().map(|op| hash_of_key(op.key()));
        let mut open: Vec<(usize, [u8; 32])> = keys.enumerate().collect();
        for citer in citers {
            if open.is_empty() {
                break;
            }
            let keys = self.keys_of_citer(citer)?;
            let (keys, _rest) = keys.as_chunks::<32>();
            open.retain(|(index, key)| {
                let found = keys.binary_search(key).is_ok();
                cited[*index] |= found;
                !found
            });
        }
        Ok(cited)
    }

    /// Returns whether an applied entry has cited `entry` before it came.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn is_cited_ahead(&self, entry: &Entry) -> Result<bool, StateError> {
        Ok(self.citers > 0 && !self.citers_of(&entry.as_parent())?.is_empty())
    }

    /// Notes that an entry which writes `keys` and is being staged cites `absent`, which are not in the
    /// log.
    pub(super) fn cite_ahead<'a>(
        &mut self,
        absent: &[Parent],
        keys: impl IntoIterator<Item = &'a Bytes>,
    ) {
        if absent.is_empty() {
            return;
        }
        let mut keys: Vec<[u8; 32]> = keys.into_iter().map(hash_of_key).collect();
        keys.sort_unstable();
        self.cite_hashes_ahead(absent, &keys);
    }

    /// Like `cite_ahead`, with the sorted hashes of the keys.
    pub(super) fn cite_hashes_ahead(&mut self, absent: &[Parent], keys: &[[u8; 32]]) {
        let citer = self.citers;
        self.citers += 1;
        self.recent.bytes += absent.len() * REFERENCE_BYTES;
        let references = absent
            .iter()
            .map(|parent| (hash_of_reference(parent), citer));
        self.recent.references.extend(references);
        self.note_fact(keys_fact(citer), keys.concat().into());
    }

    // Numbers of the entries that have cited `parent` exactly, in any order.
    fn citers_of(&self, parent: &Parent) -> Result<Vec<u64>, StateError> {
        let hash = hash_of_reference(parent);
        let mut citers = Vec::new();
        for layer in [&self.recent, &self.flushing] {
            let of_parent = layer.references.range((hash, 0)..=(hash, u64::MAX));
            citers.extend(of_parent.map(|(_hash, citer)| *citer));
        }
        let prefix = [[REFERENCE].as_slice(), &hash].concat();
        self.flushed.each_fact(&prefix, |rest| {
            citers.push(u64::from_be_bytes(rest.try_into().ok()?));
            Some(())
        })?;
        Ok(citers)
    }

    fn keys_of_citer(&self, citer: u64) -> Result<Bytes, StateError> {
        let keys = self.fact(&keys_fact(citer))?;
        keys.ok_or_else(|| StateError::damaged("the keys of a citing entry are missing"))
    }
}

impl Flushed {
    /// Returns how many entries with absent parents the file has: the next one's number.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn citers(&self) -> Result<u64, StateError> {
        let Some(last) = self.last_fact(KEYS)? else {
            return Ok(0);
        };
        let number = last.get(1..).and_then(|it| it.try_into().ok());
        let next = number.and_then(|it| u64::from_be_bytes(it).checked_add(1));
        next.ok_or_else(|| StateError::damaged("the number of a citing entry is malformed"))
    }
}

/// Returns the hash of a key in facts.
pub(super) fn hash_of_key(key: &Bytes) -> [u8; 32] {
    *blake3::hash(key).as_bytes()
}

fn hash_of_reference(parent: &Parent) -> [u8; 32] {
    let parts = [
        parent.id.0.as_slice(),
        &parent.author.0,
        &parent.seq.to_le_bytes(),
        &parent.hlc.wall_ms.to_le_bytes(),
        &parent.hlc.counter.to_le_bytes(),
    ];
    *blake3::hash(&parts.concat()).as_bytes()
}

/// Returns the key of the fact that says that the entry with a number has cited a reference.
pub(super) fn reference_fact((hash, citer): &Reference) -> Vec<u8> {
    [[REFERENCE].as_slice(), hash, &citer.to_be_bytes()].concat()
}

fn keys_fact(citer: u64) -> Vec<u8> {
    [[KEYS].as_slice(), &citer.to_be_bytes()].concat()
}

// Rough number of bytes of memory that a reference takes: nodes of the tree are three quarters full.
const REFERENCE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible, path::Path, sync::Arc};

    use super::*;
    use crate::{
        disk::RealDisk,
        id::{EntryId, StoreId},
        protocol::{
            anchors_act::{ActCollection, AnchorsAct},
            entry::{
                Header, Op, VerifiedEntry, sign,
                tests::{AUTHOR_A, AUTHOR_B, entry},
            },
            finality::Collections,
            frontier::FrontierTip,
            heads::Before,
            placed_act::PlacedAct,
        },
        state::State,
    };

    fn open(path: &Path) -> State {
        let disk = Arc::new(RealDisk);
        State::open(disk, path, StoreId([7; 16])).unwrap().0
    }

    // Signs an entry of B that writes `keys` and cites `parents`.
    fn citing(keys: &[&str], parents: &[Parent]) -> VerifiedEntry {
        let mut parents = parents.to_vec();
        parents.sort_unstable();
        let header = Header {
            parents,
            ..entry(AUTHOR_B, 1, None, 20, "/k").header.clone()
        };
        let ops = keys.iter().map(|key| Op::Delete {
            key: Bytes::copy_from_slice(key.as_bytes()),
        });
        let key = ed25519_dalek::SigningKey::from_bytes(&AUTHOR_B);
        sign(&key, header, ops.collect()).unwrap()
    }

    fn stage(state: &mut State, entry: &VerifiedEntry, absent: &[Parent]) {
        let keys = entry.ops.iter().map(Op::key);
        let heads = keys.map(|key| state.heads(key).unwrap()).collect();
        let before = Before {
            heads,
            absent: absent.to_vec(),
            ..Before::default()
        };
        state.stage_over(entry, before).unwrap();
    }

    fn head_ids(state: &State, key: &str) -> Vec<EntryId> {
        let heads = state.heads(key.as_bytes()).unwrap();
        heads.as_slice().iter().map(|head| head.id).collect()
    }

    // The parent comes in the same group, after it, while a flush is under way, after it, and after the
    // store was opened again: in each of these cases it is no head.
    #[test]
    fn a_parent_that_comes_late_is_superseded_at_the_keys_of_who_cites_it() {
        let late = entry(AUTHOR_A, 1, None, 10, "/k");
        let first = citing(&["/k", "/other"], &[late.as_parent()]);
        for when in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            let mut state = open(&path);
            stage(&mut state, &first, &[late.as_parent()]);
            if when > 0 {
                state.show();
            }
            if when > 1 {
                state.flush(Vec::new());
            }
            if when > 2 {
                state.finish_flush(true).unwrap();
            }
            if when > 3 {
                state.close().unwrap();
                state = open(&path);
            }
            state.stage(&late).unwrap();
            assert_eq!(head_ids(&state, "/k"), [first.id], "case {when}");
            assert_eq!(state.staged().citers, 1, "case {when}");
        }
    }

    // Also where nothing is left of who cites it, because an act took that.
    #[test]
    fn a_parent_that_comes_later_than_the_end_of_who_cites_it_is_no_head() {
        let late = entry(AUTHOR_A, 1, None, 10, "/k");
        let first = citing(&["/k"], &[late.as_parent()]);
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(&dir.path().join("state.db"));
        stage(&mut state, &first, &[late.as_parent()]);
        state.show();
        let placed = |id, ordered: Option<ActCollection>| {
            let anchors = [(first.author(), FrontierTip::of(&first))].into_iter();
            PlacedAct {
                by: first.author(),
                at: FrontierTip {
                    seq: 1,
                    id: EntryId([id; 32]),
                },
                store: StoreId([7; 16]),
                cites: Vec::new(),
                act: AnchorsAct::new(1, None, 0, anchors.collect(), ordered).unwrap(),
            }
        };
        let ordered = ActCollection {
            before: EntryId([1; 32]),
            own: BTreeMap::new(),
        };
        let acts = [placed(1, None), placed(2, Some(ordered))];
        let Ok(collections) = Collections::join(&acts, |_, _| Ok::<_, Infallible>(true));
        let mark = state.staged().mark();
        state.set_collections(collections);
        assert!(!state.staged().has_mark(&mark));
        state.sweep(None, 10).unwrap();
        assert!(!state.staged().has_mark(&mark), "it has other heads");
        assert!(state.staged().has_mark(&state.staged().mark()));
        assert_eq!((head_ids(&state, "/k"), state.staged().keys), (vec![], 0));
        state.stage(&late).unwrap();
        assert_eq!((head_ids(&state, "/k"), state.staged().keys), (vec![], 0));
    }

    #[test]
    fn an_inexact_reference_or_another_key_supersedes_nothing() {
        let late = entry(AUTHOR_A, 1, None, 10, "/k");
        let exact = late.as_parent();
        let mut inexact = exact;
        inexact.seq = 2;
        let dir = tempfile::tempdir().unwrap();
        for (number, (keys, reference)) in
            [(["/k"], inexact), (["/other"], exact)].iter().enumerate()
        {
            let mut state = open(&dir.path().join(number.to_string()));
            let first = citing(keys, &[*reference]);
            stage(&mut state, &first, &[*reference]);
            state.stage(&late).unwrap();
            assert!(head_ids(&state, "/k").contains(&late.id), "{number}");
        }
    }

    // The citations of such a group are gone, and its numbers are given again.
    #[test]
    fn a_group_that_is_taken_back_leaves_nothing() {
        let late = entry(AUTHOR_A, 1, None, 10, "/k");
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(&dir.path().join("state.db"));
        let first = citing(&["/k"], &[late.as_parent()]);
        stage(&mut state, &first, &[late.as_parent()]);
        state.forget();
        assert_eq!(state.staged().citers, 0);
        state.stage(&late).unwrap();
        assert_eq!(head_ids(&state, "/k"), [late.id]);
    }

    // A damaged row is found before an entry is counted by it.
    #[test]
    fn a_row_that_fails_its_check_is_damage() {
        let late = entry(AUTHOR_A, 1, None, 10, "/k");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        for kind in [KEYS, REFERENCE] {
            let mut state = open(&path);
            let first = citing(&["/k"], &[late.as_parent()]);
            stage(&mut state, &first, &[late.as_parent()]);
            state.show();
            state.flush(Vec::new());
            state.finish_flush(true).unwrap();
            state.close().unwrap();
            let db = redb::Database::open(&path).unwrap();
            let write = db.begin_write().unwrap();
            let mut table = write.open_table(crate::state::tables::FACTS_TABLE).unwrap();
            let from = [kind];
            let key = {
                use redb::ReadableTable as _;
                let row = table.range(from.as_slice()..).unwrap().next().unwrap();
                row.unwrap().0.value().to_vec()
            };
            table
                .insert(key.as_slice(), b"12345678".as_slice())
                .unwrap();
            drop(table);
            write.commit().unwrap();
            drop(db);
            let mut state = open(&path);
            let found = state.stage(&late);
            assert!(
                matches!(found, Err(StateError::Damaged { .. })),
                "{found:?}"
            );
            drop(state);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
