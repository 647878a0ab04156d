//! The group of `bench` commands.

use clap::{Args, Subcommand};

use crate::cli::{
    bench::{
        bootstrap, client, consume, diff, fanout, gossip, heal, hooks, memory, open, past, prune,
        put, replay, report::Report, root, scratch::Scratch, sync, watch,
    },
    exit::Failure,
    session::Context,
};

/// Measure a node on this machine: rates, times, and ratios to the speed of its disk
///
/// Works in a temporary directory, which it removes at the end. Your stores are not touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice bench put                         one caller, then 256, in process
  lattice bench put --socket --clients 256  unary calls to a node in another process
  lattice bench put --stream                pipelined calls to it
  lattice bench client                      puts through the thin client, beside Redis
  lattice bench watch
  lattice bench fanout --watchers 450 --idle 10000
  lattice bench open --entries 1000000
  lattice bench sync                        first sync of a million entries
  lattice bench past                        reads of the past
  lattice bench root                        a hash of the whole state, and proofs of keys
  lattice bench diff                        to find the keys in which two states differ
  lattice bench bootstrap                   a new member, from a base and from all of history
  lattice bench prune                       entries that are moved from the logs into a base
  lattice bench gossip                      from a put to its event on another node
  lattice bench heal                        from the end of a fault until all are in step
  lattice bench consume                     a durable consumer, each change acknowledged
  lattice bench hooks                       the cost of a hook's run besides its process
  lattice bench put --json | jq -c 'select(.reached == false)'")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
    /// Print beside each figure the goal that its developers have for a machine with two cores
    #[arg(long, global = true)]
    goals: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    Put(put::Put),
    Client(client::Client),
    Watch(watch::Watch),
    Fanout(fanout::Fanout),
    Open(open::Open),
    Replay(replay::Replay),
    Past(past::Past),
    Root(root::Root),
    Diff(diff::Diff),
    Prune(prune::Prune),
    Bootstrap(bootstrap::Bootstrap),
    Memory(memory::Memory),
    Sync(sync::Sync),
    Gossip(gossip::Gossip),
    Heal(heal::Heal),
    Consume(consume::Consume),
    Hooks(hooks::Runs),
}

impl Bench {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let (name, setup) = match &self.what {
            What::Put(put) => ("put", put.setup()),
            What::Client(client) => ("client", client.setup()),
            What::Watch(watch) => ("watch", watch.setup()),
            What::Fanout(fanout) => ("fanout", fanout.setup()),
            What::Open(open) => ("open", open.setup()),
            What::Replay(replay) => ("replay", replay.setup()),
            What::Past(past) => ("past", past.setup()),
            What::Root(root) => ("root", root.setup()),
            What::Diff(diff) => ("diff", diff.setup()),
            What::Prune(prune) => ("prune", prune.setup()),
            What::Bootstrap(bootstrap) => ("bootstrap", bootstrap.setup()),
            What::Memory(memory) => ("memory", memory.setup()),
            What::Sync(sync) => ("sync", sync.setup()),
            What::Gossip(gossip) => ("gossip", gossip.setup()),
            What::Heal(heal) => ("heal", heal.setup()),
            What::Consume(consume) => ("consume", consume.setup()),
            What::Hooks(hooks) => ("hooks", hooks.setup()),
        };
        let scratch = Scratch::make(setup.dir.as_deref())?;
        let mut report = Report::begin(&mut context.out, name, scratch.path(), self.goals)?;
        match self.what {
            What::Put(put) => put.run(&scratch, &mut report).await,
            What::Client(client) => client.run(&scratch, &mut report).await,
            What::Watch(watch) => watch.run(&scratch, &mut report).await,
            What::Fanout(fanout) => fanout.run(&scratch, &mut report).await,
            What::Open(open) => open.run(&scratch, &mut report).await,
            What::Replay(replay) => replay.run(&scratch, &mut report).await,
            What::Past(past) => past.run(&scratch, &mut report).await,
            What::Root(root) => root.run(&scratch, &mut report).await,
            What::Diff(diff) => diff.run(&scratch, &mut report).await,
            What::Prune(prune) => prune.run(&scratch, &mut report).await,
            What::Bootstrap(bootstrap) => bootstrap.run(&scratch, &mut report).await,
            What::Memory(memory) => memory.run(&scratch, &mut report).await,
            What::Sync(sync) => sync.run(&scratch, &mut report).await,
            What::Gossip(gossip) => Box::pin(gossip.run(&scratch, &mut report)).await,
            What::Heal(heal) => heal.run(&scratch, &mut report).await,
            What::Consume(consume) => consume.run(&scratch, &mut report).await,
            What::Hooks(hooks) => hooks.run(&scratch, &mut report).await,
        }
    }
}
