//! Opening a log after whatever happened: where its durable part ends, what is torn, what is
//! damaged.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, RwLock},
};

use crate::{
    disk::{Disk, DiskFile, Open},
    id::{Author, EntryId, Seq},
    limits::{INDEX_EVERY_BYTES, REPLAY_CHUNK_BYTES},
    log::{
        Branch, IndexPoint, LogDamage, LogError, Logs, LostTail, Mark, Shape,
        error::refused,
        frame::FrameHeader,
        logs::{file_name, parse_file_name},
        lost_tail,
        mark::seal_before,
        record::{Record, Step, Walk},
        writer::Writer,
    },
    protocol::{chain::Tip, hlc::Hlc},
};

/// What opening the logs found and mended.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Tails that were cut: never acknowledged. File name and bytes.
    pub torn: Vec<(String, u64)>,
    /// Durable parts that cannot be read.
    pub damage: Vec<LogDamage>,
    /// Branches whose end is gone.
    pub lost_tails: Vec<LostTail>,
}

impl Logs {
    /// Opens the logs in `dir`, which is made where it is missing.
    ///
    /// `marks` is what the state knows of them: records before a mark's end are not read. Torn
    /// tails are cut, bytes not known to be durable are made so.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        marks: &[Mark],
    ) -> Result<(Self, Recovered), LogError> {
        open(disk, dir, marks)
    }
}

fn open(disk: Arc<dyn Disk>, dir: &Path, marks: &[Mark]) -> Result<(Logs, Recovered), LogError> {
    let name_of_dir = dir.display().to_string();
    let dir_error = |source| LogError::Io {
        file: name_of_dir.clone(),
        source,
    };
    disk.create_dir(dir).map_err(dir_error)?;
    let marks: BTreeMap<_, _> = marks
        .iter()
        .map(|mark| ((mark.author, mark.number), mark))
        .collect();
    let mut logs = Logs::new(Arc::clone(&disk), dir);
    let mut recovered = Recovered::default();
    let names = disk.list(dir).map_err(dir_error)?;
    let mut found: Vec<_> = names
        .iter()
        .filter_map(|name| parse_file_name(name.to_str()?))
        .collect();
    found.sort_unstable();
    for (author, number) in &found {
        let name = file_name(author, *number);
        let file = disk
            .open(&dir.join(&name), Open::Existing)
            .map_err(|source| LogError::Io {
                file: name.clone(),
                source,
            })?;
        let mark = marks.get(&(*author, *number)).copied();
        let tail = Tail {
            author: *author,
            number: *number,
            name,
            file,
            mark,
        };
        if let Some(writer) = tail.open(&mut recovered)? {
            logs.add(writer);
        }
    }
    for ((author, number), mark) in marks.iter().filter(|(key, _)| !found.contains(key)) {
        let name = file_name(author, *number);
        let refused = |source| refused(&name, source);
        // A file that is gone is one of which nothing is left.
        let file = disk.open(&dir.join(&name), Open::New).map_err(refused)?;
        disk.sync_dir(dir).map_err(refused)?;
        let tail = Tail {
            author: *author,
            number: *number,
            name,
            file,
            mark: Some(mark),
        };
        if let Some(writer) = tail.open(&mut recovered)? {
            logs.add(writer);
        }
    }
    Ok((logs, recovered))
}

// One file on its way to a branch.
struct Tail<'a> {
    author: Author,
    number: u32,
    name: String,
    file: Arc<dyn DiskFile>,
    mark: Option<&'a Mark>,
}

// What reading a file from its mark on has shown.
#[derive(Default)]
struct Seen {
    // Sound frames, seals included, without their payloads; see `thin`.
    records: Vec<Record>,
    // The largest length that a frame says was durable.
    synced: u64,
    bad: Vec<(u64, u64, bool)>,
    // The end of what frames of another author cover: nobody's bytes are cut.
    foreign: u64,
}

impl Seen {
    // Runs that touch are one.
    fn add_bad(&mut self, offset: u64, bytes: u64, zeros: bool) {
        match self.bad.last_mut() {
            Some(last) if last.0 + last.1 == offset => {
                last.1 += bytes;
                last.2 &= zeros;
            }
            _apart => self.bad.push((offset, bytes, zeros)),
        }
    }

