//! The writer's parts: everything of an open store that its one thread owns.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use tokio::sync::broadcast;

use crate::{
    bus::{Bus, Published},
    clock::Clock,
    id::Author,
    log::{
        Logs, LostTail,
        merge::{Span, whole},
    },
    protocol::{change::Change, entry::VerifiedEntry, intake::Intake, standings::Standings},
    state::{Bases, State, View},
    store::{
        Fresh, StoreConfig,
        shared::{BaseReader, published},
        writer::{
            health::Health, lookup::WriterLookup, marks::Marks, membership::Membership,
            mending::Mending, notes::Note, notes::NoteRow, sweep::Sweep,
        },
    },
};

/// The parts of the writer. They live on its thread; nothing else touches them.
///
/// The methods are in files by what they do, and each changes the store in one way:
///
/// - `transaction.rs` stages entries and makes them durable, visible and published together. Nothing
///   else appends to a log, except `mend.rs`, which fills holes with entries that were there.
/// - `draft.rs` makes entries of local writes; `intake.rs` takes in entries from elsewhere.
/// - `own_log.rs` and `repair.rs` look after this node's own log, `mend.rs` after unreadable parts.
/// - `rebuild.rs` makes the state again from the logs; `recount.rs` does when other entries count.
/// - `prune.rs` removes entries from the logs that the state no longer needs; `install.rs` takes a base in
///   place of entries that are not here.
/// - `collecting.rs` takes heads from the state that acts order to go.
/// - `flush.rs` and `expiry.rs` do what is due with time.
///
/// The thread (`actor.rs`) calls one of them at a time, and nothing is staged in between.
#[derive(Debug)]
pub(in crate::store) struct Writer {
    pub(super) config: StoreConfig,
    pub(super) clock: Clock,
    pub(super) logs: Logs,
    pub(super) state: State,
    pub(super) bus: Bus,
    // Sends what is written here to the net. No receiver: nobody asked, and nothing is sent.
    pub(super) fresh: broadcast::Sender<Fresh>,
    pub(super) intake: Intake,
    // Entries that waited and are to be offered again, in order. None are left when a caller gets the
    // answer to a command.
    pub(super) again: VecDeque<VerifiedEntry>,
    pub(super) membership: Membership,
    // Shows the newest base, as in `Shared`.
    pub(super) base: BaseReader,
    // As in `Shared`.
    pub(super) reserves_keys: Arc<AtomicBool>,
    // The members and spent keys by which the state counts. Set by `recount`.
    pub(super) counted_by: Standings,
    pub(super) marks: Marks,
    pub(super) mending: Mending,
    pub(super) health: Health,
    pub(super) sweep: Sweep,
    // When the newest entry arrived, ms since 1970. Does not go back when the wall clock does.
    pub(super) arrived_ms: u64,
    // When the next expiry is due, ms since 1970, or before; `None`: there is none.
    pub(super) next_expiry_ms: Option<u64>,
    // Parts of this node's own log that are gone. Own writes are refused until `repair`.
    pub(super) cuts: Vec<LostTail>,
    // Repairs that opening and mending made, a line each, for `status`.
    pub(super) recovered: Vec<String>,
    pub(super) flushed_at: Instant,
    // The version of the state as it was last built again since the store was opened.
    pub(super) rebuilt_at: Option<u64>,
    // Why watches must read the state again once it is built. Set by `install`, taken by `publish_gap`.
    pub(super) gap: Option<Arc<str>>,
    // How long the last group from elsewhere took to become durable and published.
    pub(super) committed_in: Duration,
    // The version that was published last. It never goes back.
    pub(super) published_version: u64,
}

impl Writer {
    /// Publishes `changes`, which the newest view shows.
    pub(super) fn publish(&mut self, changes: &[Arc<Change>]) {
        let published = self.published();
        assert!(
            published.version >= self.published_version,
            "published never goes back: {} after {}",
            published.version,
            self.published_version
        );
        self.published_version = published.version;
        self.bus.publish(changes, published);
    }

    /// Returns the newest view, and the logs and the bases that it was made of.
    pub(super) fn moment(&self) -> (Arc<View>, Vec<Span>, Bases) {
        let (view, spans) = (self.state.reader().view(), whole(self.logs.reader()));
        (view, spans, self.base.all())
    }

    /// Returns where the newest view stands.
    pub(super) fn published(&self) -> Published {
        published(self.state.staged())
    }

    /// Returns the key this node signs with.
    pub(super) fn author(&self) -> Author {
        Author(self.config.key.verifying_key().to_bytes())
    }

    /// Returns intake, and what it may ask.
    pub(super) fn intake(&mut self) -> (&mut Intake, WriterLookup<'_>) {
        let lookup = WriterLookup {
            logs: &self.logs,
            state: &self.state,
            membership: &self.membership,
            mending: RefCell::new(&mut self.mending),
        };
        (&mut self.intake, lookup)
    }

    /// Takes over damage that hid who is a member or what counts: until it is mended, the state is
    /// marked as lacking entries, and watches report a gap.
    pub(super) fn note_unreadable(&mut self) {
        let unreadable = self.membership.take_unreadable();
        if !unreadable.is_empty() {
            self.state.lack(true);
            self.mending.note(unreadable);
        }
    }

    /// Takes out the notes that the state file does not have yet.
    pub(super) fn take_notes(&mut self) -> Vec<NoteRow> {
        let mut notes = self.marks.take_unsaved(&self.logs);
        notes.append(&mut self.membership.take_unsaved());
        notes.iter().map(Note::encode).collect()
    }
}
