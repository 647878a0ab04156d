//! The root of the watched keys at a position of a watch.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    api::{convert, error::ApiError},
    protocol::frontier::Frontier,
    store::Store,
    wire::api::{self, watch_reply::Event},
};

/// Adds the root to some replies of one watch.
#[derive(Debug, Clone)]
pub(super) struct WatchRoot {
    prefix: Bytes,
    // When the next root may be computed: however often the watch reports its position, roots take a
    // small part of the time. `None` before the first one.
    next: Option<Instant>,
}

impl WatchRoot {
    /// Makes the root of the keys that `request` selects; `None` if it asks for none.
    ///
    /// # Errors
    /// The request selects other keys than those under one prefix.
    pub(super) fn of(request: &api::WatchRequest) -> Result<Option<Self>, ApiError> {
        if !request.hashes {
            return Ok(None);
        }
        let prefixes = [&request.prefix].into_iter().chain(&request.prefixes);
        let mut prefixes = prefixes.filter(|prefix| !prefix.is_empty());
        let prefix = prefixes.next().cloned().unwrap_or_default();
        if prefixes.next().is_some() || !request.patterns.is_empty() || request.exact {
            let message = "the hash of a watch is that of all keys under one prefix";
            return Err(ApiError::usage("hash_of_prefix", message)
                .hint("watch one prefix, without patterns and without --exact"));
        }
        Ok(Some(Self { prefix, next: None }))
    }

    /// Returns whether a root may be computed now.
    pub(super) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// Adds the root to `reply` if the state of `store` is that of the watch's `position`; its position
    /// is behind while changes are on their way. A state that cannot be read has no root.
    pub(super) async fn add(
        mut self,
        store: Store,
        position: Frontier,
        mut reply: api::WatchReply,
    ) -> (api::WatchReply, Self) {
        if store.frontier() != position {
            return (reply, self);
        }
        let began = Instant::now();
        let state = store.root(&self.prefix).await;
        self.next = Some(Instant::now() + began.elapsed() * PAUSES);
        if let Some(state) = state.ok().filter(|state| *state.frontier == position) {
            let root = convert::bytes(&state.root.0);
            match &mut reply.event {
                Some(Event::Progress(progress)) => progress.root = root,
                Some(Event::CaughtUp(caught_up)) => caught_up.root = root,
                _other => {}
            }
        }
        (reply, self)
    }
}

// Times as long as the last root took that pass before the next one.
const PAUSES: u32 = 20;
