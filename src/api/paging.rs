//! Streams of answers that are read a page at a time: the keys of a store, the log of an author.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio_stream::Stream;
use tonic::Status;

use crate::{
    api::{convert, error::ApiError},
    id::{Author, Seq},
    limits::{LOG_PAGE_ENTRIES, PAGE_BYTES},
    log::Pruned,
    store::{List, Listed, LogEntry, ReadError, Scan, Store},
    wire::api,
};

/// A stream of answers, as tonic expects it from the service.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Streams the live keys of a store, from one snapshot.
pub(super) fn list(
    store: &Store,
    options: List,
    after: Bytes,
    delimiter: Bytes,
) -> Answers<api::Items> {
    let mut scan = store.scan(options).delimiter(delimiter);
    if !after.is_empty() {
        scan = scan.after(after);
    }
    let listing = Listing {
        scan,
        rest: Vec::new().into_iter(),
    };
    unfold(listing, |listing| Box::pin(listing.next()))
}

/// Streams `items` in messages of about `PAGE_BYTES`, at least one. `message` makes one of some items,
/// and knows whether it is the last one.
pub(super) fn parts<T, M>(items: Vec<T>, mut message: impl FnMut(Vec<T>, bool) -> M) -> Answers<M>
where
    T: prost::Message,
    M: Send + 'static,
{
    let (mut messages, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let item_bytes = item.encoded_len();
        if bytes + item_bytes > PAGE_BYTES && !part.is_empty() {
            messages.push(Ok(message(mem::take(&mut part), false)));
            bytes = 0;
        }
        bytes += item_bytes;
        part.push(item);
    }
    messages.push(Ok(message(part, true)));
    Box::pin(tokio_stream::iter(messages))
}

/// Streams the entries of `author` after `after` (exclusive), at most `limit`, oldest first. `newest`:
/// if some of them were removed, begins with the first one that is here.
pub(super) fn log(
    store: Store,
    author: Author,
    after: Seq,
    limit: Option<u64>,
    newest: bool,
    signed: bool,
) -> Answers<api::LogEntry> {
    let left = limit.unwrap_or(u64::MAX);
    let log = Log {
        store,
        author,
        after,
        is_any: newest,
        pruned: None,
        left,
        signed,
        page: Vec::new().into_iter(),
    };
    unfold(log, |log| Box::pin(log.next()))
}

/// Returns a stream that calls `step` for each item, with the state that the last call returned.
///
/// The stream ends when `step` returns `None`, and after the first error.
pub(super) fn unfold<S, T>(state: S, step: fn(S) -> Step<S, T>) -> Answers<T>
where
    S: Unpin + Send + 'static,
    T: Send + 'static,
{
    let at = At::Rest(state);
    Box::pin(Unfold { step, at })
}

struct Listing {
    scan: Scan,
    // Items of the last page that were not sent yet.
    rest: std::vec::IntoIter<Listed>,
}

impl Listing {
    async fn next(mut self) -> Option<(Result<api::Items, Status>, Self)> {
        if self.rest.as_slice().is_empty() {
            match self.scan.next_listed().await {
                Ok(page) => self.rest = page.into_iter(),
                Err(error) => return Some((Err(ApiError::from(error).into()), self)),
            }
        }
        let (mut items, mut prefixes) = (Vec::with_capacity(self.rest.len()), Vec::new());
        let mut bytes = 0;
        while bytes < PAGE_BYTES
            && let Some(listed) = self.rest.next()
        {
            match listed {
                Listed::Item(item) => {
                    bytes += item.key.len() + item.value.len() + 32 * item.other_heads.len();
                    items.push(convert::item(item));
                }
                Listed::Prefix(prefix) => {
                    bytes += prefix.len();
                    prefixes.push(prefix);
                }
            }
        }
        let is_end = items.is_empty() && prefixes.is_empty();
        (!is_end).then_some((Ok(api::Items { items, prefixes }), self))
    }
}

struct Log {
    store: Store,
    author: Author,
    // Seq of the last entry that was sent; the next page begins after it.
    after: Seq,
    // True: entries that were removed are left out, and the first entry that is sent says so.
    is_any: bool,
    // The entries that were left out, until that was said.
    pruned: Option<Pruned>,
    // Number of entries that may still be sent.
    left: u64,
    // True: entries are sent as their author signed them.
    signed: bool,
    // Entries of the last page that were not sent yet.
    page: std::vec::IntoIter<LogEntry>,
}

impl Log {
    async fn next(mut self) -> Option<(Result<api::LogEntry, Status>, Self)> {
        if self.page.as_slice().is_empty() && self.left > 0 {
            let limit = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(LOG_PAGE_ENTRIES);
            let mut page = self.store.entries(self.author, self.after, limit).await;
            if let Err(ReadError::Pruned(pruned)) = &page
                && self.is_any
            {
                self.after = pruned.through;
                self.pruned = Some(*pruned);
                page = self.store.entries(self.author, self.after, limit).await;
            }
            self.is_any = false;
            match page {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => return Some((Err(ApiError::from(error).into()), self)),
            }
        }
        let pruned = self.pruned.take();
        let Some(entry) = self.page.next() else {
            // None is left that could say so.
            let error = ReadError::Pruned(pruned?);
            return Some((Err(ApiError::from(error).into()), self));
        };
        self.after = entry.entry.header.seq;
        self.left = self.left.saturating_sub(1);
        let mut entry = convert::log_entry(&entry, self.signed);
        entry.pruned_through = pruned.map_or(0, |pruned| pruned.through);
        Some((Ok(entry), self))
    }
}

struct Unfold<S, T> {
    step: fn(S) -> Step<S, T>,
    at: At<S, T>,
}

enum At<S, T> {
    // Between two items.
    Rest(S),
    // The next item is being made.
    Step(Step<S, T>),
    End,
}

/// A future that makes one item, and the state for the next item. `None` ends the stream.
pub(super) type Step<S, T> = Pin<Box<dyn Future<Output = Option<(Result<T, Status>, S)>> + Send>>;

impl<S: Unpin, T> Stream for Unfold<S, T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut step = match mem::replace(&mut self.at, At::End) {
            At::Rest(state) => (self.step)(state),
            At::Step(step) => step,
            At::End => return Poll::Ready(None),
        };
        match step.as_mut().poll(context) {
            Poll::Pending => {
                self.at = At::Step(step);
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some((item, state))) => {
                if item.is_ok() {
                    self.at = At::Rest(state);
                }
                Poll::Ready(Some(item))
            }
        }
    }
}
