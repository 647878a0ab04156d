//! The command line: one file per group of commands.
//!
//! arguments (`args`) -> the node that runs, or be it (`session`) -> one call of the API -> lines
//! for people or for programs (`output`, `object`) -> an exit code (`exit`).
//!
//! Everything goes through the client of the API, also when the store is opened in this process:
//! there is one way in, and what a person sees is what a program gets.

mod args;
mod bench;
mod command;
mod exit;
mod input;
mod output;
mod place;
mod reconnect;
mod sd_notify;
mod session;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use self::{
    args::{Cli, Command},
    exit::{Exit, Failure},
    session::Context,
};

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::refuse(&error),
    };
    log_to_stderr(cli.global.verbose);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed("runtime", error.to_string()).report(cli.global.json),
    };
    let json = cli.global.json;
    let result = runtime.block_on(execute(cli));
    // A thread that waits for a line of stdin would be waited for otherwise.
    runtime.shutdown_background();
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => failure.report(json),
    }
}

/// Runs one command to its end, or until the first interrupt; closes what it opened.
async fn execute(cli: Cli) -> Result<(), Failure> {
    if let Command::Verify(verify) = &cli.command
        && verify.lines
    {
        return tokio::select! {
            result = command::verify_lines::verify_lines(verify, &cli.global) => result,
            () = interrupted() => Err(Failure::interrupted()),
        };
    }
    let mut context = Context::new(&cli.global)?;
    let result = match cli.command {
        // They have their own idea of what an interrupt is.
        Command::Up(up) => up.run(&mut context).await,
        Command::Shell(shell) => shell.run(&mut context).await,
        Command::On(on) => on.run(&mut context).await,
        command => {
            tokio::spawn(second_interrupt());
            tokio::select! {
                result = dispatch(&mut context, command) => result,
                () = interrupted() => Err(Failure::interrupted()),
            }
        }
    };
    let flushed = context.out.flush();
    let closed = context.close().await;
    result.and(flushed).and(closed)
}

/// Runs one command; boxed because the shell, which is one, comes back here.
async fn dispatch(context: &mut Context, command: Command) -> Result<(), Failure> {
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
        Command::Heads(heads) => heads.run(context).await,
        Command::Conflicts(conflicts) => conflicts.run(context).await,
        Command::Demo(demo) => demo.run(context).await,
        Command::History(history) => history.run(context).await,
        Command::Diff(diff) => diff.run(context).await,
        Command::Watch(watch) => watch.run(context).await,
        Command::Consumer(consumer) => consumer.run(context).await,
        Command::Wait(wait) => wait.run(context).await,
        Command::On(on) => on.run(context).await,
        Command::Hook(hook) => hook.run(context).await,
        Command::Status(status) => status.run(context).await,
        Command::Log(log) => log.run(context).await,
        Command::Verify(verify) => verify.run(context).await,
        Command::Invite(invite) => invite.run(context).await,
        Command::Join(join) => join.run(context).await,
        Command::Peer(peer) => peer.run(context).await,
        Command::Peers(peers) => peers.run(context).await,
        Command::Connect(connect) => connect.run(context).await,
        Command::Repair(repair) => repair.run(context).await,
        Command::Service(service) => service.run(context),
        Command::Store(store) => store.run(context).await,
        Command::Bench(bench) => bench.run(context).await,
        Command::Completions(completions) => completions.run(context),
        Command::Man(man) => man.run(context),
    }
}

/// Ends the process at the second Ctrl-C, whatever the first one is still waiting for.
async fn second_interrupt() {
    interrupted().await;
    interrupted().await;
    std::process::exit(Exit::Interrupted.code());
}

/// Resolves at the next Ctrl-C or SIGTERM.
async fn interrupted() {
    match lattice::daemon::signal() {
        Ok(signal) => drop(signal.await),
        // The signal ends the process as it always did.
        Err(_not_listening) => std::future::pending().await,
    }
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn log_to_stderr(verbose: u8) {
    let default = match verbose {
        // A peer that goes away is nothing to warn of.
        0 => "warn,iroh=error,iroh::socket=off,iroh_gossip=error,noq_proto=error,noq_udp=error",
        1 => "lattice=info,warn",
        2 => "lattice=debug,info",
        _more => "trace",
    };
    let filter =
        EnvFilter::try_from_env("LATTICE_LOG").unwrap_or_else(|_unset| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
