//! Listing keys, page by page.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    limits::{KEY_BYTES_MAX, PAGE_BYTES, SCAN_ROWS},
    protocol::heads::Heads,
    state::{StateError, View},
    store::{Item, ReadError, Store},
};

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Selects keys that begin with this prefix; empty: all keys.
    pub prefix: Bytes,
    /// Selects keys after this one, exclusive; empty: from the first one. To go on after a page, the
    /// last key or common prefix of the page.
    pub after: Bytes,
    /// Keys that have this after the prefix are listed as one common prefix that ends with it; empty:
    /// every key is listed. Ignored by `Store::list` and by reads of the past.
    pub delimiter: Bytes,
    /// Largest number of keys and common prefixes; `None`: no limit.
    pub limit: Option<usize>,
    /// Lists keys without values.
    pub keys_only: bool,
}

impl Store {
    /// Returns the keys with a live value, in order, from one view.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn list(&self, options: List) -> Result<Vec<Item>, ReadError> {
        let mut scan = self.scan(List {
            delimiter: Bytes::new(),
            ..options
        });
        let mut items = Vec::new();
        loop {
            let page = scan.next_page().await?;
            if page.is_empty() {
                return Ok(items);
            }
            items.extend(page.items);
        }
    }

    /// Lists keys page by page, all pages from one view.
    pub fn scan(&self, options: List) -> Scan {
        Scan {
            store: self.clone(),
            view: self.shared.state.view(),
            now_ms: self.now_ms(),
            left: options.limit.unwrap_or(usize::MAX),
            after: options.first_after(),
            options,
            rows: VecDeque::new(),
            done: false,
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys with their values, in order.
    pub items: Vec<Item>,
    /// Common prefixes of keys that are not among the items, in order. Each lies in its place among
    /// them by its bytes.
    pub prefixes: Vec<Bytes>,
}

impl Page {
    /// True at the end of the list.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.prefixes.is_empty()
    }
}

impl List {
    /// Returns the key after which the list begins; `None`: before the first one.
    pub(super) fn first_after(&self) -> Option<Bytes> {
        let is_group = self
            .group_of(&self.after)
            .is_some_and(|group| group == self.after);
        match (self.after.is_empty(), is_group) {
            (true, _) => None,
            (false, true) => Some(last_with(&self.after)),
            (false, false) => Some(self.after.clone()),
        }
    }

    // Returns the common prefix under which `key` is listed; `None` if it is listed itself.
    fn group_of(&self, key: &Bytes) -> Option<Bytes> {
        let rest = key.strip_prefix(self.prefix.as_ref())?;
        if self.delimiter.is_empty() {
            return None;
        }
        let at = memchr::memmem::find(rest, &self.delimiter)?;
        Some(key.slice(..self.prefix.len() + at + self.delimiter.len()))
    }
}

// Returns a key that no key with this prefix is greater than.
fn last_with(prefix: &Bytes) -> Bytes {
    let mut last = prefix.to_vec();
    last.resize(KEY_BYTES_MAX.max(last.len()), 0xff);
    last.into()
}

/// A list that is read page by page. Holds one view of the state as long as it lives; a damaged
/// state is replaced by a rebuilt one.
#[derive(Debug)]
pub struct Scan {
    store: Store,
    view: Arc<View>,
    now_ms: u64,
    options: List,
    // Keys that may still be returned.
    left: usize,
    // Rows that were read and not returned.
    rows: VecDeque<(Bytes, Heads)>,
    // Last key that was read; `None`: none was.
    after: Option<Bytes>,
    // True when there are no rows after `rows`.
    done: bool,
}

impl Scan {
    /// Returns the next items, about `PAGE_BYTES`; an empty page is the end. Cancel-safe.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn next_page(&mut self) -> Result<Page, ReadError> {
        let (mut page, mut bytes) = (Page::default(), 0);
        while self.left > 0 && bytes < PAGE_BYTES {
            if self.rows.is_empty() {
                if self.done || !page.is_empty() {
                    break;
                }
                self.read_rows().await?;
            }
            let Some((key, heads)) = self.rows.pop_front() else {
                continue;
            };
            let shared = &self.store.shared;
            let group = self.options.group_of(&key);
            let keys_only = self.options.keys_only || group.is_some();
            let Some(item) = shared.item(&key, &heads, self.now_ms, keys_only)? else {
                continue;
            };
            self.left -= 1;
            bytes += item.key.len() + item.value.len();
            match group {
                None => page.items.push(item),
                Some(group) => {
                    self.pass(&group);
                    page.prefixes.push(group);
                }
            }
        }
        Ok(page)
    }

    // Passes over the other keys of a group, read or not.
    fn pass(&mut self, group: &Bytes) {
        let is_of_it = |key: &Bytes| key.starts_with(group);
        while self.rows.front().is_some_and(|(key, _)| is_of_it(key)) {
            self.rows.pop_front();
        }
        if self.after.as_ref().is_some_and(is_of_it) {
            self.after = Some(last_with(group));
        }
    }

    async fn read_rows(&mut self) -> Result<(), ReadError> {
        let scan = |view: &View, after: Option<&Bytes>| {
            view.scan(&self.options.prefix, after.map(Bytes::as_ref), SCAN_ROWS)
        };
        let rows = match scan(&self.view, self.after.as_ref()) {
            Err(StateError::Damaged { .. }) => {
                self.store.rebuild(self.view.version).await?;
                self.view = self.store.shared.state.view();
                scan(&self.view, self.after.as_ref())?
            }
            rows => rows?,
        };
        self.done = rows.len() < SCAN_ROWS;
        if let Some((key, _)) = rows.last() {
            self.after = Some(key.clone());
        }
        self.rows = rows.into();
        Ok(())
    }
}
