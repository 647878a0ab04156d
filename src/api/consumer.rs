//! The calls about durable consumers.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    api::{
        convert,
        error::{
            ApiError, EXIT_DAMAGED, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_PRECONDITION, closed, text,
        },
        paging::{Answers, parts, unfold},
    },
    hooks::Hook,
    limits::{CONSUMER_SHOWN_MAX, PAGE_BYTES},
    node::Node,
    protocol::{
        consumer::{AckError, ChangeId, DeadLetter, DeathReason, DeliveryId, OnGap, State, Waits},
        cursor::Cursor,
    },
    store::{
        Store, WatchError,
        consumers::{
            Claim, Consumer, ConsumerChanges, ConsumerError, ConsumerOptions, ConsumerStart,
            ConsumerState, ConsumerStatus, Delivery, Idle,
        },
    },
    wire::api::{self, consumer_start::Start},
};

/// Answers `CreateConsumer`.
pub(super) async fn create(
    node: &Node,
    request: api::CreateConsumerRequest,
) -> Result<api::ConsumerStatus, ApiError> {
    let store = node.store_of_keys(&request.store, &request.prefixes)?;
    // Later requests name the consumer and no keys: they would look for it in the data store.
    if request.store.is_empty() && store.id() == node.root().id() {
        let message = "these keys are in the root store, and the consumer has no store";
        return Err(ApiError::usage("store_needed", message)
            .hint("use --store root, here and in all commands about this consumer"));
    }
    let consumer = store.consumer(&request.consumer);
    let created = consumer.create(options(request)?).await?;
    Ok(status(&created))
}

/// Answers `ListConsumers`.
pub(super) async fn list(store: &Store) -> Result<Answers<api::ListConsumersReply>, ApiError> {
    let all = store.consumers().await?;
    let mut all: Vec<_> = all.iter().map(status).collect();
    // Consumers are listed even if a log cannot be read.
    let held = store.held_history(Vec::new()).await.unwrap_or_default();
    for held in held {
        let mut named = all.iter_mut().filter(|it| it.consumer == held.consumer);
        if let Some(status) = named.next() {
            (status.holds_since_ms, status.holds_bytes) = (held.since_ms, held.bytes);
        }
    }
    Ok(parts(all, |consumers, _last| api::ListConsumersReply {
        consumers,
    }))
}

/// Answers `ShowConsumer`, and the calls that change the consumer itself.
pub(super) async fn show(consumer: &Consumer) -> Result<api::ConsumerStatus, ApiError> {
    let mut reply = status(&consumer.show().await?);
    let mut bytes = 0;
    for waits in consumer.outstanding(CONSUMER_SHOWN_MAX).await? {
        bytes += waits.change.key.len();
        if bytes > PAGE_BYTES {
            break;
        }
        reply.changes.push(outstanding(&waits));
    }
    Ok(reply)
}

/// Answers `SetConsumer`.
pub(super) async fn set(
    consumer: &Consumer,
    request: api::SetConsumerRequest,
) -> Result<api::ConsumerStatus, ApiError> {
    let backoff = request.backoff_ms.into_iter().map(Duration::from_millis);
    let backoff = Some(backoff.collect::<Vec<_>>()).filter(|waits| !waits.is_empty());
    let changes = ConsumerChanges {
        ack_wait: request.ack_wait_ms.map(Duration::from_millis),
        max_deliver: request
            .max_deliver
            .map(|times| Some(times).filter(|times| *times > 0)),
        max_in_flight: request
            .max_in_flight
            .map(|changes| usize::try_from(changes).unwrap_or(usize::MAX)),
        backoff,
        prefixes: request.change_prefixes.then_some(request.prefixes),
        on_gap: on_gap(&request.on_gap)?,
    };
    consumer.set(changes).await?;
    show(consumer).await
}

