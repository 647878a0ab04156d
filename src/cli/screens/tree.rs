//! The live screen of `watch --tree`: which prefix, which key, which filter, and whose history.

use std::collections::BTreeSet;

use bytes::Bytes;
use lattice::wire::api::{self, watch_reply::Event};

use crate::cli::{
    input::keys::{Key, Then},
    output::print::harmless,
    screens::{live_keys::LiveKeys, names::Names, prefixes::Branch},
};

/// Everything that the screen shows, and what is chosen in it.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(super) root: Bytes,
    pub(super) keys: LiveKeys,
    pub(super) names: Names,
    // Why the node is away; `None` while it answers.
    pub(super) away: Option<String>,
    pub(super) side: Side,
    // The root, or one of the prefixes of the keys.
    pub(super) chosen_prefix: Box<[u8]>,
    // The key that was chosen; it may be gone. `None`: the first.
    pub(super) chosen_key: Option<Box<[u8]>>,
    // Prefixes of which the ones below are shown.
    pub(super) open: BTreeSet<Box<[u8]>>,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) history: Option<History>,
    // Rows of a side in the last frame.
    pub(super) page_rows: usize,
}

/// The side of the screen on which keys act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Prefixes,
    Keys,
}

/// The history of a key.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(super) key: Box<[u8]>,
    pub(super) past: Past,
    // Lines that are scrolled out; `draw` takes back what is too much.
    pub(super) scrolled: usize,
    // Winner of the key when the history was asked for.
    asked_for: Option<Box<[u8]>>,
    is_asked: bool,
}

/// The entries of a key, as far as they are known.
#[derive(Debug, Default)]
pub(crate) enum Past {
    /// They were asked for.
    #[default]
    Unknown,
    /// Newest first, with the beginnings of their values.
    Known(api::HistoryReply),
    /// The node refused, with the reason.
    Refused(String),
}

impl Tree {
    /// Makes the screen of the keys that begin with `root`. At most `keys_max` are kept.
    pub(crate) fn new(root: Bytes, keys_max: usize) -> Self {
        Self {
            keys: LiveKeys::new(&root, keys_max),
            names: Names::default(),
            away: None,
            side: Side::Prefixes,
            chosen_prefix: root.to_vec().into(),
            chosen_key: None,
            open: BTreeSet::new(),
            filter: String::new(),
            is_typing: false,
            history: None,
            page_rows: 1,
            root,
        }
    }

    /// Takes an event of the watch at a time in ms since 1970.
    pub(crate) fn take(&mut self, event: &Event, now_ms: u64) {
        self.away = None;
        self.keys.take(event, now_ms);
    }

    /// Takes the names of the members.
    pub(crate) fn name(&mut self, names: Names) {
        self.names = names;
    }

    /// Notes that the node does not answer, or that it does again.
    pub(crate) fn went_away(&mut self, why: Option<&str>) {
        self.away = why.map(|why| harmless(why).into_owned());
    }

    /// Returns the key whose history is to be read: one that was opened, or that has changed since.
    pub(crate) fn wanted(&mut self) -> Option<Box<[u8]>> {
        let history = self.history.as_mut().filter(|history| !history.is_asked)?;
        let winner = self.keys.get(&history.key).map(|row| row.entry.clone());
        if !matches!(history.past, Past::Unknown) && winner == history.asked_for {
            return None;
        }
        history.is_asked = true;
        history.asked_for = winner;
        Some(history.key.clone())
    }

    /// Takes the history of a key, if it is still the one that is shown.
    pub(crate) fn remember(&mut self, key: &[u8], past: Past) {
        if let Some(history) = &mut self.history
            && *history.key == *key
        {
            history.is_asked = false;
            history.past = past;
        }
    }

