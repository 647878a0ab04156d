//! `put --stdin` and `import`: sends lines as pipelined writes, with a bounded number in flight.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    os::fd::AsFd,
    path::Path,
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
    output::{json::typed, object},
    session::{Context, Lifetime},
};

/// Writes the lines of `file`, or of stdin, each as a write of its own; returns once all are on disk.
pub(crate) async fn put_lines(
    context: &mut Context,
    file: Option<&Path>,
    format: Format,
    ttl_ms: Option<u64>,
) -> Result<(), Failure> {
    let (progress, input) = match file {
        None => (Progress::of_file(&io::stdin()), Source::Stdin),
        Some(path) => {
            let unreadable =
                |error| Failure::failed("file", format!("cannot read {}: {error}", path.display()));
            let file = File::open(path).map_err(unreadable)?;
            (Progress::of_file(&file), Source::File(file))
        }
    };
    let client = context.client(Lifetime::Short).await?;
    let mut input = read_lines(input, format, ttl_ms);
    let sent = write_chunks(client, &context.store, &mut input, &[], progress).await;
    let Sent {
        written,
        absent,
        stop,
        ..
    } = sent;
    if context.out.json {
        let count = object::Count { written, absent };
        context.out.object(&typed("writes", count))?;
    } else {
        context.out.line(&format!("{written} written"))?;
    }
    context.out.flush()?;
    if absent > 0 {
        context.out.notice("nothing_to_delete", &left_out(absent));
    }
    if written > 0 {
        context.note_unsent_write();
    }
    stop.map_or(Ok(()), |stop| Err(stop.failure(written)))
}

/// Returns the note about deletes of keys that have no value.
pub(crate) fn left_out(deletes: u64) -> String {
    match deletes {
        1 => "1 key to delete has no value; nothing was written for it".to_owned(),
        _ => format!("{deletes} keys to delete have no value; nothing was written for them"),
    }
}

/// The outcome of a stream of writes.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Writes that are on disk.
    pub(crate) written: u64,
    /// Deletes of keys that have no value: nothing was written for them.
    pub(crate) absent: u64,
    /// Refused writes that do not end the stream, by the code of the error.
    pub(crate) skipped: BTreeMap<String, u64>,
    /// Why the rest was not sent; `None`: all was sent.
    pub(crate) stop: Option<Stop>,
}

