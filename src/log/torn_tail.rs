//! The torn-tail rule: where a log ends after a crash, and which bytes before that are damage.
//!
//! Each frame names the length of its file that was durable when the frame was written. The durable
//! end is the largest of these lengths and of the one in the state's mark. Bytes before the durable
//! end may have been acknowledged: they are never cut. Bytes from there on were not: the first that
//! cannot be read ends the log.
//!
//! The rule is pure. `recover` reads a file into a `Seen`, `split` decides, and `recover` checks
//! the records in doubt and shortens the file.

use std::ops::Range;

use bytes::Bytes;

use crate::{id::Seq, limits::INDEX_EVERY_BYTES, log::record::Record};

/// A run of bytes in which no record of the log's author can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadRun {
    pub(super) offset: u64,
    /// At least 1.
    pub(super) bytes: u64,
}

impl BadRun {
    fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// The records and bad bytes of a file behind its mark, without payloads.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Sound frames of the log's author, seals included, by offset. Those that no question needs
    /// are left out; see `thin`.
    pub(super) records: Vec<Record>,
    // By offset; no two touch.
    bad: Vec<BadRun>,
    // The largest length that a frame names as durable.
    synced: u64,
    // End of the last frame of another author; 0 without any. It counts as durable: such a frame
    // got here by mistake, and entries are never cut, whoever wrote them.
    foreign: u64,
}

/// The end of a log in its file, and the bytes that are not sure to be part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Split {
    /// Offset where the log ends if all records in doubt are whole. Not before the durable end.
    pub(super) end: u64,
    /// Bytes before the durable end that cannot be read: kept and reported.
    pub(super) damaged: Vec<BadRun>,
    /// Indices of the records between the durable end and `end`. Their frames are sound; their
    /// payloads may not have reached the disk. The first one whose payload did not ends the log.
    pub(super) doubtful: Range<usize>,
}

/// Splits a file of `len` bytes at `durable`: damage lies before it, a torn tail after it.
///
/// ```text
/// R record   s seal   b bad bytes, or zeros   | durable end   ^ end of the log
///
/// RRR|RR^      all is whole; the last two records are in doubt
/// RRs|^        a clean close
/// RbR|R^       damage before the durable end: reported, kept, passed over
/// RRR|R^bRR    a torn tail: the first bad byte ends the log, whatever follows it
/// RRR|^bbb     room that was never used, or the first write after the last sync
/// RRb|^bRR     bad bytes across the durable end: damage before it, a torn tail after it
/// ```
pub(super) fn split(seen: &Seen, durable: u64, len: u64) -> Split {
    let mut end = len;
    let mut damaged = Vec::new();
    for run in &seen.bad {
        if run.offset < durable {
            damaged.push(BadRun {
                offset: run.offset,
                bytes: run.end().min(durable) - run.offset,
            });
        }
        if run.end() > durable {
            end = end.min(run.offset.max(durable));
        }
    }
    let before = |limit| {
        seen.records
            .partition_point(|record: &Record| record.offset < limit)
    };
    Split {
        end,
        damaged,
        doubtful: before(durable)..before(end),
    }
}

impl Seen {
    /// Adds a frame of the log's author. Call it by offset.
    pub(super) fn add(&mut self, mut record: Record) {
        record.payload = Bytes::new();
        self.synced = self.synced.max(record.header.synced);
        self.records.push(record);
    }

    /// Adds a frame of another author.
    pub(super) fn add_foreign(&mut self, record: &Record) {
        let bytes = record.header.frame_bytes() as u64;
        self.add_bad(record.offset, bytes);
        self.foreign = record.offset + bytes;
    }

    /// Adds bytes that are no frame. Runs that touch become one.
    pub(super) fn add_bad(&mut self, offset: u64, bytes: u64) {
        match self.bad.last_mut() {
            Some(last) if last.end() == offset => last.bytes += bytes,
            _apart => self.bad.push(BadRun { offset, bytes }),
        }
    }

    /// Returns the durable end of a file of `len` bytes, of which `marked` were durable by its
    /// mark.
    pub(super) fn durable_end(&self, marked: u64, len: u64) -> u64 {
        marked.max(self.foreign).max(self.synced).min(len)
    }

