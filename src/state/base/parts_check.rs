//! A check of the parts of a base that keeps nothing, such as for a backup that is only verified.

use std::{io, sync::Arc};

use crate::{
    disk::DiskFile,
    state::base::{
        BaseManifest,
        incoming::{Coming, IncomingError},
    },
};

/// Checks the parts of a base that are read in order, and keeps none of them.
#[derive(Debug)]
pub struct PartsCheck {
    manifest: BaseManifest,
    // The part that is read.
    number: usize,
    coming: Coming,
}

impl PartsCheck {
    /// Begins with the first part of the base of `manifest`.
    pub fn new(manifest: BaseManifest) -> Self {
        Self {
            manifest,
            number: 0,
            coming: Coming::new(Arc::new(Nowhere)),
        }
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &BaseManifest {
        &self.manifest
    }

    /// Checks the next bytes. `last`: they are the last ones of the part.
    ///
    /// # Errors
    /// `Forged`, `Unsound`, `Cut`.
    pub fn next(&mut self, piece: &[u8], last: bool) -> Result<(), IncomingError> {
        let info = self.manifest.parts.get(self.number);
        let what = "it has more parts than its manifest names";
        let info = info.ok_or(IncomingError::Forged { what })?;
        self.coming.keep(piece, info)?;
        if last {
            if !self.coming.is_whole() {
                return Err(IncomingError::Cut);
            }
            self.number += 1;
            self.coming = Coming::new(Arc::new(Nowhere));
        }
        Ok(())
    }

    /// Checks that all parts were read.
    ///
    /// # Errors
    /// `Cut`.
    pub fn end(&self) -> Result<(), IncomingError> {
        match self.number == self.manifest.parts.len() {
            true => Ok(()),
            false => Err(IncomingError::Cut),
        }
    }
}

// A file that keeps nothing.
#[derive(Debug)]
struct Nowhere;

impl DiskFile for Nowhere {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _buf: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
