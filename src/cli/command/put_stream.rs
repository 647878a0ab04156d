//! `put --stdin`: lines to pipelined writes, with a bounded number in flight.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lattice::{
    api::{client::Client, error::ApiError},
    wire::api,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::cli::{
    exit::{Exit, Failure},
    input::lines::{BadLine, Chunk, Dialect, Format, Lines},
    output::object,
    session::{Context, Lifetime},
};

/// Writes the lines of stdin, each on its own; returns when all are on disk.
pub(crate) async fn put_lines(
    context: &mut Context,
    format: Format,
    ttl_ms: Option<u64>,
) -> Result<(), Failure> {
    let client = context.client(Lifetime::Short).await?;
    let mut input = read_lines(format, ttl_ms);
    let result = write_chunks(client, &context.store, &mut input).await;
    let written = match &result {
        Ok(written) => *written,
        Err((written, _stop)) => *written,
    };
    if context.out.json {
        context.out.object(&object::Count { written })?;
    } else {
        context.out.line(&format!("{written} written"))?;
    }
    context.out.flush()?;
    if written > 0 {
        context.tell_written();
    }
    result
        .map(drop)
        .map_err(|(written, stop)| stop.failure(written))
}

/// Sends the chunks of `input` as fast as they are answered, and counts what is on disk.
pub(crate) async fn write_chunks(
    mut client: Client,
    store: &str,
    input: &mut Input,
) -> Result<u64, (u64, Stop)> {
    let mut pipe = Pipe::default();
    // The call is opened with its first request: no lines, no call.
    let Some(first) = pipe.next(store, input).await else {
        return pipe.end();
    };
    let (sender, receiver) = mpsc::channel(IN_FLIGHT_MAX);
    sender.try_send(first).expect("a new channel has room");
    let mut replies = match client.put_stream(ReceiverStream::new(receiver)).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => {
            pipe.stop = Some(Stop::Lost {
                from: pipe.first_unanswered(),
                failure: status.into(),
            });
            return pipe.end();
        }
    };
    // Dropped when nothing more is to be sent: the node answers what it has, then ends the call.
    let mut sender = Some(sender);
    while sender.is_some() || !pipe.in_flight.is_empty() {
        let may_send = sender.is_some() && pipe.in_flight.len() < IN_FLIGHT_MAX;
        tokio::select! {
            request = pipe.next(store, input), if may_send => {
                sender = match (request, sender) {
                    // As many slots as requests in flight, so it never waits.
                    (Some(request), Some(sender)) => {
                        sender.send(request).await.is_ok().then_some(sender)
                    }
                    _ended => None,
                };
            }
            reply = replies.message() => match reply {
                Ok(Some(reply)) => {
                    pipe.answered(reply);
                    if pipe.stop.is_some() {
                        sender = None;
                    }
                }
                ended => {
                    let failure = ended.err().map_or_else(lost, Failure::from);
                    pipe.stop = Some(Stop::Lost { from: pipe.first_unanswered(), failure });
                    break;
                }
            },
        }
    }
    pipe.end()
}

/// Chunks of lines; a bad line is the last item.
pub(crate) type Input = mpsc::Receiver<Result<Chunk, BadLine>>;

/// Why the rest was not sent.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A line that is no write.
    BadLine(BadLine),
    /// The node refused a write; those that were in flight with it were tried all the same.
    Refused { line: u64, error: ApiError },
    /// The node is gone. What it had answered is on disk; from this line on nobody knows.
    Lost { from: u64, failure: Failure },
}

impl Stop {
    /// Returns how the command ends when `written` writes are on disk.
    pub(crate) fn failure(self, written: u64) -> Failure {
        let mut failure = match self {
            Self::BadLine(bad) => bad.failure(),
            Self::Refused { line, error } => {
                let mut failure = Failure::from(error);
                failure.message = format!("line {line}: {}", failure.message);
                failure
            }
            Self::Lost { from, mut failure } => {
                failure.message = format!(
                    "{}; whether line {from} and those sent after it were written is unknown",
                    failure.message
                );
                failure
            }
        };
        if written > 0 {
            failure.exit = Exit::Partly;
            failure.message = format!(
                "{}; {written} written and kept, the rest was not sent",
                failure.message
            );
        }
        failure
    }
}