fn outstanding(waits: &Waits) -> api::OutstandingChange {
    let (state, due_ms) = match waits.state {
        State::Taken {
            deadline_ms,
            detached: false,
        } => ("taken", deadline_ms),
        State::Taken {
            deadline_ms,
            detached: true,
        } => ("taken_by_id", deadline_ms),
        State::Waiting { .. } if waits.behind => ("behind", 0),
        State::Waiting { due_ms, .. } => ("waiting", due_ms),
    };
    api::OutstandingChange {
        delivery: waits.id.to_string(),
        attempt: waits.id.attempt,
        key: waits.change.key.clone(),
        kind: waits.change.kind.name().to_owned(),
        entry: Some(convert::entry_ref(&waits.change.entry)),
        state: state.to_owned(),
        due_ms,
    }
}

/// Answers `PauseConsumer` and `ResumeConsumer`.
pub(super) async fn set_paused(
    consumer: &Consumer,
    paused: bool,
) -> Result<api::ConsumerStatus, ApiError> {
    match paused {
        true => consumer.pause().await?,
        false => consumer.resume().await?,
    }
    show(consumer).await
}

/// Answers `ResetConsumer`.
pub(super) async fn reset(
    consumer: &Consumer,
    from: Option<api::ConsumerStart>,
) -> Result<api::ConsumerStatus, ApiError> {
    let from = start(from)?.ok_or_else(|| {
        ApiError::usage(
            "no_start",
            "a reset needs the place where the consumer begins again",
        )
    })?;
    consumer.reset(from).await?;
    show(consumer).await
}

/// Answers `Next`.
pub(super) async fn next(
    consumer: &Consumer,
    request: &api::NextRequest,
    ending: &CancellationToken,
) -> Result<api::NextReply, ApiError> {
    let first = match request.timeout_ms {
        0 => consumer.try_next().await?,
        ms => {
            let waiting = tokio::time::timeout(Duration::from_millis(ms), consumer.next());
            let first = until(ending, waiting).await?;
            first.ok().transpose()?
        }
    };
    let count = usize::try_from(request.count.max(1)).unwrap_or(usize::MAX);
    let mut taken = Vec::from_iter(first);
    let mut bytes = taken.first().map_or(0, bytes_of);
    // An error does not lose the deliveries: the next call returns the error again.
    while (1..count).contains(&taken.len())
        && bytes < PAGE_BYTES
        && let Ok(Some(delivery)) = consumer.try_next().await
    {
        bytes += bytes_of(&delivery);
        taken.push(delivery);
    }
    Ok(api::NextReply {
        deliveries: taken.into_iter().filter_map(detached).collect(),
    })
}

/// Returns what a `Nack` asks for, as the other answers ask for it.
pub(super) fn nack(request: api::NackRequest) -> (api::AnswerRequest, Answer) {
    let delay = request.delay_ms.map(Duration::from_millis);
    let request = api::AnswerRequest {
        store: request.store,
        consumer: request.consumer,
        deliveries: request.deliveries,
        durable: request.durable,
    };
    (request, Answer::Nack { delay })
}

/// Answers `Consume`: delivers changes of `consumer` until the client or the server ends the call.
pub(super) fn consume(
    consumer: Consumer,
    prefetch: u32,
    ending: CancellationToken,
) -> Answers<api::Delivery> {
    let consuming = Consuming {
        consumer,
        claims: Vec::new(),
        prefetch: usize::try_from(prefetch.max(1)).unwrap_or(usize::MAX),
        ending,
    };
    unfold(consuming, |consuming| Box::pin(consuming.step()))
}

/// One `Consume` call. Dropping it gives back every change that the client has not answered.
struct Consuming {
    consumer: Consumer,
    // Claims of changes that were sent and not answered when last checked. At most `prefetch`.
    claims: Vec<Claim>,
    prefetch: usize,
    ending: CancellationToken,
}

