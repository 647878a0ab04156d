//! `bench put`: measures durable puts, from one caller and from many.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use lattice::{
    api::{client::Client, whole},
    wire::api,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::cli::{
    bench::{
        baseline::Fdatasync,
        error::failed,
        load::{Callers, Keys, value},
        report::{Goal, Report},
        samples::Samples,
        scratch::{self, Daemon, Scratch},
        setup::{Setup, TURNS},
    },
    exit::Failure,
};

/// Durable puts per second, and the time of one put
#[derive(Debug, Args)]
pub(super) struct Put {
    #[command(flatten)]
    setup: Setup,
    /// Callers at the same time, a case for each number [default: 1,256; with --stream: 1]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: Vec<u16>,
    /// Use unary calls over the socket of a node in another process
    #[arg(long)]
    socket: bool,
    /// Use pipelined calls over the socket of a node in another process
    #[arg(long, conflicts_with = "socket")]
    stream: bool,
    /// Puts in flight in each stream
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "stream")]
    window: usize,
    /// Connections that the callers share
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Put random keys out of this many, instead of a new key each time
    #[arg(long, value_name = "KEYS")]
    random: Option<u64>,
}

impl Put {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let clients = match self.clients.as_slice() {
            [] if self.stream => vec![1],
            [] => vec![1, 256],
            given => given.to_vec(),
        };
        for clients in clients {
            let clients = usize::from(clients);
            let callers = match clients {
                1 => "1 caller".to_owned(),
                several => format!("{several} callers"),
            };
            if self.stream {
                report.case(format!("streamed over the socket, {callers}"))?;
                self.over_socket(clients, scratch, report).await?;
            } else if self.socket {
                report.case(format!("unary over the socket, {callers}"))?;
                self.over_socket(clients, scratch, report).await?;
            } else {
                report.case(format!("in process, {callers}"))?;
                self.in_process(clients, scratch, report).await?;
            }
        }
        Ok(())
    }

    async fn in_process(
        &self,
        clients: usize,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let node = scratch::open(&scratch.new_path()).await?;
        let store = node.data();
        let mut disk = Fdatasync::new(scratch)?;
        let mut callers = Callers::new(clients, self.random, value(self.setup.value));
        let mut puts = Samples::default();
        let seq = || store.frontier().seq(&store.author());
        let before = seq();
        for _turn in 0..TURNS {
            disk.turn(self.setup.turn() / 4)?;
            puts.append(callers.turn(&store, self.setup.turn()).await?);
        }
        let entries = seq() - before;
        scratch::close(node).await?;
        let goal = match clients {
            1 => Some(PutGoal::Ratio(ONE_CALLER_RATIO)),
            256 => Some(PutGoal::Rate(IN_PROCESS_RATE)),
            _other => None,
        };
        report_puts(puts, entries, disk, goal, report)
    }

    async fn over_socket(
        &self,
        clients: usize,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let daemon = Daemon::start(&scratch.new_path()).await?;
        let mut connections = Vec::new();
        for _connection in 0..self.connections.max(1) {
            connections.push(daemon.connect().await?);
        }
        let mut callers: Vec<_> = (0..clients)
            .map(|caller| Caller {
                client: connections[caller % connections.len()].clone(),
                keys: Keys::new(caller, self.random),
                value: value(self.setup.value),
                window: self.stream.then_some(self.window),
            })
            .collect();
        let mut disk = Fdatasync::new(scratch)?;
        let mut puts = Samples::default();
        let before = entries(&mut connections[0]).await?;
        for _turn in 0..TURNS {
            disk.turn(self.setup.turn() / 4)?;
            puts.append(turn(&mut callers, self.setup.turn()).await?);
        }
        let entries = entries(&mut connections[0]).await? - before;
        drop((callers, connections));
        daemon.stop().await?;
        let goal = match self.stream {
            true => Some(PutGoal::Rate(STREAMED_RATE)),
            false => (clients == 256).then_some(PutGoal::Rate(UNARY_RATE)),
        };
        report_puts(puts, entries, disk, goal, report)
    }
}

// The goal of a case.
#[derive(Debug, Clone, Copy)]
enum PutGoal {
    /// Puts per second.
    Rate(f64),
    /// Puts per second divided by the fdatasyncs per second of the faster file.
    Ratio(f64),
}

