//! Building a base: the records of the one before, with some changed.
//!
//! A part ends before a key of a high level ([`Levels`]), before another kind, and where it is very
//! long. So where it ends follows from its records, and a change moves the ends of its own part only.
//! A part in which nothing has changed is taken over as it is.

use std::{io, path::Path};

use bytes::Bytes;

use crate::{
    disk::{Disk, Open},
    limits::BASE_MANIFEST_BYTES_MAX,
    pace::Pace,
    protocol::merkle::Levels,
    state::{
        StateError,
        base::{
            Base, BaseManifest, RecordKey,
            base::NEW,
            part::{Part, PartInfo, PartWriter},
        },
    },
};

/// The new body of a record.
pub(crate) enum Body<'a> {
    /// There is none any more.
    None,
    /// This body.
    Is(Bytes),
    /// A body that is read when it is written.
    Later(Box<dyn FnOnce() -> Result<Bytes, StateError> + 'a>),
}

/// Writes a base.
pub(crate) struct BaseBuilder<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    levels: Levels,
    // The part that is written, and its last key.
    part: Option<(PartWriter, RecordKey)>,
    parts: Vec<PartInfo>,
    pace: Pace,
}

impl<'a> BaseBuilder<'a> {
    /// Begins a base in `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn begin(
        disk: &'a dyn Disk,
        dir: &'a Path,
        levels: Levels,
    ) -> Result<Self, StateError> {
        disk.create_dir(dir)?;
        Ok(Self {
            disk,
            dir,
            levels,
            part: None,
            parts: Vec::new(),
            pace: Pace::start(),
        })
    }

    /// Writes the records of `before` with `changes`, which are sorted by key.
    ///
    /// # Errors
    /// `Damaged`: `before` is. `Io`, and the errors of bodies that are read later.
    pub(crate) fn merge<'b>(
        &mut self,
        before: Option<&Base>,
        changes: impl IntoIterator<Item = (RecordKey, Body<'b>)>,
    ) -> Result<(), StateError> {
        let mut changes = changes.into_iter().peekable();
        let parts: Vec<(&Part, &PartInfo)> = before.into_iter().flat_map(Base::parts).collect();
        let ends = parts.iter().skip(1).map(|(_part, info)| Some(&info.first));
        let ends: Vec<Option<&RecordKey>> = ends.chain([None]).collect();
        for ((part, info), end) in parts.into_iter().zip(ends) {
            // Changes before the part are of the one before it.
            while let Some((key, body)) = changes.next_if(|(key, _)| *key < info.first) {
                self.change(&key, body)?;
            }
            let is_in_part = |key: &RecordKey| end.is_none_or(|end| key < end);
            // Without the key that ended it, the part goes on.
            let is_same = changes.peek().is_none_or(|(key, body)| {
                let is_end_removed = end == Some(key) && matches!(body, Body::None);
                !is_in_part(key) && !is_end_removed
            });
            if is_same && self.ends_before(&info.first) {
                self.end_part()?;
                self.parts.push(info.clone());
                continue;
            }
            for chunk in 0..part.len() {
                for (key, body) in part.read(chunk)? {
                    while let Some((new, body)) = changes.next_if(|(new, _)| *new < key) {
                        self.change(&new, body)?;
                    }
                    match changes.next_if(|(new, _)| *new == key) {
                        Some((_same, body)) => self.change(&key, body)?,
                        None => self.push(&key, &body)?,
                    }
                }
            }
        }
        changes.try_for_each(|(key, body)| self.change(&key, body))
    }

    /// Ends the base. Its files are durable on return, and are read once more; nothing opens it before
    /// `commit`.
    ///
    /// # Errors
    /// `Io`; `Damaged`: the disk gave back other bytes.
    pub(crate) fn finish(mut self, manifest: BaseManifest) -> Result<Base, StateError> {
        self.end_part()?;
        let manifest = BaseManifest {
            parts: std::mem::take(&mut self.parts),
            ..manifest
        };
        let path = self.dir.join(NEW);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _removed => {}
        }
        let encoded = manifest.encode();
        if encoded.len() > BASE_MANIFEST_BYTES_MAX {
            let parts = manifest.parts.len();
            let what = format!("a base of {parts} parts is more than can be opened again");
            return Err(io::Error::other(what).into());
        }
        let file = self.disk.open(&path, Open::New)?;
        file.write_at(&encoded, 0)?;
        file.sync_data()?;
        self.disk.sync_dir(self.dir)?;
        let base = Base::of(self.disk, self.dir, manifest)?;
        base.check()?;
        Ok(base)
    }

    fn change(&mut self, key: &RecordKey, body: Body<'_>) -> Result<(), StateError> {
        match body {
            Body::None => Ok(()),
            Body::Is(body) => self.push(key, &body),
            Body::Later(read) => self.push(key, &read()?),
        }
    }

    fn push(&mut self, key: &RecordKey, body: &[u8]) -> Result<(), StateError> {
        self.pace.step();
        if self.ends_before(key) {
            self.end_part()?;
        }
        let (part, last) = match &mut self.part {
            Some(part) => part,
            none => {
                let part = PartWriter::begin(self.disk, self.dir, key.clone())?;
                none.insert((part, key.clone()))
            }
        };
        part.push(key, body)?;
        *last = key.clone();
        Ok(())
    }

    // Whether the part that is written ends before `key`; also true when none is.
    fn ends_before(&self, key: &RecordKey) -> bool {
        let Some((part, last)) = &self.part else {
            return true;
        };
        self.levels.of(&key.0) >= PART_LEVEL
            || !last.is_kind_of(key)
            || part.bytes() >= PART_BYTES_MAX
    }

    fn end_part(&mut self) -> Result<(), StateError> {
        if let Some((part, _last)) = self.part.take() {
            self.parts.push(part.finish(self.disk, self.dir)?);
        }
        Ok(())
    }
}

// One key of 65,536 begins a part.
const PART_LEVEL: u8 = 4;
// Bytes after which a part ends in any case.
const PART_BYTES_MAX: u64 = 64 << 20;