impl Consuming {
    async fn step(mut self) -> Option<(Result<api::Delivery, Status>, Self)> {
        let (consumer, claims) = (&self.consumer, &mut self.claims);
        let next = async {
            consumer.fewer_claims(claims, self.prefetch).await?;
            let delivery = consumer.next().await?;
            let message = message(&delivery);
            claims.push(delivery.into_claim());
            Ok::<_, ConsumerError>(message)
        };
        let next = until(&self.ending, next).await;
        let answer = next.and_then(|next| next.map_err(ApiError::from));
        Some((answer.map_err(Status::from), self))
    }
}

/// An answer to a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Ack,
    Nack { delay: Option<Duration> },
    Term,
    Extend,
}

/// Answers `Ack`, `Nack`, `Term` and `Extend`.
///
/// Answers every delivery, even after a failed answer, and returns the first error.
pub(super) async fn answer(
    consumer: &Consumer,
    deliveries: &[String],
    answer: Answer,
    durable: bool,
) -> Result<api::AnswerReply, ApiError> {
    let ids = deliveries.iter().map(|id| id.parse::<DeliveryId>());
    let ids: Vec<DeliveryId> = ids.collect::<Result<_, _>>().map_err(|error| {
        ApiError::usage("bad_delivery", error.to_string())
            .hint("copy the whole id that came with the change")
    })?;
    let mut all = Ok(());
    for id in ids {
        let one = match answer {
            Answer::Ack => consumer.ack(id).await,
            Answer::Nack { delay } => consumer.nack(id, delay).await,
            Answer::Term => consumer.term(id).await,
            Answer::Extend => consumer.extend(id).await,
        };
        all = all.and(one);
    }
    if durable {
        consumer.flush().await?;
    }
    Ok(all.map(|()| api::AnswerReply {})?)
}

/// Answers `ListDead`.
pub(super) async fn list_dead(
    consumer: &Consumer,
) -> Result<Answers<api::ListDeadReply>, ApiError> {
    let letters = consumer.dead().await?;
    let letters = letters.iter().map(dead_letter).collect();
    Ok(parts(letters, |letters, _last| api::ListDeadReply {
        letters,
    }))
}

/// Returns the numbers in `request`. An empty slice means all dead letters.
///
/// # Errors
/// Both numbers and `all`, or neither.
pub(super) fn numbers(request: &api::DeadRequest) -> Result<&[u64], ApiError> {
    if request.all == request.numbers.is_empty() {
        return Ok(&request.numbers);
    }
    Err(ApiError::usage(
        "which_dead_letters",
        "expected either numbers of dead letters or all of them",
    ))
}

pub(super) fn dead_reply(count: usize) -> api::DeadReply {
    api::DeadReply {
        count: count as u64,
    }
}

/// Waits for `answer`, or fails with `stopping` once `ending` is cancelled.
pub(super) async fn until<T>(
    ending: &CancellationToken,
    answer: impl Future<Output = T>,
) -> Result<T, ApiError> {
    tokio::select! {
        // Checked before the answer, so that the call ends even if the consumer always has a
        // change.
        biased;
        () = ending.cancelled() => Err(ApiError::stopping()),
        answer = answer => Ok(answer),
    }
}

// Leaves the delivery with the client. `None`: its `ack_wait` ended before it was sent, so another
// taker may have the change.
fn detached(delivery: Delivery) -> Option<api::Delivery> {
    let message = message(&delivery);
    delivery.detach().ok().map(|_id| message)
}

fn message(delivery: &Delivery) -> api::Delivery {
    api::Delivery {
        id: delivery.id().to_string(),
        attempt: delivery.attempt(),
        change: Some(convert::change(delivery.change())),
    }
}

// Returns about the bytes of the message of a delivery.
fn bytes_of(delivery: &Delivery) -> usize {
    let change = delivery.change();
    let value = change.value.as_ref().map_or(0, Bytes::len);
    value + change.key.len() + HEAD_BYTES * (3 + change.heads.as_slice().len())
}

/// Bytes of a head in a message, at most.
const HEAD_BYTES: usize = 100;

