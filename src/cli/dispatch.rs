//! Runs the command that was parsed.

use clap::CommandFactory as _;

use crate::cli::{
    args::{Cli, Command},
    exit::Failure,
    groups,
    session::Context,
};

/// Runs one command.
///
/// Refuses `up` and `shell`: `run` handles them itself, so they can only come from a shell's line.
pub(crate) async fn dispatch(context: &mut Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(init) => init.run(context).await,
        Command::Up(_) | Command::Shell(_) => Err(Failure::usage(
            "not_here",
            "this command cannot run inside a shell",
        )),
        Command::Down(down) => down.run(context).await,
        Command::Put(put) => put.run(context).await,
        Command::Get(get) => get.run(context).await,
        Command::Delete(delete) => delete.run(context).await,
        Command::Batch(batch) => batch.run(context).await,
        Command::List(list) => list.run(context).await,
        Command::Export(export) => export.run(context).await,
        Command::Import(import) => import.run(context).await,
        Command::Heads(heads) => heads.run(context).await,
        Command::Conflicts(conflicts) => conflicts.run(context).await,
        Command::Demo(demo) => demo.run(context).await,
        Command::History(history) => history.run(context).await,
        Command::Diff(diff) => diff.run(context).await,
        Command::Watch(watch) => watch.run(context).await,
        Command::Consumer(consumer) => consumer.run(context).await,
        Command::Wait(wait) => wait.run(context).await,
        Command::Lock(lock) => lock.run(context).await,
        Command::On(on) => on.run(context).await,
        Command::Hook(hook) => hook.run(context).await,
        Command::Status(status) => status.run(context).await,
        Command::Top(top) => top.run(context).await,
        Command::Log(log) => log.run(context).await,
        Command::Compare(compare) => compare.run(context).await,
        Command::Root(root) => root.run(context).await,
        Command::Verify(verify) => verify.run(context).await,
        Command::Invite(invite) => invite.run(context).await,
        Command::Join(join) => join.run(context).await,
        Command::Peer(peer) => peer.run(context).await,
        Command::Leave(leave) => leave.run(context).await,
        Command::Peers(peers) => peers.run(context).await,
        Command::Connect(connect) => connect.run(context).await,
        Command::Repair(repair) => repair.run(context).await,
        Command::Service(service) => service.run(context),
        Command::Key(key) => key.run(context).await,
        Command::Retention(retention) => retention.run(context).await,
        Command::Prune(prune) => prune.run(context).await,
        Command::Snapshot(snapshot) => snapshot.run(context).await,
        Command::Store(store) => store.run(context).await,
        Command::Bench(bench) => bench.run(context).await,
        Command::Completions(completions) => completions.run(context),
        Command::Man(man) => man.run(context, Cli::command()),
        Command::Help(help) => help.run(context, groups::tree()),
    }
}
