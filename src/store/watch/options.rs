//! The selection of a watch, as its sources ask for it.

use bytes::Bytes;

use crate::{
    protocol::{
        change::{Change, Kind},
        pattern::{self, Pattern},
    },
    store::WatchOptions,
};

impl WatchOptions {
    /// True when `change` happened by `until_ms`.
    #[inline]
    pub(super) fn in_time(&self, change: &Change) -> bool {
        let stamped_ms = match change.kind {
            Kind::Put | Kind::Delete => change.entry.hlc.wall_ms,
            Kind::Expire => change.expires_ms.unwrap_or(0),
            // A retract happens when it is published, a gap when a consumer comes to it.
            Kind::Retract | Kind::Gap => 0,
        };
        self.until_ms.is_none_or(|until_ms| stamped_ms <= until_ms)
    }

    /// Returns the fewest prefixes that cover all selected keys, in order: no key begins with two of
    /// them.
    pub(super) fn scopes(&self) -> Vec<Bytes> {
        if self.selects_all() {
            return vec![Bytes::new()];
        }
        let heads = self.patterns.iter().map(Pattern::head);
        pattern::cover(self.prefixes.iter().chain(heads).cloned())
    }
}
