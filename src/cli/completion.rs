//! Completion in a shell: the shell runs this program, which asks the running node.
//!
//! ```text
//! a script (`lattice completions`) -> this program, with LATTICE_COMPLETE and the words so far
//!     -> the grammar (args), or the node for keys and names -> candidates for the shell
//! ```
//! A node is never started, and without an answer in time there are no candidates.

use std::{env, ffi::OsStr, process::ExitCode, time::Duration};

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate},
};
use lattice::{
    api::{client::Client, whole},
    id::looks_like_id,
    wire::api,
};
use tokio::runtime::Builder;

use crate::cli::{
    args::Cli, command::man::COMPLETE_VARIABLE, exit::Exit, output::object::short, place::Place,
    session,
};

/// Answers a shell that asks for candidates; `None` if this process was not started by one.
pub(crate) fn answer() -> Option<ExitCode> {
    let completing = CompleteEnv::with_factory(tree).var(COMPLETE_VARIABLE);
    match completing.try_complete(env::args_os(), env::current_dir().ok().as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(Exit::Done.into()),
        // A message would be written into the line that a person edits.
        Err(_no_candidates) => Some(Exit::Failed.into()),
    }
}

/// A kind of names that the node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Keys,
    Stores,
    Nodes,
    Hooks,
    Consumers,
}

impl Named {
    // Returns what an argument of a command names; `None` if the node does not know it.
    fn of(command: &[&str], argument: &Arg) -> Option<Self> {
        let value = argument.get_value_names()?.first()?.as_str();
        match (value, command) {
            ("KEY" | "PREFIX", _) => Some(Self::Keys),
            ("STORE", _) | ("NAME", ["store", "use"]) => Some(Self::Stores),
            ("NODE" | "AUTHOR", _) => Some(Self::Nodes),
            ("NAME", ["hook", "add", ..] | ["consumer", "create", ..]) => None,
            ("NAME", ["hook", _, ..]) => Some(Self::Hooks),
            ("NAME", ["consumer", _, ..]) => Some(Self::Consumers),
            _other => None,
        }
    }

    async fn ask(self, client: &mut Client, store: String, word: &str) -> Option<Vec<String>> {
        Some(match self {
            Self::Keys => keys(client, store, word).await?,
            Self::Stores => {
                let stores = whole::stores(client).await.ok()?;
                stores.into_iter().map(|store| store.name).collect()
            }
            Self::Nodes => {
                let reply = whole::peers(client).await.ok()?;
                let nodes = reply.own.iter().chain(&reply.peers);
                nodes.map(name_of).collect()
            }
            Self::Hooks => {
                let reply = whole::hooks(client).await.ok()?;
                reply.hooks.into_iter().map(|hook| hook.hook).collect()
            }
            Self::Consumers => {
                let consumers = whole::consumers(client, store).await.ok()?;
                consumers.into_iter().map(|it| it.consumer).collect()
            }
        })
    }
}

// Returns the keys that begin with `word`, each up to its next slash, as for directories.
async fn keys(client: &mut Client, store: String, word: &str) -> Option<Vec<String>> {
    let request = api::ListRequest {
        store,
        prefix: word.to_owned().into(),
        keys_only: true,
        limit: CANDIDATES_MAX,
        delimiter: "/".into(),
        ..api::ListRequest::default()
    };
    let mut found = Vec::new();
    let mut pages = client.list(request).await.ok()?.into_inner();
    while let Some(page) = pages.message().await.ok()? {
        found.extend(page.prefixes);
        found.extend(page.items.into_iter().map(|item| item.key));
    }
    found.sort();
    let texts = found.iter().filter_map(|key| str::from_utf8(key).ok());
    Some(texts.map(str::to_owned).collect())
}

// Returns what a command accepts for a node: its name, or the first digits of its id.
fn name_of(node: &api::Peer) -> String {
    match node.name.as_str() {
        "" => short(&node.node),
        name if looks_like_id(name) => short(&node.node),
        name => name.to_owned(),
    }
}

// Returns the grammar, with completers at the arguments that the node knows.
fn tree() -> Command {
    with_completers(Cli::command(), &[])
}

