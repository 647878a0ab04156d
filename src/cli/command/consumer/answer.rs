//! `consumer ack`, `nack`, `term`, `extend`: answer changes that were taken.

use std::time::Duration;

use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::consumer::object,
    exit::Failure,
    input::time::{millis, parse_duration},
    session::{Context, Lifetime},
};

/// The deliveries to answer.
#[derive(Debug, Args)]
struct Taken {
    /// Name of the consumer
    name: String,
    /// Id of the delivery, which `consumer next` printed before the change
    #[arg(required = true, value_name = "DELIVERY")]
    deliveries: Vec<String>,
}

impl Taken {
    // Asks for an answer that is on disk when the command returns.
    fn request(self, context: &Context) -> api::AnswerRequest {
        api::AnswerRequest {
            store: context.store.clone(),
            consumer: self.name,
            deliveries: self.deliveries,
            durable: true,
        }
    }
}

/// Acknowledge changes: they are done and are not delivered again
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
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = self.taken.request(context);
        client.ack(request.clone()).await?;
        print_answered(context, "acked", &request.deliveries)
    }
}

/// Return changes: they are delivered again later, with the next attempt number
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer nack billing 5e0c93d1a7f24b6c8d90e1f2a3b4c5d6.1
  lattice consumer nack billing 5e0c93d1a7f24b6c8d90e1f2a3b4c5d6.1 --delay 5m")]
pub(super) struct Nack {
    #[command(flatten)]
    taken: Taken,
    /// Time until they are delivered again [default: the consumer's --backoff]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,
}

impl Nack {
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
        print_answered(context, "nacked", &deliveries)
    }
}

/// Give changes up: they become dead letters
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
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = self.taken.request(context);
        client.term(request.clone()).await?;
        print_answered(context, "dead", &request.deliveries)
    }
}

/// Ask for more time: the consumer's --ack-wait starts again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer extend billing 5e0c93d1a7f24b6c8d90e1f2a3b4c5d6.1")]
pub(super) struct Extend {
    #[command(flatten)]
    taken: Taken,
}

impl Extend {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = self.taken.request(context);
        client.extend(request.clone()).await?;
        print_answered(context, "extended", &request.deliveries)
    }
}

fn print_answered(
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
