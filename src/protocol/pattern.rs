//! Patterns: globs over keys, and sets of key prefixes.
//!
//! Keys are bytes; `/` is the only separator. In a pattern `?` matches one byte except `/`, `*`
//! matches any number of bytes except `/` (also none), `**` (two stars or more) matches any number
//! of any bytes, and `\` followed by a byte matches that byte. Every other byte matches itself. A
//! pattern must match the whole key: `/jobs/*` matches `/jobs/1` but not `/jobs/1/done`. A match
//! takes time proportional to the length of the key times that of the pattern, at most.

use std::fmt;

use bytes::Bytes;

use crate::limits::PATTERN_BYTES_MAX;

/// A glob over keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Bytes,
    // Bytes before the first wildcard, without escapes: every matching key begins with them.
    head: Bytes,
    // Tokens from the first wildcard on.
    rest: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Run,
    /// `**`
    AnyRun,
}

/// Why a text is refused as a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The text is empty; no key is empty.
    #[error("an empty pattern matches no key")]
    Empty,
    /// The text is longer than `PATTERN_BYTES_MAX`.
    #[error("the pattern has {bytes} bytes; the limit is {bytes_max}")]
    TooLong {
        /// Length of the text, in bytes.
        bytes: usize,
        /// Greatest length allowed, in bytes.
        bytes_max: usize,
    },
    /// The text ends with an unescaped `\`.
    #[error("the pattern ends with a single \\: write \\\\ for a backslash")]
    Unfinished,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// `Empty` for an empty text; `TooLong` above `PATTERN_BYTES_MAX` bytes; `Unfinished` if the
    /// text ends with an unescaped `\`.
    pub fn new(text: impl Into<Bytes>) -> Result<Self, PatternError> {
        let text = text.into();
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong {
                bytes: text.len(),
                bytes_max: PATTERN_BYTES_MAX,
            });
        }
        let (mut head, mut rest) = (Vec::new(), Vec::new());
        let mut bytes = text.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            let token = match byte {
                b'\\' => Token::Byte(bytes.next().ok_or(PatternError::Unfinished)?),
                b'?' => Token::One,
                b'*' => {
                    let mut run = Token::Run;
                    while bytes.next_if_eq(&b'*').is_some() {
                        run = Token::AnyRun;
                    }
                    run
                }
                byte => Token::Byte(byte),
            };
            if let Token::Byte(byte) = token
                && rest.is_empty()
            {
                head.push(byte);
            } else {
                rest.push(token);
            }
        }
        Ok(Self {
            text,
            head: head.into(),
            rest,
        })
    }

    /// Returns the text that the pattern was parsed from.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// Returns the bytes before the first wildcard, without escapes: every matching key begins with
    /// them.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// Returns whether the pattern matches all of `key`.
    pub fn matches(&self, key: &[u8]) -> bool {
        let Some(key) = key.strip_prefix(self.head.as_ref()) else {
            return false;
        };
        // `states[i]`: whether the bytes so far match the tokens before token `i`. A star can match
        // no byte, so a state can move past it without one. `reached` is the same for the end of
        // the pattern.
        let mut states = Vec::with_capacity(self.rest.len());
        let mut reached = true;
        for token in &self.rest {
            states.push(reached);
            reached &= token.is_run();
        }
        for byte in key {
            reached = false;
            for (state, token) in states.iter_mut().zip(&self.rest) {
                let taken = *state && token.takes(*byte);
                let stays = taken && token.is_run();
                *state = stays || reached;
                reached = if token.is_run() { *state } else { taken };
            }
        }
        reached
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Token {
    fn is_run(self) -> bool {
        matches!(self, Self::Run | Self::AnyRun)
    }

    fn takes(self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => own == byte,
            Self::One | Self::Run => byte != b'/',
            Self::AnyRun => true,
        }
    }
}

/// Returns the smallest subset of `prefixes` that covers all of them, sorted: no key begins with
/// two of its prefixes.
pub fn cover(prefixes: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    let mut sorted: Vec<Bytes> = prefixes.into_iter().collect();
    sorted.sort();
    // In sorted order the prefixes that one prefix covers directly follow it.
    sorted.dedup_by(|later, kept| later.starts_with(kept));
    sorted
}