    fn add(&mut self, mut record: Record) {
        record.payload = bytes::Bytes::new();
        self.synced = self.synced.max(record.header.synced);
        self.records.push(record);
    }

    // Forgets records that are surely durable and that nobody asks for, so that a log of any
    // length takes little memory. What stays: the first entry, those that become index points
    // after `indexed`, seals, whatever a seal, bad bytes or something not durable comes after.
    fn thin(&mut self, mut indexed: Option<u64>) {
        let dull = |pair: &[Record]| match pair {
            [record, next] => {
                !record.header.seal
                    && !next.header.seal
                    && end_of(record) == next.offset
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

fn end_of(record: &Record) -> u64 {
    record.offset + record.header.frame_bytes() as u64
}

// True when a record at `offset` is a point of the index, whose last one is at `indexed`.
fn is_point(indexed: Option<u64>, offset: u64) -> bool {
    indexed.is_none_or(|at| offset >= at + INDEX_EVERY_BYTES)
}

impl Tail<'_> {
    fn open(self, recovered: &mut Recovered) -> Result<Option<Writer>, LogError> {
        let io = |source| refused(&self.name, source);
        let len = self.file.len().map_err(io)?;
        let from = self.mark.map_or(0, |mark| mark.end);
        if from > len {
            return self.open_truncated(len, recovered).map(Some);
        }
        let mut gone = None;
        if let Some(mark) = self.mark
            && let Some(found) = mark.missing(&self.file, &self.name).map_err(io)?
        {
            recovered.damage.push(found);
            gone = lost_tail::find(mark, &self.file, &self.name).map_err(io)?;
        }
        let seen = self.read(from, len).map_err(io)?;
        let durable = from.max(seen.foreign).max(seen.synced).min(len);
        let (records, cut) = self.sound(seen, durable, len, recovered).map_err(io)?;
        if cut > durable {
            self.make_durable(durable, cut).map_err(io)?;
        }
        if cut < len {
            self.file.set_len(cut).map_err(io)?;
            self.file.sync_data().map_err(io)?;
        }
        let sealed = match records.last() {
            Some(last) => last.header.seal && end_of(last) == cut,
            None => seal_before(self.file.as_ref(), &self.author, cut)
                .map_err(io)?
                .is_some(),
        };
        let Some((first, forked_from, shape)) = self.shape(&records, cut) else {
            return Ok(None);
        };
        // Entries behind what is gone were written when it was there.
        let gone = gone.filter(|_| records.iter().all(|record| record.header.seal));
        // Sealed, it would look whole.
        let sealed = sealed || gone.is_some();
        recovered.lost_tails.extend(gone);
        let branch = self.branch(first, forked_from, shape);
        Ok(Some(Writer::new(branch, cut, sealed)))
    }

    // The file is shorter than what was durable: its records stay readable, the rest is damage.
    fn open_truncated(&self, len: u64, recovered: &mut Recovered) -> Result<Writer, LogError> {
        let mark = self.mark.expect("only a mark can be beyond the file");
        recovered.damage.push(LogDamage {
            author: self.author,
            seq: None,
            file: self.name.clone(),
            offset: len,
            bytes: mark.end - len,
            what: format!("the file has {len} bytes, {} were durable", mark.end),
        });
        let io = |source| refused(&self.name, source);
        let gone = lost_tail::find(mark, &self.file, &self.name).map_err(io)?;
        let sealed = gone.is_some();
        recovered.lost_tails.extend(gone);
        // Keeps the place of what is lost, so that what comes next has its own.
        self.file.set_len(mark.end).map_err(io)?;
        let shape = Shape {
            end: mark.end,
            tip: Some(mark.tip),
            index: mark.index.clone(),
        };
        Ok(Writer::new(
            self.branch(mark.first, mark.forked_from, shape),
            mark.end,
            sealed,
        ))
    }

    fn read(&self, from: u64, len: u64) -> io::Result<Seen> {
        let mut walk = Walk::new(Arc::clone(&self.file), from, len, REPLAY_CHUNK_BYTES);
        let mut seen = Seen::default();
        let mut thin_at = THIN_RECORDS;
        while let Some(step) = walk.step()? {
            if seen.records.len() >= thin_at {
                seen.thin(self.indexed());
                thin_at = (2 * seen.records.len()).max(THIN_RECORDS);
            }
            match step {
                Step::Record(record) if record.header.author != self.author => {
                    let bytes = record.header.frame_bytes() as u64;
                    seen.add_bad(record.offset, bytes, false);
                    seen.foreign = record.offset + bytes;
                }
                Step::Record(record) => seen.add(record),
                Step::Bad {
                    offset,
                    bytes,
                    zeros,
                } => seen.add_bad(offset, bytes, zeros),
            }
        }
        Ok(seen)
    }

    // Splits what was seen at the durable end: before it bad bytes are damage, from it on the
    // first bad byte ends the log.
    fn sound(
        &self,
        seen: Seen,
        durable: u64,
        len: u64,
        recovered: &mut Recovered,
    ) -> io::Result<(Vec<Record>, u64)> {
        let mut cut = len;
        for (offset, bytes, _) in &seen.bad {
            if *offset >= durable {
                cut = cut.min(*offset);
            } else {
                let before = seen
                    .records
                    .iter()
                    .rev()
                    .find(|record| record.offset < *offset);
                let seq = before.map_or_else(
                    || self.mark.map_or(1, |mark| mark.tip.seq + 1),
                    |record| record.header.seq + 1,
                );
                // A bad run that reaches past the durable end is damage up to there only.
                let end = (offset + bytes).min(durable);
                if end < offset + bytes {
                    cut = cut.min(end);
                }
                recovered.damage.push(LogDamage {
                    author: self.author,
                    seq: Some(seq),
                    file: self.name.clone(),
                    offset: *offset,
                    bytes: end - offset,
                    what: "no record can be read here".to_owned(),
                });
            }
        }
        let mut records = seen.records;
        let mut before = self.mark.map(|mark| (mark.end, mark.tip.seq, mark.tip.id));
        for record in &records {
            let FrameHeader { seq, id, seal, .. } = record.header;
            let unsure = (durable..cut).contains(&record.offset) && !seal;
            if unsure && !self.is_sound(record, before)? {
                cut = record.offset;
                break;
            }
            before = Some((end_of(record), seq, id));
        }
        records.retain(|record| record.offset < cut);
        let torn = seen
            .bad
            .iter()
            .filter(|bad| !bad.2 && bad.0 >= durable)
            .map(|bad| bad.1);
        if cut < len && (torn.sum::<u64>() > 0 || self.holds_bytes(cut, len)?) {
            recovered.torn.push((self.name.clone(), len - cut));
        }
        Ok((records, cut))
    }

    // Whole, and the successor of the record right before it: (end, seq, id), where that can be
    // read. A group that was rolled back can have left a page behind the first of the next group.
    fn is_sound(&self, record: &Record, before: Option<(u64, Seq, EntryId)>) -> io::Result<bool> {
        let end = end_of(record);
        let mut walk = Walk::new(
            Arc::clone(&self.file),
            record.offset,
            end,
            record.header.frame_bytes(),
        );
        let Some(Step::Record(whole)) = walk.step()? else {
            return Ok(false);
        };
        let Ok(entry) = whole.entry() else {
            return Ok(false);
        };
        Ok(before.is_none_or(|(end, seq, id)| {
            end != record.offset || (entry.header.seq == seq + 1 && entry.header.prev == Some(id))
        }))
    }

    fn holds_bytes(&self, from: u64, to: u64) -> io::Result<bool> {
        let mut at = from;
        let mut chunk = vec![0; REPLAY_CHUNK_BYTES];
        while at < to {
            let bytes = REPLAY_CHUNK_BYTES.min(usize::try_from(to - at).unwrap_or(usize::MAX));
            self.file.read_at(&mut chunk[..bytes], at)?;
            if chunk[..bytes].iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at += bytes as u64;
        }
        Ok(false)
    }

    // After a failed fsync a page can be clean in memory and absent from the disk; writing the
    // same bytes again makes the next fsync carry them. In place: old and new bytes are equal.
    fn make_durable(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let bytes = REPLAY_CHUNK_BYTES.min(usize::try_from(to - at).unwrap_or(usize::MAX));
            let mut chunk = vec![0; bytes];
            self.file.read_at(&mut chunk, at)?;
            self.file.write_at(&chunk, at)?;
            at += bytes as u64;
        }
        self.file.sync_data()
    }

    fn shape(&self, records: &[Record], end: u64) -> Option<(Seq, Option<EntryId>, Shape)> {
        let entries = || records.iter().filter(|record| !record.header.seal);
        let mut index = self.mark.map(|mark| mark.index.clone()).unwrap_or_default();
        let mut indexed = self.indexed();
        for record in entries() {
            if is_point(indexed, record.offset) {
                indexed = Some(record.offset);
                index.push(IndexPoint {
                    seq: record.header.seq,
                    offset: record.offset,
                    wall_ms: self
                        .hlc(record)
                        .map_or(record.header.arrived_ms, |hlc| hlc.wall_ms),
                    arrived_ms: record.header.arrived_ms,
                });
            }
        }
        let last = entries().next_back().map(|record| record.header);
        let seal = records.iter().rfind(|record| record.header.seal);
        let seal = seal.map(|record| record.header);
        let known = last
            .map(|last| last.seq)
            .max(self.mark.map(|mark| mark.tip.seq));
        // Where the record cannot be read, its stamp is not known: one that is surely later keeps
        // the clock moving forward.
        let after = |header: FrameHeader| Hlc {
            wall_ms: header.arrived_ms.saturating_add(1),
            counter: 0,
        };
        let tip = match (last, seal) {
            // The last record is damaged; its seal says which it was, so that its place is not
            // given to another.
            (_, Some(seal)) if known.is_none_or(|known| known < seal.seq) => Tip {
                seq: seal.seq,
                id: seal.id,
                hlc: after(seal),
            },
            (Some(last), seal) => {
                let named = seal.filter(|seal| seal.id == last.id);
                let record = entries().next_back()?;
                Tip {
                    seq: last.seq,
                    id: last.id,
                    hlc: self
                        .hlc(record)
                        .unwrap_or_else(|| after(named.unwrap_or(last))),
                }
            }
            (None, _) => self.mark?.tip,
        };
        let (first, forked_from) = match self.mark {
            Some(mark) => (mark.first, mark.forked_from),
            None if self.number == 0 => (1, None),
            None => {
                let first = entries().next()?;
                (
                    first.header.seq,
                    self.entry(first).and_then(|entry| entry.header.prev),
                )
            }
        };
        Some((
            first,
            forked_from,
            Shape {
                end,
                tip: Some(tip),
                index,
            },
        ))
    }

    // Where the last point is that the mark knows.
    fn indexed(&self) -> Option<u64> {
        let index = &self.mark?.index;
        index.last().map(|point| point.offset)
    }

    fn hlc(&self, record: &Record) -> Option<Hlc> {
        self.entry(record).map(|entry| entry.header.hlc)
    }

    fn entry(&self, record: &Record) -> Option<crate::protocol::entry::Entry> {
        let end = end_of(record);
        let mut walk = Walk::new(
            Arc::clone(&self.file),
            record.offset,
            end,
            record.header.frame_bytes(),
        );
        match walk.step() {
            Ok(Some(Step::Record(whole))) => whole.entry().ok(),
            _unreadable => None,
        }
    }

    fn branch(&self, first: Seq, forked_from: Option<EntryId>, shape: Shape) -> Arc<Branch> {
        Arc::new(Branch {
            author: self.author,
            number: self.number,
            first,
            forked_from,
            name: self.name.clone(),
            file: Arc::clone(&self.file),
            shape: RwLock::new(shape),
        })
    }
}

// Records after which those that nobody asks for are forgotten, for the first time.
const THIN_RECORDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, seq: Seq, synced: u64, seal: bool) -> Record {
        Record {
            offset,
            header: FrameHeader {
                length: 892,
                seq,
                synced,
                arrived_ms: 0,
                author: Author([7; 32]),
                id: EntryId([9; 32]),
                seal,
            },
            payload: bytes::Bytes::new(),
        }
    }

    // Entries of 1000 bytes in groups of eight; a seal after 500, bad bytes before 700.
    #[test]
    fn what_a_long_log_is_asked_for_stays_and_the_rest_is_forgotten() {
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
        // The last group is not known to be durable: it stays, and what it follows.
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
