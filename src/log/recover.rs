//! Opening the logs after whatever happened: finds what is torn, damaged, or lost, and makes each
//! file ready for the next record.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::Path,
    sync::{Arc, RwLock},
};

use crate::{
    disk::{Disk, DiskFile},
    id::{Author, EntryId, Seq},
    limits::REPLAY_CHUNK_BYTES,
    log::{
        Begin, Begins, Branch, IndexPoint, LogDamage, LogError, LogFiles, Logs, LostTail, Mark,
        Shape,
        begin::BeginRow,
        error::file_error,
        frame::FrameHeader,
        lost_tail,
        mark::seal_before,
        record::{Record, Step, Walk},
        segments::{self, Segments},
        torn_tail::{BadRun, Seen, is_point, split},
        writer::Writer,
    },
    protocol::{chain::Tip, entry::Entry},
};

/// The damage that opening the logs found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Torn tails that were cut, as file name and bytes: none of it was acknowledged.
    pub torn: Vec<(String, u64)>,
    /// Durable bytes that cannot be read. They are kept.
    pub damage: Vec<LogDamage>,
    /// Branches whose durable end is missing from their file.
    pub lost_tails: Vec<LostTail>,
}

impl Logs {
    /// Opens the logs in `dir`, which is made if it is missing.
    ///
    /// `marks` is what the state remembers of the branches, without index points before the place
    /// where a log begins (`Mark::shorten`): records before a mark's end are not read. On return torn
    /// tails are cut, every byte of a log is durable, and files before the place where a log begins
    /// are removed.
    ///
    /// # Errors
    /// `Io`, `Full`, `NoDescriptor`, `Begins`.
    pub fn open(
        disk: &Arc<dyn Disk>,
        files: &LogFiles,
        dir: &Path,
        marks: &[Mark],
    ) -> Result<(Self, Recovered), LogError> {
        let dir_error = |source| file_error(&dir.display().to_string(), source);
        disk.create_dir(dir).map_err(dir_error)?;
        let begins = Begins::read(disk.as_ref(), dir)?;
        let names = disk.list(dir).map_err(dir_error)?;
        let mut found: BTreeMap<(Author, u32), BTreeSet<u64>> = BTreeMap::new();
        for name in names.iter().filter_map(|name| name.to_str()) {
            if let Some((author, number, from)) = segments::parse_name(name) {
                found.entry((author, number)).or_default().insert(from);
            }
        }
        let begins_at = |key: &(Author, u32)| begins.0.get(key).map_or(0, |row| row.begin.offset);
        let marks: BTreeMap<_, _> = marks
            .iter()
            .map(|mark| ((mark.author, mark.number), mark))
            // An older copy of a state file was put back, or a base of a peer was installed since.
            .filter(|(key, mark)| begins.0.get(key).is_none_or(|row| mark.is_of(&row.begin)))
            .collect();
        // A file that is missing is one of which nothing is left.
        for key in marks.keys().chain(begins.0.keys()) {
            found.entry(*key).or_default();
        }
        let mut has_removed = false;
        for ((author, number), from) in &mut found {
            for leftover in segments::take_before(from, begins_at(&(*author, *number))) {
                let path = dir.join(segments::name(author, *number, leftover));
                disk.remove(&path).map_err(dir_error)?;
                has_removed = true;
            }
        }
        if has_removed {
            disk.sync_dir(dir).map_err(dir_error)?;
        }
        let mut logs = Self::new(Arc::clone(disk), files.clone(), dir);
        let mut recovered = Recovered::default();
        for ((author, number), from) in found {
            let name = segments::name(&author, number, 0);
            let key = (author, number);
            let row = begins.0.get(&key);
            let opened = Segments::open(files, disk, dir.to_owned(), key, (&from, begins_at(&key)));
            let segments = Arc::new(opened.map_err(|source| file_error(&name, source))?);
            logs.has_new_names |= from.len() > 1;
            let log = LogFile {
                author,
                number,
                name,
                file: segments.clone(),
                segments,
                mark: marks.get(&(author, number)).copied(),
                row,
            };
            let opened = log.open(&mut recovered);
            if let Some(writer) = opened.map_err(|source| file_error(&log.name, source))? {
                logs.add(writer);
            }
        }
        logs.begins = begins;
        Ok((logs, recovered))
    }
}

