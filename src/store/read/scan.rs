//! Listing keys, page by page.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    limits::{PAGE_BYTES, SCAN_ROWS},
    protocol::heads::Heads,
    state::{StateError, View},
    store::{Item, ReadError, Store},
};

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// Selects keys that begin with this prefix; empty: all keys.
    pub prefix: Bytes,
    /// Largest number of keys; `None`: no limit.
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
            rows: VecDeque::new(),
            after: None,
            done: false,
        }
    }
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
    pub async fn next_page(&mut self) -> Result<Vec<Item>, ReadError> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while self.left > 0 && bytes < PAGE_BYTES {
            if self.rows.is_empty() {
                if self.done || !items.is_empty() {
                    break;
                }
                self.read_rows().await?;
            }
            let Some((key, heads)) = self.rows.pop_front() else {
                continue;
            };
            let shared = &self.store.shared;
            let item = shared.item(&key, &heads, self.now_ms, self.options.keys_only)?;
            if let Some(item) = item {
                bytes += item.key.len() + item.value.len();
                items.push(item);
                self.left -= 1;
            }
        }
        Ok(items)
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
