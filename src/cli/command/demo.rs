//! `demo`: plays a story with three real nodes on this machine, in less than a minute.

use std::{
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use lattice::{
    net::{Net, NetConfig},
    node::{Node, NodeConfig, OwnData},
    protocol::membership::role::Role,
    store::{Start, WatchEvent, WatchOptions},
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;

use crate::cli::{exit::Failure, output::print::escape, session::Context};

/// Watch three nodes find each other, disagree and agree, on this machine
///
/// They keep their data in temporary directories, which are removed afterwards, and use the
/// loopback interface only. Everything shown really happens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice demo
  lattice demo --fast               without pauses for reading")]
pub(crate) struct Demo {
    /// Do not pause for reading
    #[arg(long)]
    fast: bool,
}

impl Demo {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        drop(context.out.flush());
        let stage = Stage {
            dir: scratch()?,
            lines: Lines::default(),
            pause: Duration::from_millis(if self.fast { 0 } else { 1500 }),
        };
        let played = Box::pin(stage.play()).await;
        let removed = std::fs::remove_dir_all(&stage.dir);
        played?;
        removed.map_err(|error| Failure::failed("demo", error.to_string()))
    }
}

// The directory of the nodes, and how the story is printed.
struct Stage {
    dir: std::path::PathBuf,
    lines: Lines,
    pause: Duration,
}

impl Stage {
    async fn play(&self) -> Result<(), Failure> {
        self.say("Three nodes start, each on its own. None of them is a server.")
            .await;
        let kitchen = self.node("kitchen", 0).await?;
        let laptop = self.node("laptop", 1).await?;
        let garden = self.node("garden", 2).await?;

        self.say("kitchen invites laptop: `lattice invite`, `lattice join TOKEN`.")
            .await;
        laptop.join(&kitchen, Role::Admin).await?;
        self.say("A put on kitchen is an event on laptop: `lattice put /lamp on`.")
            .await;
        kitchen.put("/lamp", "on").await?;
        laptop.wait_for_value("/lamp", "on").await?;

        self.say("garden joins through laptop; it has never met kitchen.")
            .await;
        garden.join(&laptop, Role::Writer).await?;
        garden.put("/soil", "dry").await?;
        kitchen.wait_for_value("/soil", "dry").await?;

        self.say("laptop disconnects. Both sides write the same key.")
            .await;
        laptop.net.stop().await;
        kitchen.put("/lamp", "red").await?;
        laptop.put("/lamp", "blue").await?;

        self.say("laptop connects again: nothing is lost, and all three see the conflict.")
            .await;
        let laptop = laptop.restart_net();
        for peer in [&kitchen, &laptop, &garden] {
            peer.wait_for_heads("/lamp", 2).await?;
        }
        self.say("The next put has seen both and settles the conflict: `lattice put /lamp green`.")
            .await;
        garden.put("/lamp", "green").await?;
        for peer in [&kitchen, &laptop, &garden] {
            peer.wait_for_heads("/lamp", 1).await?;
            peer.wait_for_value("/lamp", "green").await?;
        }
        self.say(
            "All three agree. Your turn: `lattice up`, and `lattice invite` in a second terminal.",
        )
        .await;
        for peer in [kitchen, laptop, garden] {
            peer.net.stop().await;
            let closed = peer.node.close().await;
            closed.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    async fn node(&self, name: &'static str, colour: usize) -> Result<Peer, Failure> {
        let mut config = NodeConfig::new(self.dir.join(name)).create(true);
        config.name = Some(name.to_owned());
        let node = Node::open(config).await.map_err(|error| failed(&error))?;
        let net = Net::start(node.clone(), loopback());
        let peer = Peer {
            node,
            net,
            name,
            colour,
            lines: self.lines.clone(),
        };
        peer.print_changes();
        Ok(peer)
    }

    async fn say(&self, text: &str) {
        tokio::time::sleep(self.pause).await;
        self.lines.write(None, &format!("\n{text}"));
        tokio::time::sleep(self.pause / 2).await;
    }
}

struct Peer {
    node: Node,
    net: Net,
    name: &'static str,
    colour: usize,
    lines: Lines,
}

impl Peer {
    // Prints in the background what `lattice watch /` shows on this node.
    fn print_changes(&self) {
        let mut watch = self.node.data().watch_with(WatchOptions {
            prefixes: vec![b"/".as_slice().into()],
            start: Start::Now,
            ..WatchOptions::default()
        });
        let (name, colour, lines) = (self.name, self.colour, self.lines.clone());
        tokio::spawn(async move {
            while let Some(event) = watch.next().await {
                let Ok(WatchEvent::Change(change)) = event else {
                    continue;
                };
                let value = change.value.as_deref().unwrap_or_default();
                let first = value
                    .split(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default();
                let mark = if change.is_conflict() {
                    "  !conflict"
                } else {
                    ""
                };
                let text = format!(
                    "{name:<8} {}  {} = {}{mark}",
                    change.kind.name(),
                    short_ids(&escape(&change.key)),
                    shortened(&escape(first)),
                );
                lines.write(Some(colour), &text);
            }
        });
    }

    async fn join(&self, host: &Self, role: Role) -> Result<(), Failure> {
        let invitation = host.net.invite(role, 60_000).await;
        let invitation = invitation.map_err(|error| failed(&error))?;
        // Nobody shows the steps of the join.
        let (events, _ignored) = mpsc::channel(64);
        let joined = self.net.join(&invitation, OwnData::Private, &events).await;
        joined.map_err(|error| failed(&error))?;
        // Joining has replaced the data store.
        self.print_changes();
        Ok(())
    }

    // Connects again, on another port, as after a restart.
    fn restart_net(self) -> Self {
        let net = Net::start(self.node.clone(), loopback());
        Self { net, ..self }
    }

    async fn put(&self, key: &'static str, value: &'static str) -> Result<(), Failure> {
        let written = self.node.data().put(key, value).await;
        written.map(drop).map_err(|error| failed(&error))
    }

    async fn wait_for_value(&self, key: &str, value: &str) -> Result<(), Failure> {
        self.wait_until(key, async || {
            let item = self.node.data().get(key.as_bytes()).await;
            matches!(item, Ok(Some(item)) if item.value == value.as_bytes())
        })
        .await
    }

    async fn wait_for_heads(&self, key: &str, count: usize) -> Result<(), Failure> {
        self.wait_until(key, async || {
            let heads = self.node.data().heads(key.as_bytes()).await;
            heads.is_ok_and(|heads| heads.len() == count)
        })
        .await
    }

    async fn wait_until(&self, key: &str, is_true: impl AsyncFn() -> bool) -> Result<(), Failure> {
        let waiting = async {
            while !is_true().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.map_err(|_elapsed| {
            let message = format!("{} did not get {key} within {PATIENCE:?}", self.name);
            Failure::failed("demo", message)
        })
    }
}

/// Prints the lines of all nodes, each node in its colour.
// The lock keeps lines of several tasks apart; it is held for one line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<()>>);

impl Lines {
    #[expect(
        clippy::print_stdout,
        reason = "three nodes and a narrator share the terminal"
    )]
    fn write(&self, colour: Option<usize>, text: &str) {
        let _guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match colour.and_then(|colour| COLOURS.get(colour)) {
            Some(code) if std::io::stdout().is_terminal() => println!("\x1b[{code}m{text}\x1b[0m"),
            _plain => println!("{text}"),
        }
    }
}

// Shortens the ids inside a key.
fn short_ids(key: &str) -> String {
    let short = |part: &str| match part.get(..8) {
        Some(first) if part.len() == ID_CHARS => format!("{first}..."),
        _other => part.to_owned(),
    };
    key.split('/').map(short).collect::<Vec<_>>().join("/")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn loopback() -> NetConfig {
    NetConfig {
        bind: Some(([127, 0, 0, 1], 0).into()),
        mdns: false,
        ..NetConfig::default()
    }
}

fn scratch() -> Result<std::path::PathBuf, Failure> {
    let dir = std::env::temp_dir().join(format!("lattice-demo-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|error| Failure::failed("demo", error.to_string()))?;
    Ok(dir)
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::failed("demo", crate::cli::output::print::sources(error))
}

const PATIENCE: Duration = Duration::from_secs(30);
/// Hex digits of the id of a node or an invite.
const ID_CHARS: usize = 64;
/// Characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 40;
/// ANSI colour codes of the nodes: green, cyan, yellow.
const COLOURS: [u8; 3] = [32, 36, 33];
