//! Single reads: a value, the heads of a key, an entry, the records of a log.

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    limits::{PAGE_BYTES, SCAN_ROWS},
    protocol::{
        change::EntryRef,
        entry::{
            VerifiedEntry,
            cause::{Cause, CauseId},
            check_key,
        },
        heads_row::encode_heads,
        merkle::{Levels, RowHash, StreamRoot},
    },
    state::View,
    store::{Item, ReadError, Shared, Store, writer::command::Command},
};

/// One head of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadItem {
    /// Entry that wrote the head.
    pub entry: EntryRef,
    /// Value that it put; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// When it expires, ms since 1970; `None`: never.
    pub expires_ms: Option<u64>,
    /// True when that time has passed.
    pub expired: bool,
    /// True for the winner, which reads return.
    pub wins: bool,
}

/// An entry as one of this node's logs holds it.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// Entry of the record.
    pub entry: VerifiedEntry,
    /// Number of the author's branch: 0, or more after a fork.
    pub branch: u32,
    /// Time when it arrived in this node's log, ms since 1970.
    pub arrived_ms: u64,
}

impl Store {
    /// Returns the value of `key`; `None` when it is missing, deleted or expired.
    ///
    /// The read sees every write that has returned, and does not wait for the writer.
    ///
    /// # Errors
    /// `ReadError`. A damaged state is rebuilt from the log once before it is reported.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Item>, ReadError> {
        check_key(key).map_err(ReadError::Key)?;
        let key = Bytes::copy_from_slice(key);
        let now_ms = self.now_ms();
        self.read(move |shared, view| {
            let heads = view.heads(&key)?;
            shared.item(&key, &heads, now_ms, false)
        })
        .await
    }

    /// Returns seq and id of the entry that this node has written for `cause`, if there is one.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn caused(&self, cause: &Cause) -> Result<Option<(Seq, EntryId)>, ReadError> {
        let id = CauseId::of(&self.author(), cause);
        self.read(move |_shared, view| Ok(view.caused(&id)?)).await
    }

    /// Returns all heads of `key`, the winner first.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn heads(&self, key: &[u8]) -> Result<Vec<HeadItem>, ReadError> {
        check_key(key).map_err(ReadError::Key)?;
        let key = Bytes::copy_from_slice(key);
        let now_ms = self.now_ms();
        self.read(move |shared, view| {
            let heads = view.heads(&key)?;
            let wins = heads.winner().map(|winner| winner.id);
            let heads = heads.as_slice().iter().rev();
            heads
                .map(|head| {
                    Ok(HeadItem {
                        entry: EntryRef::from(head),
                        value: shared.value(&key, head)?,
                        expires_ms: head.expires_ms(),
                        expired: head.expires_ms().is_some_and(|ms| ms <= now_ms),
                        wins: Some(head.id) == wins,
                    })
                })
                .collect()
        })
        .await
    }

    /// Returns the entry that `place` names; `None` if the log does not have it.
    ///
    /// # Errors
    /// `Pruned` when it was removed from the log, `ReadError`.
    pub async fn entry(&self, place: EntryRef) -> Result<Option<VerifiedEntry>, ReadError> {
        self.read(move |shared, _view| {
            let found = shared.log.entry(&place.author, place.seq, &place.id)?;
            if found.is_none()
                && let Some(pruned) = shared.log.pruned_at(&place.author, place.seq)
            {
                return Err(ReadError::Pruned(pruned));
            }
            Ok(found.map(|(entry, _record)| entry))
        })
        .await
    }

    /// Returns the seq of the newest entry of `author` here, on any branch; 0 if there is none.
    pub fn newest_seq(&self, author: Author) -> Seq {
        let branches = self.shared.log.of(&author);
        let tips = branches.iter().filter_map(|branch| branch.tip());
        tips.map(|tip| tip.seq).max().unwrap_or(0)
    }

    /// Returns about `limit` records of `author` with a seq above `after`, by seq; fewer when they are
    /// large. Records of several branches with one seq are returned together, even beyond `limit`.
    ///
    /// # Errors
    /// `Pruned` when the next one was removed: those that are here come after `Pruned::through`.
    /// `Damaged` when one of them is unreadable; `ReadError`.
    pub async fn entries(
        &self,
        author: Author,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<LogEntry>, ReadError> {
        self.read(move |shared, _view| {
            if let Some(pruned) = shared.log.pruned_at(&author, after.saturating_add(1)) {
                return Err(ReadError::Pruned(pruned));
            }
            let mut walks = Vec::new();
            for branch in shared.log.of(&author) {
                let mut walk = branch.walk(after.saturating_add(1));
                walks.push((walk.next_record()?, walk));
            }
            let (mut entries, mut bytes) = (Vec::new(), 0);
            while entries.len() < limit && bytes < PAGE_BYTES {
                let next = walks
                    .iter()
                    .filter_map(|(next, _)| Some(next.as_ref()?.header.seq));
                let Some(seq) = next.min() else { break };
                for (next, walk) in &mut walks {
                    let Some(record) = next.take_if(|record| record.header.seq == seq) else {
                        continue;
                    };
                    bytes += record.header.frame_bytes();
                    entries.push(LogEntry {
                        entry: walk.branch().read_entry(&record)?,
                        branch: walk.branch().number,
                        arrived_ms: record.header.arrived_ms,
                    });
                    *next = walk.next_record()?;
                }
            }
            Ok(entries)
        })
        .await
    }

    /// Returns the root of the state, as [`Store::root`] does, but reads the whole state for it, and
    /// returns it also while the state lacks entries. For tests: shows that the tree that is kept in
    /// memory is that of the rows.
    ///
    /// # Errors
    /// `ReadError`.
    ///
    /// # Panics
    /// With debug assertions, when the two roots differ.
    pub async fn state_hash(&self) -> Result<[u8; 32], ReadError> {
        self.read(|shared, view| {
            let mut root = StreamRoot::new(Levels::new(shared.id));
            let mut after: Option<Bytes> = None;
            loop {
                let rows = view.scan(&[], after.as_deref(), SCAN_ROWS)?;
                for (key, heads) in &rows {
                    root.push(key, &RowHash::of(&encode_heads(heads)));
                }
                match rows.last() {
                    Some((key, _)) if rows.len() == SCAN_ROWS => after = Some(key.clone()),
                    _end => break,
                }
            }
            let root = root.finish();
            if cfg!(debug_assertions) {
                assert_eq!(view.root()?, root, "the tree is that of the rows");
            }
            Ok(root.0)
        })
        .await
    }

    /// Calls `work` with the newest view, on this thread. If the state is damaged, rebuilds it once and
    /// calls `work` again.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Shared, &View) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let view = self.shared.state.view();
        match work(&self.shared, &view) {
            Err(ReadError::State { .. }) => {}
            done => return done,
        }
        self.rebuild(view.version).await?;
        work(&self.shared, &self.shared.state.view())
    }

    /// Waits until the state was rebuilt from the log, unless it was rebuilt after `version`.
    pub(super) async fn rebuild(&self, version: u64) -> Result<(), ReadError> {
        let rebuild = |reply| Command::Rebuild { version, reply };
        let rebuilt = self.queue.ask(rebuild).await;
        Ok(rebuilt.map_err(|_closed| ReadError::Closed)??)
    }
}
