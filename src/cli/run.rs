//! Runs one command, from the process's arguments to its exit code.

use std::{io::IsTerminal as _, process::ExitCode};

use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use crate::cli::{
    args::{self, Cli, Command},
    command::{verify_lines::verify_lines, verify_proof::verify_proof},
    completion,
    dispatch::dispatch,
    exit::{Exit, Failure},
    groups,
    input::passphrase::restore_terminal,
    output::{print, stderr::Stderr},
    secrets::hide_memory,
    session::Context,
    shell,
    signals::{interrupted, second_interrupt},
};

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    if let Some(code) = completion::answer() {
        return code;
    }
    let cli = match groups::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return args::print_answer(&error),
    };
    log_to_stderr(cli.global.verbose);
    hide_memory();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::failed("runtime", error.to_string());
            return print::report(&failure, cli.global.form().is_json(), cli.global.color);
        }
    };
    let (json, colour) = (cli.global.form().is_json(), cli.global.color);
    let result = runtime.block_on(execute(cli));
    // Dropping the runtime would wait for a thread that reads stdin.
    runtime.shutdown_background();
    restore_terminal();
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => print::report(&failure, json, colour),
    }
}

/// Runs one command until it ends or is interrupted, and closes the node if it was opened here.
async fn execute(cli: Cli) -> Result<(), Failure> {
    if let Command::Verify(verify) = &cli.command
        && verify.lines
    {
        return tokio::select! {
            result = verify_lines(verify, &cli.global) => result,
            () = interrupted() => Err(Failure::interrupted()),
        };
    }
    if let Command::Verify(verify) = &cli.command
        && let Some(file) = &verify.proof
    {
        return verify_proof(verify, file, &cli.global);
    }
    let mut context = Context::new(&cli.global)?;
    if cli.command.is_of_a_store() {
        context.note_store_used();
    }
    let result = match cli.command {
        // These commands handle interrupts themselves.
        Command::Up(up) => up.run(&mut context).await,
        Command::Shell(_) => shell::run(&mut context).await,
        Command::On(on) => on.run(&mut context).await,
        Command::Lock(lock) => lock.run(&mut context).await,
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

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn log_to_stderr(verbose: u8) {
    let default = match verbose {
        // A peer that disconnects is not worth a warning.
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
        .with_writer(|| Stderr)
        .init();
}