fn with_completers(command: Command, path: &[&str]) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|below| below.get_name().to_owned())
        .collect();
    let command = command.mut_args(|argument| match Named::of(path, &argument) {
        Some(named) => argument.add(ArgValueCompleter::new(move |word: &OsStr| {
            candidates(named, word)
        })),
        None => argument,
    });
    names.iter().fold(command, |command, name| {
        let path = [path, &[name.as_str()]].concat();
        command.mut_subcommand(name, |below| with_completers(below, &path))
    })
}

fn candidates(named: Named, word: &OsStr) -> Vec<CompletionCandidate> {
    let (Some(word), Ok(runtime)) = (
        word.to_str(),
        Builder::new_current_thread().enable_all().build(),
    ) else {
        return Vec::new();
    };
    let asked = async { tokio::time::timeout(WAIT_MAX, ask(named, word)).await };
    let found = runtime.block_on(asked).ok().flatten().unwrap_or_default();
    let found = found
        .into_iter()
        .filter(|name| name.starts_with(word) && !name.is_empty() && needs_no_quotes(name));
    let bound = usize::try_from(CANDIDATES_MAX).unwrap_or(usize::MAX);
    found.take(bound).map(CompletionCandidate::new).collect()
}

async fn ask(named: Named, word: &str) -> Option<Vec<String>> {
    let data_dir = value_of("--data-dir", "LATTICE_DATA");
    let place = Place::find(data_dir.as_ref().map(AsRef::as_ref)).ok()?;
    let mut client = session::connect(&place).await.ok()??;
    let store = match value_of("--store", "LATTICE_STORE") {
        Some(store) => store,
        None => place.store_used().ok()?.unwrap_or_default(),
    };
    named.ask(&mut client, store, word).await
}

// Returns the value of a flag among the words of the line, else of the variable. The word that is being
// completed is not a value yet.
fn value_of(flag: &str, variable: &str) -> Option<String> {
    let words = env::args_os().skip_while(|word| word != "--").skip(1);
    let words: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let before = words.len().saturating_sub(1);
    let pairs = words[..before].windows(2);
    let mut found = pairs
        .filter(|pair| pair[0] == flag)
        .map(|pair| pair[1].clone());
    let of_line = found.next().or_else(|| {
        let mut joined = words.iter().filter_map(|word| word.strip_prefix(flag));
        joined.find_map(|rest| rest.strip_prefix('=').map(str::to_owned))
    });
    of_line.or_else(|| env::var(variable).ok().filter(|value| !value.is_empty()))
}

// False for names that a shell would take for something else.
fn needs_no_quotes(name: &str) -> bool {
    let is_special =
        |c: char| c.is_whitespace() || c.is_control() || "'\"\\$`&|;<>()*?[]#~!{}".contains(c);
    !name.contains(is_special)
}

/// Candidates of one kind: more are of no use to a person.
const CANDIDATES_MAX: u64 = 200;
/// Longest wait for the node, so that a key press is answered within 0.1 s.
const WAIT_MAX: Duration = Duration::from_millis(80);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_completers() {
        let named = |path: &[&str], argument: &str| {
            let tree = Cli::command();
            let mut command = &tree;
            for name in path {
                command = command.find_subcommand(name).unwrap();
            }
            let mut arguments = command.get_arguments();
            let argument = arguments.find(|it| it.get_id() == argument).unwrap();
            Named::of(path, argument)
        };
        for (path, argument, expected) in [
            (&[][..], "store", Some(Named::Stores)),
            (&["get"], "key", Some(Named::Keys)),
            (&["watch"], "prefixes", Some(Named::Keys)),
            (&["watch"], "author", Some(Named::Nodes)),
            (&["log"], "author", Some(Named::Nodes)),
            (&["compare"], "node", Some(Named::Nodes)),
            (&["peer", "remove"], "node", Some(Named::Nodes)),
            (&["store", "use"], "name", Some(Named::Stores)),
            (&["store", "delete"], "store", Some(Named::Stores)),
            (&["store", "create"], "name", None),
            (&["hook", "logs"], "name", Some(Named::Hooks)),
            (&["hook", "dead"], "name", Some(Named::Hooks)),
            (&["hook", "add"], "name", None),
            (&["consumer", "next"], "name", Some(Named::Consumers)),
            (&["consumer", "create"], "name", None),
            (&["put"], "value", None),
        ] {
            assert_eq!(named(path, argument), expected, "{path:?} {argument}");
        }
    }
}
