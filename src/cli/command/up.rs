//! `init`, `up`, `down`: create, run and stop the node.

use std::{
    ffi::OsString,
    net::SocketAddr,
    os::unix::ffi::OsStringExt as _,
    pin::pin,
    time::{Duration, Instant},
};

use clap::Args;
use lattice::{
    api::{client::Client, whole},
    daemon::raise_descriptor_limit,
    id::Author,
    node::{FileConfig, Node, NodeConfig, OpenError},
    wire::api,
};

use crate::cli::{
    command::watch::{self, Follow},
    exit::{Exit, Failure},
    input::net_flags::NetArgs,
    output::{
        json::typed,
        object::{self, hex},
        print::{Output, harmless, stdout_closed},
    },
    screens::names::Names,
    sd_notify,
    session::{Context, LOCK_RETRY, LOCK_WAIT, Lifetime, connect},
    signals::{self, second_interrupt},
};

/// Create the node: its data directory, identity, root store and data store
///
/// If there is one already, reports that and changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice init
  lattice init --data-dir /srv/lattice --name kitchen
  lattice init --new-identity       in a copy of another node's directory")]
pub(crate) struct Init {
    /// Name of the node [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Make the data here that of a new node, for a copied directory or a lost identity.key
    ///
    /// The data stays and the old key is kept beside the new one. The new node is not a member until
    /// it joins: it reads, and writes nothing.
    #[arg(long, conflicts_with = "name")]
    new_identity: bool,
}

impl Init {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.new_identity {
            return renew_identity(context);
        }
        let created = !context.place.exists();
        let node = if created {
            let name = match self.name {
                Some(name) => Some(name),
                None => FileConfig::read(&context.place.data_dir)?.name,
            };
            let node = Node::open(config(context, name)).await?;
            let id = node.id().to_string();
            node.close()
                .await
                .map_err(|error| Failure::failed("close", error.to_string()))?;
            id
        } else {
            let mut client = context.client(Lifetime::Short).await?;
            hex(&whole::status(&mut client).await?.node)
        };
        let data_dir = context.place.data_dir.display().to_string();
        let out = &mut context.out;
        if out.json {
            let socket = None;
            let (r#type, pid) = ("init", None);
            return out.object(&object::Started {
                r#type,
                node,
                data_dir,
                socket,
                pid,
                created,
                metrics: None,
            });
        }
        if created {
            out.line(&format!("created  {data_dir}"))?;
        } else {
            out.line(&format!("exists   {data_dir} (nothing was changed)"))?;
        }
        out.line(&format!("node     {node}"))?;
        out.line("next     lattice up")
    }
}

fn renew_identity(context: &mut Context) -> Result<(), Failure> {
    let data_dir = &context.place.data_dir;
    let new = Node::renew_identity(data_dir)?;
    let has_hooks = data_dir.join("hooks.toml").is_file();
    let data_dir = data_dir.display().to_string();
    let kept = new.kept.map(|kept| kept.display().to_string());
    let former = new.former.map(|former| former.to_string());
    let node = new.node.to_string();
    let out = &mut context.out;
    if out.json {
        out.object(&object::NewIdentity {
            r#type: "new_identity",
            node,
            data_dir,
            former,
            kept,
        })?;
    } else {
        out.line(&format!("node     {node}"))?;
        out.line(&format!("data     {data_dir} (kept)"))?;
        if let Some(former) = former {
            out.line(&format!("before   {former}"))?;
        }
        if let Some(kept) = &kept {
            out.line(&format!("old key  {kept}"))?;
        }
        out.line("next     lattice join TOKEN, with a token from `lattice invite` on a member")?;
    }
    if has_hooks {
        out.notice(
            "hooks",
            "hooks.toml is in this directory, too: its hooks run on this node as well",
        );
    }
    out.flush()
}

