//! Loading: a new state file gets the rows of a base.

use std::sync::Arc;

use crate::{
    limits::RECENT_BYTES_MAX,
    protocol::{
        entry::cause::CauseId,
        heads::{Content, Value},
    },
    state::{
        State, StateError,
        ahead::Citer,
        base::{Base, RecordKey, RecordKind},
        flushed::decode,
        row::decode_cause,
    },
};

impl State {
    /// Adds the rows of `base` to an empty state that is being filled. `flush` is called when the rows in
    /// memory are many. Its frontier comes last: until then the file has no frontier.
    ///
    /// # Errors
    /// `Damaged`: the base is. `Io`, and the errors of `flush`.
    pub fn load(
        &mut self,
        base: &Base,
        mut flush: impl FnMut(&mut Self) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let damaged = || StateError::damaged("a record of the base is malformed");
        base.each_from(&RecordKey::first(), |key, body| {
            if let Some(key) = key.of(RecordKind::Heads) {
                let heads = decode(&key, body)?;
                self.staging().load_heads(key.clone(), heads);
                self.note_filled(&key);
            } else if let Some(key) = key.of(RecordKind::Fact) {
                match Citer::of(&key, body)? {
                    Some(citer) => self.staging().cite_hashes_ahead(&citer.absent, &citer.keys),
                    None if Citer::is_reference(&key) => {}
                    None => self.staging().note_fact(key.to_vec(), body.clone()),
                }
            } else if let Some(key) = key.of(RecordKind::Cause) {
                let cause = CauseId(key.as_ref().try_into().map_err(|_length| damaged())?);
                let entry = decode_cause(body).ok_or_else(damaged)?;
                self.staging().load_cause(cause, entry);
            }
            if self.recent_bytes() >= RECENT_BYTES_MAX / 2 {
                flush(self)?;
            }
            Ok(true)
        })?;
        let manifest = base.manifest();
        let view = self.staging();
        if view.keys != manifest.keys {
            return Err(StateError::damaged("the base has another number of keys"));
        }
        view.frontier = Arc::new(manifest.frontier());
        view.entries = manifest.entries;
        view.has_taken_back = manifest.has_taken_back;
        Ok(())
    }
}

/// Checks that `base` could be loaded, and that its values are those of its heads.
///
/// # Errors
/// `Damaged`: it is not. `Io`.
pub fn check_rows(base: &Base) -> Result<(), StateError> {
    let damaged = StateError::damaged;
    let mut keys = 0;
    let mut last: Option<RecordKey> = None;
    base.each_from(&RecordKey::first(), |record, body| {
        if last.as_ref().is_some_and(|last| last >= record) {
            return Err(damaged("the records of the base are not in order"));
        }
        last = Some(record.clone());
        if let Some(key) = record.of(RecordKind::Heads) {
            keys += 1;
            for head in decode(&key, body)?.as_slice() {
                if let Content::Value { value, .. } = &head.content
                    && let Value::InLog { bytes, hash } = value
                {
                    let value = base.value(&key, &head.id)?;
                    let is_it = |value: &bytes::Bytes| {
                        value.len() == *bytes as usize && *blake3::hash(value).as_bytes() == *hash
                    };
                    if !value.as_ref().is_some_and(is_it) {
                        return Err(damaged("the base lacks a value of its heads"));
                    }
                }
            }
        } else if let Some(key) = record.of(RecordKind::Fact) {
            Citer::of(&key, body)?;
        } else if let Some(key) = record.of(RecordKind::Cause) {
            let is_cause = key.len() == size_of::<CauseId>() && decode_cause(body).is_some();
            if !is_cause {
                return Err(damaged("a cause of the base is malformed"));
            }
        } else if record.of(RecordKind::Value).is_none() {
            return Err(damaged("a record of the base is of an unknown kind"));
        }
        Ok(true)
    })?;
    if keys != base.manifest().keys {
        return Err(damaged("the base has another number of keys"));
    }
    Ok(())
}
