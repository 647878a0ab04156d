//! `diff`: shows the keys that differ between two times.

use std::ffi::OsString;

use clap::Args;
use lattice::{clock::Clock, wire::api};
use serde::Serialize;

use crate::cli::{
    exit::Failure,
    input::{
        key::KeyFlags,
        time::{When, parse_past, parse_when},
    },
    output::{
        object::{self, Key},
        print::escape,
    },
    screens::differences,
    session::{Context, Lifetime},
};

/// Show the keys that differ between two times
///
/// `+` marks a key without a value at the first time, `-` one without a value at the second, and
/// `~` one that was written in between, even with the same value. Times are those at which entries
/// were written, by their author's clock, so nodes with the same entries give the same answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice diff --since 1h                                what changed in the last hour
  lattice diff /config/ --since 2d --until 1d
  lattice diff /config/ --since 2026-11-22T10:00:00Z --json | jq -r .key")]
pub(crate) struct Diff {
    /// Only keys that start with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// The first time: 2h or 7d ago, 10:30, yesterday, a date, or an RFC 3339 time
    #[arg(long = "since", alias = "from", value_name = "TIME", value_parser = parse_past)]
    from: When,
    /// The second time [default: now]
    #[arg(long = "until", alias = "to", value_name = "TIME", value_parser = parse_when)]
    to: Option<When>,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
}

impl Diff {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let prefix = self.flags.key(self.prefix)?;
        let mut client = context.client(Lifetime::Short).await?;
        let now_ms = Clock::system().now_ms();
        let request = api::DiffRequest {
            store: context.store.clone(),
            prefix,
            keys_only: self.keys_only,
            from_ms: self.from.at_ms(now_ms),
            to_ms: self.to.map(|to| to.at_ms(now_ms)),
        };
        let mut pages = client.diff(request).await?.into_inner();
        let out = &mut context.out;
        let screen = out.screen();
        let mut is_first = true;
        while let Some(page) = pages.message().await? {
            if out.for_people() {
                for part in page.differences.chunks(ROWS_MAX) {
                    let lines = differences::draw(part, self.keys_only, is_first, &screen);
                    lines.iter().try_for_each(|line| out.line(line))?;
                    is_first = false;
                }
                out.flush()?;
                continue;
            }
            for difference in &page.differences {
                if out.json {
                    out.object(&Different::new(difference, self.keys_only))?;
                    continue;
                }
                for line in lines(difference, self.keys_only) {
                    out.line(&line)?;
                }
            }
            out.flush()?;
        }
        Ok(())
    }
}

// Returns a difference as lines of a pipe.
fn lines(difference: &api::Difference, keys_only: bool) -> Vec<String> {
    let key = escape(&difference.key);
    let line = |mark: &str, item: &api::Item| {
        if keys_only {
            format!("{mark} {key}")
        } else {
            format!("{mark} {key}\t{}", escape(&item.value))
        }
    };
    match (&difference.before, &difference.after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => vec![line("+", after)],
        (Some(before), None) => vec![line("-", before)],
        (Some(_), Some(after)) if keys_only => vec![line("~", after)],
        (Some(before), Some(after)) => {
            let was = escape(&before.value);
            vec![format!("{}  (was {was})", line("~", after))]
        }
    }
}

/// A line of `diff --json`.
#[derive(Serialize)]
struct Different {
    /// `added`, `removed`, `changed`.
    r#type: &'static str,
    #[serde(flatten)]
    key: Key,
    /// The item at the first time, as `get` prints it; absent if the key had no value then.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<object::Item>,
    /// The item at the second time; absent if the key had no value then.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<object::Item>,
}

impl Different {
    fn new(difference: &api::Difference, keys_only: bool) -> Self {
        let item = |item: &Option<api::Item>| {
            let item = item.as_ref();
            item.map(|item| object::Item::new(item, keys_only))
        };
        let (before, after) = (item(&difference.before), item(&difference.after));
        Self {
            r#type: match (&before, &after) {
                (None, _) => "added",
                (Some(_), None) => "removed",
                (Some(_), Some(_)) => "changed",
            },
            key: Key::new(&difference.key),
            before,
            after,
        }
    }
}

/// Rows that are aligned together.
const ROWS_MAX: usize = 1000;
