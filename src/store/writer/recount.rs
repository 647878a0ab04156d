//! Recounts: what a change of the members does to the state. Entries that do not count any more
//! supersede nothing, and those that count again do.

use std::{collections::BTreeSet, mem, sync::Arc};

use bytes::Bytes;

use crate::{
    bus::StateReset,
    id::Author,
    limits::{RECOUNT_BYTES_MAX, RECOUNT_KEY_BYTES},
    log::{Branch, LogError},
    protocol::{
        change::Change,
        entry::Op,
        finality::{Fate, Finality},
        fork::taken_back_by,
        frontier::FrontierTip,
        heads::Heads,
        membership::{Standing, role::role_key},
        standings::Standings,
    },
    state::StateError,
    store::writer::{transaction::Aftermath, writer::Writer},
};

impl Writer {
    /// Does the work that a commit left.
    pub(super) fn follow_up(&mut self, aftermath: Aftermath) {
        let Aftermath {
            members,
            late_grant,
            anchors,
            released,
        } = aftermath;
        if late_grant && let Err(error) = self.membership.gather_again(self.logs.reader()) {
            // They are gathered when the state is built again, or when the store is opened.
            tracing::error!(store = %self.config.id, %error, "the logs cannot be read for acts");
        }
        if members || late_grant || anchors {
            self.reconsider();
        }
        self.offer_again(released);
    }

    /// The members have changed: counts again, and offers the entries of new members.
    pub(super) fn reconsider(&mut self) {
        self.recount();
        let members = self.membership.members();
        let authors = members.iter().map(|(author, _)| author);
        let admitted = self.intake.take_admitted(authors);
        self.offer_again(admitted);
    }

    /// Brings the state in step with the members, and publishes what that retracts.
    ///
    /// It is built again from the log when entries of the log count otherwise than before, or acts
    /// do. That happens when a node is removed, which is rare.
    pub(super) fn recount(&mut self) {
        if let Err(error) = self.membership.join_anchors(self.logs.reader()) {
            // Those that were joined before stay.
            tracing::error!(store = %self.config.id, %error, "anchors cannot be looked up");
        }
        self.note_unreadable();
        let now = self.membership.standings();
        let before = mem::replace(&mut self.counted_by, now.clone());
        let same = Arc::ptr_eq(&before.members, &now.members)
            && before.spent == now.spent
            && before.finality == now.finality;
        let in_step = self.membership.is_in_step(self.state.staged());
        if self.membership.is_anyone() || (same && in_step) {
            return;
        }
        match self.keys_that_changed(&before, &now) {
            Ok(Some(keys)) if keys.is_empty() => {}
            Ok(Some(keys)) => self.count_again(keys),
            Ok(None) => self.count_all_again(),
            Err(error) => {
                // Tried again with the next change of the members, or when the store is opened.
                tracing::error!(store = %self.config.id, %error, "the logs cannot be counted again");
                self.counted_by = before;
            }
        }
    }