/// Returns the longest common prefix of `prefixes`; empty if there are none.
pub fn common_prefix(prefixes: &[Bytes]) -> Bytes {
    let Some(first) = prefixes.first() else {
        return Bytes::new();
    };
    let shared = |other: &Bytes| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let bytes = prefixes.iter().map(shared).min().unwrap_or(0);
    first.slice(..bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &'static str, key: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(key.as_bytes())
    }

    // The rules of the module doc, written as a recursion over the pattern.
    fn by_rules(pattern: &[u8], key: &[u8]) -> bool {
        match (pattern, key) {
            ([], key) => key.is_empty(),
            ([b'*', b'*', rest @ ..], key) => {
                (0..=key.len()).any(|taken| by_rules(rest, &key[taken..]))
            }
            ([b'*', rest @ ..], key) => {
                let run = key.iter().take_while(|byte| **byte != b'/').count();
                (0..=run).any(|taken| by_rules(rest, &key[taken..]))
            }
            ([b'?', rest @ ..], [byte, key @ ..]) => *byte != b'/' && by_rules(rest, key),
            ([b'\\', own, rest @ ..], [byte, key @ ..]) | ([own, rest @ ..], [byte, key @ ..]) => {
                own == byte && by_rules(rest, key)
            }
            (_some, []) => false,
        }
    }

    #[test]
    fn one_star_stops_at_a_slash_and_two_do_not() {
        assert!(matches("/jobs/*/done", "/jobs/7/done"));
        assert!(matches("/jobs/*/done", "/jobs//done"));
        assert!(!matches("/jobs/*/done", "/jobs/7/8/done"));
        assert!(!matches("/jobs/*/done", "/jobs/7/done/"));
        assert!(matches("/jobs/**/done", "/jobs/7/8/done"));
        assert!(!matches("/jobs/**/done", "/jobs/done"));
        assert!(matches("/j?b", "/job"));
        assert!(!matches("/j?b", "/j/b"));
        assert!(!matches("/j?b", "/jb"));
        assert!(matches("/a", "/a"));
        assert!(!matches("/a", "/ab"));
        assert!(matches("**", "/any/thing"));
        assert!(matches(r"/\*\?\\", r"/*?\"));
        assert!(!matches(r"/\*", "/a"));
    }

    #[test]
    fn head_ends_at_the_first_wildcard() {
        let head = |pattern: &'static str| Pattern::new(pattern).unwrap().head().clone();
        assert_eq!(head("/jobs/*/done"), "/jobs/");
        assert_eq!(head(r"/a\*b?"), "/a*b");
        assert_eq!(head("**"), "");
    }

    #[test]
    fn invalid_pattern_is_refused() {
        assert_eq!(Pattern::new(""), Err(PatternError::Empty));
        assert_eq!(Pattern::new(r"/a\"), Err(PatternError::Unfinished));
        let bytes = PATTERN_BYTES_MAX + 1;
        let bytes_max = PATTERN_BYTES_MAX;
        assert_eq!(
            Pattern::new("*".repeat(bytes)),
            Err(PatternError::TooLong { bytes, bytes_max })
        );
    }

    // A matcher that backtracks would take exponential time for this pattern.
    #[test]
    fn worst_pattern_takes_key_times_pattern_steps() {
        let pattern = Pattern::new("*a**a".repeat(PATTERN_BYTES_MAX / 5)).unwrap();
        let mut key = vec![b'a'; 4095];
        key.push(b'b');
        assert!(!pattern.matches(&key));
    }

    #[test]
    fn covered_prefixes_are_left_out() {
        let prefixes = |all: &[&'static str]| -> Vec<Bytes> {
            all.iter().map(|prefix| Bytes::from(*prefix)).collect()
        };
        let covered = |all: &[&'static str]| cover(prefixes(all));
        assert_eq!(covered(&["/b/", "/a", "/a/1", "/b/", "/a"]), ["/a", "/b/"]);
        assert_eq!(covered(&["/a", ""]), [""]);
        assert_eq!(covered(&[]), Vec::<Bytes>::new());
        assert_eq!(common_prefix(&prefixes(&["/jobs/a", "/jobs/b"])), "/jobs/");
        assert_eq!(common_prefix(&[]), "");
    }

    proptest! {
        #[test]
        fn matcher_agrees_with_the_rules(
            pattern in r"([ab/*?]|\*\*|\\[*?\\a]){1,9}",
            key in r"[ab/*?\\]{0,9}",
        ) {
            let parsed = Pattern::new(pattern.clone()).unwrap();
            let expected = by_rules(pattern.as_bytes(), key.as_bytes());
            prop_assert_eq!(parsed.matches(key.as_bytes()), expected);
            if parsed.matches(key.as_bytes()) {
                prop_assert!(key.as_bytes().starts_with(parsed.head()));
            }
        }
    }
}
