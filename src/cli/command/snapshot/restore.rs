//! `snapshot restore`: makes a node of a snapshot, or brings single keys back.

use std::path::PathBuf;

use clap::Args;
use lattice::node::{Identity, RestoreOptions};
use serde::Serialize;

use crate::cli::{
    command::snapshot::{
        as_puts,
        object::{Snapshot, entries, named, root_first},
        progress::restore,
    },
    exit::Failure,
    input::time::date_time,
    session::Context,
};

/// Make a node of a snapshot, or bring single keys back
///
/// Makes a node in the data directory, which must not have one. The file is checked while it is read; if a
/// check fails, there is no node. Writes from after the snapshot are lost, unless another member has them.
///
/// With the key of the node that made the snapshot (in the file, or --identity), the new node is that node
/// again. Do this only if the old one will never start again: two nodes with one key fork their log, and
/// both refuse to write. It can be read at once, but it refuses writes until it has met another member and
/// has fetched what it wrote after the snapshot; start a member first that was connected to it last. If
/// there never was another member, `lattice repair` lets it write.
///
/// With --new-identity it is another node, which has the data already when it joins the mesh. Use that,
/// too, to try out a snapshot.
///
/// With --as-puts PREFIX, the old values of the keys that start with PREFIX are written into the node here,
/// as new entries. A key that was changed or deleted since gets its old value back; a newer value is
/// replaced, and stays in the history until that is removed. Keys that were created since are left alone. '' is every key.
/// --store names the store. Takes room for all stores in $TMPDIR.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice snapshot restore backup.lsnap --identity identity.key
  lattice --data-dir new/ snapshot restore backup.lsnap --new-identity
  age -d backup.age > backup.lsnap && lattice snapshot restore backup.lsnap
  lattice snapshot restore backup.lsnap --as-puts /config/ --dry-run")]
pub(super) struct Restore {
    /// The snapshot: a file, not a pipe
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
        if context.store_named.is_some() {
            let message = "a restore makes all stores of the snapshot; --store goes with --as-puts";
            return Err(Failure::usage("store_not_here", message));
        }
        let (data_dir, is_named) = (context.place.data_dir.clone(), context.place.is_named);
        let restored = restore(context.place.node_config(), options).await?;
        let is_same = restored.node == restored.manifest.node;
        let out = &mut context.out;
        if out.json {
            return out.object(&Done {
                snapshot: Snapshot::new(
                    "snapshot_restored",
                    &self.file,
                    bytes(&self.file),
                    &restored.manifest,
                ),
                data_dir: data_dir.display().to_string(),
                restored_as: restored.node.to_string(),
                waits: restored.waits,
                differing: restored.differing,
            });
        }
        let manifest = &restored.manifest;
        out.line(&format!("restored   {}", data_dir.display()))?;
        out.line(&format!("made at    {}", date_time(manifest.created_ms)))?;
        out.line(&match is_same {
            true => format!("node       {}", named(manifest)),
            false => format!("node       a new one, {}", restored.node.short()),
        })?;
        for store in root_first(manifest) {
            out.line(&format!("store      {}: {}", store.name, entries(store)))?;
        }
        if !restored.differing.is_empty() {
            let stores = restored.differing.join(", ");
            out.notice(
                "other_state",
                &format!(
                    "the state of {stores} is not the one that the snapshot names, though nothing in the file \
                     is missing; please report this, and compare the node with another member: `lattice compare NODE`"
                ),
            );
        }
        let lattice = match is_named {
            true => format!("lattice --data-dir {}", data_dir.display()),
            false => "lattice".to_owned(),
        };
        if restored.waits {
            out.notice(
                "waits",
                &format!(
                    "this node can be read now, and refuses writes until it has met another member; only \
                     if there never was one, or none is left, run `{lattice} repair`"
                ),
            );
        }
        if !is_same {
            out.notice(
                "new_node",
                &format!(
                    "this node can be read now, and is not a member yet: `lattice invite` on a member \
                     makes a token for `{lattice} join`"
                ),
            );
        }
        out.line(&format!("next       {lattice} up"))?;
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
    /// Names of stores that have another state than the snapshot names.
    differing: Vec<String>,
}

fn bytes(file: &std::path::Path) -> u64 {
    std::fs::metadata(file).map_or(0, |about| about.len())
}