// A caller over the socket.
#[derive(Debug)]
struct Caller {
    client: Client,
    keys: Keys,
    value: Bytes,
    // Puts in flight in a stream; `None` for unary calls.
    window: Option<usize>,
}

async fn turn(callers: &mut Vec<Caller>, time: Duration) -> Result<Samples, Failure> {
    let mut tasks = JoinSet::new();
    let until = Instant::now() + time;
    for caller in callers.drain(..) {
        tasks.spawn(async move {
            match caller.window {
                None => caller.unary(until).await,
                Some(window) => caller.streamed(window, until).await,
            }
        });
    }
    let mut all = Samples::default();
    while let Some(done) = tasks.join_next().await {
        let (caller, samples) = done.map_err(|panic| failed("a caller panicked", &panic))??;
        callers.push(caller);
        all.merge(samples);
    }
    Ok(all)
}

impl Caller {
    async fn unary(mut self, until: Instant) -> Result<(Self, Samples), Failure> {
        let mut samples = Samples::default();
        let start = Instant::now();
        let mut before = start;
        while before < until
            && let Some(key) = self.keys.next()
        {
            let request = api::PutRequest {
                key,
                value: self.value.clone(),
                ..api::PutRequest::default()
            };
            self.client.put(request).await?;
            let now = Instant::now();
            samples.push(now - before);
            before = now;
        }
        samples.span = before - start;
        Ok((self, samples))
    }

    // Sends one put in each message, as an ordinary program would.
    async fn streamed(mut self, window: usize, until: Instant) -> Result<(Self, Samples), Failure> {
        let (requests, received) = mpsc::channel(window.max(1));
        let start = Instant::now();
        let mut replies = self
            .client
            .put_stream(ReceiverStream::new(received))
            .await?
            .into_inner();
        let mut samples = Samples::default();
        let mut sent = VecDeque::with_capacity(window);
        let mut requests = Some(requests);
        loop {
            // Fills the window again after each answer, until `until`.
            while sent.len() < window
                && let Some(open) = &requests
                && let Some(key) = self.keys.next()
            {
                let op = api::Op {
                    key,
                    value: self.value.clone(),
                    ..api::Op::default()
                };
                let request = api::PutStreamRequest {
                    store: String::new(),
                    ops: vec![op],
                };
                let now = Instant::now();
                if now >= until || open.try_send(request).is_err() {
                    break;
                }
                sent.push_back(now);
            }
            if Instant::now() >= until {
                requests = None;
            }
            let Some(reply) = replies.message().await? else {
                break;
            };
            for result in reply.results {
                if let Some(refused) = result.failed {
                    return Err(Failure::failed("bench", refused.message));
                }
                if let Some(at) = sent.pop_front() {
                    samples.push(at.elapsed());
                }
            }
        }
        samples.span = start.elapsed();
        Ok((self, samples))
    }
}

async fn entries(client: &mut Client) -> Result<u64, Failure> {
    let status = whole::status(client).await?;
    Ok(status.stores.iter().map(|store| store.entries).sum())
}

fn report_puts(
    mut puts: Samples,
    entries: u64,
    disk: Fdatasync,
    goal: Option<PutGoal>,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    puts.sort();
    match goal {
        Some(PutGoal::Rate(least)) => {
            report.against("durable puts", puts.rate(), "/s", Goal::AtLeast(least))?;
        }
        _other => report.figure("durable puts", puts.rate(), "/s")?,
    }
    report.times("time of a put", &puts)?;
    let in_one = puts.count() as f64 / entries.max(1) as f64;
    report.figure("puts per entry", in_one, "")?;
    let disk = disk.report(report)?;
    let ratio = puts.rate() / disk.rate();
    let what = "puts to the faster fdatasync";
    match goal {
        Some(PutGoal::Ratio(least)) => report.against(what, ratio, "", Goal::AtLeast(least)),
        _other => report.figure(what, ratio, ""),
    }
}

/// Goal for one caller in this process: puts per second divided by fdatasyncs per second.
const ONE_CALLER_RATIO: f64 = 0.8;
/// Goal for 256 callers in this process: puts per second.
const IN_PROCESS_RATE: f64 = 120_000.0;
/// Goal for 256 callers with unary calls: puts per second.
const UNARY_RATE: f64 = 40_000.0;
/// Goal for pipelined calls: puts per second.
const STREAMED_RATE: f64 = 100_000.0;
