//! What a change of the members does to the state: entries that do not count any more supersede
//! nothing, and those that count again do.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{
    id::Author,
    log::LogError,
    protocol::{
        change::Change,
        entry::Op,
        frontier::FrontierTip,
        heads::Heads,
        membership::{Members, role::role_key},
    },
    store::writer::{actor::Actor, membership::counts},
};

impl Actor {
    /// Brings the state in step with who is a member now, and tells what that retracted.
    ///
    /// It is built again from the log when entries that are in the log count otherwise than
    /// before, or acts do; that happens when a node is removed, which is rare.
    pub(super) fn recount(&mut self) {
        let now = self.membership.members();
        let before = std::mem::replace(&mut self.counted_by, Arc::clone(&now));
        let in_step = self
            .state
            .as_ref()
            .map(|state| self.membership.is_in_step(state.staged()));
        if self.membership.is_anyone() || (Arc::ptr_eq(&before, &now) && in_step != Some(false)) {
            return;
        }
        let keys = match self.keys_that_changed(&before, &now) {
            Ok(keys) if keys.is_empty() => return,
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(store = %self.config.id, %error, "what counts is not known");
                return;
            }
        };
        self.count_again(keys);
    }

    /// Builds the state again, of which some `keys` may not be as they should be, and tells how they
    /// were wrong.
    pub(super) fn count_again(&mut self, keys: BTreeSet<Bytes>) {
        let heads_before = self.heads_of_keys(&keys);
        tracing::info!(store = %self.config.id, keys = keys.len(), "what counts has changed: counting again");
        self.rebuild();
        let heads_after = self.heads_of_keys(&keys);
        let arrived_ms = self.clock.now_ms();
        let differ = keys
            .into_iter()
            .zip(heads_before.into_iter().zip(heads_after));
        let changes: Vec<_> = differ
            .filter(|(_, (before, after))| before != after)
            .filter_map(|(key, (before, after))| Change::retract(key, &before, after, arrived_ms))
            .map(Arc::new)
            .collect();
        self.publish(&changes);
    }

    // Keys of entries, and of acts, that counted and do not, or the other way round.
    fn keys_that_changed(
        &self,
        before: &Members,
        now: &Members,
    ) -> Result<BTreeSet<Bytes>, LogError> {
        let mut keys = BTreeSet::new();
        let store = self.config.id;
        let log = self.logs.reader();
        let authors: BTreeSet<Author> = log.all().iter().map(|branch| branch.author).collect();
        let changed =
            |author: &&Author| before.standing(&store, author) != now.standing(&store, author);
        for author in authors.iter().filter(changed) {
            for branch in log.of(author) {
                let mut walk = branch.walk(branch.first);
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
                    let counted = counts(before, &store, log, author, at);
                    if counted != counts(now, &store, log, author, at)
                        && let Ok(entry) = branch.read_entry(&record)
                    {
                        keys.extend(entry.ops.iter().map(Op::key).cloned());
                    }
                }
            }
        }
        if let Some(acts) = self
            .state
            .as_ref()
            .and_then(|state| state.staged().acts.as_ref())
        {
            let changed = acts.symmetric_difference(now.counting());
            keys.extend(changed.map(|(_entry, node)| role_key(node)));
        }
        Ok(keys)
    }

    fn heads_of_keys(&self, keys: &BTreeSet<Bytes>) -> Vec<Heads> {
        let heads = |key: &Bytes| {
            let state = self.state.as_ref()?;
            state.heads(key).ok()
        };
        keys.iter()
            .map(|key| heads(key).unwrap_or_default())
            .collect()
    }
}