/// What was sent and is not answered, and what was.
#[derive(Default)]
struct Pipe {
    // Per request, in order: the numbers of its lines, and the bytes of input up to its end.
    in_flight: VecDeque<(Vec<u64>, u64)>,
    // Writes that are on disk.
    written: u64,
    stop: Option<Stop>,
    progress: Progress,
}

impl Pipe {
    // The next request; `None`: the input has ended, or a line of it is bad. Cancel-safe.
    async fn next(&mut self, store: &str, input: &mut Input) -> Option<api::PutStreamRequest> {
        match input.recv().await? {
            Ok(chunk) => {
                self.in_flight.push_back((chunk.numbers, chunk.bytes_read));
                Some(api::PutStreamRequest {
                    store: store.to_owned(),
                    ops: chunk.ops,
                })
            }
            Err(bad) => {
                self.stop = Some(Stop::BadLine(bad));
                None
            }
        }
    }

    fn answered(&mut self, reply: api::PutStreamReply) {
        let Some((numbers, bytes_read)) = self.in_flight.pop_front() else {
            return;
        };
        for (line, result) in numbers.into_iter().zip(reply.results) {
            match result.failed {
                None => self.written += 1,
                Some(failed) if !matches!(self.stop, Some(Stop::Refused { .. })) => {
                    let error = ApiError::from_wire(failed);
                    self.stop = Some(Stop::Refused { line, error });
                }
                Some(_later) => {}
            }
        }
        self.progress.show(self.written, bytes_read);
    }

    fn first_unanswered(&self) -> u64 {
        self.in_flight
            .front()
            .and_then(|(numbers, _)| numbers.first())
            .copied()
            .unwrap_or(1)
    }

    fn end(self) -> Result<u64, (u64, Stop)> {
        self.progress.clear();
        self.stop
            .map_or(Ok(self.written), |stop| Err((self.written, stop)))
    }
}

fn lost() -> Failure {
    Failure::new(Exit::Unavailable, "unavailable", "the node ended the call")
}

// Reads in a thread: stdin has no other way to wait for a line.
fn read_lines(format: Format, ttl_ms: Option<u64>) -> Input {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        let input = io::BufReader::with_capacity(READ_BYTES, io::stdin());
        let mut lines = Lines::new(input, format, Dialect::Put, ttl_ms);
        loop {
            let (chunk, end) = lines.next_chunk();
            let is_taken = chunk.ops.is_empty() || sender.blocking_send(Ok(chunk)).is_ok();
            match end {
                None if is_taken => {}
                Some(Err(bad)) => return drop(sender.blocking_send(Err(bad))),
                _ended => return,
            }
        }
    });
    receiver
}

/// A bar on stderr, for a person who has waited a second.
struct Progress {
    started: Instant,
    // Knows the rate from the start; nobody sees it until `shown`.
    bar: ProgressBar,
    shown: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            bar: bar(),
            shown: false,
        }
    }
}

impl Progress {
    fn show(&mut self, written: u64, bytes_read: u64) {
        self.bar.set_position(bytes_read);
        self.bar.set_message(format!("{written} written"));
        if !self.shown && self.started.elapsed() >= PROGRESS_AFTER {
            self.shown = true;
            // Draws nothing where stderr is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

// Of known length when stdin is a file.
fn bar() -> ProgressBar {
    let stdin = rustix::fs::fstat(io::stdin()).ok();
    let file = stdin.filter(|it| rustix::fs::FileType::from_raw_mode(it.st_mode).is_file());
    let length = file.and_then(|it| u64::try_from(it.st_size).ok());
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{wide_bar} {percent}% {msg}, {eta} left",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {msg}, {bytes_per_sec}, {elapsed}",
        ),
    };
    let style = ProgressStyle::with_template(template);
    bar.set_draw_target(ProgressDrawTarget::hidden());
    bar.with_style(style.unwrap_or_else(|_bad_template| ProgressStyle::default_bar()))
}

/// Requests that are sent and not answered.
const IN_FLIGHT_MAX: usize = 32;
/// Chunks that are read ahead of the one being sent.
const CHUNKS_AHEAD_MAX: usize = 4;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// A shorter wait needs no bar.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
