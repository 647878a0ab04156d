//! The live keys under a prefix, as a watch keeps them up to date.

use std::{collections::BTreeMap, ops::Bound};

use lattice::wire::api::{self, watch_reply::Event};

use crate::cli::{
    output::print::escape,
    screens::prefixes::{Prefixes, end_of},
};

/// The first keys under a prefix, with the beginnings of their values.
#[derive(Debug)]
pub(crate) struct LiveKeys {
    rows: BTreeMap<Box<[u8]>, Row>,
    // Bytes of keys and values.
    bytes: usize,
    // The last key that is kept: there were too many. `None`: all are kept.
    last: Option<Box<[u8]>>,
    // The keys that match the filter.
    prefixes: Prefixes,
    // In lower case; empty: all keys match.
    filter: String,
    // Number of the state that is being filled in: each gap begins another one.
    state: u32,
    is_filling: bool,
    keys_max: usize,
}

/// A live key.
#[derive(Debug)]
pub(crate) struct Row {
    /// The beginning of the value.
    pub(crate) value: Box<[u8]>,
    pub(crate) author: Box<[u8]>,
    pub(crate) entry: Box<[u8]>,
    pub(crate) wall_ms: u64,
    /// Number of heads: more than 1 in a conflict.
    pub(crate) heads: usize,
    /// Time of the last change that came after the state; 0: there was none.
    pub(crate) changed_ms: u64,
    matches: bool,
    state: u32,
}

impl LiveKeys {
    /// Makes an empty list of the keys that begin with `prefix`. At most `keys_max` are kept.
    pub(crate) fn new(prefix: &[u8], keys_max: usize) -> Self {
        Self {
            rows: BTreeMap::new(),
            bytes: 0,
            last: None,
            prefixes: Prefixes::new(prefix),
            filter: String::new(),
            state: 0,
            is_filling: true,
            keys_max,
        }
    }

    /// Takes an event of the watch at a time in ms since 1970.
    pub(crate) fn take(&mut self, event: &Event, now_ms: u64) {
        match event {
            Event::Change(change) => self.change(change, now_ms),
            Event::Gap(_) => {
                self.state += 1;
                self.is_filling = true;
            }
            Event::CaughtUp(_) => {
                self.is_filling = false;
                let state = self.state;
                let gone = self.rows.iter().filter(|(_, row)| row.state != state);
                let gone: Vec<Box<[u8]>> = gone.map(|(key, _)| key.clone()).collect();
                gone.iter().for_each(|key| self.remove(key));
            }
            Event::Progress(_) | Event::Damaged(_) => {}
        }
    }

    /// True while the state is not complete.
    pub(crate) fn is_filling(&self) -> bool {
        self.is_filling
    }

    /// Number of keys that are kept.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there are more keys than are kept.
    pub(crate) fn is_cut(&self) -> bool {
        self.last.is_some()
    }

