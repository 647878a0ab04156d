//! Pages: long lists are sent in several messages, in order.

use crate::{
    id::{Author, EntryId, Seq},
    limits::SYNC_PAGE_ITEMS_MAX,
    protocol::frontier::MissingRange,
};

/// Splits a list into pages: at least one, `true` for the last.
pub(super) fn pages<T: Clone>(items: &[T]) -> impl Iterator<Item = (Vec<T>, bool)> {
    let count = items.len().div_ceil(SYNC_PAGE_ITEMS_MAX).max(1);
    (1..=count).map(move |page| {
        let end = page.saturating_mul(SYNC_PAGE_ITEMS_MAX);
        let begin = end.saturating_sub(SYNC_PAGE_ITEMS_MAX);
        let items = items.get(begin..end.min(items.len())).unwrap_or_default();
        (items.to_vec(), page == count)
    })
}

/// Returns the key by which ranges are sorted in messages.
pub(super) fn wire_order(range: &MissingRange) -> (Author, Seq, EntryId) {
    (range.author, range.through, range.tip)
}

/// Returns whether `items` ascend and the first one comes after `before`.
pub(super) fn is_in_order<T, K: Ord>(
    before: Option<&T>,
    items: &[T],
    key: impl Fn(&T) -> K,
) -> bool {
    let mut keys = before.into_iter().chain(items).map(key);
    let Some(mut last) = keys.next() else {
        return true;
    };
    keys.all(|key| {
        let ascends = last < key;
        last = key;
        ascends
    })
}
