//! The calls about hooks.

use std::{mem, path::PathBuf, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    api::{
        consumer,
        error::{ApiError, EXIT_DAMAGED, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_PRECONDITION, text},
        paging::{Answers, parts, unfold},
    },
    hooks::{
        Hook, HookKind, HookStatus, Hooks, HooksError, HooksFileError, LogPlace, Mode, Rehearsal,
        RunRecord, Span,
    },
    protocol::{change::Kind, entry::Op},
    store::{Start, consumers::ConsumerStart},
    wire::api,
};

/// Answers `AddHook`.
pub(super) async fn add(
    hooks: &Hooks,
    request: api::AddHookRequest,
) -> Result<api::HookStatus, ApiError> {
    let hook = hook(request.definition.unwrap_or_default())?;
    let from = consumer::start(request.from)?.unwrap_or(ConsumerStart::Now);
    Ok(status(&hooks.add(&request.hook, hook, from).await?))
}

/// Answers `ListHooks`.
pub(super) async fn list(hooks: &Hooks) -> Result<Answers<api::ListHooksReply>, ApiError> {
    let list = hooks.list().await?;
    let mut broken = list.broken.unwrap_or_default();
    let all = list.hooks.iter().map(status).collect();
    Ok(parts(all, move |hooks, _last| api::ListHooksReply {
        hooks,
        broken: mem::take(&mut broken),
    }))
}

/// Answers `PauseHook` and `ResumeHook`.
pub(super) async fn set_paused(
    hooks: &Hooks,
    name: &str,
    paused: bool,
) -> Result<api::HookStatus, ApiError> {
    Ok(status(&hooks.set_paused(name, paused).await?))
}

/// Answers `HookLog`.
pub(super) async fn log(
    hooks: &Hooks,
    request: &api::HookLogRequest,
) -> Result<api::HookLogReply, ApiError> {
    let count = match request.count {
        0 => LOG_COUNT_DEFAULT,
        count => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let place = |bytes: &[u8]| {
        let wrong = || ApiError::usage("bad_place", "`after` must be `next` of an earlier reply");
        LogPlace::from_bytes(bytes).ok_or_else(wrong)
    };
    let after = Some(&request.after).filter(|after| !after.is_empty());
    let after = after.map(|after| place(after)).transpose()?;
    let (runs, next) = hooks.logs_after(&request.hook, after, count).await?;
    Ok(api::HookLogReply {
        runs: runs.iter().map(run).collect(),
        next: Bytes::copy_from_slice(&next.to_bytes()),
    })
}

/// Answers `TestHook`.
pub(super) fn test(
    hooks: &Hooks,
    request: &api::TestHookRequest,
    ending: CancellationToken,
) -> Result<Answers<api::HookTest>, ApiError> {
    let start = Start::SinceAuthored {
        ms: request.since_authored_ms,
    };
    let rehearsal = hooks.rehearse(&request.hook, start, request.dry_run)?;
    Ok(unfold(Testing { rehearsal, ending }, |testing| {
        Box::pin(testing.step())
    }))
}

/// One `TestHook` call.
struct Testing {
    rehearsal: Rehearsal,
    ending: CancellationToken,
}

impl Testing {
    async fn step(mut self) -> Option<(Result<api::HookTest, Status>, Self)> {
        let next = consumer::until(&self.ending, self.rehearsal.next()).await;
        let next = next.and_then(|next| Ok(next?)).transpose()?;
        let hook = self.rehearsal.hook();
        let action = match &hook.http {
            Some(url) => vec!["POST".to_owned(), url.clone()],
            None => hook.run.clone(),
        };
        let test = next.map(|rehearsed| api::HookTest {
            run: Some(run(&rehearsed.record)),
            action,
            ops: rehearsed
                .ops
                .into_iter()
                .map(|op| line(op, rehearsed.record.at_ms))
                .collect(),
        });
        Some((test.map_err(Status::from), self))
    }
}

fn line(op: Op, now_ms: u64) -> api::Op {
    match op {
        Op::Put {
            key,
            value,
            expires_ms,
        } => api::Op {
            key,
            delete: false,
            value,
            ttl_ms: expires_ms.map(|ms| ms.saturating_sub(now_ms)),
            ..api::Op::default()
        },
        Op::Delete { key } => api::Op {
            key,
            delete: true,
            ..api::Op::default()
        },
    }
}

fn hook(definition: api::Hook) -> Result<Hook, ApiError> {
    let usual = Hook::default();
    let span = |ms| Span(Duration::from_millis(ms));
    let some_span = |ms| Some(span(ms)).filter(|_| ms > 0);
    let path = |text: String| Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty());
    let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
    let or_usual = |is, usual| if is == 0 { usual } else { is };
    Ok(Hook {
        on: definition.on,
        on_base64: Some(definition.on_base64).filter(|prefix| !prefix.is_empty()),
        store: definition.store,
        run: definition.run,
        dir: path(definition.dir),
        http: Some(definition.http).filter(|url| !url.is_empty()),
        secret_file: path(definition.secret_file),
        secret_env: Some(definition.secret_env).filter(|name| !name.is_empty()),
        ca_file: path(definition.ca_file),
        kinds: definition
            .kinds
            .iter()
            .map(|text| kind(text))
            .collect::<Result<_, _>>()?,
        mode: mode(&definition.mode)?,
        batch: Some(count(definition.batch)).filter(|batch| *batch > 0),
        debounce: some_span(definition.debounce_ms),
        debounce_max: some_span(definition.debounce_max_ms),
        timeout: some_span(definition.timeout_ms).unwrap_or(usual.timeout),
        parallel: match definition.parallel {
            0 => usual.parallel,
            parallel => count(parallel),
        },
        attempts: or_usual(definition.attempts, usual.attempts),
        backoff: match definition.backoff_ms {
            waits if waits.is_empty() => usual.backoff,
            waits => waits.into_iter().map(span).collect(),
        },
        writes: definition.writes,
        rate: or_usual(definition.rate, usual.rate),
        on_gap: consumer::on_gap(&definition.on_gap)?,
    })
}