    /// Acts on a key.
    pub(crate) fn press(&mut self, key: Key) -> Then {
        match key {
            Key::Interrupt => return Then::Leave,
            Key::Suspend => return Then::Suspend,
            Key::Redraw => return Then::Redraw,
            key if self.is_typing => self.type_filter(key),
            Key::Char('q') => return Then::Leave,
            key if self.history.is_some() => self.read(key),
            Key::Escape if !self.filter.is_empty() => self.set_filter(String::new()),
            Key::Escape if self.side == Side::Keys => self.side = Side::Prefixes,
            Key::Escape => return Then::Leave,
            Key::Char('/') => self.is_typing = true,
            Key::Tab | Key::BackTab => {
                self.side = match self.side {
                    Side::Prefixes => Side::Keys,
                    Side::Keys => Side::Prefixes,
                };
            }
            key => self.walk(key),
        }
        Then::Stay
    }

    /// Returns the key that is chosen below a prefix, and its place among those below it; `None` if there are
    /// none.
    pub(super) fn key_below(&self, prefix: &[u8]) -> Option<(usize, &[u8])> {
        let keys = self.keys_below(prefix);
        let chosen = self.chosen_key.as_deref().unwrap_or_default();
        // In place of one that is gone, the next one.
        let at = keys.partition_point(|key| *key < chosen);
        let at = at.min(keys.len().checked_sub(1)?);
        Some((at, keys[at]))
    }

    /// Returns the prefixes that are shown, and the place of the chosen one.
    pub(super) fn branches(&self) -> (Vec<Branch>, usize) {
        let shown = self.keys.prefixes().shown(&self.open);
        // One that is gone, or hidden: the one before its place.
        let after = shown.partition_point(|branch| branch.prefix <= self.chosen_prefix);
        (shown, after.saturating_sub(1))
    }

    // Returns the prefix that is chosen, or that stands for it.
    fn prefix(&self) -> Box<[u8]> {
        let (mut branches, at) = self.branches();
        branches.swap_remove(at).prefix
    }

    fn keys_below(&self, prefix: &[u8]) -> Vec<&[u8]> {
        self.keys.below(prefix).map(|(key, _)| key).collect()
    }

    // Types into the filter line.
    fn type_filter(&mut self, key: Key) {
        let mut filter = self.filter.clone();
        match key {
            Key::Char(letter) if filter.len() < FILTER_BYTES_MAX => filter.push(letter),
            Key::Backspace => {
                filter.pop();
            }
            Key::Enter => self.is_typing = false,
            Key::Escape => {
                filter.clear();
                self.is_typing = false;
            }
            _other => {}
        }
        if filter != self.filter {
            self.set_filter(filter);
        }
    }

    fn set_filter(&mut self, filter: String) {
        self.keys.set_filter(&filter, &self.root);
        self.filter = filter;
    }

    // Scrolls the history, or closes it.
    fn read(&mut self, key: Key) {
        let page = self.page_rows;
        let Some(history) = &mut self.history else {
            return;
        };
        let scrolled = &mut history.scrolled;
        match key {
            Key::Up | Key::Char('k') => *scrolled = scrolled.saturating_sub(1),
            Key::Down | Key::Char('j') => *scrolled = scrolled.saturating_add(1),
            Key::PageUp => *scrolled = scrolled.saturating_sub(page),
            Key::PageDown => *scrolled = scrolled.saturating_add(page),
            Key::Home => *scrolled = 0,
            Key::End => *scrolled = usize::MAX,
            Key::Escape | Key::Left | Key::Backspace => self.history = None,
            _other => {}
        }
    }

    // Moves on one of the sides, or opens what is chosen there.
    fn walk(&mut self, key: Key) {
        let page = self.page_rows.cast_signed();
        match (key, self.side) {
            (Key::Up | Key::Char('k'), _) => self.step(-1),
            (Key::Down | Key::Char('j'), _) => self.step(1),
            (Key::PageUp, _) => self.step(-page),
            (Key::PageDown, _) => self.step(page),
            (Key::Home, _) => self.step(isize::MIN),
            (Key::End, _) => self.step(isize::MAX),
            (Key::Left, Side::Keys) => self.side = Side::Prefixes,
            (Key::Enter, Side::Keys) => {
                let prefix = self.prefix();
                let key = self.key_below(&prefix).map(|(_, key)| key.into());
                self.history = key.map(|key| History {
                    key,
                    ..History::default()
                });
            }
            (Key::Left | Key::Right | Key::Enter, Side::Prefixes) => self.open_or_close(key),
            _other => {}
        }
    }