    /// Builds the state again because the heads of `keys` may not be right, and publishes a
    /// retraction for each key whose heads were wrong. Where the old heads cannot be read, watches
    /// get a gap with the state instead.
    pub(super) fn count_again(&mut self, keys: BTreeSet<Bytes>) {
        let heads_before = self.heads_of(&keys);
        tracing::info!(
            store = %self.config.id,
            keys = keys.len(),
            "other entries count now: building the state again"
        );
        self.rebuild();
        let heads_after = self.heads_of(&keys);
        let (before, after) = match (heads_before, heads_after) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(error), _) | (_, Err(error)) => {
                let reason = format!("heads changed with the members, and {error}");
                let reset = StateReset::Lost(reason.into());
                self.bus.publish_reset(&reset, self.published());
                return;
            }
        };
        let arrived_ms = self.clock.now_ms();
        let changes: Vec<_> = keys
            .into_iter()
            .zip(before.into_iter().zip(after))
            .filter(|(_, (before, after))| before != after)
            .filter_map(|(key, (before, after))| Change::retract(key, &before, after, arrived_ms))
            .map(Arc::new)
            .collect();
        self.publish(&changes);
    }

    // Builds the state again where too many heads may not be right to compare them: watches get a gap
    // with the state.
    fn count_all_again(&mut self) {
        tracing::info!(
            store = %self.config.id,
            "other entries count now, of very many keys: building the state again"
        );
        self.rebuild();
        let reason = "heads of very many keys changed with the members";
        let reset = StateReset::Lost(reason.into());
        self.bus.publish_reset(&reset, self.published());
    }

    // Keys of entries, and of acts, that counted and do not, or the other way round. An entry of which
    // this cannot be decided is among them. `None` if they take more than `RECOUNT_BYTES_MAX`.
    fn keys_that_changed(
        &self,
        before: &Standings,
        now: &Standings,
    ) -> Result<Option<BTreeSet<Bytes>>, LogError> {
        let (mut keys, mut bytes) = (BTreeSet::new(), 0);
        let store = self.config.id;
        let log = self.logs.reader();
        let authors: BTreeSet<Author> = log.all().iter().map(|branch| branch.author).collect();
        let counts = |finality: &Finality, standing: &Standing, author, at| match log
            .counts(finality, standing, author, at)
        {
            Ok(counts) => Ok(Some(counts)),
            Err(LogError::Damaged(_)) => Ok(None),
            Err(error) => Err(error),
        };
        let (were_final, are_final) = (&before.finality, &now.finality);
        for author in &authors {
            let (before, now) = (before.of(&store, author), now.of(&store, author));
            let branches = log.of(author);
            // All that is here is on one branch, and none of it is void.
            let is_plain = branches.len() < 2 && now == Standing::Counts;
            if before == now && (is_plain || were_final.is_same_for(author, are_final)) {
                continue;
            }
            let is_never_void = |branch: &Branch| -> Result<bool, LogError> {
                let Some(tip) = branch.tip().map(FrontierTip::from) else {
                    return Ok(true);
                };
                for finality in [were_final, are_final] {
                    match finality.fate(author, tip, Some(tip), log) {
                        Ok(Fate::Void) | Err(LogError::Damaged(_)) => return Ok(false),
                        fate => drop(fate?),
                    }
                }
                Ok(true)
            };
            for branch in branches {
                // All that comes after a void entry is void, so its last one says it of a branch.
                if before == now && now == Standing::Counts && is_never_void(&branch)? {
                    continue;
                }
                // Entries that were removed count in any case.
                let mut walk = branch.walk(branch.first_here());
                loop {
                    let record = match walk.next_record() {
                        Ok(Some(record)) => record,
                        Ok(None) => break,
                        Err(LogError::Damaged(_)) => continue,
                        Err(error) => return Err(error),
                    };
                    let at = FrontierTip {
                        seq: record.header.seq,
                        id: record.header.id,
                    };
                    let counted = counts(were_final, &before, author, at)?;
                    let same = counted.is_some() && counted == counts(are_final, &now, author, at)?;
                    if !same && let Ok(entry) = branch.read_entry(&record) {
                        // The entries that it takes back may be anywhere.
                        if taken_back_by(&entry).next().is_some() {
                            return Ok(None);
                        }
                        // Copies: a slice of the record would keep all that was read with it.
                        for key in entry.ops.iter().map(Op::key) {
                            if keys.insert(Bytes::copy_from_slice(key)) {
                                bytes += RECOUNT_KEY_BYTES + key.len();
                            }
                        }
                        if bytes > RECOUNT_BYTES_MAX {
                            return Ok(None);
                        }
                    }
                }
            }
        }
        if let Some(counting) = &self.state.staged().counting {
            let changed = counting.acts.symmetric_difference(now.members.counting());
            keys.extend(changed.map(|(_entry, node)| role_key(node)));
            let changed = counting
                .authorized
                .symmetric_difference(now.members.authorized());
            for entry in changed {
                keys.extend(self.membership.keys_of(entry, log)?);
            }
        }
        Ok(Some(keys))
    }

    fn heads_of(&self, keys: &BTreeSet<Bytes>) -> Result<Vec<Heads>, StateError> {
        // Right after a rebuild no heads are taken from the rows yet.
        let view = self.state.staged();
        let heads = |key: &Bytes| Ok(view.collected(self.state.heads(key)?));
        keys.iter().map(heads).collect()
    }
}
