//! `snapshot list` and `snapshot verify`: read snapshot files. They need no node.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use lattice::{
    api::error::ApiError,
    node::{FileError, read_manifest, read_snapshot},
    protocol::snapshot::Manifest,
};

use crate::cli::{
    command::snapshot::{object, progress::progress_bar},
    exit::{Exit, Failure},
    output::print::Output,
    session::Context,
};

/// List the snapshots in a directory, the oldest first
///
/// Lists files that end in .lsnap, and looks at the end of each only; `lattice snapshot verify` checks all of
/// a file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice snapshot list
  lattice snapshot list /media/stick --json")]
pub(super) struct List {
    /// The directory [default: snapshots/ of the data directory]
    dir: Option<PathBuf>,
}

impl List {
    pub(super) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let default = snapshots_of(&context.place.data_dir);
        let dir = self.dir.clone().unwrap_or(default);
        let names = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.dir.is_none() => {
                Ok(Vec::new())
            }
            read => read.and_then(|names| names.collect::<Result<Vec<_>, _>>()),
        };
        let names = names.map_err(|error| {
            let message = format!("cannot read {}: {error}", dir.display());
            Failure::failed("snapshot_file", message)
        })?;
        let paths = names.into_iter().map(|name| name.path());
        let is_meant = |path: &PathBuf| path.extension().is_some_and(|it| it == "lsnap");
        let paths: Vec<PathBuf> = paths.filter(is_meant).collect();
        if paths.is_empty() {
            let message = format!("no file in {} ends in .lsnap", dir.display());
            context.out.notice("no_snapshots", &message);
        }
        let read = |path: PathBuf| (read_manifest(&path), path);
        let mut files: Vec<_> = paths.into_iter().map(read).collect();
        files.sort_by_key(|(manifest, path)| {
            let created_ms = manifest.as_ref().map_or(0, |manifest| manifest.created_ms);
            (created_ms, path.clone())
        });
        let out = &mut context.out;
        each(files, |(manifest, path)| {
            let manifest = manifest.map_err(refused)?;
            let bytes = fs::metadata(&path).map_or(0, |about| about.len());
            object::print(out, "snapshot", &path, bytes, &manifest)
        })
    }
}

/// Check snapshots: every signature, every link between entries, and that nothing is missing
///
/// Needs no node, no store and no key. Exits with 6 if a file is damaged, and says where. Values of entries
/// that were removed have no signatures of their authors: the node that made the file vouches for them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lattice snapshot verify backup.lsnap")]
pub(super) struct Verify {
    /// The files
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

impl Verify {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut verified = Vec::new();
        for path in self.files {
            let bar = progress_bar("checking");
            let shown = bar.clone();
            let reading = path.clone();
            let work = tokio::task::spawn_blocking(move || verify(&reading, &shown));
            let manifest = work.await.map_err(io::Error::other)?;
            bar.finish_and_clear();
            verified.push((manifest, path));
        }
        let out = &mut context.out;
        each(verified, |(manifest, path)| print(out, manifest, &path))
    }
}

fn verify(path: &Path, bar: &indicatif::ProgressBar) -> Result<Manifest, FileError> {
    let progress = |read, of| {
        bar.set_length(of);
        bar.set_position(read);
    };
    read_snapshot(path, progress, |_checked| Ok::<_, FileError>(()))
}

fn print(
    out: &mut Output,
    manifest: Result<Manifest, FileError>,
    path: &Path,
) -> Result<(), Failure> {
    let manifest = manifest.map_err(refused)?;
    let bytes = fs::metadata(path).map_or(0, |about| about.len());
    object::print(out, "verified", path, bytes, &manifest)
}

// Does `work` for each file. One that fails does not keep the others from their turn; the first failure
// is the result.
fn each<T>(files: Vec<T>, mut work: impl FnMut(T) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for file in files {
        match (work(file), &mut failed) {
            (Ok(()), _) => {}
            (Err(failure), _) if failure.exit == Exit::Done => return Err(failure),
            (Err(failure), Some(first)) => {
                first.message = format!("{}\n{}", first.message, failure.message);
            }
            (Err(failure), none) => *none = Some(failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Returns the directory of snapshots that no name was given for.
pub(super) fn snapshots_of(data_dir: &Path) -> PathBuf {
    data_dir.join("snapshots")
}

/// Returns the failure of a file that cannot be read.
pub(super) fn refused(error: FileError) -> Failure {
    ApiError::from(error).into()
}
