//! `export` and `import`: keys and values as JSON lines.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, BufWriter, Write as _},
    path::PathBuf,
};

use clap::Args;
use lattice::{clock::Clock, wire::api};
use serde::Serialize;

use crate::cli::{
    command::put_stream,
    exit::Failure,
    input::{
        key::KeyFlags,
        lines::Format,
        time::{When, parse_when},
    },
    output::{json::typed, object},
    screens::when::count,
    session::{Context, Lifetime},
};

/// Write keys and values as JSON lines, which `import` reads
///
/// A line has the key and the value, byte by byte (`key_base64` and `value_base64` if they are not UTF-8),
/// and `expires_ms`, and the same time as text, if the value expires. All are of one moment. Of a key with several heads, the line has
/// the value that reads return. Authors, history and signatures are not in it: for all of a node, use
/// `snapshot`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice export /config/ > config.jsonl
  lattice export --file all.jsonl
  lattice export /config/ --at yesterday | lattice import     the values of yesterday, written again")]
pub(crate) struct Export {
    /// Only keys that start with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// Write to this file, which must not exist yet
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// The values at this time: 2h or 7d ago, 10:30, yesterday, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    at: Option<When>,
}

impl Export {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let prefix = self.flags.key(self.prefix)?;
        let mut client = context.client(Lifetime::Short).await?;
        let now_ms = Clock::system().now_ms();
        let request = api::ListRequest {
            store: context.store.clone(),
            prefix,
            at_ms: self.at.map(|at| at.at_ms(now_ms)),
            ..api::ListRequest::default()
        };
        let mut pages = client.list(request).await?.into_inner();
        let unwritable = |error: io::Error, path: &PathBuf| {
            Failure::failed("file", format!("cannot write {}: {error}", path.display()))
        };
        let mut file = match &self.file {
            Some(path) => {
                let made = OpenOptions::new().write(true).create_new(true).open(path);
                let made = made.map_err(|error| unwritable(error, path))?;
                Some((BufWriter::new(made), path))
            }
            None => None,
        };
        let mut unfinished = Unfinished(self.file.as_ref());
        let (mut keys, mut conflicts) = (0_u64, 0_u64);
        while let Some(page) = pages.message().await? {
            for item in &page.items {
                keys += 1;
                conflicts += u64::from(item.heads > 1);
                let line = typed("exported", Exported::from(item));
                match &mut file {
                    Some((file, path)) => writeln!(file, "{}", context.out.to_line(&line))
                        .map_err(|error| unwritable(error, path))?,
                    None => context.out.object(&line)?,
                }
            }
        }
        match file {
            Some((file, path)) => {
                let synced = file
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)
                    .and_then(|file| file.sync_all());
                synced.map_err(|error| unwritable(error, path))?;
                unfinished.0 = None;
                let what = format!("{} exported to {}", count(keys, "key"), path.display());
                context.out.notice("exported", &what);
            }
            None => context.out.flush()?,
        }
        if conflicts > 0 {
            let what = format!(
                "{} with several heads: only the value that reads return is exported; `lattice conflicts` \
                lists all",
                count(conflicts, "key")
            );
            context.out.notice("conflicts", &what);
        }
        Ok(())
    }
}

// A file that is removed when an error or a signal ends the command: half of it would pass for all.
struct Unfinished<'a>(Option<&'a PathBuf>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a part of an export is left");
        }
    }
}

/// A key, its value and the time at which it expires, as `put --stdin --format json` reads them.
#[derive(Serialize)]
struct Exported {
    #[serde(flatten)]
    key: object::Key,
    #[serde(flatten)]
    value: object::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

impl From<&api::Item> for Exported {
    fn from(item: &api::Item) -> Self {
        Self {
            key: object::Key::new(&item.key),
            value: object::Value::new(Some(&item.value)),
            expires_ms: item.expires_ms,
        }
    }
}

/// Write the keys and values of JSON lines, as `export` prints them
///
/// Each line is a write of its own, and replaces the value that the key has. Values keep the time at which
/// they expire. At a malformed line it stops: what was written is kept, and the error has the number of the
/// line. Lines may also be deletes, or have `ttl_ms`: they are those of `put --stdin --format json`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice import config.jsonl
  lattice export /config/ | lattice --data-dir ../other import
  jq -c '.key |= sub(\"^/a/\"; \"/b/\")' all.jsonl | lattice import     under another prefix")]
pub(crate) struct Import {
    /// The file; without it, the lines of stdin
    file: Option<PathBuf>,
}

impl Import {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        put_stream::put_lines(context, self.file.as_deref(), Format::Json, None).await
    }
}
