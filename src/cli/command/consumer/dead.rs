//! `consumer dead`: lists, retries or skips the dead letters of a consumer.

use clap::{Args, Subcommand};
use lattice::{api::client::Client, wire::api};

use crate::cli::{
    command::consumer::object,
    exit::{Exit, Failure},
    input::time::date_time,
    output::{json::typed, print::escape},
    session::{Context, Lifetime},
};

/// List dead letters, deliver them again, or drop them
///
/// A change becomes a dead letter after --max-deliver attempts, by `consumer term`, or when it
/// cannot be read from the log any more.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer dead billing
  lattice consumer dead billing retry 17
  lattice consumer dead billing retry --all
  lattice consumer dead billing skip 17 18")]
pub(super) struct Dead {
    /// Name of the consumer
    name: String,
    #[command(subcommand)]
    action: Option<Action>,
}

/// An action on dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Deliver dead letters again, with a full number of attempts
    #[command(after_help = "\
Examples:
  lattice consumer dead billing retry 17
  lattice consumer dead billing retry --all")]
    Retry(Which),
    /// Drop dead letters
    #[command(after_help = "\
Examples:
  lattice consumer dead billing skip 17
  lattice consumer dead billing skip --all")]
    Skip(Which),
}

/// The selected dead letters.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Number of the letter in the list, or an id that `consumer next` printed for it
    #[arg(value_name = "DELIVERY", required_unless_present = "all")]
    letters: Vec<String>,
    /// Select all dead letters
    #[arg(long, conflicts_with = "letters")]
    all: bool,
}

impl Dead {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let list = api::ConsumerRequest {
            store: context.store.clone(),
            consumer: self.name,
        };
        Action::run(self.action, context, list).await
    }
}

impl Action {
    /// Runs `action` on the dead letters of the consumer that `list` names; lists them for `None`.
    pub(crate) async fn run(
        action: Option<Self>,
        context: &mut Context,
        list: api::ConsumerRequest,
    ) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        match action {
            None => {
                let letters = letters(&mut client, list).await?;
                letters
                    .iter()
                    .try_for_each(|letter| print_letter(context, letter))
            }
            Some(Self::Retry(which)) => {
                let request = which.request(&mut client, list).await?;
                let count = client.retry_dead(request).await?.into_inner().count;
                print_count(context, "retried", count)
            }
            Some(Self::Skip(which)) => {
                let request = which.request(&mut client, list).await?;
                let count = client.skip_dead(request).await?.into_inner().count;
                print_count(context, "skipped", count)
            }
        }
    }
}

impl Which {
    async fn request(
        self,
        client: &mut Client,
        list: api::ConsumerRequest,
    ) -> Result<api::DeadRequest, Failure> {
        let mut numbers = Vec::new();
        if !self.all {
            let there = letters(client, list.clone()).await?;
            for wanted in &self.letters {
                numbers.push(number(&there, wanted).ok_or_else(|| not_found(wanted))?);
            }
        }
        Ok(api::DeadRequest {
            store: list.store,
            consumer: list.consumer,
            numbers,
            all: self.all,
        })
    }
}

async fn letters(
    client: &mut Client,
    list: api::ConsumerRequest,
) -> Result<Vec<api::DeadLetter>, Failure> {
    let mut parts = client.list_dead(list).await?.into_inner();
    let mut letters = Vec::new();
    while let Some(part) = parts.message().await? {
        letters.extend(part.letters);
    }
    Ok(letters)
}

// Finds a letter by its number, or by the id of any attempt: the part before the point names the
// change.
fn number(letters: &[api::DeadLetter], wanted: &str) -> Option<u64> {
    let change = |id: &str| id.split_once('.').map(|(change, _)| change.to_owned());
    let wanted_change = change(wanted);
    let is_it = |letter: &&api::DeadLetter| {
        letter.number.to_string() == wanted
            || wanted_change.is_some() && change(&letter.delivery) == wanted_change
    };
    letters.iter().find(is_it).map(|letter| letter.number)
}

fn not_found(wanted: &str) -> Failure {
    let wanted = escape(wanted.as_bytes()).into_owned();
    Failure::new(
        Exit::NotFound,
        "unknown_dead_letter",
        format!("the consumer has no dead letter {wanted}"),
    )
    .hint("`lattice consumer dead NAME` lists them")
}

fn print_letter(context: &mut Context, letter: &api::DeadLetter) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        return out.object(&typed("dead_letter", object::DeadLetter::new(letter)));
    }
    out.line(&format!(
        "{:<6} {}  {:<11} after {} attempts  {:<7} {}  {}",
        letter.number,
        date_time(letter.died_ms),
        letter.reason,
        letter.attempts,
        letter.kind,
        escape(&letter.key),
        letter.delivery,
    ))
}

fn print_count(context: &mut Context, r#type: &'static str, count: u64) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        let r#type = format!("dead_{type}");
        return out.object(&object::DeadActed { r#type, count });
    }
    out.line(&format!("{count} {type}"))
}
