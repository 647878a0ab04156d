//! `consumer list`, `show`, `pause`, `resume`, `delete`.

use std::time::Duration;

use clap::Args;
use lattice::{
    api::whole,
    clock::{Clock, duration_text},
    wire::api,
};

use crate::cli::{
    command::consumer::{name::Name, object},
    exit::Failure,
    input::time::{brief, date_time},
    output::{
        json::typed,
        print::{Output, escape, harmless},
        width::shorten,
    },
    screens::consumers::{self, prefixes},
    session::{Context, Lifetime},
};

/// List the consumers of the store, with the backlog of each
#[derive(Debug, Args)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  lattice consumer list
  lattice consumer list --json | jq -r 'select(.dead > 0) | .consumer'"
)]
pub(super) struct List {}

impl List {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        let consumers = whole::consumers(&mut client, store).await?;
        let out = &mut context.out;
        if out.json {
            return consumers.iter().try_for_each(|status| {
                out.object(&typed("consumer", object::Status::new(status)))
            });
        }
        if consumers.is_empty() {
            out.notice(
                "no_consumers",
                "this store has no consumers; create one with `lattice consumer create`",
            );
        }
        let lines = consumers::draw(&consumers, &out.screen());
        lines.iter().try_for_each(|line| out.line(line))
    }
}

/// Show the state and the options of a consumer, and its outstanding changes
///
/// The last lines are the changes that were read and are not finished, oldest first: the id of the
/// last attempt, its number, the change, and which taker has it or when it comes again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer show billing
  lattice consumer show billing --json | jq .backlog_entries")]
pub(super) struct Show {
    #[command(flatten)]
    name: Name,
}

impl Show {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let reply = client.show_consumer(self.name.request(context)).await?;
        let status = reply.into_inner();
        print_status(&mut context.out, &status)?;
        if context.out.json {
            return Ok(());
        }
        print_outstanding(&mut context.out, &status)
    }
}

/// Stop delivering changes until `resume`, even after a restart of the node
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lattice consumer pause billing")]
pub(super) struct Pause {
    #[command(flatten)]
    name: Name,
}

impl Pause {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let reply = client.pause_consumer(self.name.request(context)).await?;
        print_status(&mut context.out, &reply.into_inner())
    }
}

/// Deliver changes again after `pause`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lattice consumer resume billing")]
pub(super) struct Resume {
    #[command(flatten)]
    name: Name,
}

impl Resume {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let reply = client.resume_consumer(self.name.request(context)).await?;
        print_status(&mut context.out, &reply.into_inner())
    }
}

/// Delete a consumer with its position and its dead letters
#[derive(Debug, Args)]
#[command(
    visible_alias = "rm",
    after_help = "Examples:\n  lattice consumer delete billing"
)]
pub(super) struct Delete {
    #[command(flatten)]
    name: Name,
}

impl Delete {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        client.delete_consumer(self.name.request(context)).await?;
        let (out, consumer) = (&mut context.out, &self.name.name);
        if out.json {
            let r#type = "consumer_deleted";
            return out.object(&object::Deleted { r#type, consumer });
        }
        out.line(&format!("deleted  {}", escape(consumer.as_bytes())))
    }
}

/// Prints the status of a consumer, a line for each property.
pub(super) fn print_status(out: &mut Output, status: &api::ConsumerStatus) -> Result<(), Failure> {
    if out.json {
        return out.object(&typed("consumer", object::Status::new(status)));
    }
    // In the form that `--ack-wait` takes.
    let duration = |ms| duration_text(Duration::from_millis(ms));
    let backoff: Vec<String> = status.backoff_ms.iter().copied().map(duration).collect();
    let max_deliver = match status.max_deliver {
        0 => "no limit".to_owned(),
        times => times.to_string(),
    };
    let seen = match status.last_seen_ms {
        0 => "never".to_owned(),
        ms => date_time(ms),
    };
    let reason = match &status.reason {
        reason if reason.is_empty() => String::new(),
        reason => format!(": {}", harmless(reason)),
    };
    for (what, is) in [
        ("consumer", status.consumer.clone()),
        ("state", format!("{}{reason}", status.state)),
        (
            "delivers",
            idle(status).map_or_else(
                || "a change now".to_owned(),
                |why| format!("nothing now: {why}"),
            ),
        ),
        ("keys", prefixes(status)),
        ("backlog", format!("{} entries", status.backlog_entries)),
        (
            "changes",
            format!(
                "{} outstanding, {} in flight, {} acked, {} redelivered, {} dead",
                status.outstanding, status.in_flight, status.acked, status.redelivered, status.dead
            ),
        ),
        ("last seen", seen),
        ("created", date_time(status.created_ms)),
        ("ack wait", duration(status.ack_wait_ms)),
        (
            "attempts",
            format!("{max_deliver}, after {}", backoff.join(", ")),
        ),
        ("at a time", status.max_in_flight.to_string()),
        (
            "at a gap",
            format!("{}; {} so far", status.on_gap, status.gaps),
        ),
    ] {
        out.line(&format!("{what:<10} {is}"))?;
    }
    Ok(())
}

fn print_outstanding(out: &mut Output, status: &api::ConsumerStatus) -> Result<(), Failure> {
    let now_ms = Clock::system().now_ms();
    let columns = out.columns().unwrap_or(usize::MAX);
    for change in &status.changes {
        let due = brief(change.due_ms, now_ms);
        let place = match change.state.as_str() {
            "taken" => format!("with a stream, taken back at {due}"),
            "taken_by_id" => format!("taken by id, taken back at {due}"),
            "behind" => "after an earlier change".to_owned(),
            _waiting if change.due_ms > now_ms => format!("comes again at {due}"),
            _waiting => "ready".to_owned(),
        };
        let (delivery, attempt, kind) = (&change.delivery, change.attempt, &change.kind);
        let key = escape(&change.key);
        let text = format!("{delivery}  attempt {attempt}  {place}  {kind} {key}");
        out.line(&shorten(&text, columns))?;
    }
    let shown = u64::try_from(status.changes.len()).unwrap_or(u64::MAX);
    match status.outstanding.saturating_sub(shown) {
        0 => Ok(()),
        more => out.line(&format!("and {more} more")),
    }
}

/// Describes why a taker gets no change now; `None` if it gets one.
pub(super) fn idle(status: &api::ConsumerStatus) -> Option<String> {
    let due = match status.next_due_ms {
        0 => String::new(),
        ms => format!(
            "; the next comes again at {}",
            brief(ms, Clock::system().now_ms()).trim()
        ),
    };
    let name = &status.consumer;
    let waiting = status.outstanding.saturating_sub(status.in_flight);
    let held = format!(
        "{} with takers, {waiting} that wait to come again",
        status.in_flight
    );
    match (status.state.as_str(), status.idle.as_str()) {
        ("waiting" | "stopped", _) => Some(format!("it is {}: {}", status.state, status.reason)),
        (_, "paused") => Some(format!(
            "it is paused; `lattice consumer resume {name}` ends that"
        )),
        (_, "full") => Some(format!(
            "all {} places (--max-in-flight) are taken: {held}{due}",
            status.max_in_flight
        )),
        (_, "busy") => Some(format!(
            "nothing new, and what is outstanding is not free: {held}{due}"
        )),
        (_, "empty") => Some("nothing new".to_owned()),
        _ready => None,
    }
}