/// Sends the chunks of `input`. A write that is refused with one of the codes `skips` is counted and
/// does not end the stream.
///
/// At most `IN_FLIGHT_MAX` chunks are sent and not answered.
pub(crate) async fn write_chunks(
    mut client: Client,
    store: &str,
    input: &mut Input,
    skips: &'static [&'static str],
    progress: Progress,
) -> Sent {
    let mut pipe = Pipe {
        in_flight: VecDeque::new(),
        written: 0,
        absent: 0,
        skips,
        skipped: BTreeMap::new(),
        stop: None,
        progress,
    };
    // The call begins with the first request, so without lines there is no call.
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
    // Dropped after the last request: the node then answers the requests it has and ends the call.
    let mut sender = Some(sender);
    while sender.is_some() || !pipe.in_flight.is_empty() {
        let may_send = sender.is_some() && pipe.in_flight.len() < IN_FLIGHT_MAX;
        tokio::select! {
            request = pipe.next(store, input), if may_send => {
                sender = match (request, sender) {
                    // The channel has a slot for each request in flight, so this does not wait.
                    (Some(request), Some(sender)) => {
                        sender.send(request).await.is_ok().then_some(sender)
                    }
                    _ended => None,
                };
            }
            reply = replies.message() => match reply {
                Ok(Some(reply)) => {
                    pipe.on_reply(reply);
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

/// Chunks of lines. An error is the last item.
pub(crate) type Input = mpsc::Receiver<Result<Chunk, BadLine>>;

/// The reason why the rest of the input was not sent.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A malformed line.
    BadLine(BadLine),
    /// The node refused the write of this line. Writes in flight after it were still tried.
    Refused { line: u64, error: ApiError },
    /// The connection was lost. Writes before line `from` are on disk; later ones may be.
    Lost { from: u64, failure: Failure },
}

impl Stop {
    /// Returns the failure of the command, of which `written` writes are on disk.
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
                    "{}; it is unknown whether line {from} and those sent after it were written",
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

/// The requests in flight, and the result of those that were answered.
struct Pipe {
    // For each request, in order: its line numbers, and the bytes of input up to its end.
    in_flight: VecDeque<(Vec<u64>, u64)>,
    // Writes that were answered, and are on disk.
    written: u64,
    // Deletes that were answered, and changed nothing.
    absent: u64,
    // Codes of errors that do not end the stream, and how often each came.
    skips: &'static [&'static str],
    skipped: BTreeMap<String, u64>,
    stop: Option<Stop>,
    progress: Progress,
}

impl Pipe {
    // Returns the next request; `None` at the end of the input or at a bad line. Cancel-safe.
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

    fn on_reply(&mut self, reply: api::PutStreamReply) {
        let Some((numbers, bytes_read)) = self.in_flight.pop_front() else {
            return;
        };
        for (line, result) in numbers.into_iter().zip(reply.results) {
            match result.failed {
                None if result.written.is_some_and(|it| !it.entry.is_empty()) => self.written += 1,
                None => self.absent += 1,
                Some(failed) => {
                    let error = ApiError::from_wire(failed);
                    if self.skips.contains(&error.code.as_str()) {
                        *self.skipped.entry(error.code).or_default() += 1;
                    } else if !matches!(self.stop, Some(Stop::Refused { .. })) {
                        self.stop = Some(Stop::Refused { line, error });
                    }
                }
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

    fn end(self) -> Sent {
        self.progress.clear();
        Sent {
            written: self.written,
            absent: self.absent,
            skipped: self.skipped,
            stop: self.stop,
        }
    }
}

fn lost() -> Failure {
    Failure::new(Exit::Unavailable, "unavailable", "the node ended the call")
}

// The file that is read.
enum Source {
    Stdin,
    File(File),
}

// Reads on a thread, because a read of stdin blocks.
fn read_lines(source: Source, format: Format, ttl_ms: Option<u64>) -> Input {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        let input: Box<dyn io::Read> = match source {
            Source::Stdin => Box::new(io::stdin()),
            Source::File(file) => Box::new(file),
        };
        let input = io::BufReader::with_capacity(READ_BYTES, input);
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

/// A progress bar on stderr, shown after `PROGRESS_AFTER`.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    // Word for a write that is done.
    done: &'static str,
    // Measures the rate from the start; hidden until `shown`.
    bar: ProgressBar,
    shown: bool,
}

impl Progress {
    /// Makes the bar of writes from a file or a pipe; with a file it has a length.
    fn of_file(input: &impl AsFd) -> Self {
        let about = rustix::fs::fstat(input).ok();
        let file = about.filter(|it| rustix::fs::FileType::from_raw_mode(it.st_mode).is_file());
        let bytes = file.and_then(|it| u64::try_from(it.st_size).ok());
        Self::new(
            "written",
            bytes,
            "{spinner} {msg}, {bytes_per_sec}, {elapsed}",
        )
    }

    /// Makes the bar of deletes of `keys` keys, or of a number that is not known.
    pub(crate) fn of_deletes(keys: Option<u64>) -> Self {
        Self::new("deleted", keys, "{spinner} {msg}, {per_sec}, {elapsed}")
    }

    // Makes a hidden bar: with a length, or with `spinner` as its template.
    fn new(done: &'static str, length: Option<u64>, spinner: &str) -> Self {
        let (bar, template) = match length {
            Some(length) => (
                ProgressBar::new(length),
                "{wide_bar} {percent}% {msg}, {eta} left",
            ),
            None => (ProgressBar::new_spinner(), spinner),
        };
        let style = ProgressStyle::with_template(template);
        bar.set_draw_target(ProgressDrawTarget::hidden());
        Self {
            started: Instant::now(),
            done,
            bar: bar.with_style(style.unwrap_or_else(|_bad_template| ProgressStyle::default_bar())),
            shown: false,
        }
    }

    // `position` counts bytes of stdin, or keys.
    fn show(&mut self, written: u64, position: u64) {
        self.bar.set_position(position);
        self.bar.set_message(format!("{written} {}", self.done));
        if !self.shown && self.started.elapsed() >= PROGRESS_AFTER {
            self.shown = true;
            // Draws nothing if stderr is not a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Requests that are sent and not yet answered.
const IN_FLIGHT_MAX: usize = 32;
/// Chunks that are read ahead of the next request.
const CHUNKS_AHEAD_MAX: usize = 4;
/// Bytes that one read of stdin takes at most.
const READ_BYTES: usize = 256 << 10;
/// A command that ends sooner shows no bar.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
