//! Policy: when entries of a store become final, and how much of its history is kept, as text that people
//! can read.
//!
//! ```text
//! /stores/{store}/retention   age {ms}             final entries are kept for this long
//!                             size {bytes}         and at most so many
//!                             hold {ms}            consumers keep them for this long at most
//!                             final-after {ms}     entries become final at this age
//!                             final-size {bytes}   or when there are more that are not
//!                             dormant-after {ms}   members without progress are waited for so long
//!                             dormant-size {bytes} or until they lack more
//! ```
//! A line that is left out stands for the default, and lines that are not known are ignored. An admin
//! writes the key, or the founder of the store. It decides what is removed and when, never what counts:
//! a value that is malformed, or another one on each node, harms nobody's data.

use std::str;

use bytes::Bytes;

use crate::{
    id::StoreId,
    protocol::finality::{Retention, StorePolicy},
};

/// When entries become final, and how many final ones a node keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// When an admin makes entries final.
    pub store: StorePolicy,
    /// How much of the logs each node keeps.
    pub retention: Retention,
}

impl HistoryPolicy {
    /// Returns the root-store key of the policy of `store`.
    pub fn key(store: &StoreId) -> Bytes {
        Bytes::from(format!("/stores/{store}/retention"))
    }

    /// Returns the policy as text: the lines that are not as by default.
    pub fn encode(&self) -> Bytes {
        let mut default = Self::default();
        let mut own = *self;
        let mut text = String::new();
        for (index, name) in LINES.iter().enumerate() {
            let value = *own.line(index);
            if value != *default.line(index) {
                text.push_str(&format!("{name} {value}\n"));
            }
        }
        Bytes::from(text)
    }

    /// Reads a policy. Lines that cannot be read stand for the default. A wait for members that is too short
    /// is raised to the least one.
    pub fn decode(value: &[u8]) -> Self {
        let mut policy = Self::default();
        for line in str::from_utf8(value).unwrap_or_default().lines() {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            if let Some(index) = LINES.iter().position(|it| *it == name)
                && let Ok(value) = value.parse()
            {
                *policy.line(index) = value;
            }
        }
        policy.raised()
    }

    /// Returns the policy with values that are low enough for members to be left behind at once raised.
    #[must_use]
    pub fn raised(mut self) -> Self {
        let store = &mut self.store;
        store.dormant_after_ms = store.dormant_after_ms.max(DORMANT_AFTER_MS_MIN);
        store.dormant_bytes = store.dormant_bytes.max(DORMANT_BYTES_MIN);
        self
    }

    fn line(&mut self, index: usize) -> &mut u64 {
        let (store, retention) = (&mut self.store, &mut self.retention);
        match index {
            0 => &mut retention.age_ms,
            1 => &mut retention.bytes,
            2 => &mut retention.hold_ms,
            3 => &mut store.final_after_ms,
            4 => &mut store.final_bytes,
            5 => &mut store.dormant_after_ms,
            _ => &mut store.dormant_bytes,
        }
    }
}

impl Default for HistoryPolicy {
    fn default() -> Self {
        Self {
            store: StorePolicy {
                final_after_ms: DAY_MS,
                final_bytes: 256 * MIB,
                dormant_after_ms: 7 * DAY_MS,
                dormant_bytes: 1024 * MIB,
            },
            retention: Retention {
                age_ms: 30 * DAY_MS,
                bytes: 1024 * MIB,
                hold_ms: 7 * DAY_MS,
            },
        }
    }
}

/// Members are waited for at least this long, in ms.
pub const DORMANT_AFTER_MS_MIN: u64 = 3_600_000;
/// Members are waited for as long as they lack no more than this, in bytes.
pub const DORMANT_BYTES_MIN: u64 = 16 * MIB;

const LINES: [&str; 7] = [
    "age",
    "size",
    "hold",
    "final-after",
    "final-size",
    "dormant-after",
    "dormant-size",
];
const DAY_MS: u64 = 86_400_000;
const MIB: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_as_it_was_written() {
        assert_eq!(HistoryPolicy::default().encode(), Bytes::new());
        for (index, name) in LINES.iter().enumerate() {
            let mut policy = HistoryPolicy::default();
            *policy.line(index) += 7 + index as u64;
            let text = policy.encode();
            let start = format!("{name} ");
            assert!(text.starts_with(start.as_bytes()), "{text:?}");
            assert_eq!(HistoryPolicy::decode(&text), policy);
        }
        let mut all = HistoryPolicy::default();
        for index in 0..LINES.len() {
            *all.line(index) = u64::MAX - index as u64;
        }
        assert_eq!(HistoryPolicy::decode(&all.encode()), all);
    }

    #[test]
    fn whatever_is_written_there_is_some_policy() {
        let default = HistoryPolicy::default();
        for text in [
            &b""[..],
            b"age",
            b"age -1\nsize x\nhold \n",
            b"\xff\xfe",
            b"age 18446744073709551616",
            b"keep 5\n\n\n",
        ] {
            assert_eq!(HistoryPolicy::decode(text), default, "{text:?}");
        }
        let low = HistoryPolicy::decode(b"dormant-after 0\ndormant-size 0\nsize 0\nage 0\nage 5");
        assert_eq!(low.store.dormant_after_ms, DORMANT_AFTER_MS_MIN);
        assert_eq!(low.store.dormant_bytes, DORMANT_BYTES_MIN);
        assert_eq!((low.retention.bytes, low.retention.age_ms), (0, 5));
    }
}