/// Start the node; create it if there is none
///
/// Runs until Ctrl-C, SIGTERM or `lattice down`. `config.toml` in the data directory sets name,
/// bind, mdns (true or false), relay and metrics; flags and environment variables override it. At a
/// SIGHUP the node goes on and reads `config.toml` and `hooks.toml` again: metrics and hooks change at
/// once, the other settings at the next start. A file with a mistake is reported and changes nothing.
#[derive(Debug, Args)]
#[command(
    visible_alias = "serve",
    after_help = "\
Examples:
  lattice up
  lattice up --watch /              stream every change while it runs
  lattice up --metrics 127.0.0.1:9464
  lattice up --json --watch /jobs/ | jq -r .key"
)]
pub(crate) struct Up {
    /// Print the changes of keys under this prefix while the node runs
    #[arg(long, value_name = "PREFIX")]
    watch: Option<OsString>,
    /// Name of the node [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Serve /metrics (for Prometheus) and /healthz on this loopback address
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "LATTICE_METRICS",
        hide_env_values = true
    )]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    net: NetArgs,
}

impl Up {
    /// Runs the node until a signal or `lattice down`.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        // From here on, a signal stops the node in order.
        let signal = signals::listen()?;
        let mut hangups = signals::hangups()?;
        tokio::spawn(second_interrupt());
        context.place.check_socket()?;
        raise_descriptor_limit();
        let created = !context.place.exists();
        let file = FileConfig::read(&context.place.data_dir)?;
        let node = open(context, self.name.or_else(|| file.name.clone())).await?;
        let id = node.id().to_string();
        let metrics = self.metrics.or(file.metrics);
        let mut config = file.clone();
        let client = context.serve(node, &self.net, file).await?;
        let metrics = match metrics {
            Some(at) => Some(context.serve_metrics(at).await?),
            None => None,
        };
        let names = match context.out.for_people() {
            true => Names::fetch(&mut client.clone()).await?,
            false => Names::default(),
        };
        print_started(context, id, &names, created, metrics, self.watch.is_some())?;
        sd_notify::ready();
        let watchdog = tokio::spawn(sd_notify::watch(client.clone()));
        let ended = {
            let (store, out) = (context.store.clone(), context.out.another());
            let down = context.down_requested();
            let mut following = pin!(follow(self.watch, store, out, client, signal, down));
            loop {
                tokio::select! {
                    ended = &mut following => break ended,
                    Some(()) = hangups.recv() => {
                        reload(context, &mut config, self.metrics.is_some()).await;
                    }
                }
            }
        };
        watchdog.abort();
        sd_notify::stopping();
        ended
    }
}

// Prints the changes under `prefix`, if any, until the node is asked to stop.
async fn follow(
    prefix: Option<OsString>,
    store: String,
    mut out: Output,
    client: Client,
    signal: impl Future,
    down: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let Some(prefix) = prefix else {
        tokio::select! {
            _name = signal => {}
            () = down => {}
        }
        return Ok(());
    };
    let prefix = prefix.into_vec().into();
    let mut follow = Follow::new(client, watch::request(store, prefix));
    // On a thread of its own: writes to a paused terminal block, and must not delay the stop.
    let runtime = tokio::runtime::Handle::current();
    let mut stream = tokio::task::spawn_blocking(move || {
        runtime.block_on(async move { follow.run(&mut out).await })
    });
    tokio::select! {
        _name = signal => Ok(()),
        () = down => Ok(()),
        () = stdout_closed() => Ok(()),
        result = &mut stream => {
            result.map_err(|error| Failure::failed("watch", error.to_string()))?
        }
    }
}

// Reads config.toml and hooks.toml again. `config` has the settings that count now; `has_flag`: the
// address of the metrics was given with a flag, which overrides the file.
async fn reload(context: &mut Context, config: &mut FileConfig, has_flag: bool) {
    match FileConfig::read(&context.place.data_dir) {
        Ok(read) => {
            if read.metrics != config.metrics && !has_flag {
                change_metrics(context, config, read.metrics).await;
            }
            let later = [
                ("name", read.name != config.name),
                ("bind", read.bind != config.bind),
                ("mdns", read.mdns != config.mdns),
                ("relay", read.relay != config.relay),
                ("socket_mode", read.socket_mode != config.socket_mode),
                ("socket_group", read.socket_group != config.socket_group),
            ];
            let later = later.into_iter().filter(|(_, differs)| *differs);
            let later = later.map(|(name, _)| name).collect::<Vec<_>>().join(", ");
            if !later.is_empty() {
                let text = format!("config.toml: {later} will change at the next start");
                context.out.notice("config_later", &text);
            }
        }
        Err(error) => {
            let text = format!("{error}; the settings stay as they were");
            context.out.notice("config_file", &text);
        }
    }
    if let Some(broken) = context.reload_hooks().await {
        let text = format!("{}; the hooks run as before", harmless(&broken));
        context.out.notice("hooks_file", &text);
    }
    context
        .out
        .notice("reloaded", "config.toml and hooks.toml were read again");
}

