//! `bench`: how fast a node is on this machine, next to how fast its disk is.
//!
//! scratch (a directory of its own) -> load (callers, keys, values) -> samples -> report.
//! What the disk and redb can do is measured in turns with what the store does (`baseline`), so
//! that the ratios hold on a machine that is busy with other things too.

mod baseline;
mod consume;
mod fanout;
mod gossip;
mod hooks;
mod load;
mod memory;
mod open;
mod put;
mod replay;
mod report;
mod samples;
mod scratch;
mod sync;
mod watch;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use self::{report::Report, scratch::Scratch};
use crate::cli::{exit::Failure, session::Context};

/// Measure a node on this machine: rates, times, and ratios to what its disk can do
///
/// Works in a directory of its own, which it removes; no store of yours is touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice bench put                         one caller, then 256, in process
  lattice bench put --socket --clients 256  unary calls to a node in another process
  lattice bench put --stream                pipelined calls to it
  lattice bench watch
  lattice bench fanout --watchers 450 --idle 10000
  lattice bench open --entries 1000000
  lattice bench sync                        first sync of a million entries
  lattice bench gossip                      from a put to its event on another node
  lattice bench consume                     a durable consumer, each change acknowledged
  lattice bench hooks                       what a run of a hook costs besides its process
  lattice bench put --json | jq -c 'select(.reached == false)'")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Put(put::Put),
    Watch(watch::Watch),
    Fanout(fanout::Fanout),
    Open(open::Open),
    Replay(replay::Replay),
    Memory(memory::Memory),
    Sync(sync::Sync),
    Gossip(gossip::Gossip),
    Consume(consume::Consume),
    Hooks(hooks::Runs),
}

/// Flags that all of them have.
#[derive(Debug, Clone, Args)]
struct Setup {
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    value: usize,
    /// Seconds to measure for, each case
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    secs: f64,
    /// Where to make the directory; should be the disk that a node would use [default: the
    /// system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Setup {
    /// Returns the time of one of the turns that store and disk take.
    fn turn(&self) -> Duration {
        Duration::from_secs_f64(self.secs / f64::from(TURNS))
    }
}

impl Bench {
    /// Runs the command.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let (name, setup) = match &self.what {
            What::Put(put) => ("put", put.setup()),
            What::Watch(watch) => ("watch", watch.setup()),
            What::Fanout(fanout) => ("fanout", fanout.setup()),
            What::Open(open) => ("open", open.setup()),
            What::Replay(replay) => ("replay", replay.setup()),
            What::Memory(memory) => ("memory", memory.setup()),
            What::Sync(sync) => ("sync", sync.setup()),
            What::Gossip(gossip) => ("gossip", gossip.setup()),
            What::Consume(consume) => ("consume", consume.setup()),
            What::Hooks(hooks) => ("hooks", hooks.setup()),
        };
        let scratch = Scratch::make(setup.dir.as_deref())?;
        let mut report = Report::begin(&mut context.out, name, scratch.path())?;
        match self.what {
            What::Put(put) => put.run(&scratch, &mut report).await,
            What::Watch(watch) => watch.run(&scratch, &mut report).await,
            What::Fanout(fanout) => fanout.run(&scratch, &mut report).await,
            What::Open(open) => open.run(&scratch, &mut report).await,
            What::Replay(replay) => replay.run(&scratch, &mut report).await,
            What::Memory(memory) => memory.run(&scratch, &mut report).await,
            What::Sync(sync) => sync.run(&scratch, &mut report).await,
            What::Gossip(gossip) => gossip.run(&scratch, &mut report).await,
            What::Consume(consume) => consume.run(&scratch, &mut report).await,
            What::Hooks(hooks) => hooks.run(&scratch, &mut report).await,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.1..=3600.0).contains(&secs) => Ok(secs),
        _other => Err("a number of seconds from 0.1 to 3600".to_owned()),
    }
}

/// Returns the failure of something that a bench needs and that did not work.
fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    let error = crate::cli::output::print::sources(error);
    Failure::failed("bench", format!("{what}: {error}"))
}

/// Turns that the store and its disk take in one measurement.
const TURNS: u32 = 5;
