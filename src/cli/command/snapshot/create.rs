//! `snapshot create`: writes a snapshot of the running node into a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use clap::Args;
use lattice::{
    node::{NodeConfig, read_manifest},
    wire::api,
};

use crate::cli::{
    command::snapshot::object,
    exit::Failure,
    input::time::file_name,
    session::{Context, Lifetime},
};

/// Write all stores into one file
///
/// Works while the node runs, or without it. The file appears under its name when it is whole and on disk;
/// only you can read it. Without FILE it is on the disk of the node: copy it elsewhere, or it is lost with
/// the node.
///
/// Copies all stores. With --store or $LATTICE_STORE it copies only that store and the root store, which
/// lists the members. `lattice store use` has no effect here.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice snapshot create
  lattice snapshot create backup.lsnap --store notes
  lattice snapshot create - --with-key | age -p > backup.age")]
pub(super) struct Create {
    /// The new file; `-`: stdout [default: a file named by the time, in snapshots/ of the data directory]
    file: Option<PathBuf>,
    /// Put the node's secret key into the file, too: whoever has the file can then write as this node
    #[arg(long)]
    with_key: bool,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl Create {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let to_stdout = self.file.as_ref().is_some_and(|it| it.as_os_str() == "-");
        if to_stdout && context.out.terminal {
            let message = "a snapshot is binary, and stdout is a terminal";
            return Err(Failure::usage("snapshot_to_terminal", message)
                .hint("name a file, or send stdout into a file or a pipe"));
        }
        let store = context.store_named.clone();
        let request = api::SnapshotRequest {
            all: store.is_none(),
            store: store.unwrap_or_default(),
            with_key: self.with_key,
        };
        let mut client = context.client(Lifetime::Short).await?;
        let mut parts = client.snapshot(request).await?.into_inner();
        if to_stdout {
            while let Some(part) = parts.message().await? {
                context.out.bytes(&part.part)?;
            }
            return Ok(());
        }
        let is_default = self.file.is_none();
        let path = match self.file {
            Some(path) => path,
            None => default_path(&context.place.data_dir)?,
        };
        let there = path.symlink_metadata().ok();
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            let message = format!("{} is not a regular file", path.display());
            return Err(
                Failure::usage("not_a_file", message).hint("name a new file, or `-` for stdout")
            );
        }
        if !self.force && there.is_some() {
            let message = format!("{} exists already", path.display());
            return Err(Failure::usage("file_exists", message)
                .hint("name another file, or replace it with --force"));
        }
        let mut new = NewFile::create(&path)?;
        while let Some(part) = parts.message().await? {
            new.write(&part.part)?;
        }
        let bytes = new.finish()?;
        let manifest = read_manifest(&path).map_err(super::check::refused)?;
        object::print(&mut context.out, "created", &path, bytes, &manifest)?;
        if is_default {
            let message = "this file is on the disk of the node: copy it elsewhere";
            context.out.notice("same_disk", message);
        }
        if !manifest.has_key && is_alone(context).await? {
            context.out.notice(
                "no_key",
                "this file does not have the node's key, and no other member could admit a new node: keep \
                 a copy of identity.key on another disk, or use --with-key",
            );
        }
        Ok(())
    }
}

// True when no other member could go on if this node's key were lost.
async fn is_alone(context: &mut Context) -> Result<bool, Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let request = api::ListPeersRequest {};
    let mut peers = client.list_peers(request).await?.into_inner();
    while let Some(part) = peers.message().await? {
        if !part.peers.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn default_path(data_dir: &Path) -> Result<PathBuf, Failure> {
    let dir = super::check::snapshots_of(data_dir);
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir);
    made.map_err(|error| refused(&dir, &error))?;
    let now_ms = NodeConfig::new(data_dir).clock.now_ms();
    Ok(dir.join(format!("{}.lsnap", file_name(now_ms))))
}

/// A file under another name than its own, until it is whole. Removed on drop.
struct NewFile<'a> {
    path: &'a Path,
    new: PathBuf,
    file: File,
    bytes: u64,
}

impl<'a> NewFile<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let make = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _removed => {}
            }
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(&new)
        };
        let file = make().map_err(|error| refused(&new, &error))?;
        Ok(Self {
            path,
            new,
            file,
            bytes: 0,
        })
    }

    fn write(&mut self, part: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(part);
        written.map_err(|error| refused(&self.new, &error))?;
        self.bytes += part.len() as u64;
        Ok(())
    }

    // Makes the file durable under its name. Returns its length.
    fn finish(self) -> Result<u64, Failure> {
        let parent = self.path.parent().filter(|it| !it.as_os_str().is_empty());
        let finish = || {
            self.file.sync_all()?;
            fs::rename(&self.new, self.path)?;
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        finish().map_err(|error| refused(self.path, &error))?;
        Ok(self.bytes)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        // After `finish` there is none.
        drop(fs::remove_file(&self.new));
    }
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot write {}: {error}", path.display());
    Failure::failed("snapshot_file", message)
}
