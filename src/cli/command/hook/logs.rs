//! `hook logs`: prints the runs of a hook.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use lattice::{
    api::client::Client,
    clock::{Clock, about, duration_text},
    wire::api,
};

use crate::cli::{
    command::hook::{name::Name, object},
    exit::{Exit, Failure},
    input::time::{brief, date_time},
    output::{
        json::typed,
        print::{Output, escape, harmless, stdout_closed},
    },
    reconnect::Backoff,
    session::{Context, Lifetime},
};

/// Show the last runs of a hook and their output
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice hook logs deploy
  lattice hook logs deploy --follow
  lattice hook logs deploy -n 1000 --json | jq -r 'select(.outcome != \"done\") | .key'")]
pub(super) struct Logs {
    #[command(flatten)]
    name: Name,
    /// Show the last N runs
    #[arg(
        short = 'n',
        long = "limit",
        alias = "count",
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    count: u32,
    /// Go on with new runs until stopped
    #[arg(short = 'f', long)]
    follow: bool,
}

impl Logs {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut request = api::HookLogRequest {
            hook: self.name.name,
            count: self.count,
            after: Bytes::new(),
        };
        if !self.follow {
            let mut client = context.client(Lifetime::Short).await?;
            return page(&mut client, &mut request, &mut context.out).await;
        }
        let (client, reconnects) = context.client_to_follow().await?;
        let down = context.down_requested();
        tokio::select! {
            result = follow(client, request, reconnects, &mut context.out) => result,
            () = stdout_closed() => Err(Failure::pipe_closed()),
            // This process is the node, and `lattice down` asks it to stop.
            () = down => Ok(()),
        }
    }
}

// Prints runs as they end, over several connections if `reconnects`. The position in the log
// stays valid when the node restarts.
async fn follow(
    mut client: Client,
    mut request: api::HookLogRequest,
    reconnects: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut backoff = Backoff::default();
    loop {
        match page(&mut client, &mut request, out).await {
            Ok(()) => {
                backoff.connected(out);
                tokio::time::sleep(FOLLOW_INTERVAL).await;
            }
            Err(lost) if reconnects && lost.exit == Exit::Unavailable => {
                backoff.lost(&lost, out);
                backoff.wait().await;
            }
            ended => return ended,
        }
    }
}

// Prints the runs that `request` asks for, and moves it to the runs after them.
async fn page(
    client: &mut Client,
    request: &mut api::HookLogRequest,
    out: &mut Output,
) -> Result<(), Failure> {
    let reply = client.hook_log(request.clone()).await?.into_inner();
    reply.runs.iter().try_for_each(|run| print_run(out, run))?;
    request.after = reply.next;
    out.flush()
}

/// Prints a run: a line about it, and the lines of its output after a bar.
pub(super) fn print_run(out: &mut Output, run: &api::HookRun) -> Result<(), Failure> {
    if out.json {
        return out.object(&typed("run", object::Run::new(run)));
    }
    let what = match run.what.as_str() {
        "" => String::new(),
        what => format!(": {}", harmless(what)),
    };
    let more = match run.changes {
        0 | 1 => String::new(),
        changes => format!(" and {} more", changes - 1),
    };
    let retry = run.retry_ms.map_or_else(String::new, |ms| match ms {
        0..1000 => format!(", again in {ms}ms"),
        _longer => format!(", again in {}", about(ms)),
    });
    let at = match out.for_people() {
        true => brief(run.at_ms, Clock::system().now_ms()),
        false => date_time(run.at_ms),
    };
    let wrote = match run.wrote.get(..8) {
        Some(entry) => format!(", wrote {} in {entry}", run.ops),
        None => String::new(),
    };
    out.line(&format!(
        "{at}  {:<6} {} {}{more}, attempt {}, {}{wrote}{what}{retry}",
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
            out.line(&format!("  | {}", harmless(line)))?;
        }
        let shown = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if bytes > shown {
            out.line(&format!("  | ... {bytes} bytes in all"))?;
        }
    }
    Ok(())
}

/// Time between two requests of `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
