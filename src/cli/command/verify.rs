//! `verify`: checks that everything on disk is as it was written.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::Args;
use lattice::{id::Author, wire::api};

use crate::cli::{
    exit::{Exit, Failure},
    output::{
        health, object,
        print::{Output, escape},
    },
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
  lattice verify --lines --author 5b1e...c0 < audit.jsonl    with no node and no store
  lattice verify --proof hello.proof --author 5b1e...c0      the same; see `lattice get --prove`")]
pub(crate) struct Verify {
    /// Check lines of `watch --json --proof` on stdin instead; --store must then be a UUID. Lines of
    /// kinds that nobody signs (expire, retract, gap, progress) are counted apart, not checked
    #[arg(long)]
    pub(crate) lines: bool,
    /// Check the proof in this file instead (`-`: stdin), and print what it proves and who has signed it
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    pub(crate) proof: Option<PathBuf>,
    /// With --proof: accept only this root (64 hex digits)
    #[arg(long, value_name = "HASH", requires = "proof")]
    pub(crate) root: Option<RootArgument>,
    /// With --lines or --proof: accept only what this author has signed (64 hex digits); may be repeated
    #[arg(long = "author", value_name = "AUTHOR")]
    pub(crate) authors: Vec<Author>,
    /// With --lines: accept lines without a proof
    #[arg(long, requires = "lines")]
    pub(crate) allow_missing: bool,
}

/// A root, as `lattice root` prints it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RootArgument(pub(crate) [u8; 32]);

impl FromStr for RootArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        let root = bytes.ok().and_then(|bytes| bytes.try_into().ok());
        root.map(Self)
            .ok_or_else(|| "a root has 64 hex digits".to_owned())
    }
}

impl fmt::Display for RootArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&object::hex(&self.0))
    }
}

impl Verify {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.lines {
            let message = "verify --lines cannot run inside a shell, which reads stdin itself";
            return Err(Failure::usage("not_here", message));
        }
        if self.proof.is_some() {
            let message = "verify --proof cannot run inside a shell: it needs no node";
            return Err(Failure::usage("not_here", message));
        }
        if !self.authors.is_empty() {
            let message = "--author needs --lines or --proof";
            return Err(Failure::usage("usage", message));
        }
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        let request = api::VerifyRequest {
            all: store.is_empty(),
            store,
        };
        let mut parts = client.verify(request).await?.into_inner();
        let out = &mut context.out;
        let mut damaged = 0;
        while let Some(part) = parts.message().await? {
            for store in &part.stores {
                damaged += store.damage.len();
                print_part(out, store)?;
            }
            out.flush()?;
        }
        match damaged {
            0 => Ok(()),
            1 => Err(damage("1 place is damaged")),
            count => Err(damage(&format!("{count} places are damaged"))),
        }
    }
}

// Prints the result of a store, or further damage of the store before.
fn print_part(out: &mut Output, store: &api::StoreVerified) -> Result<(), Failure> {
    if out.json {
        if !store.continued {
            out.object(&health::Verified::from(store))?;
        }
        let mut damage = store.damage.iter();
        return damage.try_for_each(|it| out.object(&health::Damage::new(store.info.as_ref(), it)));
    }
    if !store.continued {
        let info = object::Store::new(store.info.as_ref());
        out.line(&format!(
            "store {}{}: {} entries, {} signatures, {} rows, {}",
            info.store,
            named(&info),
            store.entries,
            store.signatures,
            store.rows,
            match store.damage_count {
                0 => "all good".to_owned(),
                count => format!("{count} damaged"),
            },
        ))?;
    }
    let mut damage = store.damage.iter();
    damage.try_for_each(|it| out.line(&format!("  {}", line(it))))
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
