//! Listing keys, page by page.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    limits::{KEY_BYTES_MAX, PAGE_BYTES, SCAN_ROWS},
    protocol::heads::Heads,
    state::{StateError, View},
    store::{Item, List, ReadError, Store},
};

impl Store {
    /// Returns the keys with a live value, in order, from one view.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn list(&self, options: List) -> Result<Vec<Item>, ReadError> {
        let mut scan = self.scan(options);
        let mut items = Vec::new();
        loop {
            let page = scan.next_page().await?;
            if page.is_empty() {
                return Ok(items);
            }
            items.extend(page);
        }
    }

    /// Lists keys page by page, all pages from one view.
    pub fn scan(&self, options: List) -> Scan {
        Scan {
            store: self.clone(),
            view: self.shared.state.view(),
            now_ms: self.now_ms(),
            left: options.limit.unwrap_or(usize::MAX),
            options,
            delimiter: Bytes::new(),
            rows: VecDeque::new(),
            after: None,
            done: false,
        }
    }
}

/// A part of a list with a delimiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A key without the delimiter after the prefix.
    Item(Item),
    /// The common beginning, through the delimiter, of one or more keys with a live value.
    Prefix(Bytes),
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
    // Keys are cut after this; empty: they are not.
    delimiter: Bytes,
    // Rows that were read and not returned.
    rows: VecDeque<(Bytes, Heads)>,
    // Last key that was read; `None`: none was.
    after: Option<Bytes>,
    // True when there are no rows after `rows`.
    done: bool,
}

impl Scan {
    /// Returns only what comes after `key` in the order of keys. With a delimiter, a `key` that is a
    /// common beginning passes over all keys that begin with it.
    #[must_use]
    pub fn after(mut self, key: Bytes) -> Self {
        self.after = Some(match self.common(&key) {
            Some(common) if common == key => last_with(&common),
            _key => key,
        });
        self
    }

    /// Returns keys that have `delimiter` after the prefix as their common beginnings, each once. Call
    /// it before `after`.
    #[must_use]
    pub fn delimiter(mut self, delimiter: Bytes) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Returns the next items, about `PAGE_BYTES`; an empty page is the end. Common beginnings are
    /// left out. Cancel-safe.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn next_page(&mut self) -> Result<Vec<Item>, ReadError> {
        loop {
            let page = self.next_listed().await?;
            let is_end = page.is_empty();
            let items = page.into_iter().filter_map(|listed| match listed {
                Listed::Item(item) => Some(item),
                Listed::Prefix(_) => None,
            });
            let items: Vec<Item> = items.collect();
            if is_end || !items.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Returns the next items and common beginnings, about `PAGE_BYTES`, in the order of keys; an
    /// empty page is the end. Cancel-safe.
    ///
    /// # Errors
    /// `ReadError`.
    pub async fn next_listed(&mut self) -> Result<Vec<Listed>, ReadError> {
        let (mut listed, mut bytes) = (Vec::new(), 0);
        while self.left > 0 && bytes < PAGE_BYTES {
            if self.rows.is_empty() {
                if self.done || !listed.is_empty() {
                    break;
                }
                self.read_rows().await?;
            }
            let Some((key, heads)) = self.rows.pop_front() else {
                continue;
            };
            let common = self.common(&key);
            let shared = &self.store.shared;
            let keys_only = self.options.keys_only || common.is_some();
            let Some(item) = shared.item(&key, &heads, self.now_ms, keys_only)? else {
                continue;
            };
            self.left -= 1;
            match common {
                None => {
                    bytes += item.key.len() + item.value.len();
                    listed.push(Listed::Item(item));
                }
                Some(common) => {
                    self.pass_over(&common);
                    bytes += common.len();
                    listed.push(Listed::Prefix(common));
                }
            }
        }
        Ok(listed)
    }

    // Returns the beginning of a key through its first delimiter after the prefix, if it has one.
    fn common(&self, key: &Bytes) -> Option<Bytes> {
        let (prefix, delimiter) = (self.options.prefix.len(), &self.delimiter);
        let rest = key.get(prefix..).filter(|_| !delimiter.is_empty())?;
        let at = rest
            .windows(delimiter.len())
            .position(|window| window == delimiter)?;
        Some(key.slice(..prefix + at + delimiter.len()))
    }

    // Goes on after the last key that begins with `common`.
    fn pass_over(&mut self, common: &Bytes) {
        while self
            .rows
            .pop_front_if(|(key, _)| key.starts_with(common))
            .is_some()
        {}
        if self.rows.is_empty() && !self.done {
            self.after = Some(last_with(common));
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

// Returns the greatest key that begins with `common`.
fn last_with(common: &Bytes) -> Bytes {
    let mut last = common.to_vec();
    last.resize(KEY_BYTES_MAX.max(last.len()), u8::MAX);
    last.into()
}