fn kind(text: &str) -> Result<HookKind, ApiError> {
    Ok(match text {
        "put" => HookKind::Put,
        "delete" => HookKind::Delete,
        "expire" => HookKind::Expire,
        "retract" => HookKind::Retract,
        other => return Err(unknown("kind", other, "put, delete, expire or retract")),
    })
}

fn mode(text: &str) -> Result<Mode, ApiError> {
    Ok(match text {
        "" | "each" => Mode::Each,
        "latest" => Mode::Latest,
        "batch" => Mode::Batch,
        other => return Err(unknown("mode", other, "each, latest or batch")),
    })
}

fn unknown(what: &str, text: &str, expected: &str) -> ApiError {
    let text: String = text.chars().take(80).collect();
    ApiError::usage(
        "hook",
        format!("{text:?} is not a {what}: expected {expected}"),
    )
}

fn definition(hook: &Hook) -> api::Hook {
    let text = |path: &Option<PathBuf>| {
        let path = path
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned());
        path.unwrap_or_default()
    };
    let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
    let ms = |span: Span| millis(span.0);
    let some_ms = |span: Option<Span>| span.map_or(0, ms);
    api::Hook {
        on: hook.on.clone(),
        on_base64: hook.on_base64.clone().unwrap_or_default(),
        store: hook.store.clone(),
        run: hook.run.clone(),
        dir: text(&hook.dir),
        http: hook.http_shown().unwrap_or_default(),
        secret_file: text(&hook.secret_file),
        secret_env: hook.secret_env.clone().unwrap_or_default(),
        ca_file: text(&hook.ca_file),
        kinds: hook
            .kinds
            .iter()
            .map(|kind| Kind::from(*kind).name().to_owned())
            .collect(),
        mode: hook.mode.to_string(),
        batch: hook.batch.map_or(0, count),
        debounce_ms: some_ms(hook.debounce),
        debounce_max_ms: some_ms(hook.debounce_max),
        timeout_ms: ms(hook.timeout),
        parallel: count(hook.parallel),
        attempts: hook.attempts,
        backoff_ms: hook.backoff.iter().map(|wait| ms(*wait)).collect(),
        rate: hook.rate,
        writes: hook.writes,
        on_gap: hook
            .on_gap
            .map_or_else(String::new, |step| step.name().to_owned()),
    }
}

fn status(status: &HookStatus) -> api::HookStatus {
    let health = status.health.clone().unwrap_or_default();
    api::HookStatus {
        hook: status.name.clone(),
        definition: status.hook.as_ref().map(definition),
        state: status.state.name().to_owned(),
        reason: status.reason.clone(),
        consumer: status.consumer.as_ref().map(consumer::status),
        running: health.running,
        done: health.done,
        failed: health.failed,
        skipped: health.skipped,
        slowed: health.slowed.unwrap_or_default(),
        last: status.last.as_ref().map(run),
    }
}