    fn step(&mut self, lines: isize) {
        let moved = |at: usize, count: usize| {
            let last = count.saturating_sub(1);
            at.saturating_add_signed(lines).min(last)
        };
        match self.side {
            Side::Prefixes => {
                let (branches, at) = self.branches();
                let next = &branches[moved(at, branches.len())];
                self.chosen_prefix = next.prefix.clone();
                self.chosen_key = None;
            }
            Side::Keys => {
                let prefix = self.prefix();
                let Some((at, _)) = self.key_below(&prefix) else {
                    return;
                };
                let keys = self.keys_below(&prefix);
                let next = keys[moved(at, keys.len())].into();
                self.chosen_key = Some(next);
            }
        }
    }

    fn open_or_close(&mut self, key: Key) {
        let (branches, at) = self.branches();
        let branch = &branches[at];
        let is_root = branch.depth == 0;
        match key {
            Key::Left | Key::Enter if branch.is_open && !is_root => {
                self.open.remove(&branch.prefix);
            }
            Key::Left => {
                if let Some(above) = self.keys.prefixes().above(&branch.prefix) {
                    self.chosen_prefix = above;
                    self.chosen_key = None;
                }
            }
            _right if branch.has_below && !branch.is_open => {
                self.open.insert(branch.prefix.clone());
            }
            _right => self.side = Side::Keys,
        }
    }
}