fn options(request: api::CreateConsumerRequest) -> Result<ConsumerOptions, ApiError> {
    let usual = ConsumerOptions::default();
    let or_usual = |is: u64, usual| match is {
        0 => usual,
        ms => Duration::from_millis(ms),
    };
    Ok(ConsumerOptions {
        from: start(request.from)?.unwrap_or(usual.from),
        prefixes: request.prefixes,
        ack_wait: or_usual(request.ack_wait_ms, usual.ack_wait),
        max_deliver: match request.max_deliver {
            None => usual.max_deliver,
            Some(0) => None,
            Some(times) => Some(times),
        },
        max_in_flight: match request.max_in_flight {
            0 => usual.max_in_flight,
            changes => usize::try_from(changes).unwrap_or(usize::MAX),
        },
        backoff: if request.backoff_ms.is_empty() {
            usual.backoff
        } else {
            let waits = request.backoff_ms.into_iter();
            waits.map(Duration::from_millis).collect()
        },
        on_gap: on_gap(&request.on_gap)?.unwrap_or(usual.on_gap),
    })
}

/// Reads the step at a gap. `None`: the text is empty.
///
/// # Errors
/// An error if the text is unknown.
pub(super) fn on_gap(text: &str) -> Result<Option<OnGap>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let known = OnGap::of_name(text);
    known.map(Some).ok_or_else(|| {
        let text: String = text.chars().take(80).collect();
        let message = format!("{text:?} is not a step at a gap: expected stop or state");
        ApiError::usage("consumer_option", message)
    })
}

/// Returns the place where a consumer begins. `None`: the request does not name one.
pub(super) fn start(from: Option<api::ConsumerStart>) -> Result<Option<ConsumerStart>, ApiError> {
    let Some(from) = from.and_then(|from| from.start) else {
        return Ok(None);
    };
    Ok(Some(match from {
        Start::Beginning(_) => ConsumerStart::Beginning,
        Start::Now(_) => ConsumerStart::Now,
        Start::After(text) => ConsumerStart::After(text.parse::<Cursor>()?),
        Start::SinceAuthoredMs(ms) => ConsumerStart::SinceAuthored { ms },
        Start::SinceArrivedMs(ms) => ConsumerStart::SinceArrived { ms },
    }))
}

/// Returns the status of a consumer as a message.
pub(super) fn status(status: &ConsumerStatus) -> api::ConsumerStatus {
    let (state, reason) = match &status.state {
        ConsumerState::Running => ("running", String::new()),
        ConsumerState::Paused => ("paused", String::new()),
        ConsumerState::Waiting { missing } => {
            let missing = missing.clone();
            ("waiting", WatchError::Behind { missing }.to_string())
        }
        ConsumerState::Stopped { reason } => ("stopped", reason.clone()),
    };
    let rules = &status.rules;
    api::ConsumerStatus {
        consumer: status.name.clone(),
        state: state.to_owned(),
        reason,
        prefixes: status.prefixes.clone(),
        ack_wait_ms: rules.ack_wait_ms,
        max_deliver: rules.max_deliver.unwrap_or(0),
        max_in_flight: u32::try_from(rules.max_in_flight).unwrap_or(u32::MAX),
        backoff_ms: rules.backoff_ms.clone(),
        created_ms: status.created_ms,
        position: status
            .position
            .as_ref()
            .map(Cursor::to_string)
            .unwrap_or_default(),
        backlog_entries: status.backlog_entries,
        outstanding: status.outstanding as u64,
        in_flight: status.in_flight as u64,
        acked: status.acked,
        redelivered: status.redelivered,
        dead: status.dead as u64,
        last_seen_ms: status.last_seen_ms.unwrap_or(0),
        idle: match status.idle {
            None => "",
            Some(Idle::Paused) => "paused",
            Some(Idle::Full) => "full",
            Some(Idle::Busy) => "busy",
            Some(Idle::Empty) => "empty",
        }
        .to_owned(),
        next_due_ms: status.next_due_ms.unwrap_or(0),
        on_gap: status.on_gap.name().to_owned(),
        gaps: status.gaps,
        changes: Vec::new(),
        ..api::ConsumerStatus::default()
    }
}

