//! `consumer ack`, `nack`, `term`, `extend`: what became of a change.

use std::time::Duration;

use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::consumer::object,
    exit::Failure,
    input::time::{millis, parse_duration},
    session::{Context, Lifetime},
};

/// Changes that were taken.
#[derive(Debug, Args)]
struct Taken {
    /// Name of the consumer
    name: String,
    /// What `consumer next` printed before the change
    #[arg(required = true, value_name = "DELIVERY")]
    deliveries: Vec<String>,
}

impl Taken {
    // On disk when the command returns.
    fn request(self, context: &Context) -> api::AnswerRequest {
        api::AnswerRequest {
            store: context.store.clone(),
            consumer: self.name,
            deliveries: self.deliveries,
            durable: true,
        }
    }
}

/// Acknowledge changes: they are done, and never given out again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer ack billing 5e0c93d1a7f24b6c8d90e1f2a3b4c5d6.1
  lattice consumer next billing -n 10 --json | tee batch | handle &&
    jq -r .delivery batch | xargs lattice consumer ack billing")]
pub(super) struct Ack {
    #[command(flatten)]
    taken: Taken,
}

impl Ack {
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = self.taken.request(context);
        client.ack(request.clone()).await?;
        answered(context, "acked", &request.deliveries)
    }
}

/// Give changes back: they are given out again later, with a higher attempt
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer nack billing 5e0c93d1a7f24b6c8d90e1f2a3b4c5d6.1
  lattice consumer nack billing 5e0c93d1a7f24b6c8d90e1f2a3b4c5d6.1 --delay 5m")]
pub(super) struct Nack {
    #[command(flatten)]
    taken: Taken,
    /// When they may be given out again [default: the consumer's --backoff]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,
}

impl Nack {
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let api::AnswerRequest {
            store,
            consumer,
            deliveries,
            durable,
        } = self.taken.request(context);
        let request = api::NackRequest {
            store,
            consumer,
            deliveries: deliveries.clone(),
            delay_ms: self.delay.map(millis),
            durable,
        };
        client.nack(request).await?;
        answered(context, "nacked", &deliveries)
    }
}

/// Give changes up: nobody can do them, they become dead letters
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer term billing 5e0c93d1a7f24b6c8d90e1f2a3b4c5d6.1
  lattice consumer dead billing")]
pub(super) struct Term {
    #[command(flatten)]
    taken: Taken,
}

impl Term {
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = self.taken.request(context);
        client.term(request.clone()).await?;
        answered(context, "dead", &request.deliveries)
    }
}

/// Ask for more time: the consumer's --ack-wait begins anew
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer extend billing 5e0c93d1a7f24b6c8d90e1f2a3b4c5d6.1")]
pub(super) struct Extend {
    #[command(flatten)]
    taken: Taken,
}

impl Extend {
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = self.taken.request(context);
        client.extend(request.clone()).await?;
        answered(context, "extended", &request.deliveries)
    }
}

fn answered(
    context: &mut Context,
    r#type: &'static str,
    deliveries: &[String],
) -> Result<(), Failure> {
    let out = &mut context.out;
    deliveries.iter().try_for_each(|delivery| {
        if out.json {
            return out.object(&object::Answered { r#type, delivery });
        }
        out.line(&format!("{type:<8} {delivery}"))
    })
}
