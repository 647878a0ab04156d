//! `consumer list`, `show`, `pause`, `resume`, `delete`.

use std::time::Duration;

use clap::Args;
use lattice::{
    clock::{Clock, duration_text},
    wire::api,
};

use crate::cli::{
    command::consumer::{name::Name, object},
    exit::Failure,
    input::time::{brief, date_time},
    output::print::{Output, escape, harmless},
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
        let reply = client.list_consumers(api::ListConsumersRequest { store });
        let consumers = reply.await?.into_inner().consumers;
        let out = &mut context.out;
        if out.json {
            return consumers
                .iter()
                .try_for_each(|status| out.object(&object::Status::new(status)));
        }
        if consumers.is_empty() {
            out.notice(
                "no_consumers",
                "this store has no consumers; create one with `lattice consumer create`",
            );
        }
        consumers
            .iter()
            .try_for_each(|status| out.line(&line(status)))
    }
}

/// Show the state and the options of a consumer
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
        print_status(&mut context.out, &reply.into_inner())
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
            let r#type = "deleted";
            return out.object(&object::Deleted { r#type, consumer });
        }
        out.line(&format!("deleted  {}", escape(consumer.as_bytes())))
    }
}

/// Prints the status of a consumer, a line for each property.
pub(super) fn print_status(out: &mut Output, status: &api::ConsumerStatus) -> Result<(), Failure> {
    if out.json {
        return out.object(&object::Status::new(status));
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
    ] {
        out.line(&format!("{what:<10} {is}"))?;
    }
    Ok(())
}

fn line(status: &api::ConsumerStatus) -> String {
    let seen = match status.last_seen_ms {
        0 => "never seen".to_owned(),
        ms => format!("seen {}", brief(ms, Clock::system().now_ms())),
    };
    format!(
        "{:<16} {:<8} {}  backlog {}, outstanding {}, in flight {}, redelivered {}, dead {}, {seen}",
        status.consumer,
        status.state,
        prefixes(status),
        status.backlog_entries,
        status.outstanding,
        status.in_flight,
        status.redelivered,
        status.dead,
    )
}

fn prefixes(status: &api::ConsumerStatus) -> String {
    if status.prefixes.is_empty() {
        return "all".to_owned();
    }
    let prefixes: Vec<_> = status.prefixes.iter().map(|key| escape(key)).collect();
    prefixes.join(" ")
}