fn dead_letter(letter: &DeadLetter) -> api::DeadLetter {
    let DeadLetter {
        number,
        change,
        attempts,
        reason,
        died_ms,
    } = letter;
    let last = DeliveryId {
        change: ChangeId::of(change),
        attempt: *attempts,
    };
    let reason = match reason {
        DeathReason::MaxDeliver => "max_deliver",
        DeathReason::Terminated => "terminated",
        DeathReason::Unreadable => "unreadable",
        DeathReason::Pruned => "pruned",
    };
    api::DeadLetter {
        number: *number,
        delivery: last.to_string(),
        key: change.key.clone(),
        kind: change.kind.name().to_owned(),
        entry: Some(convert::entry_ref(&change.entry)),
        op_index: change.op_index,
        attempts: *attempts,
        reason: reason.to_owned(),
        died_ms: *died_ms,
    }
}

impl From<ConsumerError> for ApiError {
    fn from(error: ConsumerError) -> Self {
        let message = text(&error);
        match error {
            ConsumerError::Name { .. } => Self::usage("consumer_name_invalid", message),
            ConsumerError::Option { .. } => Self::usage("consumer_option", message),
            ConsumerError::Unknown { .. } => Self::new("unknown_consumer", EXIT_NOT_FOUND, message)
                .hint("`lattice consumer list` lists the consumers of the store"),
            ConsumerError::Exists { .. } => {
                Self::new("consumer_exists", EXIT_PRECONDITION, message)
                    .hint("`lattice consumer show` shows the options it was created with")
            }
            ConsumerError::TooMany => Self::new("too_many_consumers", EXIT_FAILED, message),
            ConsumerError::HistoryGone { name, .. } => {
                let hint = match Hook::of_consumer(&name) {
                    Some(hook) => format!(
                        "with on_gap = \"state\" in hooks.toml, hook {hook} goes on with one gap and \
                        the state"
                    ),
                    None => format!(
                        "`lattice consumer set {name} --on-gap state` goes on with one gap and the \
                        state; `lattice consumer reset {name} --since now` skips what is missing; if \
                        something is damaged, `lattice verify` lists it"
                    ),
                };
                Self::new("history_gone", EXIT_DAMAGED, message).hint(&hint)
            }
            ConsumerError::DamagedConsumer { .. } => {
                Self::new("consumer_damaged", EXIT_DAMAGED, message)
            }
            ConsumerError::Damaged { .. } => Self::new("consumers_damaged", EXIT_DAMAGED, message),
            ConsumerError::Io { .. } => Self::new("io", EXIT_FAILED, message)
                .hint("changes whose acknowledgement was not durable yet are redelivered"),
            ConsumerError::Ack(error) => error.into(),
            ConsumerError::Start(error) => error.into(),
            ConsumerError::Read(error) => error.into(),
            ConsumerError::Closed => closed(message),
        }
    }
}

impl From<AckError> for ApiError {
    fn from(error: AckError) -> Self {
        let message = error.to_string();
        let late = |code| Self::new(code, EXIT_PRECONDITION, message.clone());
        match error {
            AckError::NotOutstanding { .. } => late("not_outstanding"),
            AckError::GivenAgain { .. } => late("given_again").hint(
                "set a longer --ack-wait, or run `lattice consumer extend` while you work on it",
            ),
            AckError::Answered { .. } => late("answered"),
            AckError::Dead { .. } => {
                late("dead_letter").hint("`lattice consumer dead` lists, retries and skips them")
            }
            AckError::DeadLettersFull => Self::new("dead_letters_full", EXIT_FAILED, message)
                .hint("`lattice consumer dead` lists, retries and skips them"),
        }
    }
}
