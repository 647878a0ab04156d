//! `hook test`: runs a hook on past changes.

use clap::Args;
use lattice::{clock::Clock, wire::api};

use crate::cli::{
    command::hook::{logs, name::Name, object},
    exit::{Exit, Failure},
    input::time::{When, parse_past},
    output::{
        json::typed,
        object::incomplete,
        print::{Output, escape, harmless},
    },
    session::{Context, Lifetime},
};

/// Run a hook on past changes, or show what it would do
///
/// Goes through the history on this node, one run after the other. The position of the hook does
/// not change. With --dry-run nothing is run, except the command of a hook with --writes: it runs
/// with LATTICE_DRY_RUN=1, and the writes are shown but not made.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice hook test deploy --since 24h --dry-run
  lattice hook test deploy --since 2026-11-22
  lattice hook test index --since 7d --dry-run --json | jq .would_write")]
pub(super) struct Test {
    #[command(flatten)]
    name: Name,
    /// Begin with changes written since: 2h or 7d ago, 10:30, yesterday, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    since: When,
    /// Only show what would run, and what it would write
    #[arg(long)]
    dry_run: bool,
}

impl Test {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::TestHookRequest {
            hook: self.name.name,
            since_authored_ms: self.since.at_ms(Clock::system().now_ms()),
            dry_run: self.dry_run,
        };
        let mut tests = client.test_hook(request).await?.into_inner();
        let (mut runs, mut failed) = (0_u64, 0_u64);
        while let Some(test) = tests.message().await? {
            let run = test.run.as_ref().ok_or_else(|| incomplete("a run"))?;
            runs += 1;
            failed += u64::from(!matches!(run.outcome.as_str(), "done" | "would_run"));
            print_test(&mut context.out, &test, run)?;
            context.out.flush()?;
        }
        if !context.out.json {
            let verb = if self.dry_run { "would run" } else { "ran" };
            let times = if runs == 1 { "time" } else { "times" };
            let text = format!("{verb} {runs} {times}, {failed} failed");
            context.out.line(&text)?;
        }
        match failed {
            0 => Ok(()),
            failed => Err(Failure::new(
                Exit::Partly,
                "runs_failed",
                format!("{failed} of {runs} runs failed"),
            )),
        }
    }
}

fn print_test(out: &mut Output, test: &api::HookTest, run: &api::HookRun) -> Result<(), Failure> {
    if out.json {
        return out.object(&typed("test_run", object::Test::new(test, run)));
    }
    if run.outcome != "would_run" {
        // A test tries nothing again.
        let run = api::HookRun {
            retry_ms: None,
            ..run.clone()
        };
        return logs::print_run(out, &run);
    }
    let more = match run.changes {
        0 | 1 => String::new(),
        changes => format!(" and {} more", changes - 1),
    };
    out.line(&format!(
        "{} {}{more}  run {}  {}",
        run.kind,
        escape(&run.key),
        run.run,
        harmless(&test.action.join(" "))
    ))?;
    test.ops.iter().try_for_each(|op| {
        let key = escape(&op.key);
        out.line(&match op.delete {
            true => format!("  would delete {key}"),
            false => format!("  would put {key}  {}", escape(&op.value)),
        })
    })
}
