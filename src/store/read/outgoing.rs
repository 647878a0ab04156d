//! Entries for a peer: those that it is missing, in the order that all nodes share.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    id::{Author, Seq},
    log::{
        Pruned,
        merge::{Merge, Merged, parts},
    },
    pace::Pace,
    protocol::frontier::{FrontierTip, MissingRange},
    store::{ReadError, Store},
};

/// Encoded entries of some ranges, causes before effects, so that no entry waits for another one at
/// the peer.
///
/// Reads files: not for an event loop.
#[derive(Debug)]
pub struct Outgoing {
    merge: Merge,
    pruned: Option<Pruned>,
}

impl Store {
    /// Begins to read `ranges` for a peer. A range that this node does not have is left out; so is one
    /// of which entries were removed here, see `Outgoing::pruned`.
    ///
    /// Reads files: not for an event loop.
    ///
    /// # Errors
    /// `Io`.
    pub fn outgoing(&self, ranges: &[MissingRange]) -> Result<Outgoing, ReadError> {
        let mut of_author: BTreeMap<Author, Vec<(Seq, FrontierTip)>> = BTreeMap::new();
        for range in ranges {
            let tip = FrontierTip {
                seq: range.through,
                id: range.tip,
            };
            let ranges = of_author.entry(range.author).or_default();
            ranges.push((range.after, tip));
        }
        let (mut spans, mut pruned, log) = (Vec::new(), None, &self.shared.log);
        for (author, ranges) in of_author {
            for (after, _tip) in &ranges {
                pruned = pruned.or_else(|| log.pruned_at(&author, after.saturating_add(1)));
            }
            // A damaged range is sent by another peer.
            spans.append(&mut parts(log, &author, &ranges)?);
        }
        Ok(Outgoing {
            merge: Merge::new(spans)?,
            pruned,
        })
    }
}

impl Outgoing {
    /// Returns entries that were asked for and are left out because they were removed here, those of
    /// the first such range; `None` when there are none.
    pub fn pruned(&self) -> Option<&Pruned> {
        self.pruned.as_ref()
    }

    /// Returns the next entries, of about `bytes_max` bytes and at least one; none at the end.
    ///
    /// # Errors
    /// `Io`. A damaged record is left out: the peer gets it from another peer.
    pub fn next_frame(&mut self, bytes_max: usize) -> Result<Vec<Bytes>, ReadError> {
        let (mut frame, mut bytes) = (Vec::new(), 0);
        let mut pace = Pace::start();
        while bytes < bytes_max {
            pace.step();
            match self.merge.next()? {
                None => break,
                Some(Merged::Damage(_)) => {}
                Some(Merged::Entry { encoded, .. }) => {
                    bytes += encoded.len();
                    frame.push(encoded);
                }
            }
        }
        Ok(frame)
    }
}
