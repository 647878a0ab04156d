//! The command line's grammar: global flags, commands, and how errors in them are reported.

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::cli::{
    bench::Bench,
    command::{
        batch::Batch,
        compare::Compare,
        conflicts::Conflicts,
        consumer::Consumer,
        delete::Delete,
        demo::Demo,
        diff::Diff,
        export::{Export, Import},
        get::{Get, Heads, List},
        help::Help,
        history::History,
        hook::Hook,
        join::{Invite, Join},
        key::Key,
        leave::Leave,
        lock::Lock,
        log::Log,
        man::{Completions, Man},
        on::On,
        peer::{Connect, Peer, Peers},
        prune::Prune,
        put::Put,
        repair::Repair,
        retention::Retention,
        root::Root,
        service::Service,
        snapshot::Snapshot,
        status::Status,
        store::StoreCommand,
        top::Top,
        up::{Down, Init, Up},
        verify::Verify,
        wait::Wait,
        watch::Watch,
    },
    exit::{Exit, Failure},
    global::Global,
    output::{ink::Colour, print},
};

/// A pub/sub node with watch streams on a signed key-value log, without a server
#[derive(Debug, Parser)]
// `help` is a command of its own here: it also prints the manual.
#[command(
    name = "lattice",
    version,
    max_term_width = 100,
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(Init),
    Up(Up),
    Down(Down),
    Put(Put),
    Get(Get),
    Delete(Delete),
    Batch(Batch),
    List(List),
    Export(Export),
    Import(Import),
    Heads(Heads),
    History(History),
    Diff(Diff),
    Conflicts(Conflicts),
    Watch(Watch),
    Consumer(Box<Consumer>),
    On(Box<On>),
    Hook(Box<Hook>),
    Wait(Wait),
    Lock(Lock),
    Status(Status),
    Top(Top),
    Log(Log),
    Root(Root),
    Compare(Compare),
    Verify(Verify),
    Repair(Repair),
    Snapshot(Box<Snapshot>),
    Key(Key),
    Retention(Retention),
    Prune(Prune),
    Invite(Invite),
    Join(Join),
    Peer(Peer),
    Leave(Leave),
    Peers(Peers),
    Connect(Connect),
    Store(StoreCommand),
    Service(Service),
    Shell(Box<Shell>),
    Demo(Demo),
    Bench(Bench),
    Completions(Completions),
    Man(Man),
    Help(Help),
}

impl Command {
    /// Returns whether its answer is about one store.
    pub(crate) fn is_of_a_store(&self) -> bool {
        matches!(
            self,
            Self::Put(_)
                | Self::Get(_)
                | Self::Delete(_)
                | Self::Batch(_)
                | Self::List(_)
                | Self::Export(_)
                | Self::Import(_)
                | Self::Heads(_)
                | Self::History(_)
                | Self::Diff(_)
                | Self::Conflicts(_)
                | Self::Watch(_)
                | Self::Consumer(_)
                | Self::On(_)
                | Self::Lock(_)
                | Self::Log(_)
                | Self::Root(_)
                | Self::Compare(_)
                | Self::Retention(_)
                | Self::Prune(_)
        )
    }
}

/// Type commands interactively, with history and completion of commands and keys
///
/// Takes the same commands, without `lattice`; `quit`, Ctrl-D or a SIGHUP, as when its terminal is
/// closed, ends it. With no node running, the shell is the node until it ends. Words are quoted as in
/// sh, and `;` separates commands; $'...' reads the escapes with which keys are printed: get $'/raw\xff'.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice shell
  printf 'put /a 1\\nget /a\\n' | lattice shell")]
pub(crate) struct Shell {}

/// Prints clap's answer: help and version on stdout, an error on stderr.
pub(crate) fn print_answer(error: &clap::Error) -> ExitCode {
    let is_error = error.use_stderr();
    let json = is_json_asked(&std::env::args_os().collect::<Vec<_>>());
    if is_error && json && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return print::report(&usage(error), true, Colour::Never);
    }
    match error.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed.into(),
        _printed if is_error => Exit::Usage.into(),
        _printed => Exit::Done.into(),
    }
}

// Looks for the flags that select JSON among words that could not be parsed.
fn is_json_asked(words: &[OsString]) -> bool {
    let is_flag = |word: &OsString| word == "--json" || word == "-ojson" || word == "--output=json";
    let is_pair =
        |pair: &[OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    words.iter().any(is_flag) || words.windows(2).any(is_pair)
}

/// Returns clap's error as a failure, without the usage lines.
pub(crate) fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let message = first
        .strip_prefix("error: ")
        .unwrap_or(first)
        .trim()
        .to_owned();
    Failure::usage("usage", message).hint("see `lattice --help`")
}

const EXAMPLES: &str = "\
Examples:
  lattice up --watch /              start the node here and stream every change
  lattice put /hello world          in another terminal: appears there at once
  lattice get /hello
  lattice watch /nodes/ --json      one JSON object per change, for programs
  lattice list /                    the keys and their values

Exit codes: 0 done, 1 failed (compare: different), 2 usage, 3 not found,
4 precondition failed, 5 node unavailable, 6 damaged data, 7 partly done,
8 timed out, 130 interrupted.";
