//! A sweep: heads that acts take are taken from all rows.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use crate::protocol::{finality::Finality, membership::Members};

/// How far heads are taken from the rows. The state has which ones are.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    // The members and anchors by which it was found which heads are taken.
    pub(super) members: Option<Arc<Members>>,
    pub(super) finality: Option<Arc<Finality>>,
    // When it was found, if entries that an act makes final were missing.
    pub(super) waits_since: Option<Instant>,
    // The last row that was swept.
    pub(super) after: Option<Bytes>,
}