    /// Returns the place of the last record before `offset`; `None` when there is none.
    pub(super) fn seq_before(&self, offset: u64) -> Option<Seq> {
        let before = self.records.iter().rev();
        let mut before = before.filter(|record| record.offset < offset);
        before.next().map(|record| record.header.seq)
    }

    /// Forgets records that are surely durable and that no question needs, so that a log of any
    /// length takes little memory.
    ///
    /// These stay: the first entry; entries that become index points, after the one at `indexed`;
    /// seals; and each record before a seal, before bad bytes, or before a record that may not be
    /// durable.
    pub(super) fn thin(&mut self, mut indexed: Option<u64>) {
        let dull = |pair: &[Record]| match pair {
            [record, next] => {
                !record.header.seal
                    && !next.header.seal
                    && record.end() == next.offset
                    && next.offset < self.synced
            }
            _last => false,
        };
        let last = self.records.len().saturating_sub(1);
        let mut dull: Vec<bool> = self.records.windows(2).map(dull).collect();
        dull.resize(last + 1, false);
        let mut dull = dull.into_iter();
        let mut entries = 0;
        self.records.retain(|record| {
            let is_dull = dull.next().unwrap_or(false);
            if record.header.seal {
                return true;
            }
            entries += 1;
            let point = is_point(indexed, record.offset);
            if point {
                indexed = Some(record.offset);
            }
            !is_dull || point || entries == 1
        });
    }
}

