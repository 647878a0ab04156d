//! `verify`: checks that everything on disk is as it was written.

use clap::Args;
use lattice::{id::Author, wire::api};

use crate::cli::{
    exit::{Exit, Failure},
    output::{health, object, print::escape},
    session::{Context, Lifetime},
};

/// Check every record and every signature, and the state against the log
///
/// Checks all stores, unless --store names one. Reports what is damaged and where, and exits with 6
/// if anything is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice verify
  lattice verify --store notes
  lattice verify --json
  lattice verify --lines --author 5b1e...c0 < audit.jsonl    with no node and no store")]
pub(crate) struct Verify {
    /// Check lines of `watch --json --proof` on stdin instead; --store must then be a UUID. Lines of
    /// kinds that nobody signs (expire, retract, gap, progress) are counted apart, not checked
    #[arg(long)]
    pub(crate) lines: bool,
    /// With --lines: accept only lines signed by this author (64 hex digits); may be repeated
    #[arg(long = "author", value_name = "AUTHOR", requires = "lines")]
    pub(crate) authors: Vec<Author>,
    /// With --lines: accept lines without a proof
    #[arg(long, requires = "lines")]
    pub(crate) allow_missing: bool,
}

impl Verify {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.lines {
            let message = "verify --lines cannot run inside a shell, which reads stdin itself";
            return Err(Failure::usage("not_here", message));
        }
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        let request = api::VerifyRequest {
            all: store.is_empty(),
            store,
        };
        let report = client.verify(request).await?.into_inner();
        let out = &mut context.out;
        let mut damaged = 0;
        for store in &report.stores {
            damaged += store.damage.len();
            if out.json {
                out.object(&health::Verified::from(store))?;
                for damage in &store.damage {
                    out.object(&health::Damage::new(store.info.as_ref(), damage))?;
                }
                continue;
            }
            let info = object::Store::new(store.info.as_ref());
            out.line(&format!(
                "store {}{}: {} entries, {} signatures, {} rows, {}",
                info.store,
                named(&info),
                store.entries,
                store.signatures,
                store.rows,
                match store.damage.len() {
                    0 => "all good".to_owned(),
                    count => format!("{count} damaged"),
                },
            ))?;
            for damage in &store.damage {
                out.line(&format!("  {}", line(damage)))?;
            }
        }
        match damaged {
            0 => Ok(()),
            1 => Err(damage("1 place is damaged")),
            count => Err(damage(&format!("{count} places are damaged"))),
        }
    }
}

fn damage(message: &str) -> Failure {
    Failure::new(Exit::Damaged, "damaged", message).hint(
        "the state is rebuilt from the logs when the node starts; entries of a log come from peers \
         or a backup. If the end of this node's own log is lost for good, use `lattice repair`",
    )
}

fn line(damage: &api::Damage) -> String {
    let mut line = format!("{}: {}", damage.r#where, damage.what);
    if !damage.file.is_empty() {
        line.push_str(&format!(
            " ({} bytes at {} of {})",
            damage.bytes, damage.offset, damage.file
        ));
    }
    if !damage.author.is_empty() {
        line.push_str(&format!(
            ", entry {} of {}",
            damage.seq,
            object::hex(&damage.author)
        ));
    }
    if !damage.key.is_empty() {
        line.push_str(&format!(", key {}", escape(&damage.key)));
    }
    line
}

/// Returns the name of a store in brackets, after a space; empty without a name.
pub(crate) fn named(store: &object::Store) -> String {
    match (store.root, store.name.as_str()) {
        (true, "" | "root") => " (root)".to_owned(),
        (true, name) => format!(" (root, {name})"),
        (false, "") => String::new(),
        (false, name) => format!(" ({name})"),
    }
}
