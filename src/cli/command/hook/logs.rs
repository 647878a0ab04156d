//! `hook logs`: what the runs of a hook did.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use lattice::{api::client::Client, clock::duration_text, wire::api};

use crate::cli::{
    command::hook::{name::Name, object},
    exit::{Exit, Failure},
    input::time::date_time,
    output::print::{Output, escape, stdout_closed},
    reconnect::Pause,
    session::{Context, Lifetime},
};

/// Show what the last runs did, and what they printed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice hook logs deploy
  lattice hook logs deploy --follow
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
    /// Go on with the runs that come, until it is stopped
    #[arg(short = 'f', long)]
    follow: bool,
}

impl Logs {
    /// Runs the command.
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
            // This is the node, and `lattice down` ends it.
            () = down => Ok(()),
        }
    }
}

// Over several connections, if it may. The log says where to go on, whoever serves it.
async fn follow(
    mut client: Client,
    mut request: api::HookLogRequest,
    reconnects: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut pause = Pause::default();
    loop {
        match page(&mut client, &mut request, out).await {
            Ok(()) => {
                pause.end(out);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(lost) if reconnects && lost.exit == Exit::Unavailable => {
                pause.begin(&lost, out);
                pause.pass().await;
            }
            ended => return ended,
        }
    }
}

// Prints what there is, and makes `request` one for what comes after it.
async fn page(
    client: &mut Client,
    request: &mut api::HookLogRequest,
    out: &mut Output,
) -> Result<(), Failure> {
    let reply = client.hook_log(request.clone()).await?.into_inner();
    reply.runs.iter().try_for_each(|run| tell(out, run))?;
    request.after = reply.next;
    out.flush()
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

/// How soon a run is seen by who follows.
const LOOK_EVERY: Duration = Duration::from_millis(200);
