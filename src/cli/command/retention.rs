//! `retention`: shows how much of a store's history is final, and who is in the way of the rest.

use std::time::Duration;

use clap::{Args, Subcommand};
use lattice::{api::client::Client, clock::duration_text, wire::api};

use crate::cli::{
    command::verify::named,
    exit::Failure,
    input::{
        size::parse_size,
        time::{date_time, millis, parse_duration},
    },
    output::{
        json::typed,
        object,
        retention::{self, reason},
    },
    screens::names::Names,
    session::{Context, Lifetime},
};

/// Show how much of a store's history is final and kept, or set how much is kept
///
/// Entries become final once an admin has seen that all members have them on disk; members that are
/// dormant are not waited for. A final entry counts for ever, and is removed from the logs when it is old,
/// or when there are many: the keys keep their values, but who wrote older values is not known any more.
/// A node that runs does all this by itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice retention
  lattice retention --store jobs --json | jq .held
  lattice retention set --age 7d --size 256MiB")]
pub(crate) struct Retention {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show how much of the history is final, and what holds the rest (the default)
    Show,
    /// Set how much history all nodes keep; what is not named stays as it is
    ///
    /// Only an admin can set it. Members that make no progress become dormant by themselves, and are
    /// waited for again once they are back.
    Set(Set),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Set {
    /// Remove final entries at this age [default: 30d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    age: Option<Duration>,
    /// Remove the oldest final entries when there are more [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Keep them this long for consumers that lag, up to a quarter of the size; and after an act that left
    /// out a branch of a fork [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    hold: Option<Duration>,
    /// Make entries final at this age [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    final_after: Option<Duration>,
    /// Make entries final earlier when more than this are not final [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    final_size: Option<u64>,
    /// Wait this long for members that make no progress; at least an hour [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    dormant_after: Option<Duration>,
    /// Wait only an hour for members that lack more than this; at least 16MiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    dormant_size: Option<u64>,
}

impl Retention {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        if let Some(Action::Set(set)) = self.action {
            let policy = Some(set.policy());
            let request = api::SetRetentionRequest { store, policy };
            let policy = client.set_retention(request).await?.into_inner();
            return match context.out.json {
                true => {
                    let policy = retention::Policy::new(&policy);
                    context.out.object(&typed("retention_policy", policy))
                }
                false => print_policy(context, &policy),
            };
        }
        let request = api::RetentionRequest { store, now: false };
        let reply = client.retention(request).await?.into_inner();
        print(context, &mut client, &reply).await
    }
}

impl Set {
    fn policy(&self) -> api::HistoryPolicy {
        api::HistoryPolicy {
            age_ms: self.age.map(millis),
            bytes: self.size,
            hold_ms: self.hold.map(millis),
            final_after_ms: self.final_after.map(millis),
            final_bytes: self.final_size,
            dormant_after_ms: self.dormant_after.map(millis),
            dormant_bytes: self.dormant_size,
        }
    }
}

fn print_policy(context: &mut Context, policy: &api::HistoryPolicy) -> Result<(), Failure> {
    let time = |ms: u64| match ms % DAY_MS {
        0 => format!("{}d", ms / DAY_MS),
        _ => duration_text(Duration::from_millis(ms)),
    };
    let out = &mut context.out;
    out.line(&format!(
        "keep     {} of final entries at most, for {}; for consumers that lag {}",
        size(policy.bytes()),
        time(policy.age_ms()),
        time(policy.hold_ms()),
    ))?;
    out.line(&format!(
        "policy   entries become final after {}, or when {} are not",
        time(policy.final_after_ms()),
        size(policy.final_bytes()),
    ))?;
    out.line(&format!(
        "waiting  for members without progress {}; an hour if they lack {}",
        time(policy.dormant_after_ms()),
        size(policy.dormant_bytes()),
    ))
}

const DAY_MS: u64 = 86_400_000;

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Prints what of a store's history is final.
pub(super) async fn print(
    context: &mut Context,
    client: &mut Client,
    reply: &api::RetentionReply,
) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        return out.object(&typed("retention", retention::Retention::new(reply)));
    }
    let names = Names::fetch(client).await?;
    let list = |nodes: &[bytes::Bytes]| {
        let nodes: Vec<String> = nodes.iter().map(|node| names.of(node)).collect();
        nodes.join(", ")
    };
    let info = object::Store::new(reply.info.as_ref());
    let final_bytes = reply.log_bytes.saturating_sub(reply.open_bytes);
    out.line(&format!("store    {}{}", info.store, named(&info)))?;
    out.line(&match reply.act {
        0 => "final    nothing yet".to_owned(),
        act => format!(
            "final    {} of {} of logs here, by act {act}",
            size(final_bytes),
            size(reply.log_bytes)
        ),
    })?;
    let (open, ready) = (size(reply.open_bytes), size(reply.ready_bytes));
    out.line(&format!(
        "open     {open}, of which {ready} could become final now"
    ))?;
    for held in &reply.held {
        let author = names.of(&held.author);
        let through = held.through;
        let from = held.after.saturating_add(1);
        let why = reason(held, |node| names.of(node));
        out.line(&format!(
            "held     {author}: entries {from} to {through}, {why}"
        ))?;
    }
    if !reply.silent.is_empty() {
        let nodes = list(&reply.silent);
        out.line(&format!("held     all: nothing was heard yet of {nodes}"))?;
    }
    if !reply.dormant.is_empty() {
        let nodes = list(&reply.dormant);
        out.line(&format!("dormant  {nodes}: not waited for"))?;
    }
    if reply.base_keys > 0 {
        let bytes = size(reply.base_bytes);
        out.line(&format!("base     {} keys in {bytes}", reply.base_keys))?;
    }
    for consumer in &reply.consumers {
        let (name, held) = (&consumer.consumer, size(consumer.bytes));
        let since = date_time(consumer.since_ms);
        out.line(&format!(
            "kept     {held} for consumer {name}, which has not got them since {since}"
        ))?;
    }
    for why in &reply.kept {
        out.line(&format!("kept     {why}"))?;
    }
    if reply.removable_bytes > 0 && reply.kept.is_empty() {
        let removable = size(reply.removable_bytes);
        out.line(&format!("prune    would remove {removable} now"))?;
    }
    print_policy(context, &reply.policy.unwrap_or_default())
}