fn run(record: &RunRecord) -> api::HookRun {
    let key = match (&record.key, &record.key_base64) {
        (Some(key), _) => key.clone().into(),
        // The journal writes valid base64; only an edited log has anything else.
        (None, Some(base64)) => BASE64.decode(base64.as_bytes()).unwrap_or_default().into(),
        (None, None) => Bytes::new(),
    };
    api::HookRun {
        at_ms: record.at_ms,
        run: record.run.clone(),
        attempt: record.attempt,
        changes: u32::try_from(record.changes).unwrap_or(u32::MAX),
        kind: record.kind.clone(),
        key,
        entry: record.entry.clone(),
        outcome: record.outcome.name().to_owned(),
        what: record.what.clone(),
        took_ms: record.took_ms,
        retry_ms: record.retry_ms,
        stdout: record.stdout.clone(),
        stdout_bytes: record.stdout_bytes,
        stderr: record.stderr.clone(),
        stderr_bytes: record.stderr_bytes,
        wrote: record.wrote.clone().unwrap_or_default(),
        ops: u32::try_from(record.ops.unwrap_or(0)).unwrap_or(u32::MAX),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<HooksError> for ApiError {
    fn from(error: HooksError) -> Self {
        let message = text(&error);
        match error {
            HooksError::Hook(_) => Self::usage("hook", message),
            HooksError::Unknown { .. } => Self::new("unknown_hook", EXIT_NOT_FOUND, message)
                .hint("`lattice hook list` lists the hooks of this node"),
            HooksError::Exists { .. } => Self::new("hook_exists", EXIT_PRECONDITION, message)
                .hint("edit it in hooks.toml, remove it first, or choose another name"),
            HooksError::File(HooksFileError::Io { .. }) | HooksError::Log { .. } => {
                Self::new("io", EXIT_FAILED, message)
            }
            HooksError::File(HooksFileError::Untrusted(error)) => error.into(),
            HooksError::File(_) => Self::usage("hooks_file", message)
                .hint("correct the file; until then the hooks run as before"),
            HooksError::Watch(error) => error.into(),
            HooksError::HistoryGone { .. } => Self::new("history_gone", EXIT_DAMAGED, message)
                .hint("`lattice verify` shows where; a shorter --since replays the rest"),
            HooksError::Post { .. } => Self::new("post", EXIT_FAILED, message),
            HooksError::Store(error) => error.into(),
            HooksError::Consumer(error) => error.into(),
        }
    }
}

const LOG_COUNT_DEFAULT: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::convert,
        hooks::ChangeLine,
        id::{Author, EntryId},
        protocol::{
            change::{Change, EntryRef, Origin},
            heads::{Content, Head, Heads},
            hlc::Hlc,
        },
    };

    fn entry(seq: u64) -> EntryRef {
        EntryRef {
            id: EntryId([u8::try_from(seq).unwrap(); 32]),
            author: Author([7; 32]),
            seq,
            hlc: Hlc {
                wall_ms: 1_700_000_000_000 + seq,
                counter: 3,
            },
        }
    }

    fn changes() -> Vec<Change> {
        let head = |seq| Head {
            hlc: entry(seq).hlc,
            author: entry(seq).author,
            id: entry(seq).id,
            seq,
            content: Content::Tombstone,
            taken_back: false,
        };
        let mut changes = Vec::new();
        let kinds = [Kind::Put, Kind::Delete, Kind::Expire, Kind::Retract];
        let origins = [
            Origin::Local,
            Origin::Remote,
            Origin::Replay,
            Origin::Initial,
        ];
        let keys: [&[u8]; 3] = [b"/k", b"/\xff", "/\"\u{1b}\u{e9}".as_bytes()];
        for (kind, origin) in kinds.into_iter().zip(origins) {
            for key in keys {
                for value in [None, Some(b"v".as_slice()), Some(b""), Some(b"\xfe")] {
                    changes.push(Change {
                        key: Bytes::from_static(key),
                        kind,
                        value: value.map(Bytes::from_static),
                        expires_ms: value.map(|_| 5),
                        entry: entry(2),
                        prev: Some(EntryId([1; 32])),
                        op_index: 1,
                        op_count: 2,
                        atomic: value.is_some(),
                        depth: 1,
                        heads: Heads::new(vec![head(1), head(2)]),
                        previous: value.map(|_| entry(1)),
                        origin,
                        arrived_ms: if origin == Origin::Initial { 0 } else { 9 },
                        late: kind == Kind::Delete,
                        gap: None,
                        gap_number: 0,
                    });
                }
            }
        }
        changes
    }

    #[test]
    fn change_line_is_equal_on_both_ends() {
        for change in changes() {
            let here = serde_json::to_string(&ChangeLine::from(&change)).unwrap();
            let sent = convert::change(&change);
            let there = serde_json::to_string(&ChangeLine::from(&sent)).unwrap();
            assert_eq!(here, there);
            assert!(here.contains(&"02".repeat(32)), "{here}");
        }
    }
}
