//! A pass over the log files of a directory that changes none of them.

use std::{io, path::Path, sync::Arc};

use crate::{
    disk::{Disk, DiskFile as _, Open},
    limits::REPLAY_CHUNK_BYTES,
    log::{
        LogError,
        error::file_error,
        record::{Step, Walk},
        segments::{Alone, parse_name},
    },
    protocol::entry::Entry,
};

/// Calls `visit` with each entry that can be read in the log files of `dir`, file by file, in the
/// order of their records.
///
/// It is for a directory whose store cannot be opened yet. The entries are well formed and have the
/// ids that their frames name; whether they count is not decided. Records behind the durable end
/// are visited, too; bytes that cannot be read are skipped. A missing directory has no entries.
///
/// # Errors
/// `Io`.
pub(crate) fn survey(
    disk: &dyn Disk,
    dir: &Path,
    mut visit: impl FnMut(&Entry),
) -> Result<(), LogError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(|source| file_error(&dir.display().to_string(), source))?,
    };
    for name in names.iter().filter_map(|name| name.to_str()) {
        let Some((_, _, from)) = parse_name(name) else {
            continue;
        };
        let mut read = || {
            let file = disk.open(&dir.join(name), Open::Existing)?;
            let file = Arc::new(Alone::new(from, file));
            let bytes = file.len()?;
            let mut walk = Walk::new(file, from, bytes, REPLAY_CHUNK_BYTES);
            while let Some(step) = walk.step()? {
                if let Step::Record(record) = step
                    && !record.header.seal
                    && let Ok(entry) = record.entry()
                {
                    visit(&entry);
                }
            }
            Ok(())
        };
        read().map_err(|source| file_error(name, source))?;
    }
    Ok(())
}