// Serves the metrics at another address, or no longer.
async fn change_metrics(context: &mut Context, config: &mut FileConfig, to: Option<SocketAddr>) {
    match to {
        None => context.stop_metrics(),
        Some(at) => {
            if let Err(failure) = context.serve_metrics(at).await {
                let text = format!("{}; metrics are served as before", failure.message);
                return context.out.notice("metrics", &text);
            }
        }
    }
    config.metrics = to;
}

/// Opens the node, or creates it with `name`. Waits while a short command has it open; fails if
/// another node runs.
pub(crate) async fn open(context: &Context, name: Option<String>) -> Result<Node, Failure> {
    let held_until = Instant::now() + LOCK_WAIT;
    loop {
        match Node::open(config(context, name.clone())).await {
            Err(error @ OpenError::AlreadyRunning { .. }) => {
                if connect(&context.place).await?.is_some() || Instant::now() >= held_until {
                    return Err(error.into());
                }
                tokio::time::sleep(LOCK_RETRY).await;
            }
            opened => return Ok(opened?),
        }
    }
}

fn config(context: &Context, name: Option<String>) -> NodeConfig {
    let mut config = context.place.node_config();
    config.create = true;
    config.name = name;
    config
}

fn print_started(
    context: &mut Context,
    node: String,
    names: &Names,
    created: bool,
    metrics: Option<SocketAddr>,
    watches: bool,
) -> Result<(), Failure> {
    let data_dir = context.place.data_dir.display().to_string();
    let socket = context.place.socket().display().to_string();
    let out = &mut context.out;
    if out.json {
        let (r#type, socket, pid) = ("up", Some(socket), Some(std::process::id()));
        out.object(&object::Started {
            r#type,
            node,
            data_dir,
            socket,
            pid,
            created,
            metrics: metrics.map(|at| at.to_string()),
        })?;
        return out.flush();
    }
    let own = node.parse::<Author>().map(|own| own.0);
    match own.ok().filter(|own| names.knows(own)) {
        Some(own) => {
            let own = names.with_id(&own, &out.screen());
            out.line(&format!("node    {own}"))?;
        }
        None => out.line(&format!("node    {node}"))?,
    }
    out.line(&format!(
        "data    {data_dir}{}",
        if created { " (created)" } else { "" }
    ))?;
    out.line(&format!("socket  {socket}"))?;
    if let Some(at) = metrics {
        out.line(&format!("metrics http://{at}/metrics"))?;
    }
    out.line("next    in another terminal: lattice put /hello world")?;
    out.line(match watches {
        true => "stop    Ctrl-C, or `lattice down`; changes follow",
        false => "stop    Ctrl-C, or `lattice down`; see changes with `lattice watch /`",
    })?;
    out.flush()
}

/// Stop the running node
///
/// Returns once the node has released the data directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice down
  lattice down --data-dir /srv/lattice")]
pub(crate) struct Down {}

impl Down {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Some(mut client) = connect(&context.place).await? else {
            let dir = context.place.data_dir.display();
            let message = format!("no node is running on {dir}");
            return Err(Failure::new(Exit::Unavailable, "no_node", message));
        };
        let pid = client.down(api::DownRequest {}).await?.into_inner().pid;
        drop(client);
        let deadline = Instant::now() + DOWN_WAIT;
        // The node removes its socket first and releases the lock last; then the next node can
        // start.
        while context.place.is_locked() {
            if Instant::now() >= deadline {
                let message = format!("process {pid} has not stopped after {DOWN_WAIT:?}");
                return Err(Failure::new(Exit::TimedOut, "timed_out", message)
                    .hint("it may still be writing; wait, or end the process"));
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
        let out = &mut context.out;
        if out.json {
            return out.object(&typed("stopped", object::Stopped { pid }));
        }
        out.line(&format!("stopped  process {pid}"))
    }
}

/// How long `down` waits for the node to stop.
const DOWN_WAIT: Duration = Duration::from_secs(10);