/// True when a record at `offset` becomes a point of the index, whose last one is at `indexed`.
pub(super) fn is_point(indexed: Option<u64>, offset: u64) -> bool {
    indexed.is_none_or(|at| offset >= at + INDEX_EVERY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{Author, EntryId},
        log::frame::{FRAME_HEADER_BYTES, FrameHeader},
        protocol::hlc::Hlc,
    };

    // Bytes of every record, and of every other piece of a picture.
    const PIECE: u64 = 1000;

    fn record(offset: u64, seq: Seq, synced: u64, seal: bool) -> Record {
        Record {
            offset,
            header: FrameHeader {
                length: u32::try_from(PIECE).unwrap() - u32::try_from(FRAME_HEADER_BYTES).unwrap(),
                seq,
                synced,
                arrived_ms: 0,
                hlc: Hlc::ZERO,
                author: Author([7; 32]),
                id: EntryId([9; 32]),
                seal,
            },
            payload: Bytes::new(),
        }
    }

    fn seen(pieces: &[u8]) -> Seen {
        let mut seen = Seen::default();
        for (piece, offset) in pieces.iter().zip((0..).step_by(1000)) {
            match piece {
                b'R' => seen.add(record(offset, 1, 0, false)),
                b's' => seen.add(record(offset, 1, 0, true)),
                _bad => seen.add_bad(offset, PIECE),
            }
        }
        seen
    }

    /// The picture in the doc of `split`: `|` is where it is cut, `^` where the log has to end.
    #[test]
    fn pictures_of_the_rule_hold() {
        for (picture, damaged, doubtful) in [
            ("RRR|RR^", 0, 2),
            ("RRs|^", 0, 0),
            ("RbR|R^", 1, 1),
            ("RRR|R^bRR", 0, 1),
            ("RRR|^bbb", 0, 0),
            ("RRb|^bRR", 1, 0),
            ("|^", 0, 0),
            ("|^bR", 0, 0),
            ("bRb|R^bR", 2, 1),
        ] {
            let place = |mark| {
                let before = picture.split(mark).next().unwrap();
                before.matches(['R', 's', 'b']).count() as u64 * PIECE
            };
            let pieces: Vec<u8> = picture.bytes().filter(|it| !b"|^".contains(it)).collect();
            let split = split(&seen(&pieces), place('|'), pieces.len() as u64 * PIECE);
            assert_eq!(split.end, place('^'), "{picture}");
            assert_eq!(split.damaged.len(), damaged, "{picture}");
            assert_eq!(split.doubtful.len(), doubtful, "{picture}");
        }
    }

    /// All files of up to seven pieces, cut at every piece and inside every bad one.
    #[test]
    fn split_keeps_its_laws_in_all_small_files() {
        let mut files: Vec<Vec<u8>> = vec![Vec::new()];
        let mut cases = 0;
        for _length in 0..=7 {
            for file in &files {
                let len = file.len() as u64 * PIECE;
                let halves =
                    (0..=2 * file.len()).filter(|half| half % 2 == 0 || file[half / 2] == b'b');
                for half in halves {
                    laws(file, half as u64 * PIECE / 2, len);
                    cases += 1;
                }
            }
            let longer = |file: &Vec<u8>| b"Rsb".map(|piece| [&file[..], &[piece]].concat());
            files = files.iter().flat_map(longer).collect();
        }
        assert!(cases > 30_000, "{cases} cases");
    }

    fn laws(file: &[u8], durable: u64, len: u64) {
        let seen = seen(file);
        let split = split(&seen, durable, len);
        let case = format!("{} at {durable}: {split:?}", String::from_utf8_lossy(file));
        let is_bad = |offset: u64| {
            let piece = usize::try_from(offset / PIECE).unwrap();
            file.get(piece) == Some(&b'b')
        };
        // Nothing durable is cut, and the log ends only at bad bytes or with the file.
        assert!((durable..=len).contains(&split.end), "{case}");
        assert!(split.end == len || is_bad(split.end), "{case}");
        // Half a piece is the finest place that a case has.
        for offset in (0..len).step_by(500) {
            let is_damaged = split
                .damaged
                .iter()
                .any(|run| (run.offset..run.end()).contains(&offset));
            assert_eq!(is_damaged, is_bad(offset) && offset < durable, "{case}");
            assert!(
                !(durable..split.end).contains(&offset) || !is_bad(offset),
                "{case}"
            );
        }
        for (index, record) in seen.records.iter().enumerate() {
            let in_doubt = (durable..split.end).contains(&record.offset);
            assert_eq!(split.doubtful.contains(&index), in_doubt, "{case}");
        }
    }

    #[test]
    fn durable_end_is_the_furthest_that_is_known() {
        let mut seen = Seen::default();
        seen.add(record(0, 1, 0, false));
        assert_eq!(seen.durable_end(0, 5000), 0);
        assert_eq!(seen.durable_end(700, 5000), 700);
        seen.add(record(1000, 2, 1000, false));
        assert_eq!(seen.durable_end(700, 5000), 1000);
        assert_eq!(seen.durable_end(1500, 5000), 1500);
        seen.add_foreign(&record(2000, 9, 4000, false));
        assert_eq!(seen.durable_end(0, 5000), 3000, "what it names is not ours");
        assert_eq!(seen.durable_end(0, 2500), 2500);
    }

    // Entries of 1000 bytes in groups of eight; a seal after 500, bad bytes before 700.
    #[test]
    fn thinning_a_long_log_keeps_what_is_needed() {
        let mut seen = Seen::default();
        let (mut offset, mut synced) = (0, 0);
        for seq in 1..=1000 {
            if seq % 8 == 1 {
                synced = offset;
            }
            if seq == 700 {
                offset += 50;
            }
            seen.add(record(offset, seq, synced, false));
            offset += 1000;
            if seq == 500 {
                seen.add(record(offset, seq, synced, true));
                offset += 1000;
            }
        }
        let points = |seen: &Seen| {
            let mut indexed = None;
            let entries = seen.records.iter().filter(|record| !record.header.seal);
            let mut points: Vec<Seq> = Vec::new();
            for record in entries {
                if is_point(indexed, record.offset) {
                    indexed = Some(record.offset);
                    points.push(record.header.seq);
                }
            }
            points
        };
        let all_points = points(&seen);
        assert!(all_points.len() > 10);
        seen.thin(None);
        assert_eq!(points(&seen), all_points);
        let seqs: Vec<Seq> = seen
            .records
            .iter()
            .map(|record| record.header.seq)
            .collect();
        // The last group is not known to be durable: it stays, and so does the record before it.
        let mut kept = [1, 500, 699].into_iter().chain(992..=1000);
        assert!(kept.all(|seq| seqs.contains(&seq)), "{seqs:?}");
        assert_eq!(
            seqs.iter().filter(|seq| **seq == 500).count(),
            2,
            "{seqs:?}"
        );
        assert!(seqs.len() < all_points.len() + 14, "{seqs:?}");
        let before = seqs.clone();
        seen.thin(None);
        let again: Vec<Seq> = seen
            .records
            .iter()
            .map(|record| record.header.seq)
            .collect();
        assert_eq!(again, before, "nothing more goes");
    }
}
