//! `snapshot restore`: makes a node of a snapshot, or brings single keys back.

use std::{io::IsTerminal as _, path::PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lattice::{
    api::error::ApiError,
    node::{Identity, Node, NodeConfig, RestoreOptions, Restored},
};
use serde::Serialize;

use crate::cli::{
    command::snapshot::{
        as_puts,
        object::{Snapshot, named},
    },
    exit::Failure,
    input::time::date_time,
    session::Context,
};

/// Make a node of a snapshot, or bring single keys back
///
/// Makes a node in the data directory, which must not have one. All of the file is checked first. With
/// the key of the node that made the snapshot (in the file, or --identity), the new node goes on as that
/// one; do that only if the old one is gone for good. If it has other members, it does not write before
/// it has met one of them, which gives back what the old node wrote since. With --new-identity it is
/// another node that has the data already and joins the mesh like any other.
///
/// With --as-puts, the keys that start with PREFIX are put again, with the values that they had, into
/// the store of the node here; keys that are as they were are left alone, and so are keys that are new
/// since. --store names the store, which must have the same name in the snapshot.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice --data-dir new/ snapshot restore backup.lsnap --identity old/identity.key
  lattice --data-dir new/ snapshot restore backup.lsnap --new-identity
  lattice snapshot restore backup.lsnap --as-puts /config/ --dry-run")]
pub(super) struct Restore {
    /// The snapshot
    file: PathBuf,
    /// A copy of identity.key of the node that made the snapshot
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_identity", "as_puts"])]
    identity: Option<PathBuf>,
    /// Make a node of its own, with a new key
    #[arg(long, conflicts_with = "as_puts")]
    new_identity: bool,
    /// Put the keys that start with PREFIX again, in the store of the node here
    #[arg(long, value_name = "PREFIX")]
    as_puts: Option<String>,
    /// With --as-puts: print what would be put, and put nothing
    #[arg(long, requires = "as_puts")]
    dry_run: bool,
}

impl Restore {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if let Some(prefix) = self.as_puts {
            return as_puts::restore(context, self.file, prefix, self.dry_run).await;
        }
        let identity = match (self.identity, self.new_identity) {
            (Some(file), _) => Identity::File(file),
            (None, true) => Identity::New,
            (None, false) => Identity::InSnapshot,
        };
        let options = RestoreOptions {
            file: self.file.clone(),
            identity,
        };
        let data_dir = context.place.data_dir.clone();
        let restored = restore(NodeConfig::new(&data_dir), options).await?;
        let is_same = restored.node == restored.manifest.node;
        let out = &mut context.out;
        if out.json {
            return out.object(&Done {
                snapshot: Snapshot::new(
                    "restored",
                    &self.file,
                    bytes(&self.file),
                    &restored.manifest,
                ),
                data_dir: data_dir.display().to_string(),
                restored_as: restored.node.to_string(),
                waits: restored.waits,
            });
        }
        let manifest = &restored.manifest;
        out.line(&format!("restored   {}", data_dir.display()))?;
        out.line(&format!("as of      {}", date_time(manifest.created_ms)))?;
        out.line(&match is_same {
            true => format!("as         {}", named(manifest)),
            false => format!("as         a new node, {}", restored.node.short()),
        })?;
        for store in &manifest.stores {
            out.line(&format!(
                "store      {}: {} entries",
                store.name, store.entries
            ))?;
        }
        if restored.waits {
            out.notice(
                "waits",
                "this node writes again when it has met another member: start it with `lattice up`. If \
                 no other member is left, run `lattice repair`",
            );
        }
        if !is_same {
            out.notice(
                "new_node",
                "this node reads, and is not a member yet: `lattice invite` on a member makes a token \
                 for `lattice join` here",
            );
        }
        Ok(())
    }
}

/// A node that was made of a snapshot.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    snapshot: Snapshot,
    data_dir: String,
    /// The node that was made: another than `node` with --new-identity.
    restored_as: String,
    /// True if it takes no own writes before it has met another member.
    waits: bool,
}

/// Restores a snapshot, with a progress bar on a terminal.
pub(super) async fn restore(
    config: NodeConfig,
    options: RestoreOptions,
) -> Result<Restored, Failure> {
    let bar = progress_bar("restoring");
    let shown = bar.clone();
    let progress = move |read, of| {
        shown.set_length(of);
        shown.set_position(read);
    };
    let restored = Node::restore(config, options, progress).await;
    bar.finish_and_clear();
    restored.map_err(|error| ApiError::from(error).into())
}

/// Returns a bar on stderr that counts bytes; a hidden one if stderr is not a terminal.
pub(super) fn progress_bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}");
    let style = style.unwrap_or_else(|_template| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(what)
}

fn bytes(file: &std::path::Path) -> u64 {
    std::fs::metadata(file).map_or(0, |about| about.len())
}
