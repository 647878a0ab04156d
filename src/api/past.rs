//! Answers about the past: the keys at one time, and the differences between two times.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use crate::{
    api::{
        convert,
        error::{ApiError, EXIT_FAILED},
        paging::{Answers, unfold},
    },
    limits::PAGE_BYTES,
    store::{Item, List, Past, PastError, Store},
    wire::api,
};

/// Streams the keys that had a value at `ms`.
pub(super) fn list(store: &Store, options: List, after: Bytes, ms: u64) -> Answers<api::Items> {
    let left = options.limit.unwrap_or(usize::MAX);
    let past = store.past(options);
    let listing = Listing {
        past,
        ms,
        after,
        left,
    };
    unfold(listing, |listing| Box::pin(listing.next()))
}

/// Streams the keys whose value at `from_ms` differs from the value at `to_ms`.
pub(super) fn diff(
    store: &Store,
    options: List,
    from_ms: u64,
    to_ms: u64,
) -> Answers<api::Differences> {
    let past = store.past(options);
    let comparing = Comparing {
        past,
        from_ms,
        to_ms,
        rest: VecDeque::new(),
    };
    unfold(comparing, |comparing| Box::pin(comparing.next()))
}

struct Listing {
    past: Past,
    ms: u64,
    // Only keys after this one; empty: all.
    after: Bytes,
    // Number of keys that may still be sent.
    left: usize,
}

impl Listing {
    // Pages without a key that had a value at `ms` are skipped, not sent as empty messages.
    async fn next(mut self) -> Option<(Result<api::Items, Status>, Self)> {
        while self.left > 0 {
            let mut page = match self.past.next_items(self.ms).await {
                Ok(page) => page?,
                Err(error) => return Some((Err(ApiError::from(error).into()), self)),
            };
            page.retain(|item| self.after.is_empty() || item.key > self.after);
            page.truncate(self.left);
            self.left -= page.len();
            if !page.is_empty() {
                let items = page.into_iter().map(convert::item).collect();
                let prefixes = Vec::new();
                return Some((Ok(api::Items { items, prefixes }), self));
            }
        }
        None
    }
}

struct Comparing {
    past: Past,
    from_ms: u64,
    to_ms: u64,
    // Differences of the last page that were not sent yet.
    rest: VecDeque<api::Difference>,
}

impl Comparing {
    async fn next(mut self) -> Option<(Result<api::Differences, Status>, Self)> {
        let item = |item: Option<Item>| item.map(convert::item);
        while self.rest.is_empty() {
            let page = match self.past.next_differences(self.from_ms, self.to_ms).await {
                Ok(page) => page?,
                Err(error) => return Some((Err(ApiError::from(error).into()), self)),
            };
            self.rest.extend(page.into_iter().map(|it| api::Difference {
                key: it.key,
                before: item(it.before),
                after: item(it.after),
            }));
        }
        // A difference has its key three times, which the page does not count.
        let (mut differences, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(difference) = self.rest.pop_front()
        {
            bytes += difference.encoded_len();
            differences.push(difference);
        }
        Some((Ok(api::Differences { differences }), self))
    }
}

impl From<PastError> for ApiError {
    fn from(error: PastError) -> Self {
        let message = error.to_string();
        match error {
            PastError::Read(error) => error.into(),
            PastError::TooFar { .. } => Self::new("too_far_back", EXIT_FAILED, message)
                .hint("choose a later time, or read the log in order with `lattice watch --since`"),
        }
    }
}