    /// Returns the key's row, if it is kept.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Row> {
        self.rows.get(key)
    }

    /// Returns the prefixes of the keys that match.
    pub(crate) fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Returns the keys that match and begin with `prefix`, which ends with `/` or is that of the watch, in
    /// order.
    pub(crate) fn below(&self, prefix: &[u8]) -> impl Iterator<Item = (&[u8], &Row)> {
        let end = end_of(prefix);
        let to = match prefix.last() {
            Some(b'/') => Bound::Excluded(&*end),
            // All keys of the watch begin with it.
            _other => Bound::Unbounded,
        };
        let rows = self.rows.range::<[u8], _>((Bound::Included(prefix), to));
        let rows = rows.filter(|(_, row)| row.matches);
        rows.map(|(key, row)| (&**key, row))
    }

    /// Lets only keys match whose text has this in it, in upper or lower case; all if it is empty.
    pub(crate) fn set_filter(&mut self, filter: &str, root: &[u8]) {
        self.filter = filter.to_lowercase();
        self.prefixes = Prefixes::new(root);
        for (key, row) in &mut self.rows {
            row.matches = matches(&self.filter, key);
            if row.matches {
                self.prefixes.add(key);
            }
        }
    }

    fn change(&mut self, change: &api::Change, now_ms: u64) {
        let entry = change.entry.clone().unwrap_or_default();
        let is_winner = change
            .heads
            .first()
            .is_none_or(|winner| winner.id == entry.id);
        if !is_winner {
            // A later change was known: this one shows at most in the number of heads.
            if let Some(row) = self.rows.get_mut(&*change.key) {
                row.heads = change.heads.len();
                row.changed_ms = now_ms;
            }
            return;
        }
        let (true, Some(value)) = (change.kind == "put", &change.value) else {
            return self.remove(&change.key);
        };
        if self.last.as_ref().is_some_and(|last| *change.key > **last) {
            return;
        }
        let row = Row {
            value: value.to_vec().into(),
            author: entry.author.to_vec().into(),
            entry: entry.id.to_vec().into(),
            wall_ms: entry.wall_ms,
            heads: change.heads.len(),
            changed_ms: match change.origin.as_str() {
                "initial" => 0,
                _live => now_ms,
            },
            matches: matches(&self.filter, &change.key),
            state: self.state,
        };
        self.insert(&change.key, row);
        while self.rows.len() > self.keys_max || self.bytes > BYTES_MAX && self.rows.len() > 1 {
            let Some((last, _)) = self.rows.last_key_value() else {
                return;
            };
            let last = last.clone();
            self.remove(&last);
            self.last = self.rows.last_key_value().map(|(key, _)| key.clone());
        }
    }

    fn insert(&mut self, key: &[u8], row: Row) {
        self.remove(key);
        self.bytes += bytes(key, &row);
        if row.matches {
            self.prefixes.add(key);
        }
        self.rows.insert(key.into(), row);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(row) = self.rows.remove(key) {
            self.bytes -= bytes(key, &row);
            if row.matches {
                self.prefixes.remove(key);
            }
        }
    }
}

fn bytes(key: &[u8], row: &Row) -> usize {
    key.len() + row.value.len()
}

fn matches(filter: &str, key: &[u8]) -> bool {
    filter.is_empty() || escape(key).to_lowercase().contains(filter)
}