/// Bytes of the filter.
const FILTER_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        output::screen::tests::NOW_MS,
        screens::live_keys::tests::{live, put},
    };

    const KEYS: [&str; 6] = ["/a", "/b/1", "/b/2", "/b/c/3", "/d/4", "/d/5"];

    fn tree() -> Tree {
        let mut tree = Tree::new(Bytes::new(), 100);
        for key in KEYS {
            tree.take(&Event::Change(put(key, "v", 0x67, 1)), NOW_MS);
        }
        tree.take(&Event::CaughtUp(api::CaughtUp::default()), NOW_MS);
        tree
    }

    fn prefix(tree: &Tree) -> String {
        String::from_utf8_lossy(&tree.prefix()).into_owned()
    }

    fn key(tree: &Tree) -> String {
        let key = tree
            .key_below(&tree.prefix())
            .map_or(b"none".as_slice(), |(_, key)| key);
        String::from_utf8_lossy(key).into_owned()
    }

    fn press(tree: &mut Tree, keys: &[Key]) {
        for key in keys {
            assert_eq!(tree.press(*key), Then::Stay, "{key:?}");
        }
    }

    fn text(text: &str) -> Vec<Key> {
        text.chars().map(Key::Char).collect()
    }

    #[test]
    fn arrows_walk_through_prefixes_and_keys() {
        let mut tree = tree();
        assert_eq!(
            (prefix(&tree), key(&tree)),
            (String::new(), "/a".to_owned())
        );
        press(&mut tree, &[Key::Down]);
        assert_eq!(
            (prefix(&tree).as_str(), key(&tree).as_str()),
            ("/b/", "/b/1")
        );
        press(&mut tree, &[Key::Right, Key::Down]);
        assert_eq!(prefix(&tree), "/b/c/");
        press(&mut tree, &[Key::Left]);
        assert_eq!(prefix(&tree), "/b/");
        press(&mut tree, &[Key::Left, Key::Down]);
        assert_eq!(prefix(&tree), "/d/", "/b/ was closed");
        press(&mut tree, &[Key::Right]);
        assert_eq!(tree.side, Side::Keys, "nothing is below /d/");
        press(&mut tree, &[Key::Down, Key::Down]);
        assert_eq!(key(&tree), "/d/5");
        press(&mut tree, &[Key::Tab, Key::Home, Key::Tab, Key::End]);
        assert_eq!(key(&tree), "/d/5");
        press(&mut tree, &[Key::PageUp]);
        assert_eq!(
            key(&tree),
            "/d/4",
            "a page has one row before the first frame"
        );
    }

    #[test]
    fn choice_stays_where_keys_come_and_go() {
        let mut tree = tree();
        press(&mut tree, &[Key::Tab, Key::Down, Key::Down]);
        assert_eq!(key(&tree), "/b/2");
        tree.take(&live(put("/a2", "v", 0x67, 2)), NOW_MS);
        assert_eq!(key(&tree), "/b/2");
        let gone = api::Change {
            kind: "delete".to_owned(),
            ..put("/b/2", "", 0x67, 3)
        };
        tree.take(&live(gone), NOW_MS);
        assert_eq!(key(&tree), "/b/c/3");
        // A prefix without keys any more.
        press(&mut tree, &[Key::Tab, Key::End]);
        assert_eq!(prefix(&tree), "/d/");
        press(&mut tree, &[Key::Char('/')]);
        press(&mut tree, &text("b/"));
        assert_eq!(prefix(&tree), "/b/");
        press(&mut tree, &[Key::Escape]);
        assert_eq!(prefix(&tree), "/d/");
    }

    #[test]
    fn escape_goes_back_one_step_at_a_time() {
        let mut tree = tree();
        press(&mut tree, &[Key::Char('/')]);
        press(&mut tree, &text("q5"));
        assert_eq!((tree.filter.as_str(), key(&tree).as_str()), ("q5", "none"));
        press(
            &mut tree,
            &[Key::Backspace, Key::Backspace, Key::Char('5'), Key::Enter],
        );
        assert_eq!(key(&tree), "/d/5");
        press(&mut tree, &[Key::Tab, Key::Enter]);
        assert!(tree.history.is_some() && !tree.is_typing);
        press(&mut tree, &[Key::Escape]);
        assert!(tree.history.is_none() && tree.filter == "5");
        press(&mut tree, &[Key::Escape]);
        assert!(tree.filter.is_empty() && tree.side == Side::Keys);
        press(&mut tree, &[Key::Escape]);
        assert_eq!(tree.side, Side::Prefixes);
        assert_eq!(tree.press(Key::Escape), Then::Leave);
        assert_eq!(tree.press(Key::Char('q')), Then::Leave);
        press(&mut tree, &[Key::Char('/')]);
        assert_eq!(tree.press(Key::Interrupt), Then::Leave);
    }

    #[test]
    fn history_is_read_again_when_its_key_changes() {
        let mut tree = tree();
        assert_eq!(tree.wanted(), None);
        press(&mut tree, &[Key::Tab, Key::Enter]);
        assert_eq!(tree.wanted().as_deref(), Some(b"/a".as_slice()));
        assert_eq!(tree.wanted(), None, "it is under way");
        tree.take(&live(put("/a", "w", 0x67, 2)), NOW_MS);
        assert_eq!(tree.wanted(), None, "it is under way");
        tree.remember(b"/other", Past::Refused("late".to_owned()));
        tree.remember(b"/a", Past::Known(api::HistoryReply::default()));
        assert!(tree.wanted().is_some(), "it may be older than the change");
        tree.remember(b"/a", Past::Known(api::HistoryReply::default()));
        assert_eq!(tree.wanted(), None);
        press(&mut tree, &[Key::Escape]);
        assert_eq!(tree.wanted(), None);
    }

    #[test]
    fn empty_store_has_nothing_to_choose() {
        let mut tree = Tree::new(Bytes::from("/none/"), 100);
        let all = [
            Key::Down,
            Key::Right,
            Key::Enter,
            Key::End,
            Key::Tab,
            Key::Up,
            Key::PageDown,
        ];
        press(&mut tree, &all);
        assert_eq!(
            (prefix(&tree), key(&tree)),
            ("/none/".to_owned(), "none".to_owned())
        );
        assert!(tree.history.is_none());
    }

    #[test]
    fn filter_is_bounded() {
        let mut tree = tree();
        press(&mut tree, &[Key::Char('/')]);
        for _press in 0..500 {
            press(&mut tree, &[Key::Char('x')]);
        }
        assert_eq!(tree.filter.len(), FILTER_BYTES_MAX);
    }
}