// A file on its way to a branch.
struct LogFile<'a> {
    author: Author,
    number: u32,
    name: String,
    file: Arc<dyn DiskFile>,
    // The same, for the branch's writer.
    segments: Arc<Segments>,
    mark: Option<&'a Mark>,
    // Set if entries were removed from this log: the place from which on it has records. The mark's end
    // is not before that place.
    row: Option<&'a BeginRow>,
}

// The record before another one, which has to continue it.
struct Before {
    end: u64,
    seq: Seq,
    id: EntryId,
}

impl LogFile<'_> {
    // Returns `None` for a file without any record.
    fn open(&self, recovered: &mut Recovered) -> io::Result<Option<Writer>> {
        let len = self.file.len()?;
        let begins_at = self.begin().map_or(0, |begin| begin.offset);
        let marked = self.mark.map_or(begins_at, |mark| mark.end);
        if marked > len {
            return self.open_truncated(len, marked, recovered).map(Some);
        }
        let mut lost = None;
        if let Some(mark) = self.mark
            && let Some(damage) = mark.missing(&self.file, &self.name, begins_at)?
        {
            recovered.damage.push(damage);
            lost = lost_tail::find(mark, &self.file, &self.name, self.begin())?;
        }
        for (offset, bytes) in self.segments.gaps(begins_at)? {
            recovered.damage.push(LogDamage {
                author: self.author,
                seq: None,
                file: self.name.clone(),
                offset,
                bytes,
                what: "a file of the log is missing or too short".to_owned(),
            });
        }
        let (records, end) = self.cut_torn_tail(marked, len, recovered)?;
        let sealed = match records.last() {
            Some(last) => last.header.seal && last.end() == end,
            None if end == begins_at => false,
            None => seal_before(self.file.as_ref(), &self.author, end)?.is_some(),
        };
        let Some(branch) = self.branch(&records, end)? else {
            return Ok(None);
        };
        // Entries behind the lost ones were written while those were there: they are no lost tail
        // then, but a hole.
        let lost = lost.filter(|_| records.iter().all(|record| record.header.seal));
        // A seal written now would make the log look whole at the next start.
        let sealed = sealed || lost.is_some();
        recovered.lost_tails.extend(lost);
        Ok(Some(Writer::new(
            branch,
            Arc::clone(&self.segments),
            end,
            sealed,
        )))
    }

    // The file is shorter than what was durable: its records stay readable, the rest is damage.
    // `marked`: how much of it was durable, by its mark, or by the place where it begins.
    fn open_truncated(
        &self,
        len: u64,
        marked: u64,
        recovered: &mut Recovered,
    ) -> io::Result<Writer> {
        let begins_at = self.begin().map_or(0, |begin| begin.offset);
        let mut sealed = false;
        if marked > begins_at {
            let offset = len.max(begins_at);
            recovered.damage.push(LogDamage {
                author: self.author,
                seq: None,
                file: self.name.clone(),
                offset,
                bytes: marked - offset,
                what: format!("the file has {len} bytes, {marked} were durable"),
            });
        }
        if let Some(mark) = self.mark {
            let lost = lost_tail::find(mark, &self.file, &self.name, self.begin())?;
            sealed = lost.is_some();
            recovered.lost_tails.extend(lost);
        }
        // The lost bytes keep their room, so that a hole can be filled where it was.
        self.file.set_len(marked)?;
        let shape = Shape {
            end: marked,
            tip: self.tip(&[]),
            index: self.index(&[]),
        };
        let (first, forked_from) = self
            .left()
            .expect("only a mark or a beginning is beyond the file");
        let branch = self.branch_of(first, forked_from, shape);
        let segments = Arc::clone(&self.segments);
        Ok(Writer::new(branch, segments, marked, sealed))
    }

    fn begin(&self) -> Option<Begin> {
        self.row.map(|row| row.begin)
    }

    // The entry at which the log begins, as the end of what was removed.
    fn anchor(&self) -> Option<Before> {
        self.begin().map(|begin| Before {
            end: begin.offset,
            seq: begin.anchor.seq,
            id: begin.anchor.id,
        })
    }

    // Returns the place of the branch's first entry, and the entry before it; `None` when they are not
    // known without a record.
    fn left(&self) -> Option<(Seq, Option<EntryId>)> {
        let of_row = self.row.map(|row| (row.first, row.forked_from));
        of_row.or(self.mark.map(|mark| (mark.first, mark.forked_from)))
    }

    // Reads the file from `marked` on, and ends it where its log ends: every byte before that is
    // durable then. Returns the records behind `marked`, see `Seen`, and the end.
    fn cut_torn_tail(
        &self,
        marked: u64,
        len: u64,
        recovered: &mut Recovered,
    ) -> io::Result<(Vec<Record>, u64)> {
        let seen = self.read(marked, len)?;
        let durable = seen.durable_end(marked, len);
        let split = split(&seen, durable, len);
        let damage = split.damaged.iter().map(|run| self.damage(&seen, *run));
        recovered.damage.extend(damage);
        let broken = self.first_broken(&seen.records, split.doubtful)?;
        let end = broken.unwrap_or(split.end);
        if end < len && self.holds_bytes(end, len)? {
            recovered.torn.push((self.name.clone(), len - end));
        }
        if end > durable {
            self.make_durable(durable, end, len)?;
        }
        if end < len {
            self.file.set_len(end)?;
            self.file.sync_data()?;
        }
        let mut records = seen.records;
        records.retain(|record| record.offset < end);
        Ok((records, end))
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
                    seen.add_foreign(&record);
                }
                Step::Record(record) => seen.add(record),
                Step::Bad { offset, bytes, .. } => seen.add_bad(offset, bytes),
            }
        }
        Ok(seen)
    }

    fn damage(&self, seen: &Seen, run: BadRun) -> LogDamage {
        let before = seen
            .seq_before(run.offset)
            .or(self.mark.map(|mark| mark.tip.seq))
            .or(self.begin().map(|begin| begin.anchor.seq));
        LogDamage {
            author: self.author,
            seq: Some(before.unwrap_or(0) + 1),
            file: self.name.clone(),
            offset: run.offset,
            bytes: run.bytes,
            what: "no record can be read here".to_owned(),
        }
    }

    // Returns the offset of the first record in doubt that is not whole; `None` when all are.
    fn first_broken(&self, records: &[Record], doubtful: Range<usize>) -> io::Result<Option<u64>> {
        for index in doubtful {
            let record = &records[index];
            let before = match index.checked_sub(1) {
                Some(before) => Some(Before {
                    end: records[before].end(),
                    seq: records[before].header.seq,
                    id: records[before].header.id,
                }),
                None => {
                    let marked = self.mark.map(|mark| Before {
                        end: mark.end,
                        seq: mark.tip.seq,
                        id: mark.tip.id,
                    });
                    marked.or(self.anchor())
                }
            };
            if !record.header.seal && !self.is_whole(record, before)? {
                return Ok(Some(record.offset));
            }
        }
        Ok(None)
    }

    // True when the record's payload is the entry that its frame names, and continues the record
    // before it, if that one ends where this one begins.
    fn is_whole(&self, record: &Record, before: Option<Before>) -> io::Result<bool> {
        let Some(entry) = self.entry(record)? else {
            return Ok(false);
        };
        Ok(before.is_none_or(|before| {
            before.end != record.offset
                || (entry.header.seq == before.seq + 1 && entry.header.prev == Some(before.id))
        }))
    }

    fn holds_bytes(&self, from: u64, to: u64) -> io::Result<bool> {
        for (at, bytes) in chunks(from, to) {
            let mut chunk = vec![0; bytes];
            self.file.read_at(&mut chunk, at)?;
            if chunk.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    // After a failed fsync a page can be clean in memory and absent from the disk; writing the
    // same bytes again makes the next fsync carry them. In place: old and new bytes are equal. The
    // file's length `len` can be lost in the same way. Where it does not change, it is set twice.
    fn make_durable(&self, from: u64, to: u64, len: u64) -> io::Result<()> {
        for (at, bytes) in chunks(from, to) {
            let mut chunk = vec![0; bytes];
            self.file.read_at(&mut chunk, at)?;
            self.file.write_at(&chunk, at)?;
        }
        if to == len {
            self.file.set_len(len + 1)?;
            self.file.set_len(len)?;
        }
        self.file.sync_data()
    }

    // Returns `None` when there is neither a mark nor a record.
    fn branch(&self, records: &[Record], end: u64) -> io::Result<Option<Arc<Branch>>> {
        let Some(tip) = self.tip(records) else {
            return Ok(None);
        };
        let shape = Shape {
            end,
            index: self.index(records),
            tip: Some(tip),
        };
        let (first, forked_from) = match self.left() {
            Some(left) => left,
            None if self.number == 0 => (1, None),
            None => {
                let Some(first) = entries(records).next() else {
                    return Ok(None);
                };
                let entry = self.entry(first)?;
                (first.header.seq, entry.and_then(|entry| entry.header.prev))
            }
        };
        Ok(Some(self.branch_of(first, forked_from, shape)))
    }

    // The mark's points, and those of `records`.
    fn index(&self, records: &[Record]) -> Vec<IndexPoint> {
        let mut index = self.mark.map(|mark| mark.index.clone()).unwrap_or_default();
        let mut indexed = self.indexed();
        for record in entries(records) {
            if is_point(indexed, record.offset) {
                indexed = Some(record.offset);
                index.push(IndexPoint {
                    seq: record.header.seq,
                    offset: record.offset,
                    wall_ms: record.header.hlc.wall_ms,
                    arrived_ms: record.header.arrived_ms,
                });
            }
        }
        index
    }

    // The newest entry of the branch, also one that only a seal or the mark names: its place is
    // never given to another.
    fn tip(&self, records: &[Record]) -> Option<Tip> {
        let newest = entries(records).next_back();
        let seal = records.iter().rfind(|record| record.header.seal);
        let seal = seal.map(|record| record.header);
        let known = newest
            .map(|newest| newest.header.seq)
            .max(self.mark.map(|mark| mark.tip.seq))
            .max(self.begin().map(|begin| begin.anchor.seq));
        let tip = |header: FrameHeader| Tip {
            seq: header.seq,
            id: header.id,
            hlc: header.hlc,
        };
        match (newest, seal) {
            // The newest record is damaged, and its seal names it.
            (_, Some(seal)) if known.is_none_or(|known| known < seal.seq) => Some(tip(seal)),
            (Some(newest), _) => Some(tip(newest.header)),
            (None, _) => {
                let anchor = self.begin().map(|begin| begin.anchor.into());
                self.mark.map(|mark| mark.tip).or(anchor)
            }
        }
    }

    // Returns the offset of the mark's last index point.
    fn indexed(&self) -> Option<u64> {
        let index = &self.mark?.index;
        index.last().map(|point| point.offset)
    }

    // Reads the payload of a record that was seen without; `None` when it is not its entry.
    fn entry(&self, record: &Record) -> io::Result<Option<Entry>> {
        let file = Arc::clone(&self.file);
        let bytes = record.header.frame_bytes();
        let mut walk = Walk::new(file, record.offset, record.end(), bytes);
        match walk.step()? {
            Some(Step::Record(whole)) => Ok(whole.entry().ok()),
            _changed_meanwhile => Ok(None),
        }
    }

    fn branch_of(&self, first: Seq, forked_from: Option<EntryId>, shape: Shape) -> Arc<Branch> {
        Arc::new(Branch {
            author: self.author,
            number: self.number,
            first,
            forked_from,
            begin: self.begin(),
            name: self.name.clone(),
            file: Arc::clone(&self.file),
            shape: RwLock::new(shape),
        })
    }
}

fn entries(records: &[Record]) -> impl DoubleEndedIterator<Item = &Record> {
    records.iter().filter(|record| !record.header.seal)
}

// Offsets and lengths of the pieces that are read at a time.
fn chunks(from: u64, to: u64) -> impl Iterator<Item = (u64, usize)> {
    (from..to).step_by(REPLAY_CHUNK_BYTES).map(move |at| {
        let bytes = (to - at).min(REPLAY_CHUNK_BYTES as u64);
        let bytes = usize::try_from(bytes).expect("at most REPLAY_CHUNK_BYTES");
        (at, bytes)
    })
}

// Records after which `Seen` is thinned for the first time.
const THIN_RECORDS: usize = 256;