/// Bytes of keys and values that are kept.
const BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::output::screen::tests::NOW_MS;

    /// Returns the change of a key by an author, whose entry has this number.
    pub(crate) fn put(key: &str, value: &str, author: u8, number: u8) -> api::Change {
        let entry = api::EntryRef {
            id: vec![number; 32].into(),
            author: vec![author; 32].into(),
            wall_ms: NOW_MS - 180_000,
            ..api::EntryRef::default()
        };
        api::Change {
            kind: "put".to_owned(),
            key: key.to_owned().into(),
            value: Some(value.to_owned().into()),
            heads: vec![entry.clone()],
            entry: Some(entry),
            origin: "initial".to_owned(),
            ..api::Change::default()
        }
    }

    /// Returns the same change as one that happens now.
    pub(crate) fn live(change: api::Change) -> Event {
        let origin = "local".to_owned();
        Event::Change(api::Change { origin, ..change })
    }

    fn delete(key: &str) -> api::Change {
        api::Change {
            kind: "delete".to_owned(),
            value: None,
            ..put(key, "", 0x67, 99)
        }
    }

    fn listed(keys: &LiveKeys, prefix: &str) -> Vec<String> {
        let rows = keys.below(prefix.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        rows.map(|(key, row)| format!("{}={}", text(key), text(&row.value)))
            .collect()
    }

    fn filled(keys: &[&str]) -> LiveKeys {
        let mut live = LiveKeys::new(b"", 100);
        for key in keys {
            live.take(&Event::Change(put(key, "v", 0x67, 1)), NOW_MS);
        }
        live.take(&Event::CaughtUp(api::CaughtUp::default()), NOW_MS);
        live
    }

    fn all(keys: &LiveKeys) -> u64 {
        keys.prefixes.keys()
    }

    #[test]
    fn changes_keep_the_keys_up_to_date() {
        let mut keys = filled(&["/a", "/b/1", "/b/2", "/c"]);
        assert!(!keys.is_filling());
        assert_eq!(listed(&keys, "/b/"), ["/b/1=v", "/b/2=v"]);
        keys.take(&live(put("/b/1", "w", 0x67, 2)), NOW_MS);
        keys.take(&live(delete("/b/2")), NOW_MS);
        keys.take(&live(put("/b/3", "x", 0x67, 3)), NOW_MS);
        keys.take(&live(delete("/never")), NOW_MS);
        assert_eq!(listed(&keys, ""), ["/a=v", "/b/1=w", "/b/3=x", "/c=v"]);
        assert_eq!(keys.get(b"/a").unwrap().changed_ms, 0);
        assert_eq!(keys.get(b"/b/1").unwrap().changed_ms, NOW_MS);
        let expired = api::Change {
            kind: "expire".to_owned(),
            value: None,
            ..put("/c", "", 0x67, 1)
        };
        keys.take(&live(expired), NOW_MS);
        assert_eq!((keys.len(), all(&keys)), (3, 3));
    }

    /// A change that came late had been shown as the value, in place of the winner.
    #[test]
    fn late_change_shows_only_as_a_head() {
        let mut keys = filled(&["/a"]);
        let mut late = put("/a", "old", 0x87, 7);
        late.heads.insert(0, put("/a", "", 0x67, 1).entry.unwrap());
        keys.take(&live(late.clone()), NOW_MS);
        assert_eq!(listed(&keys, ""), ["/a=v"]);
        assert_eq!(keys.get(b"/a").unwrap().heads, 2);
        // A delete that loses shows only as a head, too.
        late.kind = "delete".to_owned();
        late.value = None;
        keys.take(&live(late), NOW_MS);
        assert_eq!(listed(&keys, ""), ["/a=v"]);
    }

    #[test]
    fn keys_that_a_gap_does_not_name_are_gone_at_its_end() {
        let mut keys = filled(&["/a", "/b", "/c"]);
        keys.take(&Event::Gap(api::Gap::default()), NOW_MS);
        assert!(keys.is_filling());
        keys.take(&Event::Change(put("/b", "w", 0x67, 2)), NOW_MS);
        assert_eq!(keys.len(), 3, "they stay until the state is whole");
        keys.take(&Event::CaughtUp(api::CaughtUp::default()), NOW_MS);
        assert_eq!(listed(&keys, ""), ["/b=w"]);
        assert_eq!(all(&keys), 1);
    }

    #[test]
    fn too_many_keys_are_the_first_ones() {
        let mut keys = LiveKeys::new(b"", 3);
        for key in ["/d", "/b", "/f", "/a", "/e", "/c"] {
            keys.take(&Event::Change(put(key, "v", 0x67, 1)), NOW_MS);
        }
        assert_eq!(listed(&keys, ""), ["/a=v", "/b=v", "/c=v"]);
        assert!(keys.is_cut());
        assert_eq!((keys.len(), all(&keys)), (3, 3));
        // One that goes leaves its place to none that is after the last.
        keys.take(&live(delete("/b")), NOW_MS);
        keys.take(&live(put("/d", "w", 0x67, 2)), NOW_MS);
        assert_eq!(listed(&keys, ""), ["/a=v", "/c=v"]);
    }

    #[test]
    fn bytes_are_bounded() {
        let mut keys = LiveKeys::new(b"", usize::MAX);
        let value = "v".repeat(1 << 20);
        for number in 0..100 {
            let key = format!("/{number:03}");
            keys.take(&Event::Change(put(&key, &value, 0x67, 1)), NOW_MS);
        }
        assert!(keys.is_cut() && keys.bytes <= BYTES_MAX, "{}", keys.bytes);
        assert!(keys.len() > 60);
    }

    #[test]
    fn filter_hides_keys_and_counts_the_rest() {
        let mut keys = filled(&["/a/Lamp", "/a/door", "/b/lamp\u{1b}", "/c"]);
        keys.set_filter("LAMP", b"");
        assert_eq!(listed(&keys, ""), ["/a/Lamp=v", "/b/lamp\u{1b}=v"]);
        assert_eq!(all(&keys), 2);
        // The text is the one that is shown.
        keys.set_filter("x1b", b"");
        assert_eq!(listed(&keys, ""), ["/b/lamp\u{1b}=v"]);
        keys.take(&live(put("/d\u{1b}", "v", 0x67, 2)), NOW_MS);
        keys.take(&live(put("/e", "v", 0x67, 3)), NOW_MS);
        assert_eq!(all(&keys), 2);
        keys.take(&live(delete("/e")), NOW_MS);
        assert_eq!(all(&keys), 2);
        keys.set_filter("", b"");
        assert_eq!(all(&keys), 5);
    }
}
