//! `shell`: runs commands from a terminal or a script.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, IsTerminal as _},
    pin::pin,
};

use clap::CommandFactory as _;
use lattice::api::whole;

use crate::cli::{
    args::{self, Cli},
    dispatch::dispatch,
    exit::{Exit, Failure},
    groups,
    input::{
        prompt::{Prompt, Terminal},
        shell_words,
    },
    output::{
        form::Form,
        ink::Colour,
        print::{self, harmless},
    },
    screens::names::Names,
    session::{Context, Lifetime},
    signals::interrupted,
};

/// Runs commands until `quit` or the end of the input.
///
/// A script (stdin is not a terminal) ends with the exit code of its last command, as in sh.
pub(crate) async fn run(context: &mut Context) -> Result<(), Failure> {
    let mut client = context.client(Lifetime::Long).await?;
    let node = whole::status(&mut client).await?.node;
    let node = Names::fetch(&mut client).await?.of(&node);
    let (form, colour) = (context.out.form().clone(), context.out.colour);
    let is_script = !io::stdin().is_terminal();
    if !is_script {
        print::stderr_line("type `help` for the commands, `quit` or Ctrl-D to leave");
    }
    let history = context.place.data_dir.join("shell-history");
    let history = (!is_script).then_some(history);
    let mut names = client.clone();
    let mut prompt = Prompt::new(client, context.store.clone(), history, Cli::command())?;
    let mut down = pin!(context.down_requested());
    let (mut last, mut waiting) = (Exit::Done, VecDeque::new());
    loop {
        let terminal = Terminal::remember();
        // A line may have named another one, or chosen one.
        context.choose_store(context.store_named.clone().as_deref())?;
        let store = context.store_name(&mut names).await;
        let store = if store.is_empty() { "data" } else { &store };
        let label = format!("{} {}> ", harmless(&node), harmless(store));
        let Some(words) = waiting.pop_front() else {
            let line = tokio::select! {
                line = prompt.next(label, &context.store) => line?,
                () = &mut down => return terminal.stopped(),
                // The prompt reads Ctrl-C as a key, so this is SIGTERM or SIGHUP.
                () = interrupted() => {
                    terminal.restore();
                    return Err(Failure::interrupted());
                }
            };
            let Some(line) = line else { break };
            match shell_words::commands(&line) {
                Ok(commands) => waiting.extend(commands),
                Err(error) => {
                    let failure = Failure::usage("usage", error.to_string());
                    print::report(&failure, context.out.form().is_json(), context.out.colour);
                    last = failure.exit;
                }
            }
            continue;
        };
        let result = match parse(words) {
            Ok(Line::Nothing) => continue,
            Ok(Line::Quit) => break,
            Ok(Line::Run(cli)) => {
                context.out.set_form(match cli.global.form() {
                    Form::Auto => form.clone(),
                    named => named,
                });
                context.out.colour = match cli.global.color {
                    Colour::Auto => colour,
                    named => named,
                };
                let named = cli.global.store.or_else(|| context.store_named.clone());
                context.choose_store(named.as_deref())?;
                tokio::select! {
                    result = Box::pin(dispatch(context, cli.command)) => result,
                    () = interrupted() => Err(Failure::interrupted()),
                    () = &mut down => return terminal.stopped(),
                }
            }
            Err(failure) => Err(failure),
        };
        context.out.flush()?;
        last = result.map_or_else(
            |failure| {
                print::report(&failure, context.out.form().is_json(), context.out.colour);
                failure.exit
            },
            |()| Exit::Done,
        );
    }
    prompt.save_history();
    match last {
        // No message: the line's failure was printed when it happened.
        failed if is_script && failed != Exit::Done => Err(Failure::new(failed, "", "")),
        _any => Ok(()),
    }
}

/// A parsed command.
enum Line {
    Nothing,
    Quit,
    Run(Box<Cli>),
}

fn parse(words: Vec<OsString>) -> Result<Line, Failure> {
    match words.first().and_then(|word| word.to_str()) {
        Some("quit" | "exit") => return Ok(Line::Quit),
        // People also type the program's name, as in an ordinary shell.
        Some("lattice") => return parse_words(words),
        _command => {}
    }
    parse_words(std::iter::once("lattice".into()).chain(words))
}

fn parse_words(words: impl IntoIterator<Item = OsString>) -> Result<Line, Failure> {
    match groups::parse(words) {
        Ok(cli) => Ok(Line::Run(Box::new(cli))),
        Err(error) if error.use_stderr() => Err(args::usage(&error)),
        // Help and version, printed as the answer to the line.
        Err(help) => Ok(help.print().map(|()| Line::Nothing)?),
    }
}
