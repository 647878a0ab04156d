//! `consumer create`, `set`, `reset`: make a consumer, change it, or move it to another position.

use std::{ffi::OsString, time::Duration};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use lattice::{
    clock::Clock,
    protocol::cursor::Cursor,
    wire::api::{self, consumer_start::Start},
};

use crate::cli::{
    command::consumer::{name::Name, show::print_status},
    exit::Failure,
    input::{
        key::KeyFlags,
        time::{When, millis, parse_duration, parse_past},
    },
    session::{Context, Lifetime},
};

/// Create a consumer
///
/// If one with the same name and options exists, nothing is changed, wherever it began.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer create billing /orders/ --since start
  lattice consumer create audit --since 2h               all keys
  lattice consumer create deploy /deploy/ --ack-wait 10m --max-deliver 3 --backoff 1m
  lattice consumer create ledger /a/ /b/ --max-in-flight 1")]
pub(super) struct Create {
    /// Name of the consumer: up to 64 letters, digits, '-', '_' or '.'
    name: String,
    /// Only keys that start with one of these, byte by byte [default: all keys]
    #[arg(value_name = "PREFIX")]
    prefixes: Vec<OsString>,
    #[command(flatten)]
    flags: KeyFlags,
    /// Where to begin: start, now, a cursor of a watch, an age such as 2h, a date, or an RFC 3339
    /// time
    #[arg(long = "since", alias = "from", value_name = "WHERE", default_value = "now", value_parser = parse_from)]
    from: From,
    /// Time to acknowledge a change before it is delivered again [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ack_wait: Option<Duration>,
    /// Attempts before a change becomes a dead letter; 0 for no limit [default: 10]
    #[arg(long, value_name = "N")]
    max_deliver: Option<u32>,
    /// Changes delivered and not answered at a time, over all processes; 1 keeps the order of the
    /// log even when changes are delivered again [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_in_flight: Option<u32>,
    /// Waits before the 2nd, 3rd ... attempt; the last one is used for all later attempts [default:
    /// 100ms,1s,5s,30s,2m]
    #[arg(long, value_name = "DURATION", value_delimiter = ',', value_parser = parse_duration)]
    backoff: Vec<Duration>,
    /// Step to take where the log no longer has the next changes: stop delivers nothing more; state
    /// delivers one change of type gap, which says to forget what is known, then each live key, then
    /// the changes after that state [default: stop]
    #[arg(long, value_enum)]
    on_gap: Option<OnGap>,
}

/// The step where the log no longer has the next changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnGap {
    Stop,
    State,
}

impl OnGap {
    /// Returns the name that the API takes; empty for `None`.
    pub(crate) fn to_wire(on_gap: Option<Self>) -> String {
        let name = match on_gap {
            None => "",
            Some(Self::Stop) => "stop",
            Some(Self::State) => "state",
        };
        name.to_owned()
    }
}

impl Create {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        if self.ack_wait == Some(Duration::ZERO) {
            let message = "--ack-wait must be at least 1ms";
            return Err(Failure::usage("consumer_option", message));
        }
        let request = api::CreateConsumerRequest {
            store: context.store.clone(),
            consumer: self.name,
            prefixes: self.flags.keys(self.prefixes)?,
            from: Some(self.from.to_wire()),
            ack_wait_ms: self.ack_wait.map_or(0, millis),
            max_deliver: self.max_deliver,
            max_in_flight: self.max_in_flight.unwrap_or(0),
            backoff_ms: self.backoff.into_iter().map(millis).collect(),
            on_gap: OnGap::to_wire(self.on_gap),
        };
        let status = client.create_consumer(request).await?.into_inner();
        print_status(&mut context.out, &status)
    }
}

/// Change options of a consumer, and nothing else
///
/// Its position, outstanding changes and dead letters stay. A change that is with a taker keeps the
/// time it was given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer set billing --max-in-flight 100
  lattice consumer set billing --ack-wait 10m --max-deliver 0
  lattice consumer set billing --on-gap state       goes on where history is missing")]
