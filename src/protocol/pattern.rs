//! Which keys a watch is about: prefixes and simple globs.
//!
//! In a pattern `*` is any run of bytes but `/`, `**` any run, `?` one byte but `/`, and `\` takes
//! the byte after it as it is. A pattern is about whole keys: `/jobs/*` is not about `/jobs/1/done`.

use std::fmt;

use bytes::Bytes;

use crate::limits::PATTERN_BYTES_MAX;

/// A glob over keys, in time of key times pattern at most.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Bytes,
    // Bytes before the first wildcard: every matching key begins with them.
    head: Bytes,
    // From the first wildcard on.
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

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No key is empty.
    #[error("a pattern of no bytes matches no key")]
    Empty,
    /// Longer than any use of it.
    #[error("a pattern has at most {bytes_max} bytes; this one has {bytes}")]
    TooLong {
        /// Length of the pattern.
        bytes: usize,
        /// Longest pattern that is accepted.
        bytes_max: usize,
    },
    /// The last byte takes one after it as it is, and there is none.
    #[error("a pattern does not end with a single \\: write \\\\ for the byte itself")]
    Unfinished,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// `PatternError`.
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

    /// Returns it as it was given.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// Returns what every key begins with that it matches: what comes before the first wildcard.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// True when it is about `key`.
    pub fn matches(&self, key: &[u8]) -> bool {
        let Some(key) = key.strip_prefix(self.head.as_ref()) else {
            return false;
        };
        // True where the bytes so far match the tokens before. A star is also passed by nothing.
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

/// Returns the shortest of `prefixes` that together cover all of them, in order: no key begins with
/// two.
pub fn cover(prefixes: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    let mut sorted: Vec<Bytes> = prefixes.into_iter().collect();
    sorted.sort();
    // In sorted order the prefixes that another one covers come right after it.
    sorted.dedup_by(|later, kept| later.starts_with(kept));
    sorted
}

/// Returns the longest prefix of all of `prefixes`; of none, the empty one.
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

    // Follows the rules literally, one byte of the pattern after the other.
    fn literal(pattern: &[u8], key: &[u8]) -> bool {
        match (pattern, key) {
            ([], key) => key.is_empty(),
            ([b'*', b'*', rest @ ..], key) => {
                (0..=key.len()).any(|taken| literal(rest, &key[taken..]))
            }
            ([b'*', rest @ ..], key) => {
                let run = key.iter().take_while(|byte| **byte != b'/').count();
                (0..=run).any(|taken| literal(rest, &key[taken..]))
            }
            ([b'?', rest @ ..], [byte, key @ ..]) => *byte != b'/' && literal(rest, key),
            ([b'\\', own, rest @ ..], [byte, key @ ..]) | ([own, rest @ ..], [byte, key @ ..]) => {
                own == byte && literal(rest, key)
            }
            (_some, []) => false,
        }
    }

    #[test]
    fn stars_stop_at_a_slash_and_two_do_not() {
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
    fn the_head_is_what_comes_before_the_first_wildcard() {
        let head = |pattern: &'static str| Pattern::new(pattern).unwrap().head().clone();
        assert_eq!(head("/jobs/*/done"), "/jobs/");
        assert_eq!(head(r"/a\*b?"), "/a*b");
        assert_eq!(head("**"), "");
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_numbers() {
        assert_eq!(Pattern::new(""), Err(PatternError::Empty));
        assert_eq!(Pattern::new(r"/a\"), Err(PatternError::Unfinished));
        let bytes = PATTERN_BYTES_MAX + 1;
        let bytes_max = PATTERN_BYTES_MAX;
        assert_eq!(
            Pattern::new("*".repeat(bytes)),
            Err(PatternError::TooLong { bytes, bytes_max })
        );
    }

    // A matcher that tries all ways would not be done before the sun is.
    #[test]
    fn the_worst_pattern_takes_no_longer_than_key_times_pattern() {
        let pattern = Pattern::new("*a**a".repeat(PATTERN_BYTES_MAX / 5)).unwrap();
        let mut key = vec![b'a'; 4095];
        key.push(b'b');
        assert!(!pattern.matches(&key));
    }

    #[test]
    fn prefixes_that_others_cover_are_left_out() {
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
        fn matches_what_the_rules_tell(
            pattern in r"([ab/*?]|\*\*|\\[*?\\a]){1,9}",
            key in r"[ab/*?\\]{0,9}",
        ) {
            let parsed = Pattern::new(pattern.clone()).unwrap();
            prop_assert_eq!(parsed.matches(key.as_bytes()), literal(pattern.as_bytes(), key.as_bytes()));
            if parsed.matches(key.as_bytes()) {
                prop_assert!(key.as_bytes().starts_with(parsed.head()));
            }
        }
    }
}
