//! `hook logs`: what the runs of a hook did.

use std::time::Duration;

use clap::Args;
use lattice::{clock::duration_text, wire::api};

use crate::cli::{
    exit::Failure,
    hook::{Name, object},
    output::{Output, escape},
    session::{Context, Lifetime},
    when::date_time,
};

/// Show what the last runs did, and what they printed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice hook logs deploy
  lattice hook logs deploy -n 1000 --json | jq -r 'select(.outcome != \"done\") | .key'")]
pub(super) struct Logs {
    #[command(flatten)]
    name: Name,
    /// The last so many runs
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    count: u32,
}

impl Logs {
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::HookLogRequest {
            hook: self.name.name,
            count: self.count,
        };
        let runs = client.hook_log(request).await?.into_inner().runs;
        runs.iter().try_for_each(|run| tell(&mut context.out, run))
    }
}

/// Prints a run: a line, and what the command printed, each line behind a bar.
pub(super) fn tell(out: &mut Output, run: &api::HookRun) -> Result<(), Failure> {
    if out.json {
        return out.object(&object::Run::new(run));
    }
    let what = match run.what.as_str() {
        "" => String::new(),
        what => format!(": {}", escape(what.as_bytes())),
    };
    let more = match run.changes {
        0 | 1 => String::new(),
        changes => format!(" and {} more", changes - 1),
    };
    let retry = run.retry_ms.map_or_else(String::new, |ms| {
        format!(", again in {}", duration_text(Duration::from_millis(ms)))
    });
    let wrote = match run.wrote.get(..8) {
        Some(entry) => format!(", wrote {} in {entry}", run.ops),
        None => String::new(),
    };
    out.line(&format!(
        "{}  {:<6} {} {}{more}, attempt {}, {}{wrote}{what}{retry}",
        date_time(run.at_ms),
        run.outcome,
        run.kind,
        escape(&run.key),
        run.attempt,
        duration_text(Duration::from_millis(run.took_ms)),
    ))?;
    for (text, bytes) in [
        (&run.stdout, run.stdout_bytes),
        (&run.stderr, run.stderr_bytes),
    ] {
        for line in text.lines() {
            out.line(&format!("  | {}", escape(line.as_bytes())))?;
        }
        let shown = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if bytes > shown {
            out.line(&format!("  | ... {bytes} bytes in all"))?;
        }
    }
    Ok(())
}
