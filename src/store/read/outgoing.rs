//! Entries for a peer: those that it is missing, in the order that all nodes share.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::Seq,
    log::{
        Branch, LogError, Stretch,
        merge::{Merge, Merged, Span},
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
}

impl Store {
    /// Begins to read `ranges` for a peer. A range that this node does not have, or no longer has,
    /// is left out.
    ///
    /// Reads files: not for an event loop.
    ///
    /// # Errors
    /// `Io`.
    pub fn outgoing(&self, ranges: &[MissingRange]) -> Result<Outgoing, ReadError> {
        let mut spans: Vec<Span> = Vec::new();
        for range in ranges {
            self.spans_of(range, &mut spans)?;
        }
        Ok(Outgoing {
            merge: Merge::new(spans)?,
        })
    }

    // A damaged range is sent as far as it can be read; the peer gets the rest from another peer.
    fn spans_of(&self, range: &MissingRange, spans: &mut Vec<Span>) -> Result<(), LogError> {
        let tip = FrontierTip {
            seq: range.through,
            id: range.tip,
        };
        let descent = match self.shared.log.descent(&range.author, tip) {
            Ok(descent) => descent,
            Err(LogError::Damaged(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        for Stretch { branch, through } in descent {
            if through <= range.after {
                break;
            }
            let after = range.after.max(branch.first.saturating_sub(1));
            widen(spans, &branch, after, through);
        }
        Ok(())
    }
}

// Two ranges of a forked author share their beginning.
fn widen(spans: &mut Vec<Span>, branch: &Arc<Branch>, after: Seq, through: Seq) {
    match spans
        .iter_mut()
        .find(|span| Arc::ptr_eq(&span.branch, branch))
    {
        Some(span) => {
            span.after = span.after.min(after);
            span.through = span.through.max(through);
        }
        None => spans.push(Span {
            branch: Arc::clone(branch),
            after,
            through,
        }),
    }
}

impl Outgoing {
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