pub(super) struct Set {
    #[command(flatten)]
    name: Name,
    /// Time to acknowledge a change before it is delivered again
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ack_wait: Option<Duration>,
    /// Attempts before a change becomes a dead letter; 0 for no limit
    #[arg(long, value_name = "N")]
    max_deliver: Option<u32>,
    /// Changes delivered and not answered at a time, over all processes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_in_flight: Option<u32>,
    /// Waits before the 2nd, 3rd ... attempt; the last one is used for all later attempts
    #[arg(long, value_name = "DURATION", value_delimiter = ',', value_parser = parse_duration)]
    backoff: Vec<Duration>,
    /// From the current position on, only keys that start with this; may be repeated. An empty one
    /// selects all keys
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<OsString>,
    /// Step to take where the log no longer has the next changes, as for create; with state, a
    /// consumer that has stopped goes on
    #[arg(long, value_enum)]
    on_gap: Option<OnGap>,
    #[command(flatten)]
    flags: KeyFlags,
}

impl Set {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let prefixes = self.flags.keys(self.prefixes)?;
        let request = api::SetConsumerRequest {
            store: context.store.clone(),
            consumer: self.name.name,
            ack_wait_ms: self.ack_wait.map(millis),
            max_deliver: self.max_deliver,
            max_in_flight: self.max_in_flight,
            backoff_ms: self.backoff.into_iter().map(millis).collect(),
            on_gap: OnGap::to_wire(self.on_gap),
            change_prefixes: !prefixes.is_empty(),
            prefixes: match prefixes.iter().any(Bytes::is_empty) {
                true => Vec::new(),
                false => prefixes,
            },
        };
        let nothing = api::SetConsumerRequest {
            store: request.store.clone(),
            consumer: request.consumer.clone(),
            ..api::SetConsumerRequest::default()
        };
        if request == nothing {
            let message = "no option to change was given";
            return Err(Failure::usage("no_option", message)
                .hint("for example --max-in-flight 100; see `lattice consumer set --help`"));
        }
        let mut client = context.client(Lifetime::Short).await?;
        let status = client.set_consumer(request).await?.into_inner();
        print_status(&mut context.out, &status)
    }
}

/// Move a consumer to another position
///
/// Changes that were delivered and not acknowledged are dropped. Dead letters stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer reset billing --since start
  lattice consumer reset billing --since now         skip the backlog
  lattice consumer reset billing --since 2h")]
pub(super) struct Reset {
    #[command(flatten)]
    name: Name,
    /// Where to begin: start, now, a cursor of a watch, an age such as 2h, a date, or an RFC 3339
    /// time
    #[arg(long = "since", alias = "from", value_name = "WHERE", value_parser = parse_from)]
    from: From,
}

impl Reset {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::ResetConsumerRequest {
            store: context.store.clone(),
            consumer: self.name.name,
            from: Some(self.from.to_wire()),
        };
        let status = client.reset_consumer(request).await?.into_inner();
        print_status(&mut context.out, &status)
    }
}

/// The position at which a consumer or a hook begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    Now,
    Cursor(String),
    Since(When),
}

impl From {
    /// Converts it for the API.
    pub(crate) fn to_wire(&self) -> api::ConsumerStart {
        let start = match self {
            Self::Start => Start::Beginning(true),
            Self::Now => Start::Now(true),
            Self::Cursor(cursor) => Start::After(cursor.clone()),
            Self::Since(when) => Start::SinceAuthoredMs(when.at_ms(Clock::system().now_ms())),
        };
        api::ConsumerStart { start: Some(start) }
    }
}

/// Parses the value of `--since`.
pub(crate) fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "start" => return Ok(From::Start),
        "now" => return Ok(From::Now),
        _elsewhere => {}
    }
    match (parse_past(text), text.parse::<Cursor>()) {
        (Ok(when), _) => Ok(From::Since(when)),
        (_, Ok(_cursor)) => Ok(From::Cursor(text.to_owned())),
        (Err(future), Err(_no_cursor)) if future.contains("in the future") => Err(future),
        (Err(_no_time), Err(_no_cursor)) => Err(
            "expected start, now, a cursor of a watch, an age such as 2h, a date, or a time such \
            as 2026-01-31T12:00:00Z"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_a_word_a_time_or_a_cursor() {
        assert_eq!(parse_from("start"), Ok(From::Start));
        assert_eq!(parse_from("now"), Ok(From::Now));
        let ago = When::Ago(Duration::from_secs(7200));
        assert_eq!(parse_from("2h"), Ok(From::Since(ago)));
        for wrong in ["", "beginning", "AQoQ", "2"] {
            assert!(parse_from(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
