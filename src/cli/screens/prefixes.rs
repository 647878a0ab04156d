//! The beginnings that keys have in common, split at `/`, with the number of keys below each.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// Numbers of keys below prefixes. All keys begin with the root.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    root: Box<[u8]>,
    // Number of keys.
    all: u64,
    // Prefixes that end with `/`, longer than the root. None has a count of 0.
    counts: BTreeMap<Box<[u8]>, u64>,
}

/// A prefix that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Branch {
    pub(crate) prefix: Box<[u8]>,
    /// Bytes of the prefix above it, which are shown there.
    pub(crate) above: usize,
    /// Number of prefixes above it, the root included.
    pub(crate) depth: usize,
    pub(crate) keys: u64,
    /// True if the prefixes below it are shown.
    pub(crate) is_open: bool,
    /// True if there are prefixes below it.
    pub(crate) has_below: bool,
}

impl Prefixes {
    /// Makes an empty tree of the keys that begin with `root`.
    pub(crate) fn new(root: &[u8]) -> Self {
        Self {
            root: root.into(),
            ..Self::default()
        }
    }

    /// Adds a key.
    pub(crate) fn add(&mut self, key: &[u8]) {
        self.all += 1;
        for end in ends(&self.root, key) {
            match self.counts.get_mut(&key[..end]) {
                Some(count) => *count += 1,
                None => {
                    self.counts.insert(key[..end].into(), 1);
                }
            }
        }
    }

    /// Returns the number of keys.
    pub(crate) fn keys(&self) -> u64 {
        self.all
    }

    /// Takes a key away that was added.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.all -= 1;
        for end in ends(&self.root, key) {
            let Some(count) = self.counts.get_mut(&key[..end]) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key[..end]);
            }
        }
    }

    /// Returns the root and the prefixes that are shown if those in `open` are open, in order.
    pub(crate) fn shown(&self, open: &BTreeSet<Box<[u8]>>) -> Vec<Branch> {
        let mut shown = vec![Branch {
            prefix: self.root.clone(),
            above: 0,
            depth: 0,
            keys: self.all,
            is_open: true,
            has_below: !self.counts.is_empty(),
        }];
        let mut next = self.after(Bound::Unbounded);
        while let Some((prefix, keys)) = next {
            let mut after = self.after(Bound::Excluded(prefix));
            let has_below = after.is_some_and(|(below, _)| below.starts_with(prefix));
            let is_open = open.contains(prefix);
            if has_below && !is_open {
                after = self.after(Bound::Included(&end_of(prefix)));
            }
            let (depth, above) = self.place(prefix);
            shown.push(Branch {
                prefix: prefix.into(),
                above,
                depth,
                keys,
                is_open: is_open && has_below,
                has_below,
            });
            next = after;
        }
        shown
    }

    /// Returns the prefix above another one; `None` for the root.
    pub(crate) fn above(&self, prefix: &[u8]) -> Option<Box<[u8]>> {
        let ends: Vec<usize> = ends(&self.root, prefix).collect();
        match ends[..] {
            [] => None,
            [_only] => Some(self.root.clone()),
            [.., above, _own] => Some(prefix[..above].into()),
        }
    }

    fn after(&self, from: Bound<&[u8]>) -> Option<(&[u8], u64)> {
        let mut rest = self.counts.range::<[u8], _>((from, Bound::Unbounded));
        rest.next().map(|(prefix, keys)| (&**prefix, *keys))
    }

    // Returns the number of prefixes above one, and the length of the one just above.
    fn place(&self, prefix: &[u8]) -> (usize, usize) {
        let ends: Vec<usize> = ends(&self.root, prefix).collect();
        let above = ends.iter().rev().nth(1).copied();
        (ends.len(), above.unwrap_or(self.root.len()))
    }
}

/// Returns the first bytes that are greater than all that begin with `prefix`, which ends with `/`.
pub(crate) fn end_of(prefix: &[u8]) -> Box<[u8]> {
    let mut end: Box<[u8]> = prefix.into();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

// Returns the lengths of the prefixes of a key that are longer than the root. A `/` that the key begins with
// ends none.
fn ends(root: &[u8], key: &[u8]) -> impl Iterator<Item = usize> {
    let begin = root.len().max(1).min(key.len());
    let ends = memchr::memchr_iter(b'/', &key[begin..]);
    ends.take(DEPTH_MAX).map(move |at| begin + at + 1)
}

/// Prefixes of a key that are counted: a key may have thousands of `/`.
const DEPTH_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(root: &str, keys: &[&str]) -> Prefixes {
        let mut tree = Prefixes::new(root.as_bytes());
        keys.iter().for_each(|key| tree.add(key.as_bytes()));
        tree
    }

    // Returns the prefixes that are shown, indented, each with its mark and number of keys.
    fn shown(tree: &Prefixes, open: &[&str]) -> Vec<String> {
        let open = open.iter().map(|prefix| prefix.as_bytes().into()).collect();
        let shown = tree.shown(&open);
        let draw = |branch: &Branch| {
            let mark = match (branch.has_below, branch.is_open) {
                (true, true) => '-',
                (true, false) => '+',
                (false, _) => ' ',
            };
            let name = String::from_utf8_lossy(&branch.prefix[branch.above..]);
            format!("{}{mark}{name} {}", " ".repeat(branch.depth), branch.keys)
        };
        shown.iter().map(draw).collect()
    }

    const KEYS: [&str; 7] = ["/a", "/b/1", "/b/2", "/b/c/3", "/b/c/d/4", "/e/5", "/f/"];

    #[test]
    fn keys_are_counted_below_each_of_their_prefixes() {
        let tree = tree("", &KEYS);
        assert_eq!(shown(&tree, &[]), ["- 7", " +/b/ 4", "  /e/ 1", "  /f/ 1"]);
        assert_eq!(
            shown(&tree, &["/b/", "/b/c/", "/e/"]),
            [
                "- 7", " -/b/ 4", "  -c/ 2", "    d/ 1", "  /e/ 1", "  /f/ 1"
            ]
        );
        // An open prefix below a closed one stays hidden.
        assert_eq!(shown(&tree, &["/b/c/"]).len(), 4);
        assert_eq!(tree.above(b"/b/c/d/"), Some(b"/b/c/".as_slice().into()));
        assert_eq!(tree.above(b"/b/"), Some(b"".as_slice().into()));
        assert_eq!(tree.above(b""), None);
    }

    #[test]
    fn root_may_end_anywhere() {
        assert_eq!(shown(&tree("/b/", &KEYS[1..5]), &[]), ["-/b/ 4", " +c/ 2"]);
        assert_eq!(
            shown(&tree("/b", &KEYS[1..5]), &["/b/"]),
            ["-/b 4", " -/ 4", "  +c/ 2"]
        );
        assert_eq!(shown(&tree("/", &["/", "/x"]), &[]), [" / 2"]);
        assert_eq!(shown(&tree("", &["plain", "a/b"]), &[]), ["- 2", "  a/ 1"]);
    }

    #[test]
    fn prefix_without_keys_is_gone() {
        let mut tree = tree("/", &KEYS);
        for key in KEYS {
            tree.remove(key.as_bytes());
        }
        assert_eq!(shown(&tree, &["/b/"]), [" / 0"]);
        assert!(tree.counts.is_empty());
    }

    #[test]
    fn key_with_many_parts_has_few_prefixes() {
        let tree = tree("", &["/".repeat(4096).as_str()]);
        assert_eq!(tree.counts.len(), DEPTH_MAX);
    }
}
